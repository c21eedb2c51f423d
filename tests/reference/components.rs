//! Fixture `03_components`: masked passes with delta components and routing through a small network of two layers:
//! linear maps, an embedding, a Conv1D, an inserted identity.

use dfdx::prelude::Cpu;
use serde_json::Value;
use spdflow_kernels::faithfulness::Site;
use spdflow_stages::artifact::tensors::{Tensor, Tensors};
use spdflow_stages::bridge::{Buffers, DeviceResult, Graph, Var};
use spdflow_stages::decomposition::causal_importance::{CausalImportance, HiddenLayers, SigmoidType};
use spdflow_stages::decomposition::model::{ComponentMask, ComponentModel, Leaves, SiteMask};
use spdflow_stages::decomposition::site::SitePlan;
use spdflow_stages::models::{Embedding, Layer, LayerKind, Linear, Module, RunModule, TargetModel};

use crate::spd::{features, tokens, transposed};
use crate::support::{Case, Entries, assert_close, cases, tolerance};

/// `y = b(relu(a(x)))`; a may be an embedding.
struct TwoMatrices(Vec<Module<Cpu>>);

impl TargetModel<Cpu> for TwoMatrices {
    fn modules(&self) -> &[Module<Cpu>] {
        &self.0
    }

    fn names(&self) -> Vec<String> {
        vec!["a".to_owned(), "b".to_owned()]
    }

    fn forward(
        &self,
        graph: &Graph<Cpu>,
        input: &Var<Cpu>,
        run: &mut RunModule<'_, Cpu>,
    ) -> DeviceResult<Var<Cpu>, Cpu> {
        let hidden = graph.relu(&run(0, input)?)?;
        run(1, &hidden)
    }

    fn zero_rows_are_inert(&self) -> bool {
        false
    }

    fn tied_modules(&self) -> Vec<(usize, usize)> {
        Vec::new()
    }
}

#[test]
fn reference_components_in_masked_passes() {
    let mut compared = 0;
    for case in cases("03_components") {
        for recorded in case.json["cases"].as_array().expect("cases") {
            check(&case, recorded);
            compared += 1;
        }
    }
    assert!(compared > 0, "no case of matrices in the fixtures");
}

fn check(case: &Case, recorded: &Value) {
    let id = recorded["id"].as_str().expect("an id");
    let device = Cpu::default();
    let graph = Graph::recording(&device);
    let plain = Graph::detached(&device);
    let upload = |data: &[f32], shape| plain.upload(data.to_vec(), shape).expect("enough memory");
    let module = |name: &str| {
        let weight = format!("{id}/model/target_model.{name}.weight");
        let weight = upload(case.floats(&weight), (case.shape(&weight)[0], case.shape(&weight)[1]));
        let bias = format!("{id}/model/target_model.{name}.bias");
        let bias = case.has(&bias).then(|| upload(case.floats(&bias), (case.shape(&bias)[0], 1)));
        let layer = match (name, recorded["kind"].as_str().expect("a kind")) {
            ("a", "embedding") => Layer::Embedding(Embedding { table: weight }),
            ("a", "conv1d") => Linear::from_conv1d(&plain, &weight, bias).expect("enough memory").into(),
            _ => Linear::new(weight, bias).into(),
        };
        Module { name: name.to_owned(), layer }
    };
    let plans: Vec<SitePlan> = recorded["module_to_c"]
        .as_object()
        .expect("modules")
        .iter()
        .map(|(name, c)| SitePlan {
            name: name.clone(),
            module: usize::from(name.starts_with('b')),
            identity: name.ends_with(".pre_identity"),
            components: c.as_u64().expect("C") as usize,
        })
        .collect();
    let network = CausalImportance::Mlp(HiddenLayers { hidden: vec![1] });
    let target = Box::new(TwoMatrices(vec![module("a"), module("b")]));
    let (model, mut parameters) =
        ComponentModel::new(&device, target, plans, network, SigmoidType::LeakyHard, 0, false).expect("enough memory");
    let random: Vec<(String, Tensor)> = parameters.state();
    let recorded_or_random: Tensors = random
        .into_iter()
        .map(|(name, tensor)| {
            let key = format!("{id}/model/{name}");
            let tensor = if case.has(&key) {
                Tensor::new(case.shape(&key).to_vec(), case.floats(&key).to_vec())
            } else {
                tensor
            };
            (name, tensor)
        })
        .collect();
    parameters.load(&recorded_or_random).expect("recorded parameters");
    let leaves = Leaves(parameters.leaves(&graph).expect("enough memory"));
    let leaf =
        |data: Vec<f32>, shape| graph.leaf(device.upload(data, shape).expect("enough memory")).expect("enough memory");

    let reads_tokens = recorded["kind"] == "embedding";
    let (data, d_in, rows) =
        if reads_tokens { tokens(case, &format!("{id}/input")) } else { features(case, &format!("{id}/input")) };
    let input = if reads_tokens { upload(&data, (d_in, rows)) } else { leaf(data, (d_in, rows)) };
    let replaced: Vec<&str> =
        recorded["replaced_modules"].as_array().expect("modules").iter().filter_map(Value::as_str).collect();
    let mut masks = Vec::new();
    for site in model.sites() {
        let name = &site.plan.name;
        if !replaced.contains(&&name[..]) {
            masks.push(None);
            continue;
        }
        let key = format!("{id}/mask/{name}");
        let mask = if case.shape(&key).len() == 1 {
            ComponentMask::PerComponent(leaf(case.floats(&key).to_vec(), (site.plan.components, 1)))
        } else {
            ComponentMask::Full(leaf(features(case, &key).0, (site.plan.components, rows)))
        };
        let key = format!("{id}/delta_mask/{name}");
        let delta = case.has(&key).then(|| leaf(case.floats(&key).to_vec(), (1, rows)));
        let key = format!("{id}/routing_mask/{name}");
        let routing = case.has(&key).then(|| {
            let Entries::I64(flags) = &case.tensor(&key).data else { panic!("`{key}` holds no flags") };
            plain.upload(flags.iter().map(|flag| *flag as f32).collect(), (1, rows)).expect("enough memory")
        });
        masks.push(Some(SiteMask { mask, delta, routing }));
    }

    let clean = model.clean_pass(&graph, &leaves, &input).expect("enough memory");
    let pass = model.masked_pass(&graph, &leaves, &clean, &masks).expect("enough memory");
    let check = |key: &str, ours: &[f32], theirs: &[f32]| {
        assert_close(&format!("{id} {key}"), ours, theirs, tolerance(recorded, key))
    };
    let by_feature = |key: &str| features(case, &format!("{id}/{key}")).0;
    check("target_output", &clean.output.to_vec(), &by_feature("target_output"));
    check("output", &pass.output.to_vec(), &by_feature("output"));
    for (site, masked) in model.sites().iter().zip(&pass.site_inputs) {
        if let Some(masked) = masked {
            let key = format!("masked_input/{}", site.plan.name);
            if site.kind == LayerKind::Embedding {
                continue; // Tokens are no activations and not recorded.
            }
            check(&key, &masked.to_vec(), &by_feature(&key));
        }
    }

    for (s, site) in model.sites().iter().enumerate() {
        let (v, u) = model.components(&leaves, s);
        let (d_out, d_in) = site.shape();
        let ours = Site { w: &site.weight.to_vec(), v: &v.to_vec(), u: &u.to_vec(), d_in, d_out }.weight_delta();
        let key = format!("weight_delta/{}", site.plan.name);
        // An embedding's is recorded as `[vocab, d]`.
        let ours = if site.kind == LayerKind::Embedding { transposed(&ours, d_out, d_in) } else { ours };
        check(&key, &ours, case.floats(&format!("{id}/{key}")));
    }

    // ¼|y + g|² − ¼|y − g|² = y·g.
    let upstream = by_feature("upstream");
    let negative = plain.upload(upstream.iter().map(|g| -g).collect(), pass.output.shape()).expect("enough memory");
    let positive = plain.upload(upstream, pass.output.shape()).expect("enough memory");
    let plus = graph.squared_error(&pass.output, &negative).expect("enough memory");
    let minus = graph.squared_error(&pass.output, &positive).expect("enough memory");
    let loss = graph.combine(&[(0.25, plus), (-0.25, minus)]).expect("enough memory");
    // Activations and masks are feature-major here, row-major there; parameters are the same.
    let mut by_row: Vec<(String, Var<Cpu>)> = Vec::new();
    if !reads_tokens {
        by_row.push(("grad/input".to_owned(), input.clone()));
    }
    for (site, mask) in model.sites().iter().zip(&masks) {
        let Some(mask) = mask else { continue };
        let name = &site.plan.name;
        if let ComponentMask::Full(leaf) | ComponentMask::PerComponent(leaf) = &mask.mask {
            by_row.push((format!("grad/mask/{name}"), leaf.clone()));
        }
        if let Some(leaf) = &mask.delta {
            by_row.push((format!("grad/delta_mask/{name}"), leaf.clone()));
        }
    }
    let wanted: Vec<Var<Cpu>> = by_row.iter().map(|(_, leaf)| leaf).chain(&leaves.0).cloned().collect();
    let gradients = graph.gradients(&loss, &wanted).expect("enough memory");
    let (of_rows, of_parameters) = gradients.split_at(by_row.len());
    for ((key, leaf), gradient) in by_row.iter().zip(of_rows) {
        let (features, rows) = leaf.shape();
        let ours = transposed(&Cpu::read_gradient(gradient), features, rows);
        check(key, &ours, case.floats(&format!("{id}/{key}")));
    }
    for (parameter, gradient) in parameters.iter().zip(of_parameters) {
        let key = format!("grad/{}", parameter.name);
        if case.has(&format!("{id}/{key}")) {
            check(&key, &Cpu::read_gradient(gradient), case.floats(&format!("{id}/{key}")));
        }
    }
}

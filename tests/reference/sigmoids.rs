//! Fixture `01_sigmoids`: values and gradients of every squashing function.

use serde_json::Value;
use spdflow_kernels::Store;
use spdflow_kernels::sigmoid::{Sigmoid, backward, forward};

use crate::support::{assert_close, cases, number, tolerance};

#[test]
fn reference_sigmoids_and_their_gradients() {
    for case in cases("01_sigmoids") {
        let x = case.floats("x");
        for (name, facts) in case.json["functions"].as_object().expect("functions") {
            let function = sigmoid(name, &facts["params"]);
            let mut y = vec![0.0; x.len()];
            forward(function, x, &mut y);
            let key = format!("{name}/value");
            assert_close(&key, &y, case.floats(&key), tolerance(&case.json, &key));
            let (up, down) = (vec![1.0; x.len()], vec![-1.0; x.len()]);
            for (which, upstream) in [("grad_pos", &up[..]), ("grad_neg", &down), ("grad_rand", case.floats("g_rand"))]
            {
                let mut gradient = vec![0.0; x.len()];
                backward(function, x, upstream, &mut gradient, Store::Write);
                let key = format!("{name}/{which}");
                assert_close(&key, &gradient, case.floats(&key), tolerance(&case.json, &key));
            }
        }
    }
}

fn sigmoid(name: &str, params: &Value) -> Sigmoid {
    let get = |key: &str, default: f64| params.get(key).map_or(default, number) as f32;
    let alpha = get("alpha", 0.01);
    match name.split('@').next().expect("a name") {
        "normal" => Sigmoid::Normal,
        "hard" => Sigmoid::Hard,
        "leaky_hard" => Sigmoid::LeakyHard { alpha },
        "upper_leaky_hard" => Sigmoid::UpperLeakyHard { alpha },
        "lower_leaky_hard" => Sigmoid::LowerLeakyHard { alpha },
        "swish" => Sigmoid::Swish { beta: get("beta", 1.0) },
        "upside_down_swish" => Sigmoid::UpsideDownSwish { beta: get("beta", 1.0) },
        "swish_hard" => Sigmoid::SwishHard {
            beta: get("beta", 10.0),
            scale: get("scale", 0.5),
            x_shift: get("xshift", 0.5),
            y_shift: get("yshift", 0.5),
        },
        other => panic!("unknown sigmoid `{other}`"),
    }
}

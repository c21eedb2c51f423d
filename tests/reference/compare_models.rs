//! Fixtures `10_compare_models*`: geometric similarity of two decompositions.

use spdflow_stages::compare::similarity::{SiteComponents, metrics, similarities};

use crate::support::{Case, assert_close_scalar, cases, number};

#[test]
fn reference_compare_models_similarities() {
    for case in cases("10_") {
        for recorded in case.json["cases"].as_array().expect("a list of cases") {
            let id = recorded["id"].as_str().expect("an id");
            let current = sites(&case, &format!("{id}/current/"));
            let reference = sites(&case, &format!("{id}/reference/"));
            let densities: Vec<Vec<f32>> =
                current.iter().map(|site| case.floats(&format!("{id}/density/{}", site.site)).to_vec()).collect();
            let found = similarities(&current, &reference, &densities, number(&recorded["density_threshold"]));
            let ours = metrics(&found.expect("sites of equal shape"));
            let expected = recorded["result"].as_object().expect("numbers by name");
            assert_eq!(ours.len(), expected.len(), "{} {id}: {ours:?}", case.name);
            for (name, value) in &ours {
                let theirs = expected.get(name).unwrap_or_else(|| panic!("{} {id}: unexpected `{name}`", case.name));
                // "1e-5 absolute", as every case of this fixture states.
                assert_close_scalar(&format!("{} {id} `{name}`", case.name), *value, number(theirs), 1e-5);
            }
            if let Some(order) = recorded["key_order"].as_array() {
                assert!(ours.iter().map(|(name, _)| name.as_str()).eq(order.iter().filter_map(|key| key.as_str())));
            }
        }
    }
}

/// Returns the sites below `prefix`, under either naming: `LAYER/V`, or a state dict's `_components.LAYER.V`.
fn sites(case: &Case, prefix: &str) -> Vec<SiteComponents> {
    case.names(prefix)
        .into_iter()
        .filter_map(|name| {
            let stem = name.strip_suffix(['V'])?;
            let site = stem[prefix.len()..].trim_end_matches(['/', '.']);
            // A state dict writes the dots of a module path as dashes.
            let site = site.strip_prefix("_components.").map_or_else(|| site.to_owned(), |key| key.replace('-', "."));
            Some(SiteComponents { site, v: case.matrix(name), u: case.matrix(&format!("{stem}U")) })
        })
        .collect()
}

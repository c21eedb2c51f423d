//! Fixtures `07b_target_ci*`: permutations, distances and target solutions on recorded matrices; fixtures
//! `07c_identity_ci_error*`: the same on the recorded causal importances of models.

use serde_json::Value;
use spdflow_stages::matrix::Matrix;
use spdflow_stages::solution::{
    Assignment, DensePattern, IdentityPattern, TargetSolution, dense_distance, dense_permutation, identity_distance,
    identity_permutation,
};

use crate::support::{Case, assert_close_scalar, cases, number};

#[test]
fn reference_target_ci_permutations_and_distances() {
    for case in cases("07b_") {
        for recorded in case.json["matrices"].as_array().expect("a list of matrices") {
            let ci = case.matrix(&format!("matrix/{}", recorded["i"]));
            let what = format!("{} matrix {}", case.name, recorded["i"]);
            check_permutations(&what, &ci, recorded);
            check_identity_distances(&what, &ci, recorded);
            check_dense_distances(&what, &ci, recorded);
        }
    }
}

#[test]
fn reference_target_ci_solutions() {
    for case in cases("07b_") {
        let names = case.names("solution_ci/");
        let sites: Vec<(&str, Matrix)> =
            names.iter().map(|name| (name.trim_start_matches("solution_ci/"), case.matrix(name))).collect();
        for (i, recorded) in case.json["solutions"].as_array().expect("a list of solutions").iter().enumerate() {
            check_solution(&format!("{} solution {i}", case.name), &sites, recorded);
        }
    }
}

#[test]
fn reference_identity_ci_error_on_recorded_importances() {
    for case in cases("07c_") {
        for recorded in case.json["cases"].as_array().expect("a list of cases") {
            let id = recorded["id"].as_str().expect("an id");
            // The recorded matrices are those of continuous sampling; `evaluation.rs` makes the others from draws.
            if recorded["sampling"] == "binomial" {
                continue;
            }
            if let Some(sites) = probe_matrices(&case, id) {
                let sites: Vec<(&str, Matrix)> = sites.iter().map(|(name, ci)| (name.as_str(), ci.clone())).collect();
                check_solution(&format!("{} {id}", case.name), &sites, recorded);
            }
        }
    }
}

/// Returns the recorded matrices of one model, or `None` if its inputs have positions, for which the metric has no
/// meaning (our models refuse that before a matrix exists).
fn probe_matrices(case: &Case, id: &str) -> Option<Vec<(String, Matrix)>> {
    let prefix = format!("{id}/lower_leaky/");
    case.names(&prefix)
        .into_iter()
        .map(|name| (case.shape(name).len() == 2).then(|| (name[prefix.len()..].to_owned(), case.matrix(name))))
        .collect()
}

fn indices(value: &Value) -> Vec<usize> {
    let list = value.as_array().expect("a list of indices");
    list.iter().map(|index| usize::try_from(index.as_u64().expect("an index")).expect("a small index")).collect()
}

fn check_permutations(what: &str, ci: &Matrix, recorded: &Value) {
    let methods = [("hungarian", Assignment::Exact), ("greedy", Assignment::Greedy), ("auto", Assignment::Auto)];
    for (name, method) in methods {
        let order = identity_permutation(ci, method);
        if let Some(value) = recorded.get(format!("{name}_value")) {
            let rows = ci.rows().min(ci.cols());
            let diagonal: f64 = (0..rows).map(|i| f64::from(ci.at(i, order[i]))).sum();
            // A sum of at most a few dozen f32 numbers in [0, 1].
            assert_close_scalar(&format!("{what} {name} sum"), diagonal, number(value), 1e-5);
        }
        if recorded["ties"] == false {
            assert_eq!(order, indices(&recorded[format!("{name}_perm")]), "{what} {name}");
        }
    }
    if recorded["ties"] == false {
        assert_eq!(dense_permutation(ci), indices(&recorded["dense_perm"]), "{what} dense");
    }
}

/// Returns the value of `key` in `hungarian|perm=True|tol=0.1`.
fn setting<'a>(label: &'a str, key: &str) -> &'a str {
    label.split('|').find_map(|part| part.strip_prefix(key)).unwrap_or_else(|| panic!("no `{key}` in `{label}`"))
}

fn check_identity_distances(what: &str, ci: &Matrix, recorded: &Value) {
    for (label, expected) in recorded["identity"].as_object().expect("distances by setting") {
        let method = match label.split('|').next() {
            Some("hungarian") => Assignment::Exact,
            Some("greedy") => Assignment::Greedy,
            Some("auto") => Assignment::Auto,
            other => panic!("unknown method {other:?}"),
        };
        let assignment = (setting(label, "perm=") == "True").then_some(method);
        let tolerance: f64 = setting(label, "tol=").parse().expect("a tolerance");
        check_count(&format!("{what} {label}"), identity_distance(ci, tolerance, assignment), expected);
    }
}

fn check_dense_distances(what: &str, ci: &Matrix, recorded: &Value) {
    for (label, expected) in recorded["dense"].as_object().expect("distances by setting") {
        let k = setting(label, "k=").parse().expect("a count");
        let min_entries = setting(label, "min_entries=").parse().expect("a count");
        let tolerance: f64 = setting(label, "tol=").parse().expect("a tolerance");
        check_count(&format!("{what} {label}"), dense_distance(ci, k, min_entries, tolerance), expected);
    }
}

fn check_count<E: std::fmt::Display>(what: &str, ours: Result<usize, E>, expected: &Value) {
    match (ours, expected.get("error").and_then(Value::as_str)) {
        (Ok(count), None) => assert_eq!(Some(count as u64), expected.as_u64(), "{what}"),
        (Err(error), Some(theirs)) => assert_same_numbers(what, &error.to_string(), theirs),
        (Ok(count), Some(theirs)) => panic!("{what}: found {count}, expected the error `{theirs}`"),
        (Err(error), None) => panic!("{what}: found the error `{error}`, expected {expected}"),
    }
}

/// The wording of errors is ours; what they report (expected and found sizes) must be the same.
fn assert_same_numbers(what: &str, ours: &str, theirs: &str) {
    let numbers = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    assert_eq!(numbers(ours), numbers(theirs), "{what}: `{ours}` against `{theirs}`");
}

pub fn check_solution(what: &str, sites: &[(&str, Matrix)], recorded: &Value) {
    let list = |key: &str| recorded[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value["layer_pattern"].as_str().expect("a pattern").to_owned();
    let count = |value: &Value| usize::try_from(value.as_u64().expect("a count")).expect("a small count");
    let identity: Vec<IdentityPattern> = list("identity_ci")
        .iter()
        .map(|value| IdentityPattern { pattern: text(value), n_features: count(&value["n_features"]) })
        .collect();
    let dense: Vec<DensePattern> =
        list("dense_ci").iter().map(|value| DensePattern { pattern: text(value), k: count(&value["k"]) }).collect();
    let Some(solution) = TargetSolution::new(&identity, &dense) else {
        let nothing = recorded["result"].is_null() || recorded["result"].as_object().is_some_and(|map| map.is_empty());
        assert!(nothing, "{what}: expected {}", recorded["result"]);
        return;
    };
    let ours = solution.error(sites.iter().map(|(name, ci)| (*name, ci)));
    match (ours, recorded.get("error").and_then(Value::as_str)) {
        (Ok(error), None) => {
            let expected = recorded["result"].as_object().expect("errors by site");
            let ours: Vec<(String, f64)> = error.metrics().collect();
            assert_eq!(ours.len(), expected.len(), "{what}: {ours:?} against {expected:?}");
            for (name, value) in ours {
                let key = name.trim_start_matches("target_solution_error/");
                assert_eq!(expected.get(key).map(number), Some(value), "{what} `{key}`");
            }
        }
        (Err((_, error)), Some(theirs)) => assert_same_numbers(what, &error.to_string(), theirs),
        (Ok(error), Some(theirs)) => panic!("{what}: found {error:?}, expected the error `{theirs}`"),
        (Err((site, error)), None) => panic!("{what}: site `{site}`: {error}"),
    }
}

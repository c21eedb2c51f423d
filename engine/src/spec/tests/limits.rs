//! Large and damaged pipelines.

use proptest::prelude::*;

use super::*;

#[test]
fn a_matrix_that_multiplies_beyond_bounds_is_refused_before_memory_runs_out() {
    let axis: String = (0..1_001).map(|value| format!("{value},")).collect();
    let text = format!("[axes]\na = [{axis}]\nb = [{axis}]\n[stage.x]\nuses = \"echo\"\nmatrix = [\"a\", \"b\"]\n");
    let found = bad(text.leak(), &[]);
    assert_eq!(found, ["p.toml:4:8 stage `x` brings the pipeline to more than 1000000 instances"]);
}

#[test]
fn a_chain_of_a_hundred_thousand_stages_loads() {
    let mut text = String::new();
    for stage in (0..100_000).rev() {
        text += &format!("[stage.s{stage}]\nuses = \"echo\"\n");
        if stage > 0 {
            text += &format!("inputs.from = \"s{}\"\n", stage - 1);
        }
    }
    let pipeline = good(text.leak(), &[]);
    assert_eq!(pipeline.instances.len(), 100_000);
    assert_eq!(pipeline.instances[99_999].id.stage, "s99999");
}

#[test]
fn an_axis_of_twenty_thousand_values_loads() {
    let text = "[axes]\na = { range = [0, 20_000] }\n[stage.x]\nuses = \"echo\"\nmatrix = [\"a\"]\n[stage.y]\nuses = \"any\"\n\
                inputs = { all = { from = \"x\", over = [\"a\"] } }\n";
    let pipeline = good(text, &[]);
    assert_eq!(pipeline.instances[20_000].inputs["all"].len(), 20_000);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        let _ = load_with(&[("p.toml", text.leak())], None, &[]);
    }

    #[test]
    fn no_damage_to_a_pipeline_makes_the_reader_panic(
        position in 0..TMS.len(),
        removed in 0..12_usize,
        inserted in "[\\[\\]{}=\"'\\$.,a0#\n é\\\\]{0,4}",
        argument in "(stage|axes|seed|a)[\\[\\].\"a0-]{0,6}=?[\\[\\]{}=\"'a0.,é-]{0,6}",
    ) {
        let mut text = TMS.to_owned();
        text.replace_range(position..(position + removed).min(TMS.len()), &inserted);
        if let Err(report) = load_with(&[("p.toml", text.leak())], Some("smoke"), &[argument.as_str()]) {
            prop_assert!(!report.diagnostics.is_empty());
            for label in report.diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels) {
                let text = &report.sources[label.origin.source].text;
                prop_assert!(text.get(label.origin.span.clone()).is_some(), "{label:?}");
            }
        }
    }
}

#[test]
fn retries_and_timeouts_are_read_and_checked() {
    let pipeline = good("[stage.a]\nuses = \"train.tms\"\nretries = 3\ntimeout = \"1m30s\"\n", &[]);
    let policy = pipeline.instances[0].policy;
    assert_eq!((policy.retries, policy.timeout), (3, Some(std::time::Duration::from_secs(90))));
    let mistakes = bad("[stage.a]\nuses = \"train.tms\"\nretries = -1\ntimeout = \"soon\"\n", &[]);
    assert_eq!(
        mistakes,
        [
            "p.toml:3:11 `retries` of stage `a`: expected a whole number from 0 to 4294967295, found `-1`",
            "p.toml:4:11 `timeout` of stage `a`: expected a time like `\"90s\"`, `\"30m\"` or `\"1h30m\"`, found `\"soon\"`",
        ]
    );
}

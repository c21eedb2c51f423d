//! Fixture `08_schedules`: learning rates and the annealed exponent.

use spdflow_stages::optimizer::schedule::{Schedule, annealed_exponent};

use crate::support::{assert_close_scalar, cases, number};
use crate::trajectories::schedule;

#[test]
fn reference_schedules_and_annealed_exponents() {
    for case in cases("08_schedules") {
        for recorded in case.json["schedules"].as_array().expect("schedules") {
            let schedule: Schedule = schedule(&recorded["config"]);
            assert_eq!(schedule.mistake(), None, "{recorded}");
            let total = recorded["total_steps"].as_u64().expect("a count");
            let steps = recorded["steps"].as_array().expect("steps").iter();
            for (step, value) in steps.zip(recorded["values"].as_array().expect("values")) {
                let ours = schedule.value(step.as_u64().expect("a step"), total);
                // The fixture's own tolerance: 1e-12 relative; the floor is for cosines that end at zero.
                let bound = 1e-12 * number(value).abs() + 1e-18;
                assert_close_scalar(
                    &format!("{} of {total} in {}", step, recorded["config"]),
                    ours,
                    number(value),
                    bound,
                );
            }
        }
        for recorded in case.json["p_anneal"].as_array().expect("annealings") {
            let args = &recorded["args"];
            let get = |key: &str| number(&args[key]);
            for value in recorded["values"].as_array().expect("values") {
                let end = args["p_anneal_final_p"].as_f64();
                let ours = annealed_exponent(
                    number(&value["frac"]),
                    get("initial_p"),
                    get("p_anneal_start_frac"),
                    get("p_anneal_end_frac"),
                    end,
                );
                assert_close_scalar(&format!("p at {} of {args}", value["frac"]), ours, number(&value["p"]), 1e-12);
            }
        }
        for recorded in case.json["invalid_configs"].as_array().into_iter().flatten() {
            let config = &recorded["config"];
            let with_defaults = serde_json::json!({
                "start_val": config["start_val"],
                "fn_type": config.get("fn_type").unwrap_or(&"constant".into()),
                "warmup_pct": config.get("warmup_pct").unwrap_or(&0.0.into()),
                "final_val_frac": config.get("final_val_frac").unwrap_or(&1.0.into()),
            });
            assert!(schedule(&with_defaults).mistake().is_some(), "{config} is refused");
        }
    }
}

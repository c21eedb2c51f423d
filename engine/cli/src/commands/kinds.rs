//! `spdflow kinds`: lists the stage kinds, or describes one with its inputs and parameters.

mod parameters;

use serde_json::json;
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::kind::{KindInfo, StageKind};
use spdflow_engine::suggest::{did_you_mean, listed};

use crate::args::{KindsArgs, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::registry::registry;

/// Prints all kinds, or one.
pub(super) fn kinds(args: &KindsArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let registry = registry();
    let Some(name) = &args.kind else {
        if style.json {
            let kinds: Vec<_> = registry.iter().map(|kind| info_json(kind.info())).collect();
            super::print_json(json!({ "kinds": kinds }));
        } else {
            let kinds: Vec<_> = registry.iter().map(|kind| (kind.info().name, kind.info().summary)).collect();
            super::print_pairs(&kinds);
        }
        return Ok(Exit::Done);
    };
    let Some(kind) = registry.get(name) else {
        let names: Vec<_> = registry.iter().map(|kind| kind.info().name).collect();
        let hint = did_you_mean(name, names.iter().copied())
            .unwrap_or_else(|| format!("known kinds: {}", listed(names.iter().copied())));
        return Err(Failure::input(Diagnostic::new(format!("there is no stage kind `{name}`")).hint(hint)));
    };
    if style.json {
        let mut document = info_json(kind.info());
        document["kind_version"] = kind.info().version.into();
        document["parameters"] = kind.params_schema();
        super::print_json(document);
    } else {
        output::data(&describe(kind.as_ref()));
    }
    Ok(Exit::Done)
}

fn info_json(info: &KindInfo) -> serde_json::Value {
    let inputs: Vec<_> = info
        .inputs
        .iter()
        .map(|slot| {
            json!({
                "name": slot.name, "accepts": slot.accepts, "many": slot.many, "required": slot.required,
                "summary": slot.summary,
            })
        })
        .collect();
    json!({ "name": info.name, "kind_version": info.version, "summary": info.summary, "inputs": inputs })
}

fn describe(kind: &dyn StageKind) -> String {
    let info = kind.info();
    let mut text = format!("{}  {}\n", info.name, info.summary);
    if !info.inputs.is_empty() {
        text += "\nInputs\n";
    }
    for slot in info.inputs {
        let count = if slot.many { "any number of" } else { "one" };
        let optional = if slot.required { "" } else { ", optional" };
        text += &format!("  {}  {count} {}{optional}\n      {}\n", slot.name, slot.accepts.join(" or "), slot.summary);
    }
    text += "\nParameters\n";
    text += &parameters::describe(&kind.params_schema());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_described_with_inputs_and_parameters() {
        let kind = crate::test_kinds::registry().get("decompose.spd").expect("present");
        let expected = "decompose.spd  Takes a model apart

Inputs
  target  one train.*
      The model.

Parameters
  losses  list of these tables, default []
      kind = \"faithfulness\"
          How far the sum of components is from the target.
        coeff  number, required
            Its weight.
  probability  number, default 0.0
      Which share of the features is active.
  seed  whole number, default 0
  steps  whole number, default 0
      How many updates.
";
        assert_eq!(describe(kind.as_ref()), expected);
    }
}

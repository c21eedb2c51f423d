//! What instances a pipeline has, what they take and with which parameters.

use super::*;

#[test]
fn instances_come_producers_first_then_in_the_order_of_the_file() {
    let pipeline = good(TMS, &[]);
    assert_eq!(
        ids(&pipeline),
        [
            "target",
            "decompose[lr=0.001,seed=0]",
            "decompose[lr=0.01,seed=0]",
            "decompose[lr=0.001,seed=1]",
            "decompose[lr=0.01,seed=1]",
            "figures",
            "per_lr[lr=0.001]",
            "per_lr[lr=0.01]",
            "one",
        ]
    );
    assert_eq!((pipeline.name.as_str(), pipeline.description.as_str()), ("tms", "A toy"));
}

#[test]
fn inputs_join_on_shared_axes_select_and_gather() {
    let pipeline = good(TMS, &[]);
    assert_eq!(inputs(&pipeline, "decompose[lr=0.01,seed=1]", "target"), ["target"]);
    assert_eq!(inputs(&pipeline, "figures", "decompositions"), &ids(&pipeline)[1..5]);
    assert_eq!(
        inputs(&pipeline, "per_lr[lr=0.01]", "decompositions"),
        ["decompose[lr=0.01,seed=0]", "decompose[lr=0.01,seed=1]"]
    );
    assert_eq!(inputs(&pipeline, "one", "decompositions"), ["decompose[lr=0.01,seed=1]", "decompose[lr=0.001,seed=0]"]);
}

#[test]
fn placeholders_take_the_type_of_their_value_and_with_lies_under_params() {
    let pipeline = good(TMS, &[]);
    let id = "decompose[lr=0.01,seed=1]";
    assert_eq!(param(&pipeline, id, "seed"), "1");
    assert_eq!(param(&pipeline, id, "lr"), "0.01");
    assert_eq!(param(&pipeline, id, "title"), "\"run 1 at 0.01 for ${x}\"");
    assert_eq!(param(&pipeline, id, "steps"), "7");
    assert_eq!(param(&pipeline, id, "optim"), "{ end = 2.0, start = 5.0 }");
}

#[test]
fn names_with_points_are_reached_with_quotes() {
    let text = "[stage.\"a.b\"]\nuses = \"echo\"\n[stage.c]\nuses = \"any\"\ninputs = { anything = \"a.b\" }\n";
    let pipeline = good(text, &["stage.\"a.b\".params.steps=3"]);
    assert_eq!(param(&pipeline, "a.b", "steps"), "3");
    assert_eq!(inputs(&pipeline, "c", "anything"), ["a.b"]);
}

#[test]
fn stage_arguments_select_instances() {
    let pipeline = good(TMS, &[]);
    let select = |arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        pipeline.select(&arguments).map_err(|diagnostic| format!("{diagnostic} {:?}", diagnostic.hints))
    };
    assert_eq!(select(&[]).map(|found| found.len()), Ok(9));
    assert_eq!(select(&["decompose"]), Ok(vec![1, 2, 3, 4]));
    assert_eq!(select(&["decompose[seed=1]", "target"]), Ok(vec![0, 3, 4]));
    assert_eq!(select(&["decompose[seed=1,lr=1e-2]"]), Ok(vec![4]));
    assert_eq!(select(&["*[lr=0.01*"]), Ok(vec![2, 4, 7]));
    assert_eq!(select(&["decompse"]), Err("there is no stage `decompse` [\"did you mean `decompose`?\"]".to_owned()));
    assert_eq!(
        select(&["decompose[seed=2]"]),
        Err("stage `decompose` has no instance with `seed=2` [\"values of `seed`: `0`, `1`\"]".to_owned())
    );
    assert!(select(&["target[seed=0]"]).is_err() && select(&["x*"]).is_err() && select(&["a["]).is_err());
}

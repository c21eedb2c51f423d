//! Decoding and encoding, on types like those of stage kinds.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    steps: u32,
    #[serde(default = "one")]
    lr: f32,
    #[serde(default)]
    seed: u64,
    sites: Vec<Site>,
    #[serde(default)]
    losses: Vec<Loss>,
    #[serde(default)]
    clip: Option<f64>,
    #[serde(default)]
    schedule: Schedule,
    #[serde(default)]
    range: Option<(i8, f64)>,
    #[serde(default)]
    names: BTreeMap<String, bool>,
}

fn one() -> f32 {
    1.0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Site {
    pattern: String,
    #[serde(rename = "C")]
    c: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Loss {
    Faithfulness,
    ImportanceMinimality {
        coeff: f64,
        #[serde(default)]
        p: Option<f32>,
    },
    Subset(Subset),
    Weighted(f64, u8),
    Scale(f64),
    Nested(Box<Loss>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subset {
    sites: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Schedule {
    #[default]
    Constant,
    Cosine,
}

fn parsed(text: &str) -> Value {
    toml::parse_document(text, 0).expect("valid TOML")
}

/// Returns "text it points at: message [hint]" for every mistake.
fn mistakes(text: &str) -> Vec<String> {
    let errors = parsed(text).decode_all::<Params>().expect_err("mistakes");
    errors
        .into_iter()
        .map(|error| {
            let place = error.origin.as_ref().map_or("", |origin| &text[origin.span.clone()]);
            let hint = error.hint.as_deref().map_or(String::new(), |hint| format!(" [{hint}]"));
            format!("{place} | {error}{hint}")
        })
        .collect()
}

const MINIMAL: &str = "steps = 10\nsites = []\n";

#[test]
fn a_struct_is_read_with_its_defaults() {
    let params: Params = parsed(MINIMAL).decode().expect("fits");
    assert_eq!((params.steps, params.lr, params.schedule), (10, 1.0, Schedule::Constant));
}

#[test]
fn whole_numbers_are_accepted_where_floats_are_expected() {
    let params: Params = parsed(&format!("{MINIMAL}lr = 2\nclip = 3\n")).decode().expect("fits");
    assert_eq!((params.lr, params.clip), (2.0, Some(3.0)));
}

#[test]
fn enums_are_tables_with_a_kind_or_plain_strings() {
    let text = format!(
        "{MINIMAL}schedule = \"cosine\"\nlosses = [\"faithfulness\", {{ kind = \"faithfulness\" }}, \
         {{ kind = \"importance_minimality\", coeff = 1 }}, {{ kind = \"subset\", sites = [\"a\"] }}, \
         {{ kind = \"weighted\", value = [0.5, 3] }}, {{ kind = \"scale\", value = 2.5 }}, \
         {{ kind = \"nested\", value = {{ kind = \"scale\", value = 1 }} }}]\n"
    );
    let params: Params = parsed(&text).decode().expect("fits");
    assert_eq!(params.schedule, Schedule::Cosine);
    assert_eq!(
        params.losses,
        [
            Loss::Faithfulness,
            Loss::Faithfulness,
            Loss::ImportanceMinimality { coeff: 1.0, p: None },
            Loss::Subset(Subset { sites: vec!["a".to_owned()] }),
            Loss::Weighted(0.5, 3),
            Loss::Scale(2.5),
            Loss::Nested(Box::new(Loss::Scale(1.0))),
        ]
    );
}

#[test]
fn every_mistake_is_found_at_once_and_points_at_its_place() {
    let text = "stpes = 1
lr = \"fast\"
seed = -1
sites = [{ pattern = 3, C = 1.5 }, { pattern = \"x\" }]
losses = [{ kind = \"importance_minimalty\" }, { kind = \"importance_minimality\", coef = 1.0 }, { coeff = 1 }, \"nothing\", 7]
clip = true
range = [300, 1.0]
schedule = \"cosin\"
names = { a = 1 }
";
    let expected = [
        " | missing key `steps`",
        "stpes | unknown key `stpes` [did you mean `steps`?]",
        "\"fast\" | `lr`: expected a number, found a string `\"fast\"`",
        "-1 | `seed`: expected a whole number of at least 0, found `-1`",
        "3 | `sites[0].pattern`: expected a string, found the number `3`",
        "1.5 | `sites[0].C`: expected a whole number, found `1.5`",
        "{ pattern = \"x\" } | `sites[1]`: missing key `C`",
        "\"importance_minimalty\" | `losses[0].kind`: unknown kind `importance_minimalty` [did you mean `importance_minimality`?]",
        "{ kind = \"importance_minimality\", coef = 1.0 } | `losses[1]`: missing key `coeff`",
        "coef | `losses[1]`: unknown key `coef` [did you mean `coeff`?]",
        "{ coeff = 1 } | `losses[2]`: missing key `kind` [known kinds: `faithfulness`, `importance_minimality`, `subset`, `weighted`, `scale`, `nested`]",
        "\"nothing\" | `losses[3]`: unknown value `nothing` [known values: `faithfulness`, `importance_minimality`, `subset`, `weighted`, `scale`, `nested`]",
        "7 | `losses[4]`: expected a string or a table with the key `kind`, found the number `7`",
        "true | `clip`: expected a number, found `true`",
        "300 | `range[0]`: expected a whole number from -128 to 127, found `300`",
        "\"cosin\" | `schedule`: unknown value `cosin` [did you mean `cosine`?]",
        "1 | `names.a`: expected `true` or `false`, found the number `1`",
    ];
    let found = mistakes(text);
    assert_eq!(found, expected, "found:\n{}", found.join("\n"));
}

#[test]
fn a_whole_number_written_with_an_exponent_says_how_to_write_it() {
    assert_eq!(
        mistakes("steps = 1e4\nsites = []"),
        ["1e4 | `steps`: expected a whole number, found `10000.0` [write it without point and exponent: `10000`]"]
    );
}

#[test]
fn a_unit_variant_takes_no_keys_and_a_list_of_wrong_length_is_refused() {
    assert_eq!(
        mistakes(&format!("{MINIMAL}losses = [{{ kind = \"faithfulness\", coeff = 1 }}]\nrange = [1]\n")),
        [
            "coeff | `losses[0]`: unknown key `coeff` [`faithfulness` takes no such key]",
            "[1] | `range`: expected a list of 2 values, found 1",
        ]
    );
}

#[test]
fn a_number_too_large_for_single_precision_is_refused() {
    assert_eq!(
        mistakes(&format!("{MINIMAL}lr = 1e39\n")),
        ["1e39 | `lr`: expected a number of at most 3.4028234663852886e38 in size, found `1e39`"]
    );
}

#[test]
fn a_mistake_found_by_the_type_itself_is_placed() {
    #[derive(Debug, Deserialize)]
    struct Holder {
        #[serde(rename = "count")]
        _count: std::num::NonZero<u8>,
        #[serde(rename = "other")]
        _other: bool,
    }
    let text = "count = 0\nother = 1";
    let errors = parsed(text).decode_all::<Holder>().expect_err("mistakes");
    let places: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(places, ["count", "other"]);
}

#[test]
fn an_issue_points_at_its_value_or_at_the_nearest_thing_written() {
    let text = "losses = [{ coeff = 2.0 }]";
    let at = |path: &str| {
        let error = DecodeError::at(&parsed(text), ParamIssue::new(path, "must be in [0, 1]"));
        error.origin.map(|origin| text[origin.span].to_owned())
    };
    assert_eq!(at("losses[0].coeff").as_deref(), Some("2.0"));
    assert_eq!(at("losses[0].p").as_deref(), Some("{ coeff = 2.0 }"));
    assert_eq!(at("steps"), None);
}

#[test]
fn absent_options_are_left_out_and_single_precision_stays_readable() {
    let params: Params = parsed(&format!("{MINIMAL}lr = 0.1\n")).decode().expect("fits");
    let encoded = Value::encode(&params).to_string();
    assert_eq!(
        encoded,
        "{ losses = [], lr = 0.1, names = {}, schedule = \"constant\", seed = 0, sites = [], steps = 10 }"
    );
}

#[test]
#[should_panic(expected = "expected a finite number, found `NaN`")]
fn a_default_that_is_not_a_number_is_our_mistake() {
    let _ = Value::encode(&f64::NAN);
}

fn finite() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("finite", |number| number.is_finite())
}

fn loss() -> impl Strategy<Value = Loss> {
    let single = any::<f32>().prop_filter("finite", |number| number.is_finite());
    let leaf = prop_oneof![
        Just(Loss::Faithfulness),
        (finite(), proptest::option::of(single)).prop_map(|(coeff, p)| Loss::ImportanceMinimality { coeff, p }),
        proptest::collection::vec(".*", 0..3).prop_map(|sites| Loss::Subset(Subset { sites })),
        (finite(), any::<u8>()).prop_map(|(weight, count)| Loss::Weighted(weight, count)),
        finite().prop_map(Loss::Scale),
    ];
    leaf.prop_recursive(3, 6, 1, |inner| inner.prop_map(|loss| Loss::Nested(Box::new(loss))))
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same(
        steps in any::<u32>(),
        lr in any::<f32>().prop_filter("finite", |number| number.is_finite()),
        seed in 0..=i64::MAX as u64,
        losses in proptest::collection::vec(loss(), 0..4),
        clip in proptest::option::of(finite()),
        range in proptest::option::of((any::<i8>(), finite())),
        names in proptest::collection::btree_map(".*", any::<bool>(), 0..3),
    ) {
        let sites = vec![Site { pattern: "linear1".to_owned(), c: 20 }];
        let params = Params { steps, lr, seed, sites, losses, clip, schedule: Schedule::Cosine, range, names };
        let encoded = Value::encode(&params);
        prop_assert_eq!(encoded.decode::<Params>(), Ok(params.clone()));
        // And through text: the printed form is TOML.
        let text = encoded.to_string();
        let reread = toml::parse_document(&format!("v = {text}"), 0).expect("the printed form is TOML");
        prop_assert_eq!(reread.get("v").expect("present"), &encoded);
    }
}

//! What is written in a pipeline and the keys it gives: however a stage is spelled, its key is the same; whatever it
//! means differently, its key is another.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use proptest::prelude::*;
use spdflow_engine::cache::Digest;
use spdflow_engine::fingerprint::Key;
use spdflow_engine::kind::Device;
use spdflow_engine::spec::{self, Files, LoadOptions};

/// A `command` stage, as far as its key goes.
#[derive(Debug, Clone, PartialEq)]
struct Stage {
    run: Vec<String>,
    outputs: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    values: BTreeMap<String, Scalar>,
}

#[derive(Debug, Clone, PartialEq)]
enum Scalar {
    Whole(i32),
    /// Thousandths, written with a point.
    Float(i16),
    Text(String),
    Truth(bool),
}

/// Choices that change how a stage looks and not what it means.
#[derive(Debug, Clone, Copy)]
struct Style(u64);

impl Style {
    /// Returns one of `count` choices.
    fn choose(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % count
    }

    fn space(&mut self) -> &'static str {
        ["", " ", "  ", "\t"][self.choose(4)]
    }

    fn comment(&mut self) -> &'static str {
        ["\n", " # a comment\n", "\n\n", "\n# run = [\"other\"]\n"][self.choose(4)]
    }

    fn text(&mut self, text: &str) -> String {
        match self.choose(3) {
            0 => format!("'{text}'"),
            1 => format!("\"{text}\""),
            _ => format!("\"{}\"", text.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<String>()),
        }
    }

    fn scalar(&mut self, scalar: &Scalar) -> String {
        match scalar {
            Scalar::Whole(number) if *number >= 0 => {
                [format!("{number}"), format!("+{number}"), format!("{number:#x}")][self.choose(3)].clone()
            }
            Scalar::Whole(number) => number.to_string(),
            Scalar::Float(thousandths) => {
                let number = f64::from(*thousandths) / 1000.0;
                [format!("{number:?}"), format!("{number:e}"), format!("{number:.5}")][self.choose(3)].clone()
            }
            Scalar::Text(text) => self.text(text),
            Scalar::Truth(truth) => truth.to_string(),
        }
    }

    fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for last in (1..items.len()).rev() {
            items.swap(last, self.choose(last + 1));
        }
        items
    }

    /// Returns a table of texts, and whether it needs a header of its own.
    fn table(&mut self, name: &str, entries: Vec<(String, String)>) -> (String, bool) {
        let entries = self.shuffled(entries);
        if self.choose(2) == 0 {
            let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key}{}={value}", self.space())).collect();
            (format!("{name} = {{ {} }}", entries.join(", ")), false)
        } else {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{key} ={}{value}", self.space())).collect();
            (format!("[stage.a.params.{name}]\n{}", entries.join(self.comment())), true)
        }
    }

    fn pipeline(&mut self, stage: &Stage) -> String {
        let run: Vec<_> = stage.run.iter().map(|argument| self.text(argument)).collect();
        // Every value has to be used.
        let used = stage.values.keys().map(|name| format!("\"{{value.{name}}}\""));
        let run = run.into_iter().chain(used).collect::<Vec<_>>().join([", ", ",", ",\n  "][self.choose(3)]);
        let texts = |style: &mut Self, table: &BTreeMap<String, String>| {
            table.iter().map(|(key, value)| (key.clone(), style.text(value))).collect::<Vec<_>>()
        };
        let (outputs, env) = (texts(self, &stage.outputs), texts(self, &stage.env));
        let values = stage.values.iter().map(|(key, value)| (key.clone(), self.scalar(value))).collect();
        let mut parts = vec![(format!("run = [{run}]"), false)];
        for (name, entries) in [("outputs", outputs), ("env", env), ("values", values)] {
            if !entries.is_empty() || self.choose(2) == 0 {
                parts.push(self.table(name, entries));
            }
        }
        let parts = self.shuffled(parts);
        let (below, inline): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(_, has_header)| *has_header);
        let mut text = format!("{}[stage.a]\nuses = \"command\"", self.comment());
        text += self.comment();
        if self.choose(2) == 0 {
            text += "retries = 2\nresources = { threads = 1 }";
            text += self.comment();
        }
        text += "[stage.a.params]\n";
        for (part, _) in inline.into_iter().chain(below) {
            text = text + &part + self.comment();
        }
        text
    }
}

/// A pipeline that is on no disk.
struct InMemory(String);

impl Files for InMemory {
    fn read(&self, _: &Path) -> io::Result<String> {
        Ok(self.0.clone())
    }
}

fn key_of(text: String) -> Digest {
    let options = LoadOptions { files: &InMemory(text.clone()), ..LoadOptions::default() };
    let pipeline = spec::load(Path::new("p.toml"), &options, &spdflow_stages::registry());
    let pipeline = pipeline.unwrap_or_else(|report| panic!("{report}\n{text}"));
    let instance = &pipeline.instances[0];
    let info = instance.kind.info();
    let key = Key {
        kind: info.name,
        version: info.version,
        params: &instance.params,
        inputs: &BTreeMap::new(),
        numeric_target: Device::Cpu.numeric_target(),
    };
    key.fingerprint()
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        (-2..3_i32).prop_map(Scalar::Whole),
        (-2..3_i16).prop_map(|n| Scalar::Float(n * 1000)),
        (-999..999_i16).prop_map(Scalar::Float),
        "[ab1]{0,2}".prop_map(Scalar::Text),
        any::<bool>().prop_map(Scalar::Truth),
    ]
}

/// Few letters and short lists: so that stages which nearly agree are drawn often.
fn stage() -> impl Strategy<Value = Stage> {
    let texts = proptest::collection::vec("[ab ]{0,2}", 0..3);
    let outputs = proptest::collection::btree_map("[xy]", "[xy]", 0..3)
        .prop_filter("two outputs in one place", |map| {
            map.values().collect::<std::collections::BTreeSet<_>>().len() == map.len()
        });
    let env = proptest::collection::btree_map("[AB]", "[ab]{0,1}", 0..3);
    let values = proptest::collection::btree_map("[vw]", scalar(), 0..3);
    (texts, outputs, env, values).prop_map(|(arguments, outputs, env, values)| {
        let run = std::iter::once("p".to_owned()).chain(arguments).collect();
        Stage { run, outputs, env, values }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn however_a_stage_is_written_its_key_is_the_same(stage in stage(), first: u64, second: u64) {
        let [first, second] = [first, second].map(|seed| Style(seed).pipeline(&stage));
        prop_assert_eq!(key_of(first.clone()), key_of(second.clone()), "{}\n----\n{}", first, second);
    }

    #[test]
    fn keys_are_equal_exactly_when_stages_are(left in stage(), right in stage(), seed: u64) {
        let [a, b] = [&left, &right].map(|stage| Style(seed).pipeline(stage));
        prop_assert_eq!(key_of(a.clone()) == key_of(b.clone()), left == right, "{}\n----\n{}", a, b);
    }

    #[test]
    fn a_change_of_one_place_moves_the_key(stage in stage(), place in 0..7_usize, seed: u64) {
        let mut other = stage.clone();
        match place {
            0 => other.run.push(String::new()),
            1 => other.run[0] += "a",
            2 => other.run.insert(1, "a".to_owned()),
            3 => drop(other.env.insert("C".to_owned(), String::new())),
            4 => drop(other.outputs.insert("z".to_owned(), "z".to_owned())),
            5 => drop(other.values.insert("z".to_owned(), Scalar::Whole(0))),
            _ => "q".clone_into(&mut other.run[0]),
        }
        let [a, b] = [&stage, &other].map(|stage| Style(seed).pipeline(stage));
        prop_assert_ne!(key_of(a.clone()), key_of(b.clone()), "{}\n----\n{}", a, b);
    }
}

//! Bytes do not change by accident: one digest per kind and instruction set.
//!
//! `fixtures/digests.toml` holds, for each kind, its version and the digest of the artifact that the stage of
//! `fixtures/every_kind.toml` makes. Whoever changes bytes on purpose raises `version` in the kind's `KindInfo`, since
//! results of the old version would be taken for new ones, and rewrites the table:
//!
//! ```text
//! SPDFLOW_UPDATE_DIGESTS=1 cargo test -p spdflow --test main golden
//! ```
//!
//! Rows of instruction sets that this processor lacks are left as they are, and not checked. Exponentials and cosines
//! are those of the system's C library, so another library may give other digests; the table is made with glibc.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spdflow_engine::cache::Digest;
use spdflow_engine::spec::{self, LoadOptions};

use crate::contracts::{EVERY_KIND, EVERY_KIND_PROGRAM};
use crate::support::Bench;

const UPDATE: &str = "SPDFLOW_UPDATE_DIGESTS=1 cargo test -p spdflow --test main golden";

/// A row of the table.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
struct Row {
    version: u32,
    #[serde(flatten)]
    digests: BTreeMap<String, Digest>,
}

type Table = BTreeMap<String, Row>;

/// Returns the instruction sets that this processor has, by the names that `SPDFLOW_SIMD` takes.
fn levels() -> Vec<&'static str> {
    let mut levels = vec!["baseline"];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            levels.push("avx2");
        }
        // The same four as in spdflow-kernels.
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
        {
            levels.push("avx512");
        }
    }
    levels
}

/// The kinds in the order of the stages, with their versions and the kinds they take artifacts of.
fn kinds() -> Vec<(String, u32, Vec<String>)> {
    let path = fixture("every_kind.toml");
    let pipeline = spec::load(&path, &LoadOptions::default(), &spdflow_stages::registry());
    let pipeline = pipeline.unwrap_or_else(|report| panic!("{report}"));
    let mut kinds: Vec<(String, u32, Vec<String>)> = Vec::new();
    for instance in &pipeline.instances {
        let info = instance.kind.info();
        let parents = instance.parents().map(|parent| pipeline.instances[parent].kind.info().name.to_owned()).collect();
        if kinds.iter().all(|(name, ..)| name != info.name) {
            kinds.push((info.name.to_owned(), info.version, parents));
        }
    }
    kinds
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// Runs every kind at an instruction set and returns the digest of the first artifact of each.
fn made(level: &str) -> BTreeMap<String, Digest> {
    let bench = Bench::new().file("every_kind.toml", EVERY_KIND).file("every_kind.sh", EVERY_KIND_PROGRAM);
    let run = |arguments: &[&str]| {
        let output = bench.command(arguments).env("SPDFLOW_SIMD", level).output().expect("the binary starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["run", "every_kind.toml", "--quiet"]);
    let shown: serde_json::Value = serde_json::from_slice(&run(&["show", "every_kind.toml", "--json"])).expect("JSON");
    let mut digests = BTreeMap::new();
    for stage in shown["stages"].as_array().expect("a list of stages") {
        let digest = serde_json::from_value(stage["record"]["artifact"]["digest"].clone()).expect("a digest");
        digests.entry(stage["record"]["kind"].as_str().expect("a kind").to_owned()).or_insert(digest);
    }
    digests
}

fn table() -> Table {
    let text = std::fs::read_to_string(fixture("digests.toml")).expect("tests/fixtures/digests.toml");
    toml::from_str(&text).unwrap_or_else(|error| panic!("tests/fixtures/digests.toml: {error}"))
}

fn write(table: &Table) {
    let mut text =
        format!("# Digests of the artifacts of every_kind.toml, checked by golden.rs. Made by:\n# {UPDATE}\n");
    for (kind, row) in table {
        text += &format!("\n[\"{kind}\"]\nversion = {}\n", row.version);
        for (level, digest) in &row.digests {
            text += &format!("{level} = \"{digest}\"\n");
        }
    }
    std::fs::write(fixture("digests.toml"), text).expect("tests/fixtures/digests.toml");
}

/// Returns what is wrong with the table, given what was made at each level.
fn complaints(
    kinds: &[(String, u32, Vec<String>)],
    table: &Table,
    made: &BTreeMap<&str, BTreeMap<String, Digest>>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut explained: Vec<&str> = Vec::new();
    for (kind, version, parents) in kinds {
        // Other inputs give other bytes, whatever the version.
        let follows = parents.iter().any(|parent| explained.contains(&parent.as_str()));
        let Some(row) = table.get(kind) else {
            complaints.push(format!("`{kind}` is not in the table: run `{UPDATE}`"));
            explained.push(kind);
            continue;
        };
        let of_level = |level: &str, row: &Row| made[level].get(kind) == row.digests.get(level);
        let changed: Vec<_> = made.keys().copied().filter(|level| !of_level(level, row)).collect();
        if !changed.is_empty() || row.version != *version {
            explained.push(kind);
        }
        let levels = changed.join(", ");
        if row.version != *version {
            complaints.push(format!("`{kind}` has version {version}, the table {}: run `{UPDATE}`", row.version));
        } else if !changed.is_empty() && !follows {
            complaints.push(format!(
                "the bytes of `{kind}` changed ({levels}), but its version is still {version}, so that cached results \
                 of the old code would be taken for new ones: if the change is meant, raise `version` in its \
                 `KindInfo`, then run `{UPDATE}`"
            ));
        } else if !changed.is_empty() {
            complaints.push(format!("the bytes of `{kind}` changed ({levels}), perhaps only because its inputs did"));
        }
    }
    let is_known = |name: &&String| kinds.iter().any(|(kind, ..)| kind == *name);
    complaints.extend(
        table.keys().filter(|name| !is_known(name)).map(|name| format!("there is no kind `{name}`: run `{UPDATE}`")),
    );
    complaints
}

#[test]
fn the_bytes_of_every_kind_are_those_of_its_version() {
    let levels = levels();
    for level in ["avx2", "avx512"].into_iter().filter(|level| !levels.contains(level)) {
        println!("skipped: this processor has no {level}");
    }
    let made: BTreeMap<_, _> = levels.into_iter().map(|level| (level, made(level))).collect();
    let kinds = kinds();
    if std::env::var_os("SPDFLOW_UPDATE_DIGESTS").is_some() {
        let mut fresh = Table::new();
        let old = if fixture("digests.toml").exists() { table() } else { Table::new() };
        for (kind, version, _) in &kinds {
            let mut row = Row { version: *version, ..old.get(kind).cloned().unwrap_or_default() };
            row.digests.extend(made.iter().map(|(level, digests)| ((*level).to_owned(), digests[kind])));
            fresh.insert(kind.clone(), row);
        }
        write(&fresh);
        println!("tests/fixtures/digests.toml is written; `git diff` shows which kinds make other bytes");
        return;
    }
    let complaints = complaints(&kinds, &table(), &made);
    assert!(complaints.is_empty(), "\n- {}\n", complaints.join("\n- "));
}

#[test]
fn a_change_of_bytes_is_blamed_on_the_kind_that_made_them() {
    let digest = |text: &str| Digest::of(text.as_bytes());
    let row = |version, text| Row { version, digests: [("baseline".to_owned(), digest(text))].into() };
    let kinds = [("first".to_owned(), 1, vec![]), ("second".to_owned(), 1, vec!["first".to_owned()])];
    let made = |first, second| {
        let digests = [("first".to_owned(), digest(first)), ("second".to_owned(), digest(second))];
        BTreeMap::from([("baseline", BTreeMap::from(digests))])
    };
    let table = Table::from([("first".to_owned(), row(1, "a")), ("second".to_owned(), row(1, "b"))]);
    assert_eq!(complaints(&kinds, &table, &made("a", "b")), [""; 0]);

    let changed = complaints(&kinds, &table, &made("A", "B"));
    let meant = "if the change is meant, raise `version` in its `KindInfo`, then run `SPDFLOW_UPDATE_DIGESTS=1 ";
    assert!(changed[0].starts_with("the bytes of `first` changed (baseline)") && changed[0].contains(meant));
    assert_eq!(changed[1], "the bytes of `second` changed (baseline), perhaps only because its inputs did");
    assert_eq!(changed.len(), 2);

    let changed = complaints(&kinds, &table, &made("a", "B"));
    assert!(changed[0].starts_with("the bytes of `second` changed (baseline)") && changed[0].contains(meant));

    let table = Table::from([("first".to_owned(), row(2, "a")), ("third".to_owned(), row(1, "c"))]);
    let expected = [
        format!("`first` has version 1, the table 2: run `{UPDATE}`"),
        format!("`second` is not in the table: run `{UPDATE}`"),
        format!("there is no kind `third`: run `{UPDATE}`"),
    ];
    assert_eq!(complaints(&kinds, &table, &made("a", "b")), expected);
}

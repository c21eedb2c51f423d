//! What the documents say about pipelines, files and numbers is still so.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::Bench;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the first block of `language` in a document that holds `mark`.
fn block(document: &str, language: &str, mark: &str) -> String {
    let (text, fence) = (read(document), format!("```{language}\n"));
    let blocks = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    let mut wanted = blocks.filter(|block| block.contains(mark));
    wanted.next().unwrap_or_else(|| panic!("{document} has no block with `{mark}`")).to_owned()
}

/// Returns every Markdown document of the repository.
fn documents() -> Vec<String> {
    let mut found: Vec<String> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pipelines/README.md"].map(str::to_owned).into();
    let entries = fs::read_dir(root().join("docs")).expect("the manual");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
    found.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    found.sort();
    found
}

#[test]
fn the_pipelines_shown_in_the_documents_are_right() {
    let bench = Bench::new()
        .file("pipelines/tms.toml", read("pipelines/tms.toml"))
        .file("mine.toml", block("README.md", "toml", "name = \"mine\""))
        .file("my.toml", block("pipelines/README.md", "toml", "name = \"my\""))
        .file("pipelines/reference.toml", block("docs/pipeline-reference.md", "toml", "[axes]"));
    let right = |name: &str| format!("pipeline `{name}` is right: 5 stages, 7 instances\n");
    bench.run(&["check", "mine.toml"]).assert(0, &right("mine"), "");
    bench.run(&["check", "mine.toml", "--profile", "smoke"]).assert(0, &right("mine"), "");
    bench.run(&["check", "my.toml"]).assert(0, &right("my"), "");
    bench.run(&["check", "pipelines/reference.toml", "--profile", "smoke"]).assert(0, &right("tms"), "");
}

#[test]
fn links_within_the_repository_lead_somewhere() {
    for document in documents() {
        let text = read(&document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or("");
            if path.is_empty() || link.starts_with("http") {
                continue;
            }
            let target = root().join(&document).parent().expect("a folder").join(path);
            assert!(target.exists(), "{document} links to `{link}`, which does not exist");
        }
    }
}

#[test]
fn the_table_of_random_streams_has_the_number_of_every_purpose() {
    let documented = read("docs/numerics.md");
    let source = read("stages/src/purpose.rs");
    let numbers: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "))
        .map(|(_, number)| number)
        .collect();
    assert!(numbers.len() > 10, "purposes found: {numbers:?}");
    for number in numbers {
        let is_there =
            documented.contains(&format!("| {number} | ")) || documented.contains(&format!("| {number} more "));
        assert!(is_there, "docs/numerics.md has no row for purpose {number}");
    }
}

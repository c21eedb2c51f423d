//! What a bundle says to people: `REPRODUCE.md`, and the script `repro.sh`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use spdflow_cache::{Digest, Record};

use super::Packing;
use super::entries::{CACHE, LOCK, PIPELINE, SCRIPT};
use super::manifest::MANIFEST;
use crate::shell::{SCRIPT_START, quoted, shown, with_variables};
use crate::sums::Sums;

/// Returns the script that computes everything anew and compares it with the lock file.
pub(super) fn script(packing: &Packing<'_>, pipeline: &str) -> String {
    let name = &packing.pipeline.name;
    let words: Vec<String> = packing.arguments.words().iter().map(|word| format!(" {}", quoted(word))).collect();
    let mut text = format!(
        "#!/bin/sh
# Computes the results of pipeline {name} anew and compares them with those of the bundle.
#
#   sh {SCRIPT} [OPTION…]                with more options of `spdflow run`, such as `--jobs 4`
#   SPDFLOW=/path/to/spdflow sh {SCRIPT} with another program than the `spdflow` in PATH
#
# It works in the folder `repro` beside this file; delete that to begin from nothing again. It ends with 0 if every
# result has the same bytes, and with 10 if one has not.
{SCRIPT_START}",
        name = shown(name),
    );
    // What is taken from there would not be computed anew.
    text += "unset SPDFLOW_REMOTE\n";
    let _ = writeln!(
        text,
        "set -- run {}{} --cache repro/cache --out repro/out --locked --lock-file {LOCK} \"$@\"",
        quoted(pipeline),
        words.concat(),
    );
    text + &with_variables(&packing.pipeline.outside.variables, "\"$spdflow\" \"$@\"")
}

/// Returns the text for a stranger.
pub(super) fn reproduce(packing: &Packing<'_>, sums: &BTreeMap<Digest, Sums>) -> String {
    let (pipeline, results) = (packing.pipeline, packing.results);
    let mut text = format!("# {}: results, and how they were made\n\n", pipeline.name);
    if !pipeline.description.is_empty() {
        let _ = writeln!(text, "{}\n", pipeline.description);
    }
    let records = || results.iter().map(|result| &result.record);
    let what =
        if packing.digests_only { "the digests of its results (not the results themselves)" } else { "its results" };
    let _ = write!(
        text,
        "This is a bundle of spdflow: a pipeline, {what}, and the evidence of how they came about. A pipeline is made of \
         stages; each has a key, the fingerprint, that is the hash of its kind, its parameters and the digests of its \
         inputs, and a record of what it made.\n\n\
         | here | what it is |\n|---|---|\n\
         | `{MANIFEST}` | every file of the bundle with size, BLAKE3 and SHA-256, and how the pipeline was called |\n\
         | `{PIPELINE}/` | the pipeline's text, the texts it is based on, and the code of its commands |\n\
         | `{LOCK}` | fingerprint and digests of every result |\n\
         | `{CACHE}/records/` | a record for each result: what its key is the hash of, its files, program, machine, times |\n"
    );
    if !packing.digests_only {
        let _ = writeln!(text, "| `{CACHE}/blobs/` | the files of the results, called by their BLAKE3 |");
    }
    let _ = write!(
        text,
        "| `{CACHE}/runs/` | the histories of the runs that made them |\n\
         | `{SCRIPT}` | computes everything anew and compares |\n\n"
    );
    let _ = write!(text, "## By what it was made\n\n{}", makers(records()));
    let _ = write!(
        text,
        "\n## How to check it\n\n```sh\nspdflow audit {name}{ending}\n```\n\n\
         checks that nothing was changed and that every result follows from its inputs. Without spdflow, compare the files \
         with the SHA-256 in `{MANIFEST}`, and those of results with the tables below.\n\n\
         ## How to make it again\n\n\
         Build spdflow from the commit named above, with the compiler named above, and unpack the bundle:\n\n\
         ```sh\ncargo build --release --locked\nmkdir bundle && tar --zstd -xf {name}{ending} -C bundle\n\
         SPDFLOW=target/release/spdflow sh bundle/{SCRIPT}\n```\n\n\
         It ends with 0 if every result has the same bytes again, and with 10 if one has not. The last bits of numbers \
         may depend on the features of the processor.\n\n## Results\n\n",
        name = shown(&pipeline.name),
        ending = super::ENDING,
    );
    text += "| result | kind | number | artifact (BLAKE3) |\n|---|---|---|---|\n";
    for result in results {
        let record = &result.record;
        let number =
            record.metrics.first().map(|metric| format!("{} = {}", metric.name, metric.value)).unwrap_or_default();
        row(&mut text, &[&result.instance, &record.kind, &number, &record.artifact.digest.to_string()]);
    }
    for result in results {
        let _ = write!(text, "\n### {}\n\n| file | bytes | SHA-256 |\n|---|---|---|\n", result.instance);
        for output in &result.record.artifact.outputs {
            let sha256 = sums.get(&output.digest).map_or("", |sums| &*sums.sha256);
            row(&mut text, &[&output.path, &output.size_bytes.to_string(), sha256]);
        }
    }
    text
}

/// Returns the programs, machines and runs that the records name, each once.
fn makers<'r>(records: impl Iterator<Item = &'r Record>) -> String {
    let (mut programs, mut machines, mut runs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for Record { build, machine, run, usage, .. } in records {
        programs.insert(format!(
            "* program: spdflow {}, commit {}, {} build, by {}, `Cargo.lock` {}\n",
            build.version, build.git_commit, build.profile, build.rustc, build.cargo_lock
        ));
        machines.insert(format!(
            "* machine: {}, {}, features {}; computed on {}\n",
            machine.platform,
            machine.processor,
            machine.cpu_features.join(" "),
            usage.device
        ));
        runs.insert(format!("* run: {run}\n"));
    }
    programs.into_iter().chain(machines).chain(runs).collect()
}

fn row(text: &mut String, cells: &[&str]) {
    for cell in cells {
        let _ = write!(text, "| {} ", cell.replace('|', "\\|"));
    }
    text.push_str("|\n");
}

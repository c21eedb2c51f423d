//! W3C PROV, as PROV-JSON.
//!
//! A result is an entity, a collection whose members are its files; the run of a stage is an activity that used the files it
//! took and generated the files it made; the program is an agent. The same bytes from two stages are two entities, since an
//! entity is generated once.

use serde_json::{Map, Value, json};
use spdflow_cache::{Digest, Record};

use super::Exports;
use crate::present::Present;
use crate::sums::Sums;

/// A document under construction: by kind, the things and relations by name.
#[derive(Default)]
struct Document {
    parts: Map<String, Value>,
    relations: usize,
}

impl Document {
    fn put(&mut self, kind: &str, name: String, value: Value) {
        let part = self.parts.entry(kind).or_insert_with(|| json!({}));
        part[name] = value;
    }

    fn relate(&mut self, kind: &str, value: Value) {
        self.relations += 1;
        self.put(kind, format!("_:r{}", self.relations), value);
    }
}

impl Exports<'_> {
    /// Returns the document.
    #[must_use]
    pub fn prov(&self) -> Value {
        let mut document = Document::default();
        let namespaces = json!({
            "spdflow": "urn:spdflow:", "result": "urn:spdflow:result:", "source": "urn:spdflow:source:",
            "stage": "urn:spdflow:stage-run:", "program": "urn:spdflow:program:",
        });
        document.parts.insert("prefix".to_owned(), namespaces);
        for source in &self.sources {
            document.put("entity", source_name(&source.sums), file(&source.place, &source.sums));
        }
        for result in self.results {
            self.add(&mut document, result);
        }
        Value::Object(document.parts)
    }

    fn add(&self, document: &mut Document, result: &Present) {
        let record = &result.record;
        let (stage, made) = (stage_name(&record.fingerprint), result_name(&record.fingerprint));
        document.put("activity", stage.clone(), activity(result));
        let program = program_name(record);
        document.put("agent", program.clone(), agent(record));
        let plan = self.sources.first().map(|source| source_name(&source.sums));
        document
            .relate("wasAssociatedWith", json!({ "prov:activity": stage, "prov:agent": program, "prov:plan": plan }));
        let collection = json!({
            "prov:type": { "$": "prov:Collection", "type": "prov:QUALIFIED_NAME" },
            "prov:label": result.instance, "spdflow:artifact": record.artifact.digest,
        });
        document.put("entity", made.clone(), collection);
        let ended = &record.times.finished;
        let generated = |entity: &str| json!({ "prov:entity": entity, "prov:activity": stage, "prov:time": ended });
        document.relate("wasGeneratedBy", generated(&made));
        for output in &record.artifact.outputs {
            let name = file_name(&record.fingerprint, &output.path);
            let mut entity = file(&format!("{}/{}", result.instance, output.path), self.sums(&output.digest));
            entity["spdflow:format"] = output.format.as_str().into();
            document.put("entity", name.clone(), entity);
            document.relate("wasGeneratedBy", generated(&name));
            document.relate("hadMember", json!({ "prov:collection": made, "prov:entity": name }));
        }
        for taken in self.taken(result) {
            let name = file_name(&taken.producer.record.fingerprint, &taken.output.path);
            document.relate("used", json!({ "prov:activity": stage, "prov:entity": name, "prov:role": taken.slot }));
        }
        for (path, sums) in self.code(result) {
            document.put("entity", source_name(&sums), file(path, &sums));
            let used = json!({ "prov:activity": stage, "prov:entity": source_name(&sums), "prov:role": "code" });
            document.relate("used", used);
        }
        let mut producers: Vec<String> =
            self.producers(result).iter().map(|(_, producer)| result_name(&producer.record.fingerprint)).collect();
        producers.sort();
        producers.dedup();
        for producer in producers {
            let derived = json!({ "prov:generatedEntity": made, "prov:usedEntity": producer, "prov:activity": stage });
            document.relate("wasDerivedFrom", derived);
        }
    }
}

fn activity(result: &Present) -> Value {
    let Record { kind, preimage, run, times, usage, machine, pipeline, .. } = &result.record;
    json!({
        "prov:startTime": times.started, "prov:endTime": times.finished, "prov:label": result.instance,
        "prov:type": "spdflow stage", "spdflow:kind": kind, "spdflow:params": preimage["params"].to_string(),
        "spdflow:numericTarget": preimage["numeric_target"], "spdflow:pipeline": pipeline, "spdflow:run": run,
        "spdflow:device": usage.device, "spdflow:platform": machine.platform, "spdflow:processor": machine.processor,
    })
}

fn agent(record: &Record) -> Value {
    let build = &record.build;
    json!({
        "prov:type": { "$": "prov:SoftwareAgent", "type": "prov:QUALIFIED_NAME" },
        "prov:label": format!("spdflow {}", build.version), "spdflow:commit": build.git_commit,
        "spdflow:cargoLock": build.cargo_lock, "spdflow:rustc": build.rustc, "spdflow:profile": build.profile,
    })
}

fn file(label: &str, sums: &Sums) -> Value {
    json!({
        "prov:type": "file", "prov:label": label, "spdflow:sha256": sums.sha256, "spdflow:blake3": sums.blake3,
        "spdflow:sizeBytes": { "$": sums.size_bytes.to_string(), "type": "xsd:unsignedLong" },
    })
}

fn stage_name(fingerprint: &Digest) -> String {
    format!("stage:{fingerprint}")
}

fn result_name(fingerprint: &Digest) -> String {
    format!("result:{fingerprint}")
}

fn file_name(fingerprint: &Digest, path: &str) -> String {
    format!("result:{fingerprint}/{}", super::escaped(path))
}

fn source_name(sums: &Sums) -> String {
    format!("source:{}", sums.blake3)
}

fn program_name(record: &Record) -> String {
    let build = &record.build;
    // Two programs of one commit may be built by two compilers.
    let text =
        format!("{}\n{}\n{}\n{}\n{}", build.version, build.git_commit, build.cargo_lock, build.rustc, build.profile);
    format!("program:{}", Digest::of(text.as_bytes()))
}

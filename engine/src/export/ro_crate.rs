//! A folder that is a Workflow Run RO-Crate, of the profile Provenance Run Crate 0.5.
//!
//! The pipeline is the workflow, an instance a step of it, a kind of stages the tool of a step. Each result is the work of an
//! action, with the files it took, its parameters and the files it made; the run of spdflow organises these actions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use spdflow_cache::Digest;

use super::{Exports, escaped};
use crate::bundle::{BundleError, open_blob};
use crate::present::Present;
use crate::sums::{Sums, copy_summed};

/// The file that describes the folder.
const METADATA: &str = "ro-crate-metadata.json";
/// The text for people.
const README: &str = "README.md";
/// Where the pipeline's files lie.
const PIPELINE: &str = "pipeline";
/// Where the results lie.
const RESULTS: &str = "results";

/// What the crate says it is.
const PROFILES: [(&str, &str, &str); 4] = [
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/provenance/0.5", "Provenance Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
];
/// The language of pipelines.
const LANGUAGE: &str = "#language";
/// The licence, if it has no address.
const LICENSE: &str = "#license";
/// The program.
const ENGINE: &str = "urn:spdflow:program";
/// All of its work.
const WORKFLOW_RUN: &str = "#run";

impl Exports<'_> {
    /// Writes the crate into `folder`, which must be empty; `license` is the address of a licence, or a sentence.
    ///
    /// # Errors
    /// [`BundleError`] if a file cannot be read or written, or is damaged.
    pub fn write_ro_crate(&self, folder: &Path, license: &str) -> Result<usize, BundleError> {
        let mut files = 0;
        for source in &self.sources {
            let to = create(folder, &format!("{PIPELINE}/{}", source.place))?;
            (&to.0).write_all(source.bytes).map_err(BundleError::io("write", &to.1))?;
            files += 1;
        }
        for result in self.results {
            for output in &result.record.artifact.outputs {
                self.copy(&output.digest, folder, &path_of(result, &output.path))?;
                files += 1;
            }
        }
        let (to, path) = create(folder, README)?;
        (&to).write_all(self.readme().as_bytes()).map_err(BundleError::io("write", &path))?;
        let (to, path) = create(folder, METADATA)?;
        let text = format!("{:#}\n", self.metadata(license));
        (&to).write_all(text.as_bytes()).map_err(BundleError::io("write", &path))?;
        Ok(files + 2)
    }

    fn copy(&self, digest: &Digest, folder: &Path, place: &str) -> Result<(), BundleError> {
        let (to, path) = create(folder, place)?;
        let copied = copy_summed(open_blob(self.cache, digest)?, &to).map_err(BundleError::io("write", &path))?;
        if copied.blake3 == *digest {
            return Ok(());
        }
        let changed = std::io::Error::other("the bytes written are not those of the cache");
        Err(BundleError::io("write", &path)(changed))
    }

    fn metadata(&self, license: &str) -> Value {
        let mut graph = Graph::default();
        self.add_root(&mut graph, license);
        self.add_workflow(&mut graph);
        for (position, result) in self.results.iter().enumerate() {
            self.add_step(&mut graph, position, result);
        }
        self.add_run(&mut graph);
        json!({
            "@context": ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"],
            "@graph": graph.entities.into_values().collect::<Vec<_>>(),
        })
    }

    fn add_root(&self, graph: &mut Graph, license: &str) {
        let conforms = |ids: &[&str]| ids.iter().map(|id| reference(id)).collect::<Vec<_>>();
        graph.add(json!({
            "@id": METADATA, "@type": "CreativeWork", "about": reference("./"),
            "conformsTo": conforms(&["https://w3id.org/ro/crate/1.1", PROFILES[3].0]),
        }));
        for (id, name, version) in PROFILES {
            graph.add(json!({ "@id": id, "@type": "CreativeWork", "name": name, "version": version }));
        }
        let pipeline = self.pipeline;
        let description = if pipeline.description.is_empty() {
            format!("Results of the spdflow pipeline {}, and how they were made", pipeline.name)
        } else {
            pipeline.description.clone()
        };
        let sources = self.sources.iter().map(|source| self.source_id(source.place.as_str()));
        let outputs = self.results.iter().flat_map(|result| {
            result.record.artifact.outputs.iter().map(|output| escaped(&path_of(result, &output.path)))
        });
        let mut readme = file(README, README, &Sums::of(self.readme().as_bytes()), Some("md"));
        readme["about"] = reference("./");
        graph.add(readme);
        let parts = [README.to_owned()].into_iter().chain(sources).chain(outputs);
        let parts: Vec<Value> = parts.map(|id| reference(&id)).collect();
        let is_address = license.starts_with("https://") || license.starts_with("http://");
        let license_id = if is_address { license } else { LICENSE };
        graph.add(json!({
            "@id": license_id, "@type": "CreativeWork", "name": license,
            "description": "The licence of the results, as it was given to `spdflow export`",
        }));
        let actions = self.results.iter().map(action_id).chain([WORKFLOW_RUN.to_owned()]);
        let actions: Vec<Value> = actions.map(|id| reference(&id)).collect();
        graph.add(json!({
            "@id": "./", "@type": "Dataset", "name": format!("spdflow: {}", pipeline.name), "description": description,
            "datePublished": offset(self.last()), "license": reference(license_id),
            "conformsTo": conforms(&PROFILES.map(|(id, ..)| id)), "hasPart": parts,
            "mainEntity": reference(&self.workflow_id()), "mentions": actions,
        }));
    }

    fn add_workflow(&self, graph: &mut Graph) {
        for source in &self.sources {
            let id = self.source_id(&source.place);
            graph.add(file(&id, &source.place, &source.sums, None));
        }
        graph.add(json!({
            "@id": LANGUAGE, "@type": "ComputerLanguage", "name": "spdflow pipeline (TOML)",
            "url": "https://toml.io/", "identifier": "https://toml.io/",
        }));
        let tools: BTreeSet<String> = self.results.iter().map(tool_id).collect();
        let mut workflow = graph.entities.remove(&self.workflow_id()).unwrap_or_default();
        workflow["@type"] = json!(["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]);
        workflow["conformsTo"] = reference("https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE");
        workflow["version"] = self.sources.first().map(|source| source.sums.blake3.short()).into();
        workflow["name"] = self.pipeline.name.as_str().into();
        workflow["programmingLanguage"] = reference(LANGUAGE);
        workflow["hasPart"] = tools.iter().map(|id| reference(id)).collect();
        workflow["step"] = self.results.iter().map(|result| reference(&step_id(result))).collect();
        let code = self.sources.iter().skip(1).map(|source| reference(&self.source_id(&source.place)));
        workflow["isBasedOn"] = code.collect();
        workflow["output"] = self.results.iter().map(|result| reference(&parameter_id(result))).collect();
        graph.add(workflow);
    }

    fn add_step(&self, graph: &mut Graph, position: usize, result: &Present) {
        let record = &result.record;
        let (step, tool, action) = (step_id(result), tool_id(result), action_id(result));
        graph.add(json!({
            "@id": step, "@type": "HowToStep", "name": result.instance, "position": (position + 1).to_string(),
            "workExample": reference(&tool),
        }));
        graph.add(json!({
            "@id": tool, "@type": "SoftwareApplication", "name": record.kind,
            "version": record.preimage["version"].to_string(),
            "description": self.instance(result).kind.info().summary,
        }));
        graph.add(json!({
            "@id": parameter_id(result), "@type": "FormalParameter", "name": result.instance,
            "additionalType": "File", "conformsTo": reference("https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"),
        }));
        let taken = self.taken(result);
        let objects = taken.iter().map(|taken| escaped(&path_of(taken.producer, &taken.output.path)));
        let code = self.code(result).filter_map(|(_, sums)| {
            let source = self.sources.iter().find(|source| source.sums.blake3 == sums.blake3)?;
            Some(self.source_id(&source.place))
        });
        let mut objects: Vec<String> = objects.chain(code).collect();
        for (name, value) in leaves(&record.preimage["params"]) {
            let id = format!("{action}/{}", escaped(&name));
            graph.add(json!({ "@id": id, "@type": "PropertyValue", "name": name, "value": value }));
            objects.push(id);
        }
        let mut made = Vec::new();
        for output in &record.artifact.outputs {
            let id = escaped(&path_of(result, &output.path));
            let mut file = file(&id, &output.path, self.sums(&output.digest), Some(&output.format));
            file["description"] = output.summary.as_str().into();
            file["exampleOfWork"] = reference(&parameter_id(result));
            graph.add(file);
            made.push(reference(&id));
        }
        objects.sort();
        objects.dedup();
        graph.add(json!({
            "@id": action, "@type": "CreateAction", "name": format!("{} of run {}", result.instance, record.run),
            "description": format!(
                "fingerprint {}, artifact {}; computed on {} of {}, {}",
                record.fingerprint, record.artifact.digest, record.usage.device, record.machine.platform,
                record.machine.processor
            ),
            "instrument": reference(&tool), "object": objects.iter().map(|id| reference(id)).collect::<Vec<_>>(),
            "result": made, "startTime": offset(&record.times.started), "endTime": offset(&record.times.finished),
            "actionStatus": "http://schema.org/CompletedActionStatus",
        }));
        graph.add(json!({
            "@id": control_id(result), "@type": "ControlAction", "name": format!("orchestration of {}", result.instance),
            "instrument": reference(&step), "object": reference(&action),
        }));
    }

    fn add_run(&self, graph: &mut Graph) {
        let programs: BTreeSet<String> = self.results.iter().map(program).collect();
        let version = programs.into_iter().collect::<Vec<_>>().join("; ");
        graph.add(json!({ "@id": ENGINE, "@type": "SoftwareApplication", "name": "spdflow", "version": version }));
        let first = self.results.iter().map(|result| result.record.times.started.as_str()).min().unwrap_or_default();
        let outputs = self.results.iter().flat_map(|result| {
            result.record.artifact.outputs.iter().map(|output| reference(&escaped(&path_of(result, &output.path))))
        });
        let (outputs, words) = (outputs.collect::<Vec<_>>(), self.arguments.words().join(" "));
        graph.add(json!({
            "@id": "#arguments", "@type": "PropertyValue", "name": "arguments of `spdflow run`", "value": words,
        }));
        graph.add(json!({
            "@id": WORKFLOW_RUN, "@type": "CreateAction", "name": format!("results of {}", self.pipeline.name),
            "description": "All results of the pipeline, as far as they were asked for; runs may have made them at different times",
            "instrument": reference(&self.workflow_id()), "object": [reference("#arguments")], "result": outputs,
            "startTime": offset(first), "endTime": offset(self.last()), "actionStatus": "http://schema.org/CompletedActionStatus",
        }));
        let controls: Vec<Value> = self.results.iter().map(|result| reference(&control_id(result))).collect();
        graph.add(json!({
            "@id": "#organization", "@type": "OrganizeAction", "name": format!("spdflow brings {} in place", self.pipeline.name),
            "instrument": reference(ENGINE), "object": controls, "result": reference(WORKFLOW_RUN),
            "startTime": offset(first), "endTime": offset(self.last()),
        }));
    }

    fn readme(&self) -> String {
        let mut text = format!(
            "# {}\n\n{}\n\nThis is a Workflow Run RO-Crate of a pipeline of spdflow. `{METADATA}` describes all of it: the \
             pipeline (in `{PIPELINE}/`), the stages that were run, their parameters, what they took and what they made \
             (in `{RESULTS}/`).\n\n| result | kind | fingerprint | artifact |\n|---|---|---|---|\n",
            self.pipeline.name, self.pipeline.description
        );
        for Present { instance, record, .. } in self.results {
            let (kind, fingerprint, artifact) = (&record.kind, record.fingerprint, record.artifact.digest);
            text.push_str(&format!("| {instance} | {kind} | {fingerprint} | {artifact} |\n"));
        }
        text
    }

    /// Returns when the last result was there.
    fn last(&self) -> &str {
        self.results.iter().map(|result| result.record.times.finished.as_str()).max().unwrap_or_default()
    }

    fn source_id(&self, place: &str) -> String {
        escaped(&format!("{PIPELINE}/{place}"))
    }

    fn workflow_id(&self) -> String {
        self.source_id(self.sources.first().map_or("", |source| &*source.place))
    }
}

/// The entities of a crate by their names.
#[derive(Default)]
struct Graph {
    entities: BTreeMap<String, Value>,
}

impl Graph {
    /// Adds an entity; a list of one is written as that one, and an empty one not at all, as the format recommends.
    fn add(&mut self, mut entity: Value) {
        if let Some(members) = entity.as_object_mut() {
            members.retain(|_, value| !value.as_array().is_some_and(Vec::is_empty));
            for value in members.values_mut() {
                if let Some([single]) = value.as_array().map(Vec::as_slice) {
                    *value = single.clone();
                }
            }
        }
        let id = entity["@id"].as_str().unwrap_or_default().to_owned();
        self.entities.insert(id, entity);
    }
}

/// Returns a time in UTC with the offset in numbers, as the profile wants it.
fn offset(time: &str) -> String {
    time.strip_suffix('Z').map_or_else(|| time.to_owned(), |time| format!("{time}+00:00"))
}

fn reference(id: &str) -> Value {
    json!({ "@id": id })
}

fn file(id: &str, name: &str, sums: &Sums, format: Option<&str>) -> Value {
    let encoding = encoding(format.unwrap_or_else(|| name.rsplit('.').next().unwrap_or_default()));
    json!({
        "@id": id, "@type": "File", "name": name, "contentSize": sums.size_bytes.to_string(),
        "encodingFormat": encoding, "sha256": sums.sha256,
    })
}

/// Returns the media type of a format.
fn encoding(format: &str) -> &'static str {
    match format {
        "json" => "application/json",
        "jsonl" | "ndjson" => "application/jsonl",
        "parquet" => "application/vnd.apache.parquet",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "html" | "htm" => "text/html",
        "csv" => "text/csv",
        "toml" => "application/toml",
        "py" => "text/x-python",
        "sh" => "text/x-shellscript",
        "md" => "text/markdown",
        "text" | "txt" | "log" => "text/plain",
        _ => "application/octet-stream",
    }
}

fn program(result: &Present) -> String {
    let build = &result.record.build;
    format!("{} ({}, commit {}, {})", build.version, build.profile, build.git_commit, build.rustc)
}

/// Returns where a file of a result lies in the crate.
fn path_of(result: &Present, output: &str) -> String {
    let place = result.instance.replacen('[', "/", 1).replace(',', "/").replace(']', "");
    format!("{RESULTS}/{place}/{output}")
}

fn step_id(result: &Present) -> String {
    format!("#step/{}", escaped(&result.instance))
}

fn action_id(result: &Present) -> String {
    format!("#action/{}", escaped(&result.instance))
}

fn control_id(result: &Present) -> String {
    format!("#control/{}", escaped(&result.instance))
}

fn parameter_id(result: &Present) -> String {
    format!("#result/{}", escaped(&result.instance))
}

fn tool_id(result: &Present) -> String {
    format!("urn:spdflow:kind:{}", escaped(&result.record.kind))
}

/// Returns the parameters that are no tables, by their paths, as text.
fn leaves(value: &Value) -> Vec<(String, String)> {
    fn collect(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
        match value {
            Value::Object(entries) => {
                for (key, value) in entries {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    collect(&path, value, found);
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (index, value) in items.iter().enumerate() {
                    collect(&format!("{path}[{index}]"), value, found);
                }
            }
            Value::String(text) => found.push((path.to_owned(), text.clone())),
            value => found.push((path.to_owned(), value.to_string())),
        }
    }
    let mut found = Vec::new();
    collect("", value, &mut found);
    found
}

fn create(folder: &Path, place: &str) -> Result<(File, std::path::PathBuf), BundleError> {
    let path = folder.join(place);
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).map_err(BundleError::io("create", above))?;
    }
    let file = File::create_new(&path).map_err(BundleError::io("write", &path))?;
    Ok((file, path))
}

//! In-toto statements with SLSA provenance, version 1: one for each result.

use serde_json::{Value, json};

use super::Exports;
use crate::present::Present;
use crate::sums::Sums;

/// What the statements are by: how a stage is run. `docs/exports.md` is its documentation.
const BUILD_TYPE: &str = "urn:spdflow:stage:1";
/// Who vouches: spdflow, run by the user of the machine.
const BUILDER: &str = "urn:spdflow:builder:1";

impl Exports<'_> {
    /// Returns the statements as JSON Lines, in the order of the pipeline.
    #[must_use]
    pub fn slsa(&self) -> String {
        self.results.iter().map(|result| format!("{}\n", self.statement(result))).collect()
    }

    fn statement(&self, result: &Present) -> Value {
        let record = &result.record;
        let subject = record.artifact.outputs.iter().map(|output| {
            let annotations = json!({ "format": output.format, "summary": output.summary });
            resource(&format!("{}/{}", result.instance, output.path), self.sums(&output.digest), annotations)
        });
        let preimage = &record.preimage;
        let dependencies = self.dependencies(result);
        let (build, machine) = (&record.build, &record.machine);
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subject.collect::<Vec<_>>(),
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "kind": preimage["kind"], "version": preimage["version"], "params": preimage["params"],
                        "numericTarget": preimage["numeric_target"],
                    },
                    "internalParameters": {
                        "pipeline": record.pipeline, "instance": record.instance, "fingerprint": record.fingerprint,
                        "artifact": record.artifact.digest, "threads": record.usage.threads,
                        "device": record.usage.device, "gpus": record.usage.gpus, "platform": machine.platform,
                        "processor": machine.processor, "processorFeatures": machine.cpu_features,
                    },
                    "resolvedDependencies": dependencies,
                },
                "runDetails": {
                    "builder": {
                        "id": BUILDER,
                        "version": {
                            "spdflow": build.version, "commit": build.git_commit, "profile": build.profile,
                            "rustc": build.rustc, "cargoLock": build.cargo_lock.to_string(),
                        },
                    },
                    "metadata": {
                        "invocationId": record.run,
                        "startedOn": record.times.started,
                        "finishedOn": record.times.finished,
                    },
                    "byproducts": self.byproducts(result),
                },
            },
        })
    }

    fn dependencies(&self, result: &Present) -> Vec<Value> {
        let taken = self.taken(result).into_iter().map(|taken| {
            let name = format!("{}/{}", taken.producer.instance, taken.output.path);
            let annotations = json!({
                "input": taken.slot, "artifact": taken.producer.record.artifact.digest,
                "fingerprint": taken.producer.record.fingerprint,
            });
            resource(&name, self.sums(&taken.output.digest), annotations)
        });
        let code = self.code(result).map(|(path, sums)| resource(path, &sums, json!({ "input": "code" })));
        let sources =
            self.sources.first().map(|source| resource(&source.place, &source.sums, json!({ "input": "pipeline" })));
        taken.chain(code).chain(sources).collect()
    }

    fn byproducts(&self, result: &Present) -> Vec<Value> {
        let log = result.record.log.and_then(|log| self.sums.get(&log));
        log.map(|sums| resource("log", sums, json!({}))).into_iter().collect()
    }
}

fn resource(name: &str, sums: &Sums, mut annotations: Value) -> Value {
    annotations["blake3"] = sums.blake3.to_string().into();
    json!({ "name": name, "digest": { "sha256": sums.sha256 }, "annotations": annotations })
}

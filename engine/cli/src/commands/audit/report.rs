//! An audit as reports need it: the outputs gathered by stage.

use std::collections::BTreeMap;

use spdflow_engine::audit::finding::{Finding, Grade, Reproduction};
use spdflow_engine::audit::{Audit, Verdict};

use crate::failure::Exit;

/// What is reported.
pub(super) struct Report<'a> {
    /// What was audited, in words.
    pub(super) what: String,
    pub(super) audit: &'a Audit,
    pub(super) exit: Exit,
    pub(super) stages: Vec<Stage<'a>>,
    pub(super) findings: Vec<Group<'a>>,
}

/// The same finding about one or several instances.
pub(super) struct Group<'a> {
    pub(super) finding: &'a Finding,
    pub(super) instances: Vec<&'a str>,
}

/// The verdicts on one instance.
pub(super) struct Stage<'a> {
    pub(super) instance: &'a str,
    /// The worst of its outputs; nothing if it has none.
    pub(super) grade: Option<Grade>,
    pub(super) outputs: Vec<&'a Verdict>,
}

impl<'a> Report<'a> {
    pub(super) fn new(what: String, audit: &'a Audit, exit: Exit) -> Self {
        let mut stages: Vec<Stage<'a>> = Vec::new();
        for verdict in &audit.outputs {
            match stages.last_mut() {
                Some(stage) if stage.instance == verdict.instance => stage.outputs.push(verdict),
                _ => {
                    stages.push(Stage { instance: &verdict.instance, grade: None, outputs: vec![verdict] });
                }
            }
        }
        for stage in &mut stages {
            stage.grade = stage.outputs.iter().map(|verdict| verdict.grade).max();
        }
        // Without a record there is no output to have a grade.
        for finding in &audit.findings {
            if let Some(instance) = finding.instance.as_deref()
                && !stages.iter().any(|stage| stage.instance == instance)
            {
                stages.push(Stage { instance, grade: None, outputs: Vec::new() });
            }
        }
        Self { what, audit, exit, stages, findings: grouped(&audit.findings) }
    }

    /// Returns how many outputs have each grade: "35 outputs A, 2 F".
    pub(super) fn counts(&self) -> String {
        let mut counts = BTreeMap::new();
        for verdict in &self.audit.outputs {
            *counts.entry(verdict.grade).or_insert(0_usize) += 1;
        }
        let parts: Vec<String> = counts.iter().map(|(grade, count)| format!("{count} {}", grade.letter())).collect();
        if parts.is_empty() { "no outputs".to_owned() } else { format!("grades of outputs: {}", parts.join(", ")) }
    }

    /// Returns the report as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        let mut document = serde_json::to_value(self.audit).expect("an audit is plain data");
        document["subject"] = self.what.clone().into();
        document["exit"] = self.exit.code().into();
        let findings = document["findings"].as_array_mut().into_iter().flatten();
        for (finding, known) in findings.zip(&self.audit.findings) {
            finding["class"] = serde_json::to_value(known.fault.class()).expect("a class is plain data");
        }
        document
    }
}

/// Takes findings together that say the same of several instances.
fn grouped(findings: &[Finding]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut known = BTreeMap::new();
    for finding in findings {
        let Finding { fault, file, place, message, .. } = finding;
        let position = *known.entry((fault, file, place, message)).or_insert(groups.len());
        if position == groups.len() {
            groups.push(Group { finding, instances: Vec::new() });
        }
        groups[position].instances.extend(finding.instance.as_deref());
    }
    groups
}

impl Group<'_> {
    /// Returns the instances, the first few by name: "`a`, `b`, `c` and 4 more".
    pub(super) fn named(&self) -> Option<String> {
        const NAMED: usize = 3;
        let names: Vec<String> = self.instances.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
        match self.instances.len() {
            0 => None,
            count if count > NAMED => Some(format!("{} and {} more", names.join(", "), count - NAMED)),
            _ => Some(names.join(", ")),
        }
    }
}

impl Stage<'_> {
    pub(super) fn letter(&self) -> String {
        self.grade.map_or_else(|| "-".to_owned(), |grade| grade.letter().to_string())
    }

    /// Returns what became of making its outputs again.
    pub(super) fn reproduced(&self) -> &'static str {
        let outcomes: Vec<Option<Reproduction>> = self.outputs.iter().map(|verdict| verdict.reproduced).collect();
        if outcomes.is_empty() || outcomes.iter().any(Option::is_none) {
            return "";
        }
        if outcomes.contains(&Some(Reproduction::Within)) { "within tolerance" } else { "to the bit" }
    }

    pub(super) fn signers(&self) -> String {
        self.outputs.first().map(|verdict| verdict.signers.join(", ")).unwrap_or_default()
    }

    /// Returns the instance whose fault it suffers from.
    pub(super) fn because(&self) -> Option<&str> {
        self.outputs.iter().find_map(|verdict| verdict.because.as_deref())
    }
}

/// What each grade means, for the foot of a report.
pub(super) const GRADES: [(&str, &str); 5] = [
    ("A", "made again with the same bytes, and signed"),
    ("B", "made again, within its tolerance or without a signature"),
    ("C", "intact and derived from what its record says, not made again"),
    ("D", "something that would prove it is missing"),
    ("F", "something contradicts it"),
];

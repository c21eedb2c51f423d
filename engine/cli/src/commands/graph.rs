//! `spdflow graph`: shows which instance feeds which, as text, Graphviz, Mermaid or JSON.

use std::fmt::Write;

use spdflow_engine::pipeline::Pipeline;

use crate::args::{GraphArgs, GraphFormat, OutputArgs};
use crate::failure::{Exit, Failure};
use crate::output;

/// Prints the graph.
pub(super) fn graph(args: &GraphArgs, style: &OutputArgs) -> Result<Exit, Failure> {
    let pipeline = super::load(&args.pipeline)?;
    match args.format {
        _ if style.json => super::print_json(json(&pipeline)),
        GraphFormat::Json => super::print_json(json(&pipeline)),
        GraphFormat::Text => output::data(&text(&pipeline)),
        GraphFormat::Dot => output::data(&dot(&pipeline)),
        GraphFormat::Mermaid => output::data(&mermaid(&pipeline)),
    }
    Ok(Exit::Done)
}

/// Returns producer, consumer and input name of every edge.
fn edges(pipeline: &Pipeline) -> impl Iterator<Item = (usize, usize, &str)> {
    pipeline.instances.iter().enumerate().flat_map(|(consumer, instance)| {
        instance.inputs.iter().flat_map(move |(slot, producers)| {
            producers.iter().map(move |producer| (*producer, consumer, slot.as_str()))
        })
    })
}

fn text(pipeline: &Pipeline) -> String {
    let ids: Vec<_> = pipeline.instances.iter().map(|instance| instance.id.to_string()).collect();
    let id_width = ids.iter().map(String::len).max().unwrap_or(0);
    let kind_width = pipeline.instances.iter().map(|instance| instance.kind.info().name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (instance, id) in pipeline.instances.iter().zip(&ids) {
        let inputs: Vec<_> = instance
            .inputs
            .iter()
            .map(|(slot, producers)| {
                let producers: Vec<_> = producers.iter().map(|producer| ids[*producer].as_str()).collect();
                format!("{slot}: {}", producers.join(", "))
            })
            .collect();
        let inputs = inputs.join("; ");
        let arrow = if inputs.is_empty() { "" } else { "  <-  " };
        let line = format!("{id:id_width$}  {:kind_width$}{arrow}{inputs}", instance.kind.info().name);
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn dot(pipeline: &Pipeline) -> String {
    let mut text = format!("digraph {:?} {{\n  rankdir=LR;\n  node [shape=box, style=rounded];\n", pipeline.name);
    for (index, instance) in pipeline.instances.iter().enumerate() {
        let _ = writeln!(text, "  n{index} [label=\"{}\\n{}\"];", instance.id, instance.kind.info().name);
    }
    for (producer, consumer, slot) in edges(pipeline) {
        let _ = writeln!(text, "  n{producer} -> n{consumer} [label=\"{slot}\"];");
    }
    text + "}\n"
}

fn mermaid(pipeline: &Pipeline) -> String {
    let mut text = "flowchart LR\n".to_owned();
    for (index, instance) in pipeline.instances.iter().enumerate() {
        let _ = writeln!(text, "  n{index}[\"{}<br/>{}\"]", instance.id, instance.kind.info().name);
    }
    for (producer, consumer, slot) in edges(pipeline) {
        let _ = writeln!(text, "  n{producer} -->|{slot}| n{consumer}");
    }
    text
}

fn json(pipeline: &Pipeline) -> serde_json::Value {
    let nodes: Vec<_> = pipeline
        .instances
        .iter()
        .map(|instance| {
            serde_json::json!({
                "id": instance.id.to_string(), "stage": instance.id.stage, "axes": instance.id.axes,
                "kind": instance.kind.info().name,
            })
        })
        .collect();
    let edges: Vec<_> = edges(pipeline)
        .map(|(producer, consumer, slot)| {
            serde_json::json!({
                "from": pipeline.instances[producer].id.to_string(),
                "to": pipeline.instances[consumer].id.to_string(),
                "input": slot,
            })
        })
        .collect();
    serde_json::json!({ "pipeline": pipeline.name, "nodes": nodes, "edges": edges })
}

//! spdflow with stages that break what a stage has to keep, each in its own way: what `spdflow audit` must find.

#![allow(clippy::disallowed_types, reason = "what the lint keeps out is what an audit must find")]

use std::collections::HashSet;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{InputSlot, Kind, KindInfo, Registry, StageContext, StageError, Summary};

fn main() -> ExitCode {
    let kinds = Registry::new().with::<Faulty>().with::<Sound>();
    spdflow::main(kinds, spdflow_stages::formats::formats())
}

/// What a stage does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Fault {
    /// Nothing.
    None,
    /// What it makes depends on the order of a hash set.
    HashOrder,
    /// It adds numbers up in as many parts as it has threads.
    Threads,
    /// It draws from a stream of random numbers that other stages of the process draw from as well.
    SharedStream,
    /// It does not go on from a checkpoint as if nothing had happened.
    Resume,
    /// It writes down where it works.
    Path,
    /// It writes down the time zone.
    Environment,
    /// It does not use its seed.
    IgnoresSeed,
    /// It describes its file in other words each time.
    Summary,
    /// It shows another number than it reports.
    Misquote,
    /// From some step on it adds up in another order than with one thread.
    LateThreads,
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// What it does wrong.
    fault: Fault,
    /// Numbers its results.
    #[serde(default)]
    seed: u64,
    /// How long it works at least.
    #[serde(default)]
    milliseconds: u64,
}

const OF: InputSlot =
    InputSlot { name: "of", accepts: &["faulty", "sound"], many: true, required: false, summary: "Anything." };

struct Faulty;

impl Kind for Faulty {
    type Params = Params;
    const INFO: KindInfo = KindInfo { name: "faulty", version: 1, summary: "breaks a rule", inputs: &[OF] };

    fn run(params: &Params, context: &StageContext<'_>) -> Result<Summary, StageError> {
        std::thread::sleep(std::time::Duration::from_millis(params.milliseconds));
        let seed = if params.fault == Fault::IgnoresSeed { 1 } else { params.seed };
        let numbers: Vec<f32> = (0..1000_u32).map(|number| 1.0 / (number + 1) as f32 * seed.max(1) as f32).collect();
        let mut log = String::new();
        let value = match params.fault {
            Fault::None | Fault::Misquote | Fault::IgnoresSeed | Fault::Summary => numbers.iter().sum(),
            Fault::HashOrder => {
                let bits: HashSet<u32> = numbers.iter().map(|number| number.to_bits()).collect();
                // Each number counts for as much as there is behind it, so that hardly two orders agree.
                bits.into_iter().map(f32::from_bits).fold(0.0, |sum, number| 0.99 * sum + number)
            }
            Fault::Threads => in_parts(&numbers, context.threads),
            Fault::SharedStream => {
                static DRAWN: AtomicU32 = AtomicU32::new(0);
                DRAWN.fetch_add(1, Ordering::Relaxed) as f32 + params.seed as f32
            }
            Fault::Resume => {
                let checkpoint = context.scratch_dir.join("checkpoint");
                let begun = fs::read_to_string(&checkpoint).map_or(0, |text| text.len());
                fs::write(&checkpoint, "x".repeat(begun + 1)).map_err(StageError::io("write", &checkpoint))?;
                std::thread::sleep(std::time::Duration::from_millis(200));
                begun as f32
            }
            Fault::Path => context.out_dir.as_os_str().len() as f32,
            Fault::Environment => std::env::var("TZ").unwrap_or_default().len() as f32,
            Fault::LateThreads => {
                let mut loss = 1.0;
                for step in 0..10 {
                    let late = if step < 7 { 1 } else { context.threads };
                    loss *= in_parts(&numbers, late) / 8.0;
                    log += &format!("{{\"step\":{step},\"loss\":{loss}}}\n");
                }
                loss
            }
        };
        let mut summary = Summary::default();
        let described = match params.fault {
            Fault::Summary => format!("made by process {}", std::process::id()),
            _ => "what it made".to_owned(),
        };
        let mut write = |name: &str, format: &str, text: String| {
            let path = context.out_dir.join(name);
            fs::write(&path, text).map_err(StageError::io("write", &path))?;
            summary.file(name, format, &described);
            Ok::<_, StageError>(())
        };
        let shown = if params.fault == Fault::Misquote { value + 1.0 } else { value };
        write("value.json", "json", format!("{{ \"value\": {shown:?}, \"seed\": {seed} }}\n"))?;
        if !log.is_empty() {
            write("log.jsonl", "jsonl", log)?;
        }
        summary.metric("value", f64::from(value));
        Ok(summary)
    }
}

/// Adds numbers up in so many parts, and then the parts.
fn in_parts(numbers: &[f32], parts: usize) -> f32 {
    numbers.chunks(numbers.len().div_ceil(parts)).map(|part| part.iter().sum::<f32>()).sum()
}

/// Says how many artifacts it takes, and does nothing wrong.
struct Sound;

impl Kind for Sound {
    type Params = Params;
    const INFO: KindInfo = KindInfo { name: "sound", version: 1, summary: "keeps the rules", inputs: &[OF] };

    fn run(params: &Params, context: &StageContext<'_>) -> Result<Summary, StageError> {
        let mut sum = params.seed as f64;
        for artifact in context.inputs("of") {
            let path = artifact.path("value.json")?;
            let text = fs::read_to_string(path).map_err(StageError::io("read", path))?;
            let json: serde_json::Value =
                serde_json::from_str(&text).map_err(|error| StageError::failed(error.to_string()))?;
            sum += json["value"].as_f64().unwrap_or_default();
        }
        let path = context.out_dir.join("value.json");
        fs::write(&path, format!("{{ \"value\": {sum:?} }}\n")).map_err(StageError::io("write", &path))?;
        let mut summary = Summary::default();
        summary.file("value.json", "json", "a sum");
        summary.metric("value", sum);
        Ok(summary)
    }
}

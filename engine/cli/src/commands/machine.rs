//! What the command line lets a run use of the machine; the GPUs above all, which have names of their own.

use spdflow_engine::capacity::{Capacity, Gpu};
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::suggest::listed;

use crate::args::MachineArgs;
use crate::failure::Failure;

/// The variable by which CUDA lets a process see some devices only.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Returns what a run of `pipeline` may use.
pub(super) fn capacity(args: &MachineArgs, pipeline: &Pipeline) -> Result<Capacity, Failure> {
    Ok(Capacity::new(pipeline, args.jobs, args.threads, args.memory, &gpus(args)?))
}

/// Returns the GPUs that stages are given.
pub(super) fn gpus(args: &MachineArgs) -> Result<Vec<Gpu>, Failure> {
    let visible = std::env::var(VISIBLE).ok();
    chosen(args.gpus.as_deref(), visible.as_deref()).map_err(Failure::input)
}

/// Returns the GPUs called `given`, else all that are visible.
fn chosen(given: Option<&[String]>, visible: Option<&str>) -> Result<Vec<Gpu>, Diagnostic> {
    let gpu = |(ordinal, id): (usize, &str)| Gpu { id: id.to_owned(), ordinal };
    // As CUDA reads it: the first name that is none, such as `-1`, ends the list.
    let names = visible.map(|names| names.split(',').map(str::trim).take_while(|name| is_name(name)));
    let visible: Option<Vec<Gpu>> = names.map(|names| names.enumerate().map(gpu).collect());
    let Some(given) = given else { return Ok(visible.unwrap_or_default()) };
    let mut gpus: Vec<Gpu> = Vec::new();
    for id in given.iter().map(|id| id.trim()).filter(|id| !id.is_empty()) {
        let found = match &visible {
            Some(visible) => visible.iter().find(|gpu| gpu.id == id).cloned().ok_or_else(|| {
                let names = listed(visible.iter().map(|gpu| gpu.id.as_str()));
                let these = if visible.is_empty() { "none".to_owned() } else { names };
                let message = format!("`--gpus` names `{id}`, which this process cannot see");
                Diagnostic::new(message).hint(format!("`{VISIBLE}` lets it see {these}"))
            })?,
            None => Gpu {
                id: id.to_owned(),
                ordinal: id.parse().map_err(|_| {
                    Diagnostic::new(format!("expected numbers of GPUs after `--gpus`, found `{id}`"))
                        .hint(format!("names such as `GPU-8d2f…` are understood if `{VISIBLE}` lists them"))
                })?,
            },
        };
        if gpus.iter().any(|gpu| gpu.ordinal == found.ordinal) {
            return Err(Diagnostic::new(format!("`--gpus` names `{id}` twice")));
        }
        gpus.push(found);
    }
    Ok(gpus)
}

fn is_name(name: &str) -> bool {
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    is_number || name.starts_with("GPU-") || name.starts_with("MIG-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(given: Option<&str>, visible: Option<&str>) -> Result<Vec<(String, usize)>, String> {
        let given: Option<Vec<String>> = given.map(|ids| ids.split(',').map(str::to_owned).collect());
        let gpus = chosen(given.as_deref(), visible).map_err(|diagnostic| diagnostic.message)?;
        Ok(gpus.into_iter().map(|gpu| (gpu.id, gpu.ordinal)).collect())
    }

    #[test]
    fn without_a_choice_all_visible_gpus_are_given_out() {
        let pair = |id: &str, ordinal| (id.to_owned(), ordinal);
        assert_eq!(ids(None, None), Ok(vec![]));
        assert_eq!(ids(None, Some("")), Ok(vec![]));
        assert_eq!(ids(None, Some("4, 2")), Ok(vec![pair("4", 0), pair("2", 1)]));
        assert_eq!(ids(None, Some("GPU-8d,-1,3")), Ok(vec![pair("GPU-8d", 0)]));
        assert_eq!(ids(Some("1,0"), None), Ok(vec![pair("1", 1), pair("0", 0)]));
        assert_eq!(ids(Some("2"), Some("4,2")), Ok(vec![pair("2", 1)]));
        assert_eq!(ids(Some(""), Some("4,2")), Ok(vec![]));
    }

    #[test]
    fn gpus_that_are_not_there_or_named_twice_are_refused() {
        assert_eq!(ids(Some("0"), Some("4,2")), Err("`--gpus` names `0`, which this process cannot see".to_owned()));
        assert_eq!(ids(Some("x"), None), Err("expected numbers of GPUs after `--gpus`, found `x`".to_owned()));
        assert_eq!(ids(Some("0,0"), None), Err("`--gpus` names `0` twice".to_owned()));
        assert_eq!(ids(Some("0,00"), None), Err("`--gpus` names `00` twice".to_owned()));
    }
}

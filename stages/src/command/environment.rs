//! The environment of a command: what it declares, and a few variables that every program needs.

use std::collections::BTreeMap;

use spdflow_engine::capacity::Gpu;
use spdflow_engine::kind::StageError;

use super::folder::Folder;
use super::params::CommandParams;
use super::template::Template;

/// Variables that are always the same; a change here is a change of the kind's version.
///
/// Programs that write a date or walk through a hash table make the same bytes each time with these.
const FIXED: [(&str, &str); 4] = [
    ("LANG", "C.UTF-8"),
    ("TZ", "UTC"),
    ("PYTHONHASHSEED", "0"),
    // 1980: the first year that archives can hold.
    ("SOURCE_DATE_EPOCH", "315532800"),
];

/// The variable by which CUDA lets a program see some GPUs only.
const GPUS: &str = "CUDA_VISIBLE_DEVICES";

/// Where programs are looked for when spdflow itself was started without `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Returns all variables that the program sees.
///
/// `PATH` is passed on without being part of the fingerprint: where a machine keeps its programs says nothing about
/// them. Home and temporary files lie in the folder in which the program starts. A stage that was given GPUs sees these
/// and no others, whatever it declares: which they are is not part of the fingerprint either.
pub(super) fn environment(
    params: &CommandParams,
    folder: &Folder<'_>,
    gpus: &[Gpu],
) -> Result<BTreeMap<String, String>, StageError> {
    let mut variables: BTreeMap<String, String> =
        FIXED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let path = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
    let start = folder.start().display().to_string();
    variables.extend([("PATH".to_owned(), path), ("HOME".to_owned(), start.clone()), ("TMPDIR".to_owned(), start)]);
    variables.extend(params.pass_env.known().map(|(name, value)| (name.clone(), value.clone())));
    for (name, text) in &params.env {
        let template = Template::parse(text).map_err(StageError::failed)?;
        variables.insert(name.clone(), folder.filled(&template));
    }
    if !gpus.is_empty() {
        let ids: Vec<_> = gpus.iter().map(|gpu| gpu.id.as_str()).collect();
        variables.insert(GPUS.to_owned(), ids.join(","));
    }
    Ok(variables)
}

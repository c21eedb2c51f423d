//! Keeps checked pipelines in the cache's index, since reading and checking the text is most of a run without work.
//!
//! A pipeline may be taken from the index only if reading the texts would give the same one, so everything that goes
//! into reading is compared: the program (`program.rs`) and its kinds; the path, profile, sweep and `--set` arguments;
//! the bytes of the file and of its bases; and every look outside the pipeline (`outside.rs`): names in folders, bytes
//! of files, values of variables. Bytes are compared by digest, never by time and size. Anything else, and a damaged
//! index, is a miss, and the texts are read as ever. Only pipelines without a mistake are kept.
//!
//! `format.rs` packs and unpacks the pipeline itself.

mod format;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use spdflow_cache::{Cache, Digest, Packer, Unpacker, read_index};

use super::{LoadOptions, SET_ARGUMENT, load_seen};
use crate::diagnostic::Report;
use crate::kind::Registry;
use crate::outside::{Looks, Seen};
use crate::pipeline::{Pipeline, Source};

/// Where and for whom pipelines are kept.
#[derive(Debug, Clone, Copy)]
pub struct Keeper<'a> {
    /// The folder of the cache, which need not exist.
    pub cache: &'a Path,
    /// The program; without it nothing is kept ([`crate::program::identity`]).
    pub program: Option<&'a str>,
}

/// A pipeline, and what the index should know of it.
pub struct Loaded {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// If it came from its texts.
    new: Option<New>,
}

/// A pipeline that is to be kept.
struct New {
    key: Key,
    /// How many of the sources are files; the others are `--set` arguments.
    texts: usize,
    looks: Looks,
}

/// What the reading of a pipeline begins with, except for the texts.
struct Key(Vec<u8>);

const FORMAT: &[u8] = b"spdflow-pipeline 1\n";
const ENDING: &str = "pipeline";

/// Smaller pipelines are read faster than a file is written.
const LEAST_INSTANCES: usize = 64;

/// How many pipelines are kept: one for each combination of arguments that was used of late.
const MOST_FILES: usize = 64;

/// As [`super::load`], but takes the pipeline from the index of the cache if that knows it.
///
/// # Errors
/// As [`super::load`].
pub fn load_kept(
    path: &Path,
    options: &LoadOptions<'_>,
    registry: &Registry,
    keeper: &Keeper<'_>,
) -> Result<Loaded, Report> {
    let key = keeper.program.and_then(|program| Key::new(program, path, options, registry));
    if let Some(key) = &key
        && let Some(body) = read_index(keeper.cache, &key.file_name(), FORMAT)
        && let Some(pipeline) = unpack(&Arc::new(body), key, options, registry)
    {
        return Ok(Loaded { pipeline, new: None });
    }
    let seen = Seen::default();
    let pipeline = load_seen(path, options, registry, &seen)?;
    let key = key.filter(|_| pipeline.instances.len() >= LEAST_INSTANCES);
    let texts = pipeline.sources.len() - options.set.len();
    let new = key.map(|key| New { key, texts, looks: seen.looks() });
    Ok(Loaded { pipeline, new })
}

impl Loaded {
    /// Keeps the pipeline in the index if it is not there yet. What cannot be written only costs time later.
    pub fn keep(&self, cache: &Cache) {
        if let Some(new) = &self.new {
            let _ = cache.write_index(&new.key.file_name(), FORMAT, &pack(new, &self.pipeline));
            cache.trim_index(ENDING, MOST_FILES);
        }
    }
}

/// A pipeline that is not kept.
impl From<Pipeline> for Loaded {
    fn from(pipeline: Pipeline) -> Self {
        Self { pipeline, new: None }
    }
}

impl Key {
    /// Returns the key, or nothing if the pipeline cannot be kept.
    fn new(program: &str, path: &Path, options: &LoadOptions<'_>, registry: &Registry) -> Option<Self> {
        let mut key = Packer::default();
        key.text(program);
        let kinds: Vec<_> = registry.iter().map(|kind| kind.info()).collect();
        key.list(kinds.iter(), |key, kind| {
            key.text(kind.name);
            key.number(kind.version.into());
        });
        // What a relative path means, also that of code.
        key.text(std::env::current_dir().ok()?.to_str()?);
        key.text(path.to_str()?);
        let LoadOptions { profile, set, sweep, files: _ } = options;
        key.option(profile.as_deref(), Packer::text);
        key.list(set.iter(), |key, argument| key.text(argument));
        key.option(sweep.as_deref(), Packer::text);
        Some(Self(key.into_bytes()))
    }

    fn file_name(&self) -> String {
        format!("{}.{ENDING}", Digest::of(&self.0).short())
    }
}

fn pack(new: &New, pipeline: &Pipeline) -> Vec<u8> {
    let New { key, texts, looks } = new;
    let mut body = Packer::default();
    body.bytes(&key.0);
    body.list(pipeline.sources[..*texts].iter(), |body, source| {
        body.text(&source.name);
        body.digest(&Digest::of(source.text.as_bytes()));
    });
    format::pack_looks(&mut body, looks);
    format::pack_pipeline(&mut body, looks, pipeline);
    body.into_bytes()
}

fn unpack(body: &Arc<Vec<u8>>, key: &Key, options: &LoadOptions<'_>, registry: &Registry) -> Option<Pipeline> {
    let mut packed = Unpacker::new(body);
    if packed.bytes()? != key.0 {
        return None;
    }
    let mut sources = packed.list(|packed| {
        let (name, digest) = (packed.text()?.to_owned(), packed.digest()?);
        let text = options.files.read(Path::new(&name)).ok()?;
        (Digest::of(text.as_bytes()) == digest).then_some(Source { name, text })
    })?;
    let set = options.set.iter();
    sources.extend(set.map(|argument| Source { name: SET_ARGUMENT.to_owned(), text: argument.clone() }));
    let looks = format::unpack_looks(&mut packed)?;
    let seen = Seen::again(options.files, &looks)?;
    let files = looks.files.iter().map(|(path, _)| seen.file(options.files, path).ok()).collect::<Option<Vec<_>>>()?;
    let pipeline = format::unpack_pipeline(&mut packed, body, sources, &files, seen.found(), registry)?;
    packed.is_empty().then_some(pipeline)
}

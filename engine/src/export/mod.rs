//! What a cache knows of results, in the forms in which others keep provenance: in-toto statements with SLSA provenance,
//! a Workflow Run RO-Crate, W3C PROV. `docs/exports.md` says what becomes what.
//!
//! All of it comes from records; nothing is run, and nothing in the cache is changed. The same results give the same bytes.

mod prov;
mod ro_crate;
mod slsa;

use std::collections::BTreeMap;

use spdflow_cache::{Cache, Digest, Output};

use crate::bundle::{Arguments, BundleError, blobs_of, sums_of_blobs};
use crate::pipeline::{Instance, Pipeline};
use crate::present::Present;
use crate::run::Recipe;
use crate::sums::Sums;

/// The results of a pipeline, with what others want to know of them.
pub struct Exports<'a> {
    pipeline: &'a Pipeline,
    cache: &'a Cache,
    results: &'a [Present],
    arguments: &'a Arguments,
    /// Where the results of instances are in `results`, by the index of the instance.
    places: BTreeMap<usize, usize>,
    /// By the digest of the blob.
    sums: BTreeMap<Digest, Sums>,
    /// The files that the pipeline was made of, its own text first.
    sources: Vec<SourceFile<'a>>,
}

/// A file that the pipeline was made of.
struct SourceFile<'a> {
    /// Where it lay, relative to the others.
    place: String,
    bytes: &'a [u8],
    sums: Sums,
}

/// A file of a result that a stage took.
struct Taken<'a> {
    /// What the stage calls the input.
    slot: &'a str,
    producer: &'a Present,
    output: &'a Output,
}

impl<'a> Exports<'a> {
    /// Returns those of these results, which are those of the pipeline called with these arguments. Reads every file of them.
    ///
    /// # Errors
    /// [`BundleError`] if a file cannot be read or is damaged.
    pub fn new(
        pipeline: &'a Pipeline,
        cache: &'a Cache,
        results: &'a [Present],
        arguments: &'a Arguments,
    ) -> Result<Self, BundleError> {
        let (recipe, bytes) = Recipe::of(pipeline, &[]);
        let source = |(part, bytes): (crate::run::Part, &'a [u8])| SourceFile {
            place: part.place,
            bytes,
            sums: Sums::of(bytes),
        };
        Ok(Self {
            pipeline,
            cache,
            results,
            arguments,
            places: results.iter().enumerate().map(|(place, result)| (result.index, place)).collect(),
            sums: sums_of_blobs(cache, &blobs_of(cache, results))?,
            sources: recipe.parts.into_iter().zip(bytes).map(source).collect(),
        })
    }

    fn instance(&self, result: &Present) -> &'a Instance {
        &self.pipeline.instances[result.index]
    }

    fn sums(&self, digest: &Digest) -> &Sums {
        // Those of all results were taken.
        &self.sums[digest]
    }

    /// Returns the results that a stage took, with the slots it took them in.
    fn producers(&self, result: &Present) -> Vec<(&'a str, &'a Present)> {
        let slots = self.instance(result).inputs.iter();
        let producers = slots.flat_map(|(slot, producers)| producers.iter().map(move |index| (slot.as_str(), index)));
        // What a result needs is among the results.
        producers.map(|(slot, index)| (slot, &self.results[self.places[index]])).collect()
    }

    /// Returns the files that a stage took.
    fn taken(&self, result: &Present) -> Vec<Taken<'a>> {
        let files = |(slot, producer): (&'a str, &'a Present)| {
            let outputs = producer.record.artifact.outputs.iter();
            outputs.map(move |output| Taken { slot, producer, output })
        };
        self.producers(result).into_iter().flat_map(files).collect()
    }

    /// Returns the code that a stage used, by the path under which its parameters know it.
    fn code(&self, result: &Present) -> impl Iterator<Item = (&'a str, Sums)> + use<'a> {
        self.instance(result).files.iter().map(|(path, file)| (path.as_str(), Sums::of(&file.bytes)))
    }
}

/// Returns a text that may stand in a URI as it is; everything else is escaped. `/` stays.
fn escaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/=,+".contains(&byte) {
            result.push(char::from(byte));
        } else {
            result.push_str(&format!("%{byte:02X}"));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_stand_in_a_uri_is_escaped() {
        assert_eq!(escaped("a/b-c_1.x"), "a/b-c_1.x");
        assert_eq!(escaped("decompose[seed=0] ä#?%"), "decompose%5Bseed=0%5D%20%C3%A4%23%3F%25");
    }
}

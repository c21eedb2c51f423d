//! A checked pipeline as packed bytes.
//!
//! Structs are taken apart field by field, so that a new field is either packed or does not compile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spdflow_cache::{Digest, Packer, Unpacker};

use crate::audit::format::Tolerance;
use crate::kind::{Registry, StageKind};
use crate::outside::{Found, Looks, OutsideFile};
use crate::params::Params;
use crate::pipeline::{
    Allowance, Allowed, Instance, InstanceId, Pipeline, Policy, Resources, Source, Sweep, SweepPoint,
};
use crate::value::Origin;

pub(super) fn pack_looks(body: &mut Packer, looks: &Looks) {
    let Looks { files, folders, variables } = looks;
    body.list(files.iter(), |body, (path, digest)| {
        pack_path(body, path);
        body.digest(digest);
    });
    body.list(folders.iter(), |body, (path, names)| {
        pack_path(body, path);
        body.option(names.as_ref(), |body, names| body.list(names.iter(), |body, name| body.text(name)));
    });
    body.list(variables.iter(), |body, (name, value)| {
        body.text(name);
        body.option(value.as_deref(), Packer::text);
    });
}

pub(super) fn unpack_looks(body: &mut Unpacker<'_>) -> Option<Looks> {
    let path = |body: &mut Unpacker<'_>| Some(PathBuf::from(body.text()?));
    let owned = |body: &mut Unpacker<'_>| Some(body.text()?.to_owned());
    Some(Looks {
        files: body.list(|body| Some((path(body)?, body.digest()?)))?,
        folders: body.list(|body| Some((path(body)?, body.option(|body| body.list(owned))?)))?,
        variables: body.list(|body| Some((owned(body)?, body.option(owned)?)))?,
    })
}

/// Paths come from the pipeline's own path and from texts, which are all UTF-8.
fn pack_path(body: &mut Packer, path: &std::path::Path) {
    body.text(path.to_str().expect("a path made of texts is a text"));
}

pub(super) fn pack_pipeline(body: &mut Packer, looks: &Looks, pipeline: &Pipeline) {
    // The sources were packed with their digests, and what was found outside with the looks.
    let Pipeline { name, description, expected_time, sources: _, instances, sweep, outside: _ } = pipeline;
    body.text(name);
    body.text(description);
    body.option(*expected_time, pack_time);
    body.option(sweep.as_ref(), |body, Sweep { name, keys, points }| {
        body.text(name);
        body.list(keys.iter(), |body, key| body.text(key));
        body.list(points.iter(), |body, SweepPoint { name, values }| {
            body.text(name);
            body.list(values.iter(), |body, value| {
                body.bytes(Params::of(value).expect("a value of a text is not NaN").canonical());
            });
        });
    });
    let mut kinds: Vec<&str> = instances.iter().map(|instance| instance.kind.info().name).collect();
    kinds.sort_unstable();
    kinds.dedup();
    body.list(kinds.iter(), |body, kind| body.text(kind));
    let by_digest: BTreeMap<Digest, usize> =
        looks.files.iter().enumerate().map(|(position, (_, digest))| (*digest, position)).collect();
    body.list(instances.iter(), |body, instance| {
        let Instance { id, kind, params, inputs, files, resources, policy, tolerances } = instance;
        let InstanceId { stage, axes } = id;
        body.text(stage);
        body.list(axes.iter(), |body, (axis, value)| {
            body.text(axis);
            body.text(value);
        });
        body.length(kinds.binary_search(&kind.info().name).expect("all kinds are listed"));
        body.bytes(params.canonical());
        body.list(inputs.iter(), |body, (slot, producers)| {
            body.text(slot);
            body.list(producers.iter(), |body, producer| body.length(*producer));
        });
        body.list(files.iter(), |body, (place, file)| {
            body.text(place);
            body.length(by_digest[&file.digest]);
        });
        let Resources { threads, memory_bytes, memory_origin, gpus, gpus_origin, time } = resources;
        body.option(*threads, |body, threads| body.number(threads as u64));
        body.option(*memory_bytes, Packer::number);
        body.option(memory_origin.as_ref(), pack_origin);
        body.number(*gpus as u64);
        body.option(gpus_origin.as_ref(), pack_origin);
        body.option(*time, pack_time);
        let Policy { retries, timeout } = *policy;
        body.number(retries.into());
        body.option(timeout, pack_time);
        body.list(tolerances.iter(), |body, Allowance { files, allowed }| {
            body.text(files);
            let within = match allowed {
                Allowed::Within(tolerance) => Some(*tolerance),
                Allowed::Anything => None,
            };
            body.option(within, |body, Tolerance { absolute, relative }| {
                body.number(absolute.to_bits());
                body.number(relative.to_bits());
            });
        });
    });
}

/// Takes the pipeline out of `body`, which lies in `whole`; `files` are those of the looks.
pub(super) fn unpack_pipeline(
    body: &mut Unpacker<'_>,
    whole: &Arc<Vec<u8>>,
    sources: Vec<Source>,
    files: &[Arc<OutsideFile>],
    outside: Found,
    registry: &Registry,
) -> Option<Pipeline> {
    let owned = |body: &mut Unpacker<'_>| Some(body.text()?.to_owned());
    let name = owned(body)?;
    let description = owned(body)?;
    let expected_time = body.option(unpack_time)?;
    let value = |body: &mut Unpacker<'_>| Some(Params::within(whole, body.range()?)?.value());
    let point = |body: &mut Unpacker<'_>| Some(SweepPoint { name: owned(body)?, values: body.list(value)? });
    let sweep =
        body.option(|body| Some(Sweep { name: owned(body)?, keys: body.list(owned)?, points: body.list(point)? }))?;
    let kinds = body.list(|body| registry.get(body.text()?))?;
    let mut count = 0;
    let instances = body.list(|body| {
        count += 1;
        instance(body, whole, &sources, files, &kinds, count - 1)
    })?;
    Some(Pipeline { name, description, expected_time, sources, instances, sweep, outside })
}

/// Takes out the instance number `index`, all of whose producers have smaller numbers.
fn instance(
    body: &mut Unpacker<'_>,
    whole: &Arc<Vec<u8>>,
    sources: &[Source],
    files: &[Arc<OutsideFile>],
    kinds: &[Arc<dyn StageKind>],
    index: usize,
) -> Option<Instance> {
    let owned = |body: &mut Unpacker<'_>| Some(body.text()?.to_owned());
    let producer = |body: &mut Unpacker<'_>| body.length().filter(|producer| *producer < index);
    let whole_number = |body: &mut Unpacker<'_>| usize::try_from(body.number()?).ok();
    Some(Instance {
        id: InstanceId {
            stage: owned(body)?,
            axes: body.list(|body| Some((owned(body)?, owned(body)?)))?.into_iter().collect(),
        },
        kind: kinds.get(body.length()?)?.clone(),
        params: Params::within(whole, body.range()?)?,
        inputs: body.list(|body| Some((owned(body)?, body.list(producer)?)))?.into_iter().collect(),
        files: body.list(|body| Some((owned(body)?, files.get(body.length()?)?.clone())))?.into_iter().collect(),
        resources: Resources {
            threads: body.option(whole_number)?,
            memory_bytes: body.option(Unpacker::number)?,
            memory_origin: body.option(|body| unpack_origin(body, sources))?,
            gpus: whole_number(body)?,
            gpus_origin: body.option(|body| unpack_origin(body, sources))?,
            time: body.option(unpack_time)?,
        },
        policy: Policy { retries: u32::try_from(body.number()?).ok()?, timeout: body.option(unpack_time)? },
        tolerances: body.list(|body| Some(Allowance { files: owned(body)?, allowed: allowed(body)? }))?,
    })
}

fn allowed(body: &mut Unpacker<'_>) -> Option<Allowed> {
    let float = |body: &mut Unpacker<'_>| Some(f64::from_bits(body.number()?));
    let within = body.option(|body| Some(Tolerance { absolute: float(body)?, relative: float(body)? }))?;
    Some(within.map_or(Allowed::Anything, Allowed::Within))
}

fn pack_origin(body: &mut Packer, Origin { source, span }: &Origin) {
    body.number(*source as u64);
    body.number(span.start as u64);
    body.number(span.end as u64);
}

/// Takes out a place, which lies in one of the texts.
fn unpack_origin(body: &mut Unpacker<'_>, sources: &[Source]) -> Option<Origin> {
    let number = |body: &mut Unpacker<'_>| usize::try_from(body.number()?).ok();
    let (source, span) = (number(body)?, number(body)?..number(body)?);
    sources.get(source)?.text.get(span.clone()).map(|_| Origin { source, span })
}

fn pack_time(body: &mut Packer, time: Duration) {
    body.number(time.as_secs());
    body.number(time.subsec_nanos().into());
}

fn unpack_time(body: &mut Unpacker<'_>) -> Option<Duration> {
    let (seconds, nanoseconds) = (body.number()?, u32::try_from(body.number()?).ok()?);
    (nanoseconds < 1_000_000_000).then(|| Duration::new(seconds, nanoseconds))
}

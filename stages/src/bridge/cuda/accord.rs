//! How ranks with GPUs agree on who sums: NCCL, or the host.
//!
//! Every rank tells rank 0 which GPU it has and whether NCCL works there; rank 0 decides for all. NCCL is used if each
//! rank has it, in the same version, and a GPU of its own: NCCL refuses two ranks on one. All builds for GPUs take part,
//! also those without NCCL, so that ranks of different builds understand each other.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spdflow_engine::ranks::{RankError, World};

/// What a rank has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    /// Which GPU, by a name that no other has.
    pub(super) gpu: String,
    /// The version of NCCL, or why there is none.
    pub(super) nccl: Result<String, String>,
}

/// What rank 0 decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Accord {
    /// All sum by NCCL, and meet with this id.
    Nccl(Vec<u8>),
    /// All sum through the host, for this reason.
    Host(String),
}

/// Returns what all ranks of `world` do; `new_id` makes an id at rank 0 if one is needed.
///
/// # Errors
/// [`RankError`] if a rank is missing.
pub(super) fn agree(
    world: &dyn World,
    ours: Offer,
    new_id: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<Accord, RankError> {
    if world.rank() > 0 {
        world.send(0, &text(&ours))?;
        return heard(world, 0, "a decision about NCCL");
    }
    let mut offers = vec![ours];
    for rank in 1..world.size() {
        offers.push(heard(world, rank, "what it has for NCCL")?);
    }
    let accord = match obstacle(&offers) {
        Some(reason) => Accord::Host(reason),
        None => new_id().map_or_else(Accord::Host, Accord::Nccl),
    };
    let decision = text(&accord);
    (1..world.size()).try_for_each(|rank| world.send(rank, &decision))?;
    Ok(accord)
}

fn text(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data")
}

fn heard<T: DeserializeOwned>(world: &dyn World, from: usize, expected: &str) -> Result<T, RankError> {
    let message = world.receive(from)?;
    serde_json::from_slice(&message).map_err(|_| RankError::Confused {
        rank: from,
        size: world.size(),
        expected: expected.to_owned(),
        found: format!("{} bytes", message.len()),
    })
}

/// Returns why ranks with these offers, in their order, cannot use NCCL.
fn obstacle(offers: &[Offer]) -> Option<String> {
    let of = offers.len();
    if let Some((rank, why)) =
        offers.iter().enumerate().find_map(|(rank, offer)| Some((rank, offer.nccl.as_ref().err()?)))
    {
        return Some(format!("rank {rank} of {of}: {why}"));
    }
    let pairs = || (0..of).flat_map(|second| (0..second).map(move |first| (first, second)));
    if let Some((first, second)) = pairs().find(|(first, second)| offers[*first].gpu == offers[*second].gpu) {
        return Some(format!(
            "ranks {first} and {second} of {of} have the same GPU; `LOCAL_RANK` gives each rank of a machine its own"
        ));
    }
    let (first, second) = pairs().find(|(first, second)| offers[*first].nccl != offers[*second].nccl)?;
    let version = |rank: usize| offers[rank].nccl.clone().unwrap_or_default();
    let (ours, theirs) = (version(first), version(second));
    Some(format!("rank {first} of {of} has NCCL {ours}, rank {second} has {theirs}"))
}

#[cfg(test)]
mod tests {
    use spdflow_engine::ranks::in_process;

    use super::*;

    fn offer(gpu: &str, nccl: Result<&str, &str>) -> Offer {
        Offer { gpu: gpu.to_owned(), nccl: nccl.map(str::to_owned).map_err(str::to_owned) }
    }

    /// Returns what the ranks with these offers do.
    fn agreed(offers: &[Offer]) -> Vec<Accord> {
        let worlds = in_process(offers.len());
        std::thread::scope(|scope| {
            let rank = |(world, ours): (_, &Offer)| {
                let ours = ours.clone();
                scope.spawn(move || agree(&world, ours, || Ok(vec![7; 128])).expect("all are there"))
            };
            let threads: Vec<_> = worlds.into_iter().zip(offers).map(rank).collect();
            threads.into_iter().map(|thread| thread.join().expect("a rank")).collect()
        })
    }

    #[test]
    fn ranks_with_gpus_of_their_own_and_the_same_nccl_meet_with_the_id_of_rank_0() {
        let offers = ["a", "b", "c"].map(|gpu| offer(gpu, Ok("2.18.3")));
        assert_eq!(agreed(&offers), vec![Accord::Nccl(vec![7; 128]); 3]);
    }

    #[test]
    fn what_stands_in_the_way_of_nccl_is_said_to_all() {
        let have = |gpu| offer(gpu, Ok("2.18.3"));
        let cases = [
            (vec![have("a"), have("b"), offer("c", Err("no libnccl"))], "rank 2 of 3: no libnccl"),
            (
                vec![have("a"), have("b"), have("b")],
                "ranks 1 and 2 of 3 have the same GPU; `LOCAL_RANK` gives each rank of a machine its own",
            ),
            (vec![have("a"), offer("b", Ok("2.19.1"))], "rank 0 of 2 has NCCL 2.18.3, rank 1 has 2.19.1"),
        ];
        for (offers, reason) in cases {
            assert_eq!(agreed(&offers), vec![Accord::Host(reason.to_owned()); offers.len()]);
        }
    }
}

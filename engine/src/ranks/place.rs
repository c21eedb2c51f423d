//! Which rank a process is and where the ranks meet, from its environment.
//!
//! `WORLD_SIZE` and `RANK` say it, as launchers of PyTorch set them; under `srun` SLURM's own variables do. They meet at
//! `MASTER_ADDR` and `MASTER_PORT`, or by the file `SPDFLOW_RENDEZVOUS`, into which rank 0 writes where it listens.

use std::path::PathBuf;

/// The place of a process among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which one it is, from 0.
    pub rank: usize,
    /// How many there are, at least two.
    pub size: usize,
    /// Where they meet.
    pub meeting: Meeting,
    /// What only they know; whoever says something else belongs to another run.
    pub session: String,
}

/// Where ranks meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meeting {
    /// Rank 0 listens at this host and port.
    Address(String, u16),
    /// Rank 0 writes into this file where it listens.
    File(PathBuf),
}

/// What is wrong with the variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// A variable has no such value.
    #[error("`{name}` is `{found}`, expected {expected}")]
    Value {
        /// The variable.
        name: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A variable is missing.
    #[error("`WORLD_SIZE` is {size} but `RANK` is not set")]
    NoRank {
        /// The number of ranks.
        size: usize,
    },
    /// Nothing says where rank 0 is.
    #[error("nothing says on which machine rank 0 of {size} runs")]
    NoAddress {
        /// The number of ranks.
        size: usize,
    },
}

/// Where ranks on one machine meet if nothing else is said, as with PyTorch.
const DEFAULT_PORT: u16 = 29_500;

impl Place {
    /// Returns the place that the variables say, or nothing for a process that is alone.
    ///
    /// # Errors
    /// [`PlaceError`] if they contradict each other.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, PlaceError> {
        let variable = |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let slurm = variable("WORLD_SIZE").is_none() && is_step(&variable);
        let [rank_name, size_name] = if slurm { ["SLURM_PROCID", "SLURM_NTASKS"] } else { ["RANK", "WORLD_SIZE"] };
        let size_name =
            if slurm && variable("SLURM_STEP_NUM_TASKS").is_some() { "SLURM_STEP_NUM_TASKS" } else { size_name };
        let Some(size) = number::<usize>(&variable, size_name, "a number of ranks", |size| *size > 0)? else {
            return Ok(None);
        };
        if size == 1 {
            return Ok(None);
        }
        let in_world = format!("a rank of {size}, from 0 to {}", size - 1);
        let rank = number::<usize>(&variable, rank_name, &in_world, |rank| *rank < size)?;
        let rank = rank.ok_or(PlaceError::NoRank { size })?;
        let job = [variable("SLURM_JOB_ID"), variable("SLURM_STEP_ID")].map(Option::unwrap_or_default);
        let meeting = match variable("SPDFLOW_RENDEZVOUS") {
            Some(path) => Meeting::File(path.into()),
            None => {
                let host = match variable("MASTER_ADDR") {
                    Some(host) => host,
                    None if slurm => {
                        let nodes = variable("SLURM_STEP_NODELIST").or_else(|| variable("SLURM_JOB_NODELIST"));
                        let first = nodes.and_then(|nodes| first_host(&nodes));
                        let host = first.or_else(|| variable("SLURM_LAUNCH_NODE_IPADDR"));
                        host.ok_or(PlaceError::NoAddress { size })?
                    }
                    None => "127.0.0.1".to_owned(),
                };
                let given = number(&variable, "MASTER_PORT", "a port", |port: &u16| *port > 0)?;
                let port = given.unwrap_or_else(|| if slurm { port_of(&job) } else { DEFAULT_PORT });
                Meeting::Address(host, port)
            }
        };
        let session = if slurm { job.join(".") } else { String::new() };
        Ok(Some(Self { rank, size, meeting, session }))
    }

    /// Returns which of the processes on its machine this is, for the choice of a GPU.
    #[must_use]
    pub fn local_rank(variable: impl Fn(&str) -> Option<String>) -> Option<usize> {
        ["LOCAL_RANK", "SLURM_LOCALID"].into_iter().find_map(|name| variable(name)?.trim().parse().ok())
    }
}

/// Returns whether SLURM's variables are those of a process that `srun` started. The script of a batch job has a rank
/// and a number of tasks too, but it is alone: rank 0 needs a sign that only `srun` leaves.
fn is_step(variable: &impl Fn(&str) -> Option<String>) -> bool {
    let Some(rank) = variable("SLURM_PROCID") else { return false };
    let signs = ["SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_LAUNCH_NODE_IPADDR"];
    rank != "0" || signs.iter().any(|name| variable(name).is_some())
}

fn number<T: std::str::FromStr>(
    variable: &impl Fn(&str) -> Option<String>,
    name: &'static str,
    expected: &str,
    fits: impl Fn(&T) -> bool,
) -> Result<Option<T>, PlaceError> {
    let Some(found) = variable(name) else { return Ok(None) };
    match found.parse().ok().filter(fits) {
        Some(number) => Ok(Some(number)),
        None => Err(PlaceError::Value { name, expected: expected.to_owned(), found }),
    }
}

/// Returns a port that the steps of one job do not share, below those that systems give out themselves.
fn port_of(job: &[String; 2]) -> u16 {
    let [job, step] = job.each_ref().map(|text| text.parse::<u64>().unwrap_or(0));
    20_000 + (job.wrapping_mul(31).wrapping_add(step) % 12_000) as u16
}

/// Returns the first host of a list as SLURM writes it: `gpu[03-07,9],login` begins with `gpu03`.
fn first_host(nodes: &str) -> Option<String> {
    let (mut host, mut rest) = (String::new(), nodes);
    loop {
        let end = rest.find(['[', ',']).unwrap_or(rest.len());
        host.push_str(&rest[..end]);
        match rest[end..].strip_prefix('[') {
            Some(range) => {
                let (range, after) = range.split_once(']')?;
                host.push_str(range.split(['-', ',']).next()?);
                rest = after;
            }
            None => return (!host.is_empty()).then_some(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Option<Place>, String> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Place::from_variables(find).map_err(|error| error.to_string())
    }

    fn at(host: &str, port: u16) -> Meeting {
        Meeting::Address(host.to_owned(), port)
    }

    #[test]
    fn without_a_world_a_process_is_alone() {
        assert_eq!(place(&[]), Ok(None));
        assert_eq!(place(&[("RANK", "3")]), Ok(None));
        assert_eq!(place(&[("WORLD_SIZE", "1"), ("RANK", "0")]), Ok(None));
        // The script of a batch job, and a shell of `salloc`.
        assert_eq!(place(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_JOB_NODELIST", "a")]), Ok(None));
        assert_eq!(place(&[("SLURM_NTASKS", "4"), ("SLURM_JOB_NODELIST", "a")]), Ok(None));
    }

    #[test]
    fn the_variables_of_launchers_say_the_place() {
        let world = [("RANK", "1"), ("WORLD_SIZE", "2")];
        let found = place(&world).unwrap().unwrap();
        assert_eq!((found.rank, found.size, found.meeting), (1, 2, at("127.0.0.1", 29_500)));
        let more = [&world[..], &[("MASTER_ADDR", "node7"), ("MASTER_PORT", "1234")]].concat();
        assert_eq!(place(&more).unwrap().unwrap().meeting, at("node7", 1234));
        let file = [&more[..], &[("SPDFLOW_RENDEZVOUS", "/shared/here")]].concat();
        assert_eq!(place(&file).unwrap().unwrap().meeting, Meeting::File("/shared/here".into()));
    }

    #[test]
    fn a_step_of_slurm_meets_on_its_first_node() {
        let step = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "7"), ("SLURM_STEP_ID", "2")];
        let nodes = [&step[..], &[("SLURM_JOB_NODELIST", "gpu[03-07,9],login")]].concat();
        let found = place(&nodes).unwrap().unwrap();
        // 20000 + 7 · 31 + 2.
        assert_eq!((found.rank, found.size, found.meeting), (0, 4, at("gpu03", 20_219)));
        assert_eq!(found.session, "7.2");
        let launcher = [&step[..], &[("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.1")]].concat();
        assert_eq!(place(&launcher).unwrap().unwrap().meeting, at("10.0.0.1", 20_219));
        assert_eq!(place(&step), Err("nothing says on which machine rank 0 of 4 runs".to_owned()));
        let part = [&nodes[..], &[("SLURM_STEP_NUM_TASKS", "2")]].concat();
        assert_eq!(place(&part).unwrap().unwrap().size, 2);
        let chosen = [&nodes[..], &[("WORLD_SIZE", "3"), ("RANK", "2")]].concat();
        assert_eq!(place(&chosen).unwrap().unwrap().rank, 2);
    }

    #[test]
    fn hosts_are_read_as_slurm_writes_them() {
        for (list, first) in
            [("a", "a"), ("a,b", "a"), ("r[1-2]n[08,11-13]", "r1n08"), ("n[7]", "n7"), ("n[7-9].org", "n7.org")]
        {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        assert_eq!((first_host(""), first_host("n[3")), (None, None));
    }

    #[test]
    fn contradictions_are_named() {
        let error = |variables: &[(&str, &str)]| place(variables).unwrap_err();
        assert_eq!(error(&[("WORLD_SIZE", "2")]), "`WORLD_SIZE` is 2 but `RANK` is not set");
        assert_eq!(error(&[("WORLD_SIZE", "2"), ("RANK", "2")]), "`RANK` is `2`, expected a rank of 2, from 0 to 1");
        assert_eq!(error(&[("WORLD_SIZE", "two"), ("RANK", "0")]), "`WORLD_SIZE` is `two`, expected a number of ranks");
        assert_eq!(
            error(&[("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_PORT", "70000")]),
            "`MASTER_PORT` is `70000`, expected a port"
        );
    }
}

//! Which results are made again, if not all of them are.
//!
//! One of every kind of stage in any case; then those that cost most and have most behind them, which is where an error
//! would do the most harm, until the share or the time asked for is used up.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::audit::exhibit::Exhibit;
use crate::pipeline::Pipeline;

/// How much is made again.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Extent {
    /// At most this share of the results, if it is not all of them.
    pub share: Option<f64>,
    /// At most what takes about this long, by the times of the records.
    pub budget: Option<Duration>,
}

/// Returns the indices of the instances to make again, in the order of the pipeline. `times` is how often each is made.
pub(super) fn choose(pipeline: &Pipeline, exhibits: &[&Exhibit], extent: Extent, times: usize) -> Vec<usize> {
    let seconds = |exhibit: &Exhibit| exhibit.recorded.as_ref().map_or(0.0, |recorded| recorded.record.times.seconds);
    let behind = descendants(pipeline);
    let weight = |exhibit: &Exhibit| seconds(exhibit).max(1e-3) * (1 + behind[exhibit.index]) as f64;
    let mut ranked: Vec<&Exhibit> = exhibits.to_vec();
    // The pipeline's order among equals.
    ranked.sort_by(|left, right| weight(right).total_cmp(&weight(left)));
    let kind = |exhibit: &Exhibit| pipeline.instances[exhibit.index].kind.info().name;
    let mut kinds = BTreeSet::new();
    let (firsts, rest): (Vec<&Exhibit>, Vec<&Exhibit>) =
        ranked.into_iter().partition(|exhibit| kinds.insert(kind(exhibit)));

    let most = extent.share.map_or(usize::MAX, |share| (share * exhibits.len() as f64).ceil() as usize);
    let budget = extent.budget.map_or(f64::INFINITY, |budget| budget.as_secs_f64()) / times.max(1) as f64;
    let mut spent: f64 = firsts.iter().map(|exhibit| seconds(exhibit)).sum();
    let mut chosen: Vec<usize> = firsts.iter().map(|exhibit| exhibit.index).collect();
    for exhibit in rest {
        if chosen.len() >= most {
            break;
        }
        // A dear one that no longer fits does not keep cheaper ones out.
        if spent + seconds(exhibit) <= budget {
            spent += seconds(exhibit);
            chosen.push(exhibit.index);
        }
    }
    chosen.sort_unstable();
    chosen
}

/// Returns, for each instance, how many others depend on it, at most as many as there are.
fn descendants(pipeline: &Pipeline) -> Vec<usize> {
    let count = pipeline.instances.len();
    let mut behind = vec![0_usize; count];
    // Producers come before consumers. Where paths meet again an instance counts more than once, which only makes what lies
    // before it weigh more.
    for index in (0..count).rev() {
        for parent in pipeline.instances[index].parents() {
            behind[parent] = behind[parent].saturating_add(behind[index] + 1).min(count);
        }
    }
    behind
}

//! Which positions go through which sites' components (spec section 4).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How positions are routed in the subset losses.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(tag = "kind")]
pub enum Routing {
    /// For each position a number of sites, uniform from one to all, and then that many sites.
    #[default]
    UniformKSubset,
    /// For each position every site independently.
    StaticProbability(StaticProbability),
}

/// The parameter of [`Routing::StaticProbability`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticProbability {
    /// The probability that a position goes through a site's components.
    pub p: f64,
}

/// Returns for each site which positions go through its components, 1 or 0.
///
/// * `count` `[R]`: one uniform draw for each position, for the number of sites;
/// * `noise` `[sites, R]`: one uniform draw for each site and position.
#[must_use]
pub fn route(routing: Routing, count: &[f32], noise: &[f32], sites: usize) -> Vec<Vec<f32>> {
    let rows = count.len();
    let mut routed = vec![vec![0.0; rows]; sites];
    for row in 0..rows {
        let at = |site: usize| noise[site * rows + row];
        match routing {
            Routing::StaticProbability(StaticProbability { p }) => {
                for (site, routed) in routed.iter_mut().enumerate() {
                    routed[row] = f32::from(at(site) < p as f32);
                }
            }
            Routing::UniformKSubset => {
                let k = ((count[row] * sites as f32) as usize).min(sites - 1) + 1;
                for (site, routed) in routed.iter_mut().enumerate() {
                    // Sites are ranked by their draws; equal draws keep the order of the sites.
                    let rank = (0..sites)
                        .filter(|other| at(*other) < at(site) || (at(*other) == at(site) && *other < site))
                        .count();
                    routed[row] = f32::from(rank < k);
                }
            }
        }
    }
    routed
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdflow_kernels::philox::{Stream, uniform};

    fn draw(routing: Routing, sites: usize, rows: usize) -> Vec<Vec<f32>> {
        let stream = Stream { seed: 3, purpose: 1, step: 0, index: 0 };
        let mut draws = vec![0.0; (sites + 1) * rows];
        uniform(stream, sites + 1, &(0..rows as u32).collect::<Vec<_>>(), &mut draws);
        let (count, noise) = draws.split_at(rows);
        route(routing, count, noise, sites)
    }

    #[test]
    fn subsets_have_uniform_sizes_and_every_site_the_same_share() {
        let (sites, rows) = (4, 40_000);
        let routed = draw(Routing::UniformKSubset, sites, rows);
        let mut sizes = [0_usize; 5];
        for row in 0..rows {
            sizes[routed.iter().filter(|site| site[row] == 1.0).count()] += 1;
        }
        // 10 000 each, standard deviation 87; four of them.
        assert!(sizes[0] == 0 && sizes[1..].iter().all(|n| n.abs_diff(10_000) < 350), "{sizes:?}");
        for site in &routed {
            // (n + 1) / 2n = 5/8 of 40 000, standard deviation 97.
            let share = site.iter().filter(|x| **x == 1.0).count();
            assert!(share.abs_diff(25_000) < 390, "{share}");
        }
    }

    #[test]
    fn a_static_probability_routes_each_site_on_its_own() {
        let routed = draw(Routing::StaticProbability(StaticProbability { p: 0.3 }), 3, 40_000);
        for site in &routed {
            // 12 000, standard deviation 92.
            let share = site.iter().filter(|x| **x == 1.0).count();
            assert!(share.abs_diff(12_000) < 370, "{share}");
        }
    }
}

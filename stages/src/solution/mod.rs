//! How far a decomposition is from the solution we know for a toy model (SPD paper, toy models; reference
//! `target_ci_solutions`).
//!
//! A probe of one-hot inputs gives, for each site, a matrix of causal importances [features, components]. A site of
//! separate features should show the identity up to the order of components; a site that always acts as a whole should
//! show `k` full columns. `permutation` finds the order, `distance` counts wrong entries, `target` sums over sites;
//! `tms_geometry` and `neuron_contributions` compare what was recovered with the target's weights, `ownership` counts
//! features that have a component of their own.

mod distance;
mod neuron_contributions;
mod ownership;
mod permutation;
mod target;
mod tms_geometry;

pub use distance::{SolutionError, dense_distance, identity_distance};
pub use neuron_contributions::{
    NeuronContributions, ResidLayer, correlation, model_contributions, neuron_contributions, target_contributions,
};
pub use ownership::{OTHERS_BELOW, OWNED_ABOVE, active_components, features_with_own_component};
pub use permutation::{Assignment, dense_permutation, identity_permutation, shown_order};
pub use target::{DensePattern, Expected, IdentityPattern, TargetSolution, TargetSolutionError};
pub use tms_geometry::{TmsGeometry, frobenius_norms, significant_subnets, subnet_sizes, tms_geometry};

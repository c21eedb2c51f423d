//! The operations of the method as methods of [`Graph`](super::Graph): compute now, record how to differentiate.

mod elementwise;
mod loss;
mod network;
mod product;
mod sequence;
mod site;

pub use site::{MaskInput, MaskSource, SiteInputs};

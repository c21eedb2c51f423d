//! Stage kinds that compare two artifacts of one kind.

mod geometry;
pub mod similarity;

pub use geometry::{Geometry, GeometryParams};

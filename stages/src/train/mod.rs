//! Stage kinds that train target models.

mod tms;

pub use tms::TrainTms;

//! How results and events are shown: to people, to programs, in tables.

pub(crate) mod human;
pub(crate) mod json;
mod line;
mod live;
pub(crate) mod table;
pub(crate) mod text;

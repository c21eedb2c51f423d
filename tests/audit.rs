//! `spdflow audit`: every planted fault is found and located, and a sound pipeline is proved.

mod authenticity;
mod damage;
mod derivation;
mod place;
mod reproduction;
mod subjects;

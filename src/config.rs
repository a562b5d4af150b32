//! Configuration: one file per concern, every failure naming where, which key and what rule.

pub mod auth;
pub mod duration;
pub mod problem;

pub use problem::Problem;

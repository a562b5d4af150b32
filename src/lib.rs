//! presignd decides who may move which file, from where, until when, and lets S3 move the bytes.
//!
//! The rooms, from the ground up. A room imports only from rooms below its own level; but `config` is made of values of
//! `model`, and the rooms of level 5 use each other.
//!
//! | level | rooms |
//! |---|---|
//! | 5 | `cli`, `app` |
//! | 4 | `http`, `webhook`, `dev` |
//! | 3 | `domain` |
//! | 2 | `db`, `s3`, `auth`, `scanner` |
//! | 1 | `signing`, `policy` |
//! | 0 | `model`, `config`, `clock`, `outgoing`, `single_flight` |

pub mod app;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
#[cfg(feature = "embedded")]
pub mod dev;
pub mod domain;
pub mod http;
pub mod model;
pub mod outgoing;
pub mod policy;
pub mod s3;
pub mod scanner;
pub mod signing;
pub mod single_flight;
pub mod webhook;

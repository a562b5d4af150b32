//! What the tests stand on: backends, a service for each test, and callers that talk to it as clients do.

pub(crate) mod app;
pub(crate) mod backend;
pub(crate) mod caller;
pub(crate) mod certificates;
pub(crate) mod chaos;
pub(crate) mod load;
pub(crate) mod program;
pub(crate) mod receiver;
pub(crate) mod scanner;
pub(crate) mod services;
pub(crate) mod suite;
pub(crate) mod tampered;

pub(crate) use app::{AppOptions, TestApp};
pub(crate) use backend::Backend;
pub(crate) use caller::{Caller, Reply};
pub(crate) use chaos::ChaosProxy;
pub(crate) use program::Program;
pub(crate) use receiver::{Mood, WebhookReceiver};
pub(crate) use scanner::TestScanner;
pub(crate) use suite::{Suite, World};

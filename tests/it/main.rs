//! Behaviour through the public API, with real parts.
//!
//! Every behaviour is tried on the embedded PostgreSQL and store. With `PRESIGND_TEST_REAL=1` it is tried on an
//! installed PostgreSQL with Ceph RGW and with SeaweedFS as well, and a server that is missing fails the run.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod attacks;
mod audit;
mod authorization;
mod batch;
mod boto3;
mod browser;
mod client_address;
mod clients;
mod cloudfront;
mod command_line;
mod content;
mod contract;
mod cors;
mod credentials;
mod deliveries;
mod downloads;
mod drift;
mod events;
mod faults;
mod file_names;
mod form_return;
mod health;
mod immutability;
mod layering;
mod live_check;
mod migrate;
mod mobile;
mod multipart;
mod policies;
mod revocations;
mod schedules;
mod schema;
mod smoke;
mod support;
mod sweeper;
mod tickets;
mod tls;
mod typescript_client;
mod uploads;
mod virtual_hosts;
mod webhooks;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use support::{Suite, World};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let world = match World::start(&arguments) {
        Ok(world) => world,
        Err(missing) => {
            eprintln!("PRESIGND_TEST_REAL is set, and real servers are required:\n{missing}");
            return ExitCode::FAILURE;
        }
    };
    let mut suite = Suite::new(&world);
    attacks::register(&mut suite);
    audit::register(&mut suite);
    authorization::register(&mut suite);
    batch::register(&mut suite);
    browser::register(&mut suite);
    client_address::register(&mut suite);
    clients::register(&mut suite);
    cloudfront::register(&mut suite);
    command_line::register(&mut suite);
    content::register(&mut suite);
    contract::register(&mut suite);
    cors::register(&mut suite);
    credentials::register(&mut suite);
    deliveries::register(&mut suite);
    downloads::register(&mut suite);
    drift::register(&mut suite);
    events::register(&mut suite);
    faults::register(&mut suite);
    file_names::register(&mut suite);
    form_return::register(&mut suite);
    health::register(&mut suite);
    immutability::register(&mut suite);
    layering::register(&mut suite);
    live_check::register(&mut suite);
    migrate::register(&mut suite);
    multipart::register(&mut suite);
    mobile::register(&mut suite);
    policies::register(&mut suite);
    revocations::register(&mut suite);
    schedules::register(&mut suite);
    schema::register(&mut suite);
    smoke::register(&mut suite);
    sweeper::register(&mut suite);
    tickets::register(&mut suite);
    tls::register(&mut suite);
    typescript_client::register(&mut suite);
    uploads::register(&mut suite);
    virtual_hosts::register(&mut suite);
    webhooks::register(&mut suite);
    let conclusion = libtest_mimic::run(&arguments, suite.into_trials());
    // Before the process ends, so that the servers' files go as well.
    drop(world);
    conclusion.exit_code()
}

//! Trials: one for each behaviour and backend.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::{Builder, Runtime};

use super::{
    backend::{Backend, BackendKind},
    services::{Services, postgres::Postgres, process::find_program},
};

/// No trial takes longer. One that hangs is named, instead of the whole run being ended from outside.
const LONGEST: Duration = Duration::from_mins(10);

/// What all tests of a run share.
pub(crate) struct World {
    services: Arc<Mutex<Services>>,
    runtime: Arc<Runtime>,
    real: bool,
    stores: Vec<super::services::StoreService>,
    postgres_url: Option<String>,
}

impl World {
    /// Starts the real servers if `PRESIGND_TEST_REAL` asks for them.
    pub(crate) fn start(arguments: &Arguments) -> Result<Self, String> {
        let real = match std::env::var_os("PRESIGND_TEST_REAL") {
            Some(value) if value == "1" => true,
            Some(value) if !value.is_empty() => {
                return Err(format!("PRESIGND_TEST_REAL is {}, and must be 1", value.display()));
            }
            _ => false,
        };
        if !real {
            eprintln!(
                "SKIPPED: everything on an installed PostgreSQL, Ceph RGW and SeaweedFS, and what boto3 and cryptography \
                 say of signatures. Set PRESIGND_TEST_REAL=1 to run it; those tests show as ignored."
            );
        }
        let services = Services::start(real && !arguments.list)?;
        let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().map_err(|e| e.to_string())?;
        let stores = services.stores().cloned().collect();
        let postgres_url = services.postgres.as_ref().map(|postgres| postgres.url("{}"));
        Ok(Self { services: Arc::new(Mutex::new(services)), runtime: Arc::new(runtime), real, stores, postgres_url })
    }

    fn backend(&self, kind: BackendKind) -> Option<Backend> {
        let real = |name: &str| {
            let store = self.stores.iter().find(|store| store.name == name)?.clone();
            Some(Backend::real(
                kind,
                store,
                Arc::clone(&self.services),
                self.postgres_url.clone()?,
                self.runtime.handle(),
            ))
        };
        match kind {
            BackendKind::Embedded => Some(Backend::embedded(self.runtime.handle())),
            BackendKind::Rgw => real("rgw"),
            BackendKind::SeaweedFs => real("seaweedfs"),
        }
    }
}

fn run(runtime: &Runtime, test: impl Future<Output = ()>) {
    // On the heap: some tests are too large for a thread's stack in a build without optimization.
    let test = Box::pin(test);
    let ended = runtime.block_on(async { tokio::time::timeout(LONGEST, test).await });
    assert!(ended.is_ok(), "not done within {LONGEST:?}");
}

/// Collects the trials of a run.
pub(crate) struct Suite<'a> {
    world: &'a World,
    trials: Vec<Trial>,
}

impl<'a> Suite<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        Self { world, trials: Vec::new() }
    }

    /// A behaviour that every backend must show.
    pub(crate) fn everywhere<F, W>(&mut self, name: &str, test: F)
    where
        F: Fn(Backend) -> W + Clone + Send + 'static,
        W: Future<Output = ()>,
    {
        self.on(&BackendKind::ALL, name, test);
    }

    /// A behaviour that these backends must show. Say at the call why the others cannot.
    pub(crate) fn on<F, W>(&mut self, kinds: &[BackendKind], name: &str, test: F)
    where
        F: Fn(Backend) -> W + Clone + Send + 'static,
        W: Future<Output = ()>,
    {
        for kind in kinds {
            let name = format!("{}::{name}", kind.as_str());
            let trial = match self.world.backend(*kind) {
                Some(backend) => {
                    let runtime = Arc::clone(&self.world.runtime);
                    let test = test.clone();
                    Trial::test(name, move || {
                        run(&runtime, test(backend));
                        Ok(())
                    })
                }
                // Never run: an ignored trial that is asked for all the same says what it needs.
                None => Trial::test(name, || Err(Failed::from("needs PRESIGND_TEST_REAL=1"))).with_ignored_flag(true),
            };
            self.trials.push(trial);
        }
    }

    /// What `register` adds, if `program` is installed. The full run requires it; any other says what it leaves out.
    pub(crate) fn needing(&mut self, program: &str, register: impl FnOnce(&mut Self)) {
        self.needing_that(program, || find_program(program, &[]).is_some(), register);
    }

    /// The same for `what` it takes more than a program of some name to tell.
    pub(crate) fn needing_that(
        &mut self,
        what: &str,
        is_installed: impl FnOnce() -> bool,
        register: impl FnOnce(&mut Self),
    ) {
        if self.world.real || is_installed() {
            register(self);
        } else {
            eprintln!("SKIPPED: the behaviours that are tried with {what}, which is not installed.");
        }
    }

    /// A behaviour that needs an installed PostgreSQL under the test's control, because the test stops it.
    pub(crate) fn with_own_postgres<F, W>(&mut self, name: &str, test: F)
    where
        F: FnOnce(Backend) -> W + Send + 'static,
        W: Future<Output = ()>,
    {
        let runtime = Arc::clone(&self.world.runtime);
        let backend = self.world.backend(BackendKind::SeaweedFs);
        let real = self.world.real;
        let trial = Trial::test(format!("postgres::{name}"), move || {
            let backend = backend.ok_or_else(|| Failed::from("needs PRESIGND_TEST_REAL=1"))?;
            run(&runtime, test(backend));
            Ok(())
        });
        self.trials.push(trial.with_ignored_flag(!real));
    }

    /// A behaviour that needs no backend.
    pub(crate) fn alone(&mut self, name: &str, test: impl FnOnce() + Send + 'static) {
        self.trials.push(Trial::test(name, move || {
            test();
            Ok(())
        }));
    }

    /// A behaviour that needs no backend but programs that only the full run has.
    pub(crate) fn alone_in_full_run(&mut self, name: &str, test: impl FnOnce() + Send + 'static) {
        let trial = Trial::test(name, move || {
            test();
            Ok(())
        });
        self.trials.push(trial.with_ignored_flag(!self.world.real));
    }

    pub(crate) fn into_trials(self) -> Vec<Trial> {
        self.trials
    }
}

/// Starts a PostgreSQL of the test's own, for tests that stop it.
pub(crate) fn own_postgres(dir: &std::path::Path) -> Postgres {
    use super::services::postgres::PostgresPrograms;

    let programs = PostgresPrograms::find().expect("PostgreSQL is installed");
    Postgres::start(&programs, dir, true).expect("PostgreSQL starts")
}

//! Real servers for the tests: PostgreSQL, and two S3-compatible stores that fail in different places.

pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod rgw;
pub(crate) mod seaweedfs;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::thread::{self, ScopedJoinHandle};

use secrecy::SecretString;
use tempfile::TempDir;

use postgres::{Postgres, PostgresPrograms};
use rgw::Rgw;
use seaweedfs::SeaweedFs;

/// Below this name the real stores look for buckets in the host as well. No resolver knows it, so whoever uses it brings
/// its address along.
pub(crate) const STORE_DOMAIN: &str = "s3.presignd.test";

/// An S3-compatible store as its user sees it: path-style addressing, plain HTTP, S3 and STS on one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct StoreService {
    pub(crate) name: &'static str,
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: SecretString,
    /// A role that these keys may assume, with `s3:*` on everything.
    pub(crate) role_arn: String,
}

/// The servers that run beside this test process, or none.
///
/// `main` starts them before the first test and must drop them after the last one, before it exits: a process that
/// exits without dropping them ends them too, but leaves their files.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) postgres: Option<Postgres>,
    pub(crate) rgw: Option<Rgw>,
    pub(crate) seaweedfs: Option<SeaweedFs>,
    /// Last, because fields are dropped in order and the servers write here until they end.
    _dir: Option<TempDir>,
}

impl Services {
    /// Starts all servers if they are `required`, none otherwise.
    ///
    /// The error names everything that is not installed, with the command that installs it.
    pub(crate) fn start(required: bool) -> Result<Self, String> {
        if !required {
            return Ok(Self::default());
        }
        let programs = (PostgresPrograms::find(), rgw::find_programs(), seaweedfs::find_program_weed());
        let (postgres, weed) = match programs {
            (Ok(postgres), Ok(()), Ok(weed)) => (postgres, weed),
            (postgres, rgw, weed) => {
                let missing = [postgres.err(), rgw.err(), weed.err()];
                return Err(missing.into_iter().flatten().collect::<Vec<_>>().join("\n"));
            }
        };

        let dir = tempfile::Builder::new().prefix("presignd-services-").tempdir();
        let dir = dir.map_err(|e| format!("temporary directory: {e}"))?;
        // PostgreSQL runs under another account when this is root, and has to get through to its own directory.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711))
            .map_err(|e| format!("{}: {e}", dir.path().display()))?;
        let [postgres_dir, rgw_dir, seaweedfs_dir] = ["postgres", "rgw", "seaweedfs"].map(|name| dir.path().join(name));
        let (postgres, rgw, seaweedfs) = thread::scope(|scope| {
            let postgres = scope.spawn(|| Postgres::start(&postgres, &postgres_dir, false));
            let rgw = scope.spawn(|| Rgw::start(&rgw_dir));
            let seaweedfs = scope.spawn(|| SeaweedFs::start(&weed, &seaweedfs_dir));
            (joined(postgres), joined(rgw), joined(seaweedfs))
        });
        Ok(Self { postgres: Some(postgres?), rgw: Some(rgw?), seaweedfs: Some(seaweedfs?), _dir: Some(dir) })
    }

    /// The stores that run.
    pub(crate) fn stores(&self) -> impl Iterator<Item = &StoreService> {
        self.rgw.iter().map(Rgw::store).chain(self.seaweedfs.iter().map(SeaweedFs::store))
    }
}

/// The outcome of a start in a thread of its own; a panic there is this thread's panic.
fn joined<T>(start: ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    start.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

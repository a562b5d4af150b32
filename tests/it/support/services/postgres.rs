//! A PostgreSQL server of our own, with nothing of the machine's configuration.

use std::fmt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Account, Process, find_program, free_port, random_secret, run};

const SUPERUSER: &str = "presignd";

/// Where the programs are, or what is missing.
#[derive(Debug, Clone)]
pub(crate) struct PostgresPrograms {
    /// Holds `initdb`, `postgres` and `psql`, which belong to one version.
    bin: PathBuf,
}

impl PostgresPrograms {
    pub(crate) fn find() -> Result<Self, String> {
        let initdb = find_program("initdb", &debian_bin_dirs())
            .ok_or("PostgreSQL: no `initdb`; apt-get install --no-install-recommends postgresql")?;
        // A link in PATH leads to the directory of the version's other programs.
        let initdb = initdb.canonicalize().map_err(|e| format!("{}: {e}", initdb.display()))?;
        let bin = initdb.parent().unwrap_or(Path::new("/")).to_owned();
        match ["postgres", "psql"].iter().find(|program| !bin.join(program).is_file()) {
            None => Ok(Self { bin }),
            Some(missing) => Err(format!(
                "PostgreSQL: no `{missing}` in {}; apt-get install --no-install-recommends postgresql",
                bin.display()
            )),
        }
    }
}

/// `/usr/lib/postgresql/<version>/bin`, newest version first: Debian keeps the server's programs out of `PATH`.
fn debian_bin_dirs() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, bin)| bin).collect()
}

/// How a server is made to go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// SIGINT: connections are cut, transactions rolled back, everything is written out.
    Fast,
    /// SIGKILL to the server and all its backends: what a power cut leaves of them, recovered at the next start.
    Kill,
}

/// A cluster on a loopback port, reached over TCP with SCRAM by its superuser only.
pub(crate) struct Postgres {
    programs: PostgresPrograms,
    dir: PathBuf,
    run_as: Option<Account>,
    port: u16,
    password: String,
    survives_power_cuts: bool,
    process: Option<Process>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("dir", &self.dir).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Makes a new cluster under `dir` and starts it.
    ///
    /// PostgreSQL refuses to run as root, so a root caller's server runs as `postgres` or `nobody`: every parent of
    /// `dir` must let others pass (`dir` itself is made so).
    ///
    /// With `survives_power_cuts` it waits for the disk at every commit, as it does in production. Without, it loses
    /// nothing that a killed process would not lose as well, and hundreds of tests do not wait for one disk.
    pub(crate) fn start(programs: &PostgresPrograms, dir: &Path, survives_power_cuts: bool) -> Result<Self, String> {
        let mut postgres = Self {
            programs: programs.clone(),
            dir: dir.to_owned(),
            run_as: Account::unprivileged()?,
            port: free_port()?,
            password: random_secret()?,
            survives_power_cuts,
            process: None,
        };
        postgres.initdb()?;
        postgres.start_again()?;
        Ok(postgres)
    }

    fn initdb(&self) -> Result<(), String> {
        let data = self.data_dir();
        let password_file = self.dir.join("password");
        let prepare = || -> std::io::Result<()> {
            std::fs::create_dir_all(&data)?;
            std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o711))?;
            std::fs::write(&password_file, &self.password)?;
            std::fs::set_permissions(&password_file, std::fs::Permissions::from_mode(0o600))?;
            if let Some(account) = self.run_as {
                chown(&data, Some(account.uid), Some(account.gid))?;
                chown(&password_file, Some(account.uid), Some(account.gid))?;
            }
            Ok(())
        };
        prepare().map_err(|e| format!("{}: {e}", self.dir.display()))?;

        let mut initdb = Command::new(self.programs.bin.join("initdb"));
        initdb.arg("--pgdata").arg(&data).arg("--pwfile").arg(&password_file);
        initdb.args(["--username", SUPERUSER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]);
        // The machine may lose an empty cluster; what tests commit to it is synced by the server.
        initdb.arg("--no-sync").current_dir(&self.dir);
        run(self.run_as, &mut initdb).map(drop)
    }

    /// Starts the server on the same port and data after [`Postgres::stop`]; nothing happens if it runs.
    pub(crate) fn start_again(&mut self) -> Result<(), String> {
        if self.process.is_some() {
            return Ok(());
        }
        let mut command = Command::new(self.programs.bin.join("postgres"));
        command.arg("-D").arg(self.data_dir());
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            "unix_socket_directories=".to_owned(),
            "max_connections=200".to_owned(),
            format!("fsync={}", if self.survives_power_cuts { "on" } else { "off" }),
            "timezone=UTC".to_owned(),
            // In the data directory, which goes away with the test; /dev/shm would keep what a killed server leaves.
            "dynamic_shared_memory_type=mmap".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        let mut process = Process::spawn("postgres", &self.dir, self.run_as, &command)?;
        process.wait_ready(|| self.psql("postgres", "SELECT 1"))?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops the server; its data and port stay for [`Postgres::start_again`].
    pub(crate) fn stop(&mut self, how: Stop) -> Result<(), String> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        match how {
            Stop::Kill => process.kill(),
            Stop::Fast => {
                process.signal("INT")?;
                let status = process.wait_end()?;
                status.success().then_some(()).ok_or_else(|| format!("postgres ended with {status}"))
            }
        }
    }

    /// Has the running server offer TLS, under this certificate with its key.
    pub(crate) fn enable_tls(&self, certificate: &Path, key: &Path) -> Result<(), String> {
        for (file, name) in [(certificate, "server.crt"), (key, "server.key")] {
            let own = self.data_dir().join(name);
            let place = || -> std::io::Result<()> {
                std::fs::copy(file, &own)?;
                std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600))?;
                self.run_as.map_or(Ok(()), |account| chown(&own, Some(account.uid), Some(account.gid)))
            };
            place().map_err(|e| format!("{}: {e}", own.display()))?;
        }
        self.psql("postgres", "ALTER SYSTEM SET ssl = on")?;
        self.psql("postgres", "SELECT pg_reload_conf()").map(drop)
    }

    /// The connection URL of a database, with the superuser's password.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Creates an empty database. The name goes into SQL as it is.
    pub(crate) fn create_database(&self, name: &str) -> Result<(), String> {
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\"")).map(drop)
    }

    /// Runs one SQL statement through `psql`, and returns its rows unaligned and without headings.
    pub(crate) fn psql(&self, database: &str, statement: &str) -> Result<String, String> {
        let mut psql = Command::new(self.programs.bin.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        psql.args(["--host=127.0.0.1", "--username", SUPERUSER, "--dbname", database, "--command", statement]);
        psql.arg(format!("--port={}", self.port)).env("PGPASSWORD", &self.password).env("PGCONNECT_TIMEOUT", "5");
        run(None, &mut psql).map(|rows| rows.trim_end().to_owned())
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }
}

impl Drop for Postgres {
    /// An immediate shutdown removes the System V shared memory segment, which would outlive a killed server.
    fn drop(&mut self) {
        if let Some(process) = &mut self.process
            && process.signal("QUIT").is_ok()
        {
            let _ = process.wait_end();
        }
    }
}

//! The real binary as a child process, to be killed and signalled as an operating system does it.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use super::{
    Caller,
    app::{TokenOptions, token},
    services::process::{Process, free_port, get},
};

/// The binary with the configuration in `folder`, and with an empty environment, because variables win over the file.
fn serve(folder: &Path) -> Process {
    let mut command = Command::new("env");
    command.args(["-i", env!("CARGO_BIN_EXE_presignd"), "serve", "--config"]).arg(folder.join("presignd.toml"));
    Process::spawn("presignd", folder, None, &command).expect("presignd starts")
}

/// A `presignd serve` of its own. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Program {
    process: Process,
    port: u16,
    log: PathBuf,
}

impl Program {
    /// Starts the binary in `folder` with these settings, on a free port, and does not wait for it.
    pub(crate) fn start(folder: &Path, settings: toml::Table) -> Self {
        Self::start_at(folder, settings, free_port().expect("a free port"))
    }

    /// The same on the port of one that has ended.
    pub(crate) fn start_at(folder: &Path, mut settings: toml::Table, port: u16) -> Self {
        settings["server"]["listen"] = format!("127.0.0.1:{port}").into();
        let config = folder.join("presignd.toml");
        std::fs::write(&config, settings.to_string()).expect("the configuration is written");
        Self { process: serve(folder), port, log: folder.join("presignd.log") }
    }

    /// Kills it with SIGKILL, and starts it anew at the same address.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = serve(self.log.parent().expect("a folder"));
        self.wait_ready();
    }

    /// Waits until it is ready.
    pub(crate) fn wait_ready(&mut self) {
        let port = self.port;
        let ready = self.process.wait_ready(|| match get(port, "/readyz")? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{status}: {body}")),
        });
        ready.expect("presignd is ready");
    }

    pub(crate) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `subject` of the first issuer, at 127.0.0.1.
    pub(crate) fn user(&self, subject: &str) -> Caller {
        let token = token(&TokenOptions { subject, ..TokenOptions::default() }, presignd::clock::Clock::System.now());
        Caller::new(self.base(), Some(token), [127, 0, 0, 1].into())
    }

    /// Somebody without a token, at 127.0.0.1.
    pub(crate) fn anonymous(&self) -> Caller {
        Caller::new(self.base(), None, [127, 0, 0, 1].into())
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it is killed");
    }

    /// Sends SIGTERM and does not wait.
    pub(crate) fn terminate(&self) {
        self.process.signal("TERM").expect("it is signalled");
    }

    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        self.process.wait_end().expect("it ends")
    }

    /// All that it has written to standard output and standard error.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).expect("its log")).into_owned()
    }
}

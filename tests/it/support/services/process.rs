//! Servers as child processes: started, logged, watched until they answer, and never left behind.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take from start to its first answer, and from a signal to its end.
///
/// They need a second or three; a loaded CI machine may need many times that, and only a broken one needs this much.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// An operating-system account to run a server under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// The account for servers that refuse to run as root: `None` unless this process is root.
    pub(crate) fn unprivileged() -> Result<Option<Self>, String> {
        let this_process = std::fs::metadata("/proc/self").map_err(|e| format!("/proc/self: {e}"))?;
        if this_process.uid() != 0 {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").map_err(|e| format!("/etc/passwd: {e}"))?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| passwd.lines().find_map(|line| Self::from_passwd_line(line, name)))
            .map(Some)
            .ok_or_else(|| "neither an account `postgres` nor `nobody` in /etc/passwd".to_owned())
    }

    fn from_passwd_line(line: &str, name: &str) -> Option<Self> {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { uid, gid })
    }

    /// The `setpriv` options that change to this account.
    fn setpriv_options(self) -> [String; 3] {
        [format!("--reuid={}", self.uid), format!("--regid={}", self.gid), "--clear-groups".to_owned()]
    }
}

/// A running server. Dropping it kills it and its children.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own (a Ctrl-C in the terminal is the test runner's alone), with its
    /// output appended to `<dir>/<name>.log`.
    ///
    /// The kernel kills the server when this process ends in whatever way, SIGKILL included, where no `Drop` runs.
    pub(crate) fn spawn(name: &str, dir: &Path, run_as: Option<Account>, command: &Command) -> Result<Self, String> {
        let log = dir.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = output.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;

        // One setpriv for both: a change of account by a second one would clear the death signal.
        let mut wrapped = Command::new("setpriv");
        wrapped.arg("--pdeathsig=KILL");
        wrapped.args(run_as.iter().flat_map(|account| account.setpriv_options()));
        wrapped.arg("--").arg(command.get_program()).args(command.get_args());
        wrapped.current_dir(dir).process_group(0).stdin(Stdio::null()).stdout(output).stderr(errors);

        let child = spawn_on_launcher(wrapped).map_err(|e| format!("cannot start {name} through setpriv: {e}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits until `attempt` succeeds, and fails as soon as the server has ended or after [`PATIENCE`].
    pub(crate) fn wait_ready<T>(&mut self, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
        let mut last = String::new();
        let outcome = poll(|| match self.child.try_wait() {
            Ok(None) => attempt().map_err(|problem| last = problem).ok().map(Ok),
            Ok(Some(status)) => Some(Err(format!("ended with {status}"))),
            Err(e) => Some(Err(e.to_string())),
        });
        let problem = match outcome {
            Some(Ok(ready)) => return Ok(ready),
            Some(Err(ended)) => ended,
            None => format!("gives no good answer within {PATIENCE:?}: {last}"),
        };
        Err(format!("{} {problem}\n{}", self.name, last_lines(&self.log)))
    }

    /// Sends a signal (`INT`, `QUIT`, `STOP`, `CONT` …) to the server itself, not to its children.
    pub(crate) fn signal(&self, signal: &str) -> Result<(), String> {
        send_signal(signal, &[self.child.id()])
    }

    /// Waits for the end of a server that was asked to stop.
    pub(crate) fn wait_end(&mut self) -> Result<ExitStatus, String> {
        poll(|| self.child.try_wait().transpose())
            .ok_or_else(|| format!("{} did not end within {PATIENCE:?}\n{}", self.name, last_lines(&self.log)))?
            .map_err(|e| format!("{}: {e}", self.name))
    }

    /// Ends the server and its children at once, like a power cut, and returns when all of them are gone.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return Ok(());
        }
        // Stopped first: it must not fork another child after its children have been listed.
        self.signal("STOP")?;
        let children = children_of(self.child.id());
        self.child.kill().and_then(|()| self.child.wait()).map_err(|e| format!("{}: {e}", self.name))?;
        if children.is_empty() {
            return Ok(());
        }
        // A child may have seen its parent die and be gone already, which makes `kill` complain.
        let _ = send_signal("KILL", &children);
        poll(|| (!children.iter().copied().any(is_alive)).then_some(()))
            .ok_or_else(|| format!("children of {} outlive SIGKILL", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(problem) = self.kill() {
            log::error!("{problem}");
        }
    }
}

type Launch = (Command, mpsc::Sender<io::Result<Child>>);

/// The thread that starts all servers.
///
/// The kernel sends the death signal when the *thread* that forked the child ends. A test's thread ends before the
/// process does, and would take a server it restarted with it; this one lives as long as the process.
static LAUNCHER: LazyLock<mpsc::Sender<Launch>> = LazyLock::new(|| {
    let (launches, requests) = mpsc::channel::<Launch>();
    thread::spawn(move || {
        for (mut command, reply) in requests {
            let _ = reply.send(command.spawn());
        }
    });
    launches
});

fn spawn_on_launcher(command: Command) -> io::Result<Child> {
    let (reply, answer) = mpsc::channel();
    LAUNCHER.send((command, reply)).map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// Runs a short command to its end and returns what it printed; `setpriv` changes to `run_as` first.
pub(crate) fn run(run_as: Option<Account>, command: &mut Command) -> Result<String, String> {
    let mut changed;
    let command = match run_as {
        None => command,
        Some(account) => {
            changed = Command::new("setpriv");
            changed.args(account.setpriv_options()).arg("--").arg(command.get_program()).args(command.get_args());
            if let Some(dir) = command.get_current_dir() {
                changed.current_dir(dir);
            }
            &mut changed
        }
    };
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} ended with {}: {}", output.status, errors.trim_end()));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("{program}: {e}"))
}

/// Calls `attempt` until it gives something, for at most [`PATIENCE`].
fn poll<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = attempt();
        if outcome.is_some() || Instant::now() >= deadline {
            return outcome;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal with the shell's own `kill`, which is there where the program of that name is not.
pub(crate) fn send_signal(signal: &str, pids: &[u32]) -> Result<(), String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"kill -s "$@""#, "sh", signal]).args(pids.iter().map(u32::to_string));
    run(None, &mut shell).map(drop)
}

fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Whether a process still runs: a zombie waits only for its new parent to take notice, and holds nothing any more.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // "pid (name) state …", and the name may contain anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(20);
    lines.into_iter().skip(skipped).collect::<Vec<_>>().join("\n")
}

/// The first executable of that name in `PATH`, then in `more_dirs`.
pub(crate) fn find_program(name: &str, more_dirs: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(OsStr::new(&path))
        .chain(more_dirs.iter().cloned())
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.metadata().is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0))
}

/// A loopback TCP port that nobody listens on, never the same one twice.
///
/// It comes from below the ports that the kernel gives to outgoing connections (32768 and up). One of those could be
/// taken between this call and the server's `bind`, or while a server is down for a test; and a client that keeps
/// connecting to such a port can, once it is given that very port as its own, connect to itself.
pub(crate) fn free_port() -> Result<u16, String> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(random_u16()));
    (0..COUNT)
        .map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| "no free port on loopback".to_owned())
}

/// So that two test processes do not try the same ports in the same order.
fn random_u16() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness the ports are merely more likely to be taken, which `free_port` sees.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u16::from_ne_bytes(bytes)
}

/// A secret of 40 hexadecimal digits for this run alone.
pub(crate) fn random_secret() -> Result<String, String> {
    let mut bytes = [0; 20];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|e| e.to_string())?;
    Ok(hex::encode(bytes))
}

/// The status and body of an unsigned `GET` on a loopback port, over a connection of its own.
pub(crate) fn get(port: u16, path: &str) -> Result<(u16, String), String> {
    let exchange = || -> io::Result<String> {
        let limit = Duration::from_secs(5);
        let mut connection = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit)?;
        connection.set_read_timeout(Some(limit))?;
        connection.set_write_timeout(Some(limit))?;
        write!(connection, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n")?;
        let mut response = Vec::new();
        connection.read_to_end(&mut response)?;
        Ok(String::from_utf8_lossy(&response).into_owned())
    };
    let response = exchange().map_err(|e| format!("GET 127.0.0.1:{port}{path}: {e}"))?;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    status
        .map(|status| (status, body.to_owned()))
        .ok_or_else(|| format!("GET 127.0.0.1:{port}{path}: no HTTP response"))
}

//! Following the policies file: a change is in force within a second, and a mistake changes nothing.

use std::{
    fs,
    future::pending,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{PolicyDocument, PolicyError, PolicyProblem, diff, format::line_after};
use crate::config::Problem;

/// How often the file is read even when nobody reported a change: file events do not cross network mounts, do not
/// see a symbolic link's target change elsewhere, and are refused where a machine's inotify limits are used up.
const POLL: Duration = Duration::from_millis(500);

/// How long new content must stay the same before it is taken, so that a file which is being written in place is
/// not taken half-way: the first half of a valid file is often valid and means something else.
const SETTLE: Duration = Duration::from_millis(50);

/// How often new content is looked at for having settled before it is left to the next check.
const SETTLE_ATTEMPTS: u32 = 5;

/// Why a policies file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file breaks a rule, its own or one of the service around it.
    #[error("{}", placed(path, error))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, line by line.
        error: PolicyError,
    },
}

/// Each problem as `file:line: key: rule`, which editors and terminals make a link of.
fn placed(path: &Path, error: &PolicyError) -> String {
    let place = |PolicyProblem { line, problem }: &PolicyProblem| format!("{}:{line}: {problem}", path.display());
    error.problems.iter().map(place).collect::<Vec<_>>().join("\n")
}

/// Reads the policies file at `path` once. `validate` as for [`watch()`].
///
/// # Errors
/// When the file cannot be read, or breaks a rule.
pub fn load(
    path: &Path,
    validate: impl Fn(&PolicyDocument) -> Result<(), Vec<Problem>>,
) -> Result<PolicyDocument, LoadError> {
    let content = fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    parse_and_validate(&content, &validate).map_err(|error| LoadError::Invalid { path: path.to_owned(), error })
}

/// Reads the policies file at `path` and follows it from then on, on `runtime`, until the watcher is dropped.
///
/// Editors that replace the file and Kubernetes' exchange of a symbolic link beside it are noticed as well as writes
/// in place; SIGHUP reads the file at once, even when it did not change. A file that is missing, unreadable or
/// refused leaves the last good document in force, and is logged and counted once until it changes again.
///
/// `validate` refuses documents that ask for what the rest of the service cannot do. Its problems are given the line
/// of their key.
///
/// # Errors
/// When the file cannot be used to begin with.
pub fn watch(
    path: impl Into<PathBuf>,
    runtime: &Handle,
    validate: impl Fn(&PolicyDocument) -> Result<(), Vec<Problem>> + Send + Sync + 'static,
) -> Result<(PolicyHandle, PolicyWatcher), LoadError> {
    // Before anything can go on: until it is listened to, SIGHUP ends the process.
    let hangups = {
        let _context = runtime.enter();
        signal(SignalKind::hangup())
            .inspect_err(|error| log::warn!("policies are not reloaded on SIGHUP: {error}"))
            .ok()
    };
    watch_with(path.into(), runtime, Box::new(validate), hangups, POLL)
}

fn watch_with(
    path: PathBuf,
    runtime: &Handle,
    validate: Validate,
    hangups: Option<Signal>,
    poll: Duration,
) -> Result<(PolicyHandle, PolicyWatcher), LoadError> {
    // Watched before it is read, so that no change falls between.
    let (events, changes) = mpsc::channel(1);
    let files = watch_folder(&path, events)
        .inspect_err(|error| log::warn!("{}: changes are noticed by polling alone: {error}", path.display()))
        .ok();
    let reloader = Reloader::start(path, validate)?;
    let handle = reloader.handle.clone();
    let task = runtime.spawn(reloader.run(changes, hangups, poll));
    Ok((handle, PolicyWatcher { _files: files, task }))
}

/// Reports events in the folder of `path` rather than on the file: a watch on the file stays with the old one when a
/// new one is renamed over it.
fn watch_folder(path: &Path, events: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is an event too, and must not lead to reading it again.
        let only_read = matches!(
            event.map(|event| event.kind),
            Ok(EventKind::Access(kind)) if kind != AccessKind::Close(AccessMode::Write)
        );
        if !only_read {
            // Full means that a check is due anyway.
            let _ = events.try_send(());
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The policies in force, shared by everything that decides. Clones are cheap and see the same document.
#[derive(Debug, Clone)]
pub struct PolicyHandle {
    current: Arc<ArcSwap<PolicyDocument>>,
    status: watch::Sender<PolicyStatus>,
}

impl PolicyHandle {
    /// A handle whose document stays as it is, unless a watcher replaces it.
    pub fn fixed(document: PolicyDocument) -> Self {
        let status = PolicyStatus { version: document.version().to_owned(), ..PolicyStatus::default() };
        Self { current: Arc::new(ArcSwap::from_pointee(document)), status: watch::Sender::new(status) }
    }

    /// The document in force, without a lock. Take it once per request, so that all decisions in it agree.
    pub fn current(&self) -> Arc<PolicyDocument> {
        self.current.load_full()
    }

    /// What became of the reloads so far.
    pub fn status(&self) -> PolicyStatus {
        self.status.borrow().clone()
    }

    /// Wakes at every reload and every failed one. The document of a version seen here is in force already.
    pub fn changed(&self) -> watch::Receiver<PolicyStatus> {
        self.status.subscribe()
    }
}

/// What became of the reloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The version in force.
    pub version: String,
    /// How often new content, or any on SIGHUP, was taken since the start.
    pub reloads_total: u64,
    /// How often it was refused or the file was not readable.
    pub failures_total: u64,
    /// Why the file as it is now is not in force, if it is not.
    pub last_error: Option<String>,
}

/// Follows the file until it is dropped.
#[derive(Debug)]
#[must_use = "the file is followed only until this is dropped"]
pub struct PolicyWatcher {
    _files: Option<RecommendedWatcher>,
    task: JoinHandle<()>,
}

impl Drop for PolicyWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Validate = Box<dyn Fn(&PolicyDocument) -> Result<(), Vec<Problem>> + Send + Sync>;

/// The file as it was found.
#[derive(PartialEq, Eq)]
enum Found {
    Content(Vec<u8>),
    Unreadable(io::ErrorKind),
}

impl From<io::Result<Vec<u8>>> for Found {
    fn from(read: io::Result<Vec<u8>>) -> Self {
        read.map_or_else(|error| Self::Unreadable(error.kind()), Self::Content)
    }
}

struct Reloader {
    path: PathBuf,
    validate: Validate,
    handle: PolicyHandle,
    /// What the document in force or the last failure came from.
    last: Found,
}

impl Reloader {
    fn start(path: PathBuf, validate: Validate) -> Result<Self, LoadError> {
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(source) => return Err(LoadError::Read { path, source }),
        };
        match parse_and_validate(&content, &validate) {
            Ok(document) => {
                log::info!("{}: policies of version {} are in force", path.display(), document.version());
                Ok(Self { path, validate, handle: PolicyHandle::fixed(document), last: Found::Content(content) })
            }
            Err(error) => Err(LoadError::Invalid { path, error }),
        }
    }

    async fn run(mut self, mut changes: mpsc::Receiver<()>, mut hangups: Option<Signal>, poll: Duration) {
        let mut ticks = interval(poll);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let forced = tokio::select! {
                _ = ticks.tick() => false,
                () = hung_up(&mut hangups) => true,
                Some(()) = changes.recv() => {
                    // A folder in which much happens costs twenty reads a second at the most.
                    sleep(SETTLE).await;
                    false
                }
            };
            self.check(forced).await;
        }
    }

    /// Reads the file, and takes or refuses it if it changed, or in any case if `forced`.
    async fn check(&mut self, forced: bool) {
        let mut found = self.read().await;
        if found == self.last && !forced {
            return;
        }
        for _ in 0..SETTLE_ATTEMPTS {
            sleep(SETTLE).await;
            let again = self.read().await;
            if again == found {
                if found != self.last || forced {
                    self.apply(found);
                }
                return;
            }
            found = again;
        }
    }

    async fn read(&self) -> Found {
        tokio::fs::read(&self.path).await.into()
    }

    fn apply(&mut self, found: Found) {
        let outcome = match &found {
            Found::Content(content) => parse_and_validate(content, &self.validate).map_err(|error| error.to_string()),
            Found::Unreadable(kind) => Err(format!("cannot be read: {kind}")),
        };
        match outcome {
            Ok(document) => self.take(document),
            Err(reasons) => self.refuse(reasons),
        }
        self.last = found;
    }

    fn take(&self, document: PolicyDocument) {
        let version = document.version().to_owned();
        let new = Arc::new(document);
        let old = self.handle.current.swap(Arc::clone(&new));
        log::info!("{}: policies reloaded, version {} -> {version}", self.path.display(), old.version());
        for change in diff(&old, &new) {
            log::info!("{}: {change}", self.path.display());
        }
        self.handle.status.send_modify(|status| {
            status.version = version;
            status.reloads_total += 1;
            status.last_error = None;
        });
    }

    fn refuse(&self, reasons: String) {
        for reason in reasons.lines() {
            log::error!("{}: {reason}", self.path.display());
        }
        let version = self.handle.status().version;
        log::error!("{}: not taken, version {version} stays in force", self.path.display());
        self.handle.status.send_modify(|status| {
            status.failures_total += 1;
            status.last_error = Some(reasons);
        });
    }
}

async fn hung_up(hangups: &mut Option<Signal>) {
    if let Some(signal) = hangups
        && signal.recv().await.is_some()
    {
        return;
    }
    pending::<()>().await;
}

fn parse_and_validate(
    content: &[u8],
    validate: impl Fn(&PolicyDocument) -> Result<(), Vec<Problem>>,
) -> Result<PolicyDocument, PolicyError> {
    let document = parse(content)?;
    match validate(&document) {
        Ok(()) => Ok(document),
        Err(problems) => {
            Err(PolicyError { problems: problems.into_iter().map(|problem| document.locate(problem)).collect() })
        }
    }
}

fn parse(content: &[u8]) -> Result<PolicyDocument, PolicyError> {
    match str::from_utf8(content) {
        Ok(text) => PolicyDocument::parse(text),
        Err(error) => {
            let valid = content.get(..error.valid_up_to()).unwrap_or_default();
            let line = line_after(valid);
            Err(PolicyError { problems: vec![PolicyProblem { line, problem: Problem::new("toml", "must be UTF-8") }] })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::model::IpScope;

    /// Only how long a failure takes to be called one.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Too long to be what noticed a change in a test of file events.
    const NEVER: Duration = Duration::from_hours(1);

    fn policies(seconds: u32) -> String {
        format!("[policy.default]\nupload.expires_in = \"{seconds}s\"\n")
    }

    fn version(seconds: u32) -> String {
        PolicyDocument::parse(&policies(seconds)).unwrap().version().to_owned()
    }

    fn anything() -> Validate {
        Box::new(|_| Ok(()))
    }

    fn by_events(path: &Path) -> (PolicyHandle, PolicyWatcher) {
        watch_with(path.to_owned(), &Handle::current(), anything(), None, NEVER).unwrap()
    }

    fn folder_with(seconds: u32) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.toml");
        fs::write(&path, policies(seconds)).unwrap();
        (folder, path)
    }

    async fn until(handle: &PolicyHandle, condition: impl FnMut(&PolicyStatus) -> bool) -> PolicyStatus {
        let mut changed = handle.changed();
        let status = timeout(PATIENCE, changed.wait_for(condition)).await;
        status.unwrap_or_else(|_| panic!("still {:?}", handle.status())).unwrap().clone()
    }

    async fn until_in_force(handle: &PolicyHandle, seconds: u32) {
        until(handle, |status| status.version == version(seconds)).await;
        assert_eq!(handle.current().version(), version(seconds));
        let rules = handle.current().policy("default", chrono::DateTime::UNIX_EPOCH).unwrap();
        assert_eq!(rules.upload_expires_in.as_secs(), u64::from(seconds));
    }

    #[tokio::test]
    async fn writes_in_place_are_noticed() {
        let (_folder, path) = folder_with(1);
        let (handle, _watcher) = by_events(&path);
        for seconds in [2, 3] {
            fs::write(&path, policies(seconds)).unwrap();
            until_in_force(&handle, seconds).await;
        }
    }

    #[tokio::test]
    async fn files_renamed_over_the_old_one_are_noticed() {
        let (folder, path) = folder_with(1);
        let (handle, _watcher) = by_events(&path);
        for seconds in [2, 3] {
            let draft = folder.path().join("draft");
            fs::write(&draft, policies(seconds)).unwrap();
            fs::rename(&draft, &path).unwrap();
            until_in_force(&handle, seconds).await;
        }
    }

    /// How Kubernetes updates a mounted `ConfigMap`: the file is a link through `..data`, which is exchanged.
    #[tokio::test]
    async fn exchanged_links_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let publish = |seconds: u32| {
            let data = folder.path().join(format!("..data-{seconds}"));
            fs::create_dir(&data).unwrap();
            fs::write(data.join("policies.toml"), policies(seconds)).unwrap();
            symlink(&data, folder.path().join("..data_tmp")).unwrap();
            fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
        };
        publish(1);
        let path = folder.path().join("policies.toml");
        symlink("..data/policies.toml", &path).unwrap();
        let (handle, _watcher) = by_events(&path);
        for seconds in [2, 3] {
            publish(seconds);
            until_in_force(&handle, seconds).await;
        }
    }

    #[tokio::test]
    async fn changes_that_raise_no_event_are_noticed_by_polling() {
        let (_elsewhere, target) = folder_with(1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.toml");
        symlink(&target, &path).unwrap();
        let (handle, _watcher) = watch(&path, &Handle::current(), |_| Ok(())).unwrap();
        fs::write(&target, policies(2)).unwrap();
        until_in_force(&handle, 2).await;
    }

    #[tokio::test]
    async fn sighup_reloads_even_an_unchanged_file() {
        let (_folder, path) = folder_with(1);
        let (handle, _watcher) = watch(&path, &Handle::current(), |_| Ok(())).unwrap();
        assert!(Command::new("sh").args(["-c", "kill -HUP $PPID"]).status().unwrap().success());
        until(&handle, |status| status.reloads_total == 1).await;
        assert_eq!(handle.status().version, version(1));
    }

    #[tokio::test]
    async fn broken_files_change_nothing_and_are_counted() {
        let (_folder, path) = folder_with(1);
        let (handle, _watcher) = by_events(&path);
        fs::write(&path, "[policy.default]\n\nmax_size = \"6TiB\"\nreaders = \"all\"\n").unwrap();
        let status = until(&handle, |status| status.failures_total == 1).await;
        assert_eq!((status.version, status.reloads_total), (version(1), 0));
        assert_eq!(
            status.last_error.as_deref(),
            Some(
                "line 3: policy.default.max_size: must be 1B to 5TiB, not 6TiB\n\
                 line 4: policy.default.readers: must be \"owner\", \"tenant\" or \"authenticated\", not \"all\""
            )
        );
        assert_eq!(handle.current().version(), version(1));
        fs::write(&path, policies(2)).unwrap();
        until_in_force(&handle, 2).await;
        assert_eq!(handle.status().last_error, None);
    }

    #[tokio::test]
    async fn deleted_files_leave_the_last_good_document_until_they_are_restored() {
        let (_folder, path) = folder_with(1);
        let (handle, _watcher) = by_events(&path);
        fs::remove_file(&path).unwrap();
        let status = until(&handle, |status| status.failures_total == 1).await;
        assert_eq!(
            (status.version, status.last_error.as_deref()),
            (version(1), Some("cannot be read: entity not found"))
        );
        fs::write(&path, policies(1)).unwrap();
        let status = until(&handle, |status| status.reloads_total == 1).await;
        assert_eq!((status.version, status.last_error), (version(1), None));
    }

    #[tokio::test]
    async fn each_content_is_judged_once_unless_forced() {
        let (_folder, path) = folder_with(1);
        let mut reloader = Reloader::start(path.clone(), anything()).unwrap();
        let outcome = |reloader: &Reloader| {
            let status = reloader.handle.status();
            (status.reloads_total, status.failures_total)
        };
        reloader.check(false).await;
        assert_eq!(outcome(&reloader), (0, 0));
        for (content, expected) in [("broken", (0, 1)), ("broken", (0, 1)), ("also broken", (0, 2))] {
            fs::write(&path, content).unwrap();
            reloader.check(false).await;
            assert_eq!(outcome(&reloader), expected, "{content}");
        }
        reloader.check(true).await;
        assert_eq!(outcome(&reloader), (0, 3));
        fs::remove_file(&path).unwrap();
        reloader.check(false).await;
        reloader.check(false).await;
        assert_eq!(outcome(&reloader), (0, 4));
        fs::write(&path, [b"[policy.default]\n# ".as_slice(), &[0xff]].concat()).unwrap();
        reloader.check(false).await;
        assert_eq!(reloader.handle.status().last_error.as_deref(), Some("line 2: toml: must be UTF-8"));
    }

    #[tokio::test]
    async fn what_the_service_cannot_do_is_refused_with_the_line_that_asks_for_it() {
        let (_folder, path) = folder_with(1);
        let unscoped = |document: &PolicyDocument| {
            if document.all_rules().any(|(_, rules)| rules.ip_scope != IpScope::Off) {
                Err(vec![Problem::new("policy.default.ip_scope", "must be \"off\"")])
            } else {
                Ok(())
            }
        };
        let watch = || watch_with(path.clone(), &Handle::current(), Box::new(unscoped), None, NEVER);
        let error = watch().unwrap_err().to_string();
        assert!(error.ends_with("policies.toml:1: policy.default.ip_scope: must be \"off\""), "{error}");

        fs::write(&path, "[policy.default]\nip_scope = \"off\"\n").unwrap();
        let (handle, _watcher) = watch().unwrap();
        fs::write(&path, "[policy.default]\nreaders = \"tenant\"\nip_scope = { v4 = 32, v6 = 64 }\n").unwrap();
        let status = until(&handle, |status| status.failures_total == 1).await;
        assert_eq!(status.last_error.as_deref(), Some("line 3: policy.default.ip_scope: must be \"off\""));
        assert!(handle.current().all_rules().all(|(_, rules)| rules.ip_scope == IpScope::Off));
    }

    #[tokio::test]
    async fn unusable_files_are_errors_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.toml");
        assert!(matches!(watch(&path, &Handle::current(), |_| Ok(())), Err(LoadError::Read { .. })));
        fs::write(&path, "").unwrap();
        assert!(matches!(watch(&path, &Handle::current(), |_| Ok(())), Err(LoadError::Invalid { .. })));
        assert!(matches!(load(&path, |_| Ok(())), Err(LoadError::Invalid { .. })));
        fs::write(&path, policies(1)).unwrap();
        assert_eq!(load(&path, |_| Ok(())).unwrap().version(), version(1));
    }

    #[tokio::test]
    async fn dropped_watchers_stop() {
        let (_folder, path) = folder_with(1);
        let (handle, watcher) = by_events(&path);
        let mut changed = handle.changed();
        drop((handle, watcher));
        let ended = timeout(PATIENCE, changed.wait_for(|_| false)).await;
        assert!(ended.expect("the task ends with its watcher").is_err());
    }
}

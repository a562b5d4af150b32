//! The receivers of `examples/webhooks`, which verify with the libraries of Standard Webhooks.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::StatusCode;

use super::{
    Backend, PATIENCE, Received, TestApp, WebhookReceiver, abort, id, options, section, signature, until_attempts,
    upload,
};
use crate::support::{caller::client_at, receiver::KEY};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/webhooks");

/// A receiver in a process of its own. Dropping it kills it.
struct Example {
    child: Child,
    lines: Receiver<String>,
    url: String,
}

impl Example {
    fn start(mut command: Command, secret: &str) -> Self {
        command.arg("0").env("WEBHOOK_SECRET", secret).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 and node are installed");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut example = Self { child, lines, url: String::new() };
        let line = example.line();
        let port = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
        example.url = format!("http://127.0.0.1:{port}/");
        example
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line: are the standardwebhooks libraries installed?")
    }

    /// Sends what was received elsewhere once more, with these changes.
    async fn replay(&self, received: &Received, changes: &[(&str, &str)]) -> StatusCode {
        let change =
            |name: &str| changes.iter().find(|(changed, _)| *changed == name).map(|(_, value)| (*value).to_owned());
        let mut request = client_at([127, 0, 0, 1].into()).post(&self.url);
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            request = request.header(name, change(name).unwrap_or_else(|| received.headers[name].clone()));
        }
        let body = change("body").unwrap_or_else(|| received.body.clone());
        request.body(body).send().await.expect("an answer").status()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(EXAMPLES).join("receiver.py"));
    command
}

/// In a folder of its own, because Node looks for packages beside the program. They are where `npm install --global`
/// puts them: beside one of the folders of programs.
fn node(folder: &Path) -> Command {
    let modules = std::env::var_os("PATH").and_then(|path| {
        let mut candidates = std::env::split_paths(&path).map(|bin| bin.join("../lib/node_modules"));
        candidates.find(|modules| modules.join("standardwebhooks").is_dir())
    });
    let modules: PathBuf = modules.expect("the npm package standardwebhooks is installed");
    symlink(modules, folder.join("node_modules")).expect("a link");
    std::fs::copy(Path::new(EXAMPLES).join("receiver.mjs"), folder.join("receiver.mjs")).expect("a copy");
    let mut command = Command::new("node");
    command.arg(folder.join("receiver.mjs"));
    command
}

pub(super) async fn examples(backend: Backend) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // In the middle of a rotation: one receiver has the new key, the other still has the old one.
    let new = format!("whsec_{}", STANDARD.encode([7; 32]));
    let receivers = [("python", Example::start(python(), KEY)), ("node", Example::start(node(folder.path()), &new))];
    let recorder = WebhookReceiver::start(&backend.runtime).await;
    let keys = format!("keys = [{{ secret = \"{new}\" }}, {{ secret = \"{KEY}\" }}]");
    let mut endpoints: Vec<_> =
        receivers.iter().map(|(name, example)| (*name, example.url.clone(), keys.as_str())).collect();
    endpoints.push(("recorder", recorder.url(), &keys));
    let app = TestApp::start_with(&backend, options(section("", &endpoints))).await;
    let alice = app.user("alice");
    let confirmed = upload(&alice).await;
    let received = recorder.until_taken(1).await.remove(0);
    for (name, example) in &receivers {
        assert_eq!(example.line(), format!("upload.confirmed {} {}", id(&confirmed), received.id()), "{name}");
        until_attempts(&alice, name, "delivered", 1).await;

        assert_eq!(example.replay(&received, &[]).await, StatusCode::NO_CONTENT, "{name} takes it again");
        let stale = (app.clock.now().timestamp() - 600).to_string();
        let mut old = received.clone();
        old.headers.insert("webhook-timestamp".to_owned(), stale.clone());
        let signed_then = format!("{} {}", signature(&old, &new), signature(&old, KEY));
        let foreign = signature(&received, &format!("whsec_{}", STANDARD.encode([8; 32])));
        for changes in [
            &[("body", received.body.replace("confirmed", "rejected").as_str())][..],
            &[("webhook-id", "01890a5d-ac96-774b-bcce-b302099a8057")],
            &[("webhook-timestamp", &stale)],
            &[("webhook-timestamp", &stale), ("webhook-signature", &signed_then)],
            &[("webhook-signature", &foreign)],
            &[("webhook-signature", "v1,")],
        ] {
            assert_eq!(example.replay(&received, changes).await, StatusCode::BAD_REQUEST, "{name}: {changes:?}");
        }
    }
    // The next line is the next event: nothing was printed for what was repeated or forged.
    let aborted = abort(&alice).await;
    for (name, example) in &receivers {
        let line = example.line();
        assert!(line.starts_with(&format!("upload.aborted {} ", id(&aborted))), "{name}: {line}");
    }
    app.end().await;
}

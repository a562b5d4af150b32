//! Upload clients that others wrote, unmodified, in Chromium.
//!
//! What the pages do is in `tests/browser`. Here is the service that they do it to, and what is to be true afterwards.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use aws_sdk_s3::types::{CorsConfiguration, CorsRule};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    clients::{capability, id_in, stored},
    support::{AppOptions, Backend, Caller, Suite, TestApp, backend::BackendKind, caller::id},
};

const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");

/// Longer than any line takes on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// The largest file that a page makes: more than Uppy's own threshold for parts.
const LARGE: usize = 250 << 20;

const SIZES: [usize; 4] = [0, 1, 5 << 20, (5 << 20) + 1];

/// "File" in ten scripts, as people would name one.
const NAMES: [&str; 10] = [
    "Z\u{fc}rich caf\u{e9}.txt",
    "\u{444}\u{430}\u{439}\u{43b}.txt",
    "\u{3b1}\u{3c1}\u{3c7}\u{3b5}\u{3af}\u{3bf}.txt",
    "\u{645}\u{644}\u{641}.txt",
    "\u{5e7}\u{5d5}\u{5d1}\u{5e5}.txt",
    "\u{92b}\u{93c}\u{93e}\u{907}\u{932}.txt",
    "\u{6587}\u{4ef6}.txt",
    "\u{30d5}\u{30a1}\u{30a4}\u{30eb}.txt",
    "\u{d30c}\u{c77c}.txt",
    "\u{e44}\u{e1f}\u{e25}\u{e4c}.txt",
];

/// `open` is for forms, which neither real store takes when a session with a policy has signed them.
const POLICIES: &str = r#"
[policy.default]
methods = ["put"]
max_size = "1GiB"
key = "scoped/{id}-{name}"

[policy.open]
methods = ["post", "put"]
max_size = "1GiB"
ip_scope = "off"
key = "open/{id}-{name}"
"#;

pub(crate) fn register(suite: &mut Suite<'_>) {
    // The pages and the browser are installed by .ci/install, and only the full run requires them.
    let real = [BackendKind::Rgw, BackendKind::SeaweedFs];
    suite.on(&real, "uppy_6_uploads_forms_by_companion_endpoint", uppy_6_forms);
    suite.on(&real, "uppy_6_uploads_what_is_signed_for_it", uppy_6_signed);
    suite.on(&real, "uppy_5_uploads_forms_with_a_token", uppy_5_forms);
    suite.on(&real, "active_storage_uploads_directly", active_storage);
    suite.on(&[BackendKind::Rgw], "uppy_6_is_refused_with_a_capability_that_is_not_its_own", refused);
}

/// A page in Chromium. Dropping it ends both.
struct Browser {
    driver: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    _folder: TempDir,
}

impl Browser {
    /// Opens a page with `script`, bundled with the packages beside it, and starts `job` there.
    fn open(script: &str, packages: &str, job: &Value) -> Self {
        let modules = installed();
        let folder = tempfile::tempdir().expect("a temporary folder");
        for entry in std::fs::read_dir(PAGES).expect("the pages") {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "js" || extension == "mjs") {
                std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).expect("a copy");
            }
        }
        // Node looks for packages beside the program.
        symlink(modules.join("node_modules"), folder.path().join("node_modules")).expect("a link");
        // The bundler prefers what lies beside a page, so a page lies elsewhere.
        let pages = folder.path().join("pages");
        std::fs::create_dir(&pages).unwrap();
        for page in ["files.js", "uppy.js", "active-storage.js"] {
            std::fs::rename(folder.path().join(page), pages.join(page)).unwrap();
        }
        let mut command = Command::new("node");
        command.arg(folder.path().join("drive.mjs")).arg(pages.join(script)).arg(modules.join(packages));
        let mut driver = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node is installed");
        let output = BufReader::new(driver.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut browser = Self { input: driver.stdin.take().unwrap(), driver, lines, _folder: folder };
        browser.send(&job.to_string());
        browser
    }

    fn send(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the driver listens");
    }

    fn line(&self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).expect("a line: what the driver says is on standard error");
        serde_json::from_str(&line).expect("JSON")
    }

    /// What came of it.
    fn outcome(self) -> Value {
        let outcome = self.line();
        assert!(outcome["files"].is_array(), "{outcome}");
        outcome
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver closes the browser when its input ends or when it is asked to end.
        let _ = Command::new("kill").arg(self.driver.id().to_string()).status();
        let _ = self.driver.wait();
    }
}

/// Where `.ci/install` puts the packages: beside one of the folders of programs.
fn installed() -> PathBuf {
    let found = std::env::var_os("PATH").and_then(|path| {
        let mut candidates = std::env::split_paths(&path).map(|bin| bin.join("../browser"));
        candidates.find(|folder| folder.join("node_modules/@uppy").is_dir())
    });
    found.expect("the packages of tests/browser are installed: run .ci/install, and put what it prints first in PATH")
}

async fn start(backend: &Backend) -> TestApp {
    let settings = "[server]\ncors_allowed_origins = [\"*\"]".to_owned();
    let options = AppOptions { policies: Some(POLICIES.to_owned()), settings, ..AppOptions::default() };
    let app = TestApp::start_with(backend, options).await;
    allow_pages(&app).await;
    app
}

/// The rules of the bucket that docs/CLIENTS.md asks for.
async fn allow_pages(app: &TestApp) {
    let mut rule = CorsRule::builder().allowed_origins("*").allowed_headers("*").max_age_seconds(3000);
    for method in ["GET", "PUT", "POST"] {
        rule = rule.allowed_methods(method);
    }
    let rule = rule.expose_headers("ETag").expose_headers("Location").build().expect("a rule");
    let rules = CorsConfiguration::builder().cors_rules(rule).build().expect("rules");
    let put = app.bucket.s3.put_bucket_cors().bucket(&app.bucket.bucket).cors_configuration(rules);
    put.send().await.expect("the rules are set");
}

/// Files of all [`SIZES`] and with all [`NAMES`].
fn files() -> Vec<Value> {
    let sizes = SIZES
        .iter()
        .map(|size| json!({ "name": format!("{size}.bin"), "type": "application/octet-stream", "size": size }));
    let names = NAMES.iter().map(|name| json!({ "name": name, "type": "text/plain", "size": 1000 }));
    sizes.chain(names).collect()
}

/// Every file arrived as it was, and its upload is confirmed with its name and its real size.
async fn arrived(app: &TestApp, alice: &Caller, outcome: &Value, count: usize) {
    let files = outcome["files"].as_array().unwrap();
    assert_eq!(files.len(), count);
    for file in files {
        assert_eq!(file["errors"], json!([]), "{file}");
        let complete = format!("/api/v1/uploads/{}/complete", id_in(file["key"].as_str().unwrap_or_default()));
        let confirmed = alice.post_nothing(&complete).await.expect(StatusCode::OK);
        assert_eq!(confirmed["original_file_name"], file["name"], "{confirmed}");
        assert_eq!(confirmed["file_size"], file["size"], "{confirmed}");
        let row = app.running.service.database.upload(id(&confirmed).parse().unwrap()).await.unwrap().unwrap();
        let bytes = stored(app, row.verified_key().as_str()).await;
        assert_eq!(hex::encode(digest(&SHA256, &bytes)), file["sha256"].as_str().unwrap(), "{file}");
    }
}

async fn uppy_6_forms(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let (granted, _) = capability(&alice, &json!({ "policy": "open" })).await;
    let options = json!({ "companionEndpoint": granted["url"], "shouldUseMultipart": false });
    let job = json!({ "upload": { "options": options, "files": files() } });
    let outcome = Browser::open("uppy.js", "node_modules", &job).outcome();
    arrived(&app, &alice, &outcome, files().len()).await;
    app.end().await;
}

async fn uppy_6_signed(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let authorization = format!("Bearer {}", app.token(&Default::default()));
    let sign = json!({ "url": format!("{}/api/v1/sign", app.base()), "authorization": authorization, "sized": true });
    let mut files = files();
    files.push(json!({ "name": "large.bin", "type": "application/octet-stream", "size": LARGE }));
    let count = files.len();
    let job = json!({ "upload": { "options": { "shouldUseMultipart": false }, "sign": sign, "files": files } });
    let outcome = Browser::open("uppy.js", "node_modules", &job).outcome();
    arrived(&app, &alice, &outcome, count).await;
    // PUTs under a scope: their sizes and the network were in every signature.
    let puts = outcome["requests"].as_array().unwrap().iter().filter(|request| request["method"] == "PUT").count();
    assert_eq!(puts, count, "{}", outcome["requests"]);
    app.end().await;
}

async fn uppy_5_forms(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    // A token stands for the policy "default", which is this one here.
    app.change_policies(&POLICIES.replace("policy.default", "policy.scoped").replace("policy.open", "policy.default"))
        .await;
    let headers = json!({ "authorization": format!("Bearer {}", app.token(&Default::default())) });
    let options = json!({ "endpoint": app.base(), "headers": headers, "shouldUseMultipart": false });
    let job = json!({ "upload": { "options": options, "files": files() } });
    let outcome = Browser::open("uppy.js", "uppy-5/node_modules", &job).outcome();
    arrived(&app, &alice, &outcome, files().len()).await;
    app.end().await;
}

async fn active_storage(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let (granted, _) = capability(&alice, &json!({})).await;
    let path = "/rails/active_storage/direct_uploads";
    let by_capability = format!("{}{path}", granted["url"].as_str().unwrap());
    let mut all = files();
    all.push(json!({ "name": "large.bin", "type": "application/octet-stream", "size": LARGE }));
    let count = all.len();
    let job = json!({ "upload": { "url": by_capability, "files": all } });
    let outcome = Browser::open("active-storage.js", "node_modules", &job).outcome();
    // The application's backend confirms with what the page submits to it.
    for file in outcome["files"].as_array().unwrap() {
        let (id, token) = file["signed_id"].as_str().unwrap_or_else(|| panic!("{file}")).split_once('.').unwrap();
        let complete =
            app.anonymous().post(&format!("/api/v1/uploads/{id}/complete"), &json!({ "token": token })).await;
        assert_eq!(complete.expect(StatusCode::OK)["state"], "confirmed");
    }
    arrived(&app, &alice, &outcome, count).await;

    let authorization = format!("Bearer {}", app.token(&Default::default()));
    let upload =
        json!({ "url": format!("{}{path}", app.base()), "authorization": authorization, "files": [files()[1]] });
    let outcome = Browser::open("active-storage.js", "node_modules", &json!({ "upload": upload })).outcome();
    arrived(&app, &alice, &outcome, 1).await;
    app.end().await;
}

async fn refused(backend: Backend) {
    let app = start(&backend).await;
    let (_, path) = capability(&app.user("alice"), &json!({ "policy": "open", "expires_in": 1 })).await;
    let (_, elsewhere) = capability(&app.user("alice").at("127.0.0.11"), &json!({})).await;
    let forged = path.replace("/u/k1.", "/u/k1.x");
    tokio::time::timeout(PATIENCE, async {
        while app.anonymous().get(&format!("{path}/s3/sts")).await.status != StatusCode::UNAUTHORIZED {}
    })
    .await
    .expect("the capability ends");
    for path in [path, elsewhere, forged] {
        let options = json!({ "companionEndpoint": format!("{}{path}", app.base()) });
        let files = json!([{ "name": "a.txt", "type": "text/plain", "size": 1 }]);
        let job = json!({ "upload": { "options": options, "files": files } });
        let outcome = Browser::open("uppy.js", "node_modules", &job).outcome();
        assert_ne!(outcome["files"][0]["errors"], json!([]), "{outcome}");
        let statuses: BTreeMap<_, _> = outcome["requests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|request| (request["path"].to_string(), request["status"].as_u64().unwrap()))
            .collect();
        assert!(statuses.values().any(|status| matches!(status, 401 | 403)), "{statuses:?}");
    }
    let uploads = app.user("alice").get("/api/v1/uploads").await.expect(StatusCode::OK);
    assert_eq!(uploads["uploads"], json!([]));
    app.end().await;
}

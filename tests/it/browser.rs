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
use chrono::{DateTime, Utc};
use presignd::{domain::BucketCors, policy::PolicyDocument};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    clients::{capability, id_in, stored},
    cors::put_printed,
    support::{
        AppOptions, Backend, Caller, Program, Suite, TestApp,
        app::{TokenOptions, settings},
        backend::{BackendKind, TestBucket},
        caller::id,
        services::process::send_signal,
    },
};

const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");

const PAGE_FILES: [&str; 4] = ["active-storage.js", "files.js", "uppy-reload.js", "uppy.js"];

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

const POLICIES: &str = r#"
[policy.default]
methods = ["post", "put", "multipart"]
max_size = "1GiB"
key = "uploads/{id}-{name}"
"#;

pub(crate) fn register(suite: &mut Suite<'_>) {
    // The pages and the browser are installed by .ci/install, and only the full run requires them.
    let real = [BackendKind::Rgw, BackendKind::SeaweedFs];
    suite.on(&real, "uppy_6_uploads_forms_by_companion_endpoint", uppy_6_forms);
    suite.on(&real, "uppy_6_uploads_what_is_signed_for_it", uppy_6_signed);
    // Ceph RGW 16 answers a form without the `ETag` header, for which Uppy 5 waits for ever.
    suite.on(&[BackendKind::SeaweedFs], "uppy_5_uploads_forms_with_a_token", uppy_5_forms);
    suite.on(&real, "active_storage_uploads_directly", active_storage);
    suite.on(&real, "uppy_6_uploads_parts_by_companion_endpoint", uppy_6_parts);
    suite.on(&real, "uppy_6_uploads_parts_that_are_signed_for_it", uppy_6_signed_parts);
    suite.on(&real, "uppy_5_uploads_parts_with_a_token", uppy_5_parts);
    suite.on(&real, "what_uppy_cancels_leaves_nothing", cancelled);
    suite.on(&real, "uppy_goes_on_after_a_part_whose_url_had_expired", expired);
    suite.on(&real, "uppy_goes_on_after_its_page_was_reloaded", reloaded);
    suite.on(&real, "uppy_goes_on_with_a_service_that_was_restarted", restarted);
    suite.on(&real, "uppy_6_uploads_with_credentials_of_its_own", uppy_6_credentials);
    // Scoped to a network, as no URL for a browser can be on Ceph RGW.
    suite.on(&[BackendKind::SeaweedFs], "uppy_6_is_refused_with_a_capability_that_is_not_its_own", refused);
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
        // Apart, because Node looks for packages beside the program, and the bundler would find those first.
        let [driver, pages] = ["driver", "pages"].map(|name| folder.path().join(name));
        for (place, files) in [(&driver, &["drive.mjs"][..]), (&pages, &PAGE_FILES[..])] {
            std::fs::create_dir(place).expect("a folder");
            for file in files {
                std::fs::copy(Path::new(PAGES).join(file), place.join(file)).expect("a copy");
            }
        }
        symlink(modules.join("node_modules"), driver.join("node_modules")).expect("a link");
        let mut command = Command::new("node");
        command.arg(driver.join("drive.mjs")).arg(pages.join(script)).arg(modules.join(packages));
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
        let _ = send_signal("TERM", &[self.driver.id()]);
        let _ = self.driver.wait();
    }
}

/// Where `.ci/install` puts the packages: beside one of the folders of programs.
pub(crate) fn installed() -> PathBuf {
    let found = std::env::var_os("PATH").and_then(|path| {
        let mut candidates = std::env::split_paths(&path).map(|bin| bin.join("../browser"));
        candidates.find(|folder| folder.join("node_modules/@uppy").is_dir())
    });
    found.expect("the packages of tests/browser are installed: run .ci/install, and put what it prints first in PATH")
}

/// With the client's network in every URL where browsers can use one: Ceph RGW 16 answers 403 to the preflight of every URL
/// in which a session has signed a header besides `host`, and a PUT from a page of another origin always has one.
async fn start(backend: &Backend) -> TestApp {
    if backend.kind == BackendKind::Rgw {
        return start_unscoped(backend).await;
    }
    start_with(backend, AppOptions { policies: Some(POLICIES.to_owned()), ..AppOptions::default() }).await
}

fn unscoped_policies() -> String {
    POLICIES.replace("key =", "ip_scope = \"off\"\nkey =")
}

/// Without, and without STS: neither real store takes a form when a session with a policy has signed it.
async fn start_unscoped(backend: &Backend) -> TestApp {
    let policies = unscoped_policies();
    start_with(backend, AppOptions { policies: Some(policies), unscoped: true, ..AppOptions::default() }).await
}

async fn start_with(backend: &Backend, options: AppOptions) -> TestApp {
    let settings = "[server]\ncors_allowed_origins = [\"*\"]".to_owned();
    let app = TestApp::start_with(backend, AppOptions { settings, ..options }).await;
    allow_pages(&app.bucket).await;
    app
}

/// The rules of the bucket that docs/CLIENTS.md asks for.
async fn allow_pages(bucket: &TestBucket) {
    let mut rule = CorsRule::builder().allowed_origins("*").allowed_headers("*").max_age_seconds(3000);
    for method in ["GET", "PUT", "POST"] {
        rule = rule.allowed_methods(method);
    }
    let rule = rule.expose_headers("ETag").expose_headers("Location").build().expect("a rule");
    let rules = CorsConfiguration::builder().cors_rules(rule).build().expect("rules");
    let put = bucket.s3.put_bucket_cors().bucket(&bucket.bucket).cors_configuration(rules);
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
    let app = start_unscoped(&backend).await;
    let alice = app.user("alice");
    let (granted, _) = capability(&alice, &json!({})).await;
    let options = json!({ "companionEndpoint": granted["url"], "shouldUseMultipart": false });
    let job = json!({ "upload": { "options": options, "files": files() } });
    let outcome = Browser::open("uppy.js", "node_modules", &job).outcome();
    arrived(&app, &alice, &outcome, files().len()).await;
    app.end().await;
}

async fn uppy_6_signed(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let authorization = format!("Bearer {}", app.token(&TokenOptions::default()));
    let sign = json!({ "url": format!("{}/api/v1/sign", app.base()), "authorization": authorization, "sized": true });
    let files = files();
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
    let app = start_unscoped(&backend).await;
    let alice = app.user("alice");
    let headers = json!({ "authorization": format!("Bearer {}", app.token(&TokenOptions::default())) });
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

    let authorization = format!("Bearer {}", app.token(&TokenOptions::default()));
    let upload =
        json!({ "url": format!("{}{path}", app.base()), "authorization": authorization, "files": [files()[1]] });
    let outcome = Browser::open("active-storage.js", "node_modules", &json!({ "upload": upload })).outcome();
    arrived(&app, &alice, &outcome, 1).await;
    app.end().await;
}

/// Files to be sent in parts.
fn files_for_parts(sizes: &[usize]) -> Vec<Value> {
    sizes
        .iter()
        .map(|size| json!({ "name": format!("{size}.bin"), "type": "application/octet-stream", "size": size }))
        .collect()
}

async fn uppy_6_parts(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    // Under a scope, which every part is held to.
    let (granted, _) = capability(&alice, &json!({})).await;
    let options = json!({ "companionEndpoint": granted["url"], "shouldUseMultipart": true });
    // Uppy sends an empty file as a form, which is tried above.
    let files = files_for_parts(&[1, 5 << 20, (5 << 20) + 1, LARGE]);
    let job = json!({ "upload": { "options": options, "files": files } });
    let outcome = Browser::open("uppy.js", "node_modules", &job).outcome();
    arrived(&app, &alice, &outcome, files.len()).await;
    let location = outcome["files"][0]["location"].as_str().unwrap();
    let shown = alice.get(location.strip_prefix(&app.base()).unwrap()).await.expect(StatusCode::OK);
    assert_eq!(shown["state"], "confirmed", "it was confirmed when Uppy was through");
    app.end().await;
}

async fn uppy_6_signed_parts(backend: Backend) {
    let app = start(&backend).await;
    let authorization = format!("Bearer {}", app.token(&TokenOptions::default()));
    let sign = json!({ "url": format!("{}/api/v1/sign", app.base()), "authorization": authorization, "sized": true });
    let files = files_for_parts(&[0, 1, 5 << 20, (5 << 20) + 1]);
    let job = json!({ "upload": { "options": { "shouldUseMultipart": true }, "sign": sign, "files": files } });
    let outcome = Browser::open("uppy.js", "node_modules", &job).outcome();
    arrived(&app, &app.user("alice"), &outcome, files.len()).await;
    // Nothing but bytes was sent to the store.
    let to_store = outcome["requests"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|request| request["path"].as_str().unwrap().starts_with(&format!("/{}/", app.bucket.bucket)));
    assert!(to_store.clone().count() == 5 && to_store.clone().all(|request| request["method"] == "PUT"), "{outcome}");
    app.end().await;
}

async fn uppy_6_credentials(backend: Backend) {
    let policies = "[policy.default]\nmethods = [\"credentials\"]\nupload.expires_in = \"15m\"\nmax_size = \"1GiB\"\n";
    let app = start_with(&backend, AppOptions { policies: Some(policies.to_owned()), ..AppOptions::default() }).await;
    // What is printed for such a policy, and nothing more.
    let rules = BucketCors::needed(&PolicyDocument::parse(policies).unwrap(), &["*".to_owned()]);
    put_printed(&app.bucket, &serde_json::to_value(rules).unwrap()).await;
    let alice = app.user("alice");
    let authorization = format!("Bearer {}", app.token(&TokenOptions::default()));
    let credentials = json!({ "url": app.base(), "authorization": authorization });
    let endpoint = format!("{}/{}", app.bucket.service.endpoint, app.bucket.bucket);
    let mut in_parts = files_for_parts(&[1, 5 << 20, (5 << 20) + 1, LARGE]);
    in_parts.push(files()[0].clone());
    // Uppy signs the "~" that upload ids of Ceph RGW have as "%7E", which is no signature of Version 4.
    let takes_parts = backend.kind != BackendKind::Rgw;
    let jobs = [(false, files()), (true, in_parts)];
    for (should_use_multipart, files) in jobs.into_iter().filter(|(in_parts, _)| takes_parts || !in_parts) {
        let options = json!({ "s3Endpoint": endpoint, "shouldUseMultipart": should_use_multipart });
        let job = json!({ "upload": { "options": options, "credentials": credentials, "files": files } });
        let outcome = Browser::open("uppy.js", "node_modules", &job).outcome();
        arrived(&app, &alice, &outcome, files.len()).await;
        // Two requests to the service, however many files there are: the batch, and the credentials.
        let asked = outcome["requests"].as_array().unwrap().iter();
        let asked = asked.filter(|request| request["path"].as_str().unwrap().starts_with("/api/"));
        assert_eq!(asked.filter(|request| request["method"] == "POST").count(), 2, "{}", outcome["requests"]);
    }
    if !takes_parts {
        return app.end().await;
    }
    let options = json!({ "s3Endpoint": endpoint, "shouldUseMultipart": true });
    let files = files_for_parts(&[20 << 20]);
    let upload = json!({ "options": options, "credentials": credentials, "files": files, "cancelAt": 8 << 20 });
    let outcome = Browser::open("uppy.js", "node_modules", &json!({ "upload": upload })).outcome();
    assert_eq!(outcome["cancelled"], true, "{outcome}");
    let open = app.bucket.s3.list_multipart_uploads().bucket(&app.bucket.bucket).send().await.expect("a listing");
    assert_eq!(open.uploads(), []);
    app.end().await;
}

async fn uppy_5_parts(backend: Backend) {
    let app = start(&backend).await;
    let headers = json!({ "authorization": format!("Bearer {}", app.token(&TokenOptions::default())) });
    let options = json!({ "endpoint": app.base(), "headers": headers, "shouldUseMultipart": true });
    let files = files_for_parts(&[1, 5 << 20, (5 << 20) + 1, LARGE]);
    let job = json!({ "upload": { "options": options, "files": files } });
    let outcome = Browser::open("uppy.js", "uppy-5/node_modules", &job).outcome();
    arrived(&app, &app.user("alice"), &outcome, files.len()).await;
    app.end().await;
}

/// The only upload of alice.
async fn only_upload(app: &TestApp) -> Value {
    let uploads = app.user("alice").get("/api/v1/uploads").await.expect(StatusCode::OK);
    let [upload] = &uploads["uploads"].as_array().unwrap()[..] else { panic!("{uploads}") };
    upload.clone()
}

async fn cancelled(backend: Backend) {
    let app = start(&backend).await;
    for packages in ["node_modules", "uppy-5/node_modules"] {
        let headers = json!({ "authorization": format!("Bearer {}", app.token(&TokenOptions::default())) });
        let (granted, _) = capability(&app.user("alice"), &json!({})).await;
        let mut options = json!({ "companionEndpoint": granted["url"], "shouldUseMultipart": true });
        if packages != "node_modules" {
            options = json!({ "endpoint": app.base(), "headers": headers, "shouldUseMultipart": true });
        }
        let file = json!({ "name": "a.bin", "type": "application/octet-stream", "size": 20 << 20 });
        let job = json!({ "upload": { "options": options, "files": [file], "cancelAt": 8 << 20 } });
        let outcome = Browser::open("uppy.js", packages, &job).outcome();
        assert_eq!(outcome["cancelled"], true, "{outcome}");
        let uploads = app.user("alice").get("/api/v1/uploads?state=aborted").await.expect(StatusCode::OK);
        let aborted = uploads["uploads"].as_array().unwrap();
        assert_eq!(aborted.len(), if packages == "node_modules" { 1 } else { 2 }, "{uploads}");
        let open = app.bucket.s3.list_multipart_uploads().bucket(&app.bucket.bucket).send().await.expect("a listing");
        assert_eq!(open.uploads(), []);
    }
    app.end().await;
}

async fn expired(backend: Backend) {
    let app = start(&backend).await;
    let policies = std::fs::read_to_string(&app.policies_file).unwrap();
    app.change_policies(&policies.replace("key =", "upload.expires_in = \"5s\"\nkey =")).await;
    let (granted, _) = capability(&app.user("alice"), &json!({})).await;
    let options = json!({ "companionEndpoint": granted["url"], "shouldUseMultipart": true });
    let file = json!({ "name": "a.bin", "type": "application/octet-stream", "size": 20 << 20 });
    let pauses = json!([{ "method": "PUT", "url": "partNumber=3", "turn": 1 }]);
    let job = json!({ "upload": { "options": options, "files": [file], "retries": 3 }, "pauses": pauses });
    let mut browser = Browser::open("uppy.js", "node_modules", &job);
    assert_eq!(browser.line()["paused"], 0);
    // Until the URL of the part that is held back has ended.
    let end = only_upload(&app).await["expires_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let now = app.clock.now();
    tokio::time::sleep((end - now).to_std().unwrap_or_default() + Duration::from_secs(1)).await;
    browser.send("");
    let outcome = browser.outcome();
    let file = &outcome["files"][0];
    assert_ne!(file["errors"], json!([]), "the store refused it: {file}");
    let mut file = file.clone();
    file["errors"] = json!([]);
    arrived(&app, &app.user("alice"), &json!({ "files": [file] }), 1).await;
    // Every part arrived once: Uppy went on where it had stopped.
    let arrived = outcome["requests"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|request| request["method"] == "PUT" && request["status"] == 200);
    assert_eq!(arrived.count(), 4, "{outcome}");
    app.end().await;
}

async fn reloaded(backend: Backend) {
    let app = start(&backend).await;
    let (granted, _) = capability(&app.user("alice"), &json!({})).await;
    let alice = app.user("alice");
    // Uppy 5 sends several parts at once: of those on their way when the page goes, nobody there sees the answer, and what
    // has not arrived is sent again.
    for (packages, known, most) in
        [("node_modules", "companionEndpoint", 4), ("uppy-5/node_modules", "endpoint", 4 + 3)]
    {
        let options = json!({ known: granted["url"], "shouldUseMultipart": true });
        let file = json!({ "name": "a.bin", "type": "application/octet-stream", "size": 20 << 20 });
        let pauses = json!([{ "method": "PUT", "url": "partNumber=4", "turn": 1, "reload": true }]);
        let job = json!({ "upload": { "options": options, "files": [file] }, "pauses": pauses });
        let outcome = Browser::open("uppy-reload.js", packages, &job).outcome();
        assert_eq!(outcome["files"][0]["errors"], json!([]), "{outcome}");
        arrived(&app, &alice, &outcome, 1).await;
        let id = id_in(outcome["files"][0]["key"].as_str().unwrap());
        let first = alice.get("/api/v1/uploads?limit=1").await.expect(StatusCode::OK);
        assert_eq!(first["uploads"][0]["id"].as_str().unwrap().replace('-', ""), id, "no other was begun: {first}");
        let parts = outcome["requests"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|request| request["method"] == "PUT" && request["status"] == 200);
        assert!(parts.count() <= most, "what had arrived was not sent again: {outcome}");
    }
    app.end().await;
}

async fn restarted(backend: Backend) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (database, bucket) = (backend.database().await, backend.bucket(folder.path()).await);
    allow_pages(&bucket).await;
    let policies = folder.path().join("policies.toml");
    std::fs::write(&policies, unscoped_policies()).unwrap();
    let mut settings = settings(&database, &bucket, &policies, "[server]\ncors_allowed_origins = [\"*\"]");
    settings["s3"].as_table_mut().unwrap().remove("sts");
    let mut program = Program::start(folder.path(), settings.clone());
    program.wait_ready();
    let (granted, _) = capability(&program.user("alice"), &json!({})).await;
    let options = json!({ "companionEndpoint": granted["url"], "shouldUseMultipart": true });
    let file = json!({ "name": "a.bin", "type": "application/octet-stream", "size": 20 << 20 });
    let pauses = json!([{ "method": "GET", "url": "/3?key=", "turn": 1 }]);
    let job = json!({ "upload": { "options": options, "files": [file] }, "pauses": pauses });
    let mut browser = Browser::open("uppy.js", "node_modules", &job);
    assert_eq!(browser.line()["paused"], 0);
    program.kill();
    program.wait_end();
    let port = program.base().rsplit(':').next().unwrap().parse().unwrap();
    let mut program = Program::start_at(folder.path(), settings, port);
    program.wait_ready();
    browser.send("");
    let outcome = browser.outcome();
    let file = &outcome["files"][0];
    assert_eq!(file["errors"], json!([]), "{file}");
    let key = file["key"].as_str().unwrap();
    let object = bucket.s3.get_object().bucket(&bucket.bucket).key(key).send().await.expect("the object");
    let bytes = object.body.collect().await.expect("its bytes").to_vec();
    assert_eq!(hex::encode(digest(&SHA256, &bytes)), file["sha256"].as_str().unwrap());
    let shown = program.user("alice").get(&format!("/api/v1/uploads/{}", id_in(key))).await.expect(StatusCode::OK);
    assert_eq!(shown["state"], "confirmed");
    program.kill();
    program.wait_end();
    bucket.end().await;
    database.end().await;
}

async fn refused(backend: Backend) {
    let app = start(&backend).await;
    let (_, path) = capability(&app.user("alice"), &json!({ "expires_in": 1 })).await;
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

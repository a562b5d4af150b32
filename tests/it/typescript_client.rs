//! The TypeScript client and the page that uses it, in Node and in Chromium, against the real service and stores.
//!
//! What they do is in `clients/typescript/test`. Here is the service that they do it to.

use std::{
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use aws_sdk_s3::types::{CorsConfiguration, CorsRule};
use presignd::clock::Clock;
use reqwest::StatusCode;

use crate::support::{
    AppOptions, Backend, ChaosProxy, Program, Suite, TestApp,
    app::{TokenOptions, settings, token},
    backend::{BackendKind, TestBucket},
    load::eventually,
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.needing_that("Node.js 20 or newer", is_node_recent, |suite| {
        suite.everywhere("the_typescript_client_sends_whole_files", puts);
        // Unscoped, because neither real store takes a form that is signed by a session with a policy.
        suite.everywhere("the_typescript_client_sends_forms", forms);
        suite.everywhere("the_typescript_client_sends_parts", parts);
        suite.everywhere("the_typescript_client_survives_broken_connections", broken);
        suite.needing_that("Chromium and playwright-core", is_chromium_there, |suite| {
            suite.everywhere("the_typescript_client_works_in_chromium", chromium);
            suite.everywhere("the_page_uploads_and_downloads", page);
            suite.everywhere("the_page_fetches_what_needs_the_token", page_that_fetches);
            suite.everywhere("the_page_goes_on_when_urls_run_out", expired_page);
            suite.everywhere("the_page_goes_on_when_the_service_was_killed", restarted);
        });
    });
    suite.everywhere("the_page_is_served_only_where_it_is_wanted", served);
}

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/typescript/test");

/// Longer than any of the scripts takes on a loaded machine, in seconds. What hangs is killed then.
const PATIENCE: &str = "300";

const POLICIES: &str = r#"
[policy.default]
methods = ["put", "post", "multipart"]
upload.expires_in = "5m"
upload.multipart_above = "5MiB"
upload.part_size = "5MiB"
download.expires_in = "5m"
max_size = "1GiB"
key = "uploads/{id}-{name}"

[policy.brief]
methods = ["put", "post", "multipart"]
upload.expires_in = "3s"
upload.multipart_above = "5MiB"
upload.part_size = "5MiB"
key = "brief/{id}-{name}"

[policy.checked]
methods = ["put", "post", "multipart"]
upload.multipart_above = "5MiB"
upload.part_size = "5MiB"
checksum = "required"
key = "checked/{id}-{name}"

[policy.small]
methods = ["put", "post"]
max_size = "1KiB"
key = "small/{id}-{name}"

[policy.streamed]
methods = ["put", "post"]
delivery = "stream"
key = "streamed/{id}-{name}"

[policy.redirected]
methods = ["put", "post"]
delivery = "redirect"
key = "redirected/{id}-{name}"

[policy.ticketed]
methods = ["put", "post"]
download.uses = 5
key = "ticketed/{id}-{name}"
"#;

/// The header that a test plays a change of network with is believed.
const SETTINGS: &str = "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n[web]\nenabled = true";

fn scoped() -> AppOptions {
    AppOptions { policies: Some(POLICIES.to_owned()), settings: SETTINGS.to_owned(), ..AppOptions::default() }
}

/// The same without a scope.
fn unscoped() -> AppOptions {
    let policies = POLICIES.replace("key = ", "ip_scope = \"off\"\nkey = ");
    AppOptions { policies: Some(policies), unscoped: true, ..scoped() }
}

/// What browsers can use. Ceph RGW 16 answers 403 to the preflight of every URL that a session has signed, whatever its
/// policy allows, and a PUT from a page of another origin always has one.
fn for_browsers(backend: &Backend) -> AppOptions {
    if backend.kind == BackendKind::Rgw { unscoped() } else { scoped() }
}

/// Runs the tests of one file by Node's own runner, as alice, and fails with all that it has printed.
fn run(app: &TestApp, file: &str, variables: &[(&str, &str)]) {
    run_at(&app.base(), &app.token(&TokenOptions::default()), file, variables);
}

/// The same at the service that is reached at `base`. The names of the variables are not those of settings, which
/// would keep a service that inherits them from starting.
fn run_at(base: &str, token: &str, file: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", PATIENCE, "node", "--test", "--test-reporter=spec"]);
    command.arg(Path::new(TESTS).join(file));
    command.env("TEST_URL", base).env("TEST_TOKEN", token);
    command.envs(variables.iter().copied());
    let output = command.output().expect("timeout and node are installed");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{file} with {variables:?}: {}\n{printed}", output.status);
    let passed = printed.lines().find_map(|line| line.strip_prefix("ℹ pass ")).and_then(|count| count.parse().ok());
    assert!(passed > Some(0), "{file} has tests: {printed}");
}

fn is_node_recent() -> bool {
    let version = Command::new("node").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&version);
    let major = version.strip_prefix('v').and_then(|version| version.split('.').next()?.parse().ok());
    major >= Some(20)
}

fn is_chromium_there() -> bool {
    // Where Debian has it, and test/browser.js looks for it.
    Path::new("/usr/bin/chromium").exists() && playwright().is_some()
}

/// Where `npm install --global` puts playwright-core: beside one of the folders of programs.
fn playwright() -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&path).map(|bin| bin.join("../lib/node_modules"));
    let modules: PathBuf = candidates.find(|modules| modules.join("playwright-core").is_dir())?;
    modules.into_os_string().into_string().ok()
}

fn node_modules() -> String {
    playwright().expect("the npm package playwright-core is installed")
}

/// The same with Chromium.
fn run_with_chromium(app: &TestApp, file: &str, method: &str) {
    run(app, file, &[("TEST_METHOD", method), ("TEST_NODE_MODULES", &node_modules())]);
}

/// What a page of `origin` needs of a bucket. The embedded store has it for all of its buckets.
async fn allow_browsers(backend: &Backend, bucket: &TestBucket, origin: &str) {
    if backend.kind == BackendKind::Embedded {
        return;
    }
    let rule = CorsRule::builder()
        .allowed_origins(origin)
        .set_allowed_methods(Some(["GET", "PUT", "POST"].map(str::to_owned).to_vec()))
        .allowed_headers("*")
        .max_age_seconds(3000)
        .build()
        .expect("origins and methods are there");
    let rules = CorsConfiguration::builder().cors_rules(rule).build().expect("there is a rule");
    let put = bucket.s3.put_bucket_cors().bucket(&bucket.bucket).cors_configuration(rules);
    put.send().await.expect("the administrator may");
}

async fn puts(backend: Backend) {
    let app = TestApp::start_with(&backend, scoped()).await;
    run(&app, "whole.test.js", &[("TEST_METHOD", "put")]);
    app.end().await;
}

async fn forms(backend: Backend) {
    let app = TestApp::start_with(&backend, unscoped()).await;
    run(&app, "whole.test.js", &[("TEST_METHOD", "post")]);
    app.end().await;
}

async fn parts(backend: Backend) {
    let mut options = scoped();
    if backend.kind == BackendKind::SeaweedFs {
        // Once told of checksums, it demands them again at the end, and lists none that could be sent.
        options.settings.push_str("\n[s3]\ndeclare_part_checksums = false");
    }
    let app = TestApp::start_with(&backend, options).await;
    run(&app, "parts.test.js", &[]);
    app.end().await;
}

async fn broken(backend: Backend) {
    for method in ["put", "multipart"] {
        let mut made = None;
        let alter = async |settings: &mut toml::Table| {
            let s3 = settings["s3"].as_table_mut().unwrap();
            let (proxy, endpoint) = ChaosProxy::in_front_of(s3["endpoint"].as_str().unwrap(), &backend.runtime).await;
            s3.insert("public_endpoint".to_owned(), endpoint.into());
            made = Some(proxy);
        };
        let app = TestApp::start_altered(&backend, scoped(), alter).await;
        let proxy = made.unwrap();
        proxy.break_transfers(3);
        run(&app, "broken.test.js", &[("TEST_METHOD", method), ("TEST_BREAKS", "3")]);
        assert_eq!(proxy.breaks_left(), 0);
        app.end().await;
    }
}

async fn chromium(backend: Backend) {
    for (method, options) in
        [("put", for_browsers(&backend)), ("multipart", for_browsers(&backend)), ("post", unscoped())]
    {
        let app = TestApp::start_with(&backend, options).await;
        allow_browsers(&backend, &app.bucket, &app.base()).await;
        run_with_chromium(&app, "chromium.test.js", method);
        app.end().await;
    }
}

async fn page(backend: Backend) {
    let app = TestApp::start_with(&backend, for_browsers(&backend)).await;
    allow_browsers(&backend, &app.bucket, &app.base()).await;
    run_with_chromium(&app, "page.test.js", "");
    app.end().await;
}

/// Where no link leads to the file, the page fetches it.
async fn page_that_fetches(backend: Backend) {
    for delivery in ["stream", "redirect"] {
        let options = for_browsers(&backend);
        let first = format!("delivery = \"{delivery}\"\nkey =");
        let policies = options.policies.as_deref().map(|policies| policies.replacen("key =", &first, 1));
        let app = TestApp::start_with(&backend, AppOptions { policies, ..options }).await;
        allow_browsers(&backend, &app.bucket, &app.base()).await;
        run_with_chromium(&app, "fetching-page.test.js", "");
        app.end().await;
    }
}

async fn expired_page(backend: Backend) {
    let options = for_browsers(&backend);
    let policies = options.policies.as_deref().map(|policies| policies.replacen("\"5m\"", "\"3s\"", 1));
    let app = TestApp::start_with(&backend, AppOptions { policies, ..options }).await;
    allow_browsers(&backend, &app.bucket, &app.base()).await;
    run(&app, "slow-page.test.js", &[("TEST_NODE_MODULES", &node_modules()), ("TEST_LIFE", "4")]);
    app.end().await;
}

async fn restarted(backend: Backend) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (database, bucket) = (backend.database().await, backend.bucket(folder.path()).await);
    let options = for_browsers(&backend);
    let policies = folder.path().join("policies.toml");
    std::fs::write(&policies, options.policies.as_deref().expect("policies")).unwrap();
    let mut settings = settings(&database, &bucket, &policies, SETTINGS);
    if options.unscoped {
        settings["s3"].as_table_mut().unwrap().remove("sts");
    }
    let mut program = Program::start(folder.path(), settings);
    program.wait_ready();
    allow_browsers(&backend, &bucket, &program.base()).await;

    let alice = program.user("alice");
    let (base, token) = (program.base(), token(&TokenOptions::default(), Clock::System.now()));
    let page = thread::spawn(move || {
        run_at(&base, &token, "slow-page.test.js", &[("TEST_NODE_MODULES", &node_modules())]);
    });
    let has_parts = async || {
        let uploads = alice.get("/api/v1/uploads?state=issued").await.json();
        let id = uploads["uploads"][0]["id"].as_str()?.to_owned();
        let parts = alice.get(&format!("/api/v1/uploads/{id}/parts")).await.json();
        (!parts["parts"].as_array()?.is_empty()).then_some(())
    };
    eventually(Duration::from_mins(2), has_parts).await;
    program.restart();
    page.join().unwrap_or_else(|failed| resume_unwind(failed));
    program.kill();
    bucket.end().await;
    database.end().await;
}

async fn served(backend: Backend) {
    const FILES: [(&str, &str); 5] = [
        ("/", "text/html; charset=utf-8"),
        ("/web/app.js", "text/javascript; charset=utf-8"),
        ("/web/client.js", "text/javascript; charset=utf-8"),
        ("/web/icon.svg", "image/svg+xml"),
        ("/web/style.css", "text/css; charset=utf-8"),
    ];
    let app = TestApp::start_with(&backend, scoped()).await;
    for (path, content_type) in FILES {
        let file = app.anonymous().get(path).await;
        assert_eq!(file.status, StatusCode::OK, "{path}");
        assert_eq!(file.headers["content-type"], content_type);
        assert_eq!(file.headers["x-content-type-options"], "nosniff");
        assert_eq!(file.headers["cache-control"], "no-store");
        assert!(!file.bytes.is_empty());
    }
    let policy = app.anonymous().get("/").await.headers["content-security-policy"].to_str().unwrap().to_owned();
    let store = &app.bucket.service.endpoint;
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
    assert!(policy.contains(&format!("connect-src 'self' {store};")), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    app.end().await;

    let app = TestApp::start(&backend).await;
    for (path, _) in FILES {
        app.anonymous().get(path).await.expect_problem(404, "route_not_found");
    }
    app.end().await;
}

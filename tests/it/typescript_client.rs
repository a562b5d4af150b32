//! The TypeScript client and the page that uses it, in Node and in Chromium, against the real service and stores.
//!
//! What they do is in `clients/typescript/test`. Here is the service that they do it to.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use aws_sdk_s3::types::{CorsConfiguration, CorsRule};
use reqwest::StatusCode;

use crate::support::{AppOptions, Backend, ChaosProxy, Suite, TestApp, app::TokenOptions, backend::BackendKind};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.needing("node", |suite| {
        suite.everywhere("the_typescript_client_sends_whole_files", puts);
        // Unscoped, because neither real store takes a form that is signed by a session with a policy.
        suite.everywhere("the_typescript_client_sends_forms", forms);
        suite.everywhere("the_typescript_client_sends_parts", parts);
        suite.everywhere("the_typescript_client_survives_broken_connections", broken);
        suite.needing("chromium", |suite| {
            suite.everywhere("the_typescript_client_works_in_chromium", chromium);
            suite.everywhere("the_page_uploads_and_downloads", page);
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
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", PATIENCE, "node", "--test", "--test-reporter=spec"]);
    command.arg(Path::new(TESTS).join(file));
    command.env("PRESIGND_URL", app.base()).env("PRESIGND_TOKEN", app.token(&TokenOptions::default()));
    command.envs(variables.iter().copied());
    let output = command.output().expect("timeout and node are installed");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{file} with {variables:?}: {}\n{printed}", output.status);
    let passed = printed.lines().find_map(|line| line.strip_prefix("ℹ pass ")).and_then(|count| count.parse().ok());
    assert!(passed > Some(0), "{file} has tests: {printed}");
}

/// The same with Chromium. Needs the npm package playwright-core where `npm install --global` puts it: beside one of the
/// folders of programs.
fn run_with_chromium(app: &TestApp, file: &str, method: &str) {
    let modules: Option<PathBuf> = std::env::var_os("PATH").and_then(|path| {
        let mut candidates = std::env::split_paths(&path).map(|bin| bin.join("../lib/node_modules"));
        candidates.find(|modules| modules.join("playwright-core").is_dir())
    });
    let modules = modules.expect("the npm package playwright-core is installed");
    let modules = modules.to_str().expect("a path in UTF-8");
    run(app, file, &[("PRESIGND_METHOD", method), ("PRESIGND_NODE_MODULES", modules)]);
}

/// What a page needs of a bucket. The embedded store has it for all of its buckets.
async fn allow_browsers(app: &TestApp) {
    if app.backend.kind == BackendKind::Embedded {
        return;
    }
    let rule = CorsRule::builder()
        .allowed_origins(app.base())
        .set_allowed_methods(Some(["GET", "PUT", "POST"].map(str::to_owned).to_vec()))
        .allowed_headers("*")
        .max_age_seconds(3000)
        .build()
        .expect("origins and methods are there");
    let rules = CorsConfiguration::builder().cors_rules(rule).build().expect("there is a rule");
    let put = app.bucket.s3.put_bucket_cors().bucket(&app.bucket.bucket).cors_configuration(rules);
    put.send().await.expect("the administrator may");
}

async fn puts(backend: Backend) {
    let app = TestApp::start_with(&backend, scoped()).await;
    run(&app, "whole.test.js", &[("PRESIGND_METHOD", "put")]);
    app.end().await;
}

async fn forms(backend: Backend) {
    let app = TestApp::start_with(&backend, unscoped()).await;
    run(&app, "whole.test.js", &[("PRESIGND_METHOD", "post")]);
    app.end().await;
}

async fn parts(backend: Backend) {
    let app = TestApp::start_with(&backend, scoped()).await;
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
        run(&app, "broken.test.js", &[("PRESIGND_METHOD", method), ("PRESIGND_BREAKS", "3")]);
        assert_eq!(proxy.breaks_left(), 0);
        app.end().await;
    }
}

async fn chromium(backend: Backend) {
    for (method, options) in
        [("put", for_browsers(&backend)), ("multipart", for_browsers(&backend)), ("post", unscoped())]
    {
        let app = TestApp::start_with(&backend, options).await;
        allow_browsers(&app).await;
        run_with_chromium(&app, "chromium.test.js", method);
        app.end().await;
    }
}

async fn page(backend: Backend) {
    let app = TestApp::start_with(&backend, for_browsers(&backend)).await;
    allow_browsers(&app).await;
    run_with_chromium(&app, "page.test.js", "");
    app.end().await;
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

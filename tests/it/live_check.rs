//! `presignd check --live`: the table is what each store can do, and nothing of it stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use presignd::app::{self, StartError};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    command_line::{Ended, installed, run},
    support::{
        AppOptions, Backend, Suite, TestApp,
        app::{POLICIES, settings},
        backend::{BackendKind, TestBucket},
    },
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("check_live_tells_what_the_store_can_do", table);
    suite.everywhere("check_live_finds_what_is_wrong_and_how_to_mend_it", mends);
    suite.everywhere("check_live_looks_at_the_running_service", running);
    suite.everywhere("serve_refuses_policies_that_the_store_was_found_too_weak_for", refused_at_start);
    // The embedded store allows every origin, whatever the bucket says.
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "check_live_asks_for_cors_as_a_browser_does", cors);
}

/// What a store lacks with sessions and policies for every method, and needs `declare_part_checksums` as it is by default.
fn lacking(kind: BackendKind) -> BTreeSet<&'static str> {
    match kind {
        BackendKind::Embedded => BTreeSet::new(),
        // Knows no SHA-256, takes forms of sessions without storing anything, and replaces when it completes.
        BackendKind::Rgw => {
            ["put.checksum", "form", "form.by_session", "multipart.part_checksum", "multipart.if_none_match"].into()
        }
        // Knows no sessions in forms, and wants to hear the checksums of declared parts again.
        BackendKind::SeaweedFs => ["form", "form.by_session", "multipart.checksums"].into(),
    }
}

/// Of those, what the policies here need.
fn needed(kind: BackendKind) -> BTreeSet<&'static str> {
    match kind {
        BackendKind::Embedded => BTreeSet::new(),
        BackendKind::Rgw => ["form"].into(),
        BackendKind::SeaweedFs => ["form", "multipart.checksums"].into(),
    }
}

pub(crate) const EVERY_METHOD: &str = "[policy.default]\nmethods = [\"put\", \"post\", \"multipart\"]\n[policy.plain]\nmethods = [\"put\"]\n\
     [policy.signing]\nmethods = [\"credentials\"]\nupload.expires_in = \"15m\"\nip_scope = \"off\"\n[policy.reading]\nmethods = [\"put\"]\nip_scope = \"off\"\n\
     download.ip_scope = { v4 = 32, v6 = 64 }\n";

/// The rows by capability.
fn rows(ended: &Ended) -> BTreeMap<String, Value> {
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    let rows = report["rows"].as_array().unwrap().iter();
    rows.map(|row| (row["capability"].as_str().unwrap().to_owned(), row.clone())).collect()
}

fn with_outcome<'a>(rows: &'a BTreeMap<String, Value>, outcomes: &[&str]) -> BTreeSet<&'a str> {
    let wanted = rows.iter().filter(|(_, row)| outcomes.contains(&row["outcome"].as_str().unwrap()));
    wanted.map(|(name, _)| name.as_str()).collect()
}

/// Fails unless a check with [`EVERY_METHOD`] found of the store what is known of it, and nothing else wrong.
pub(crate) fn expect_lacking(kind: BackendKind, ended: &Ended) {
    let (lacking, needed) = (lacking(kind), needed(kind));
    assert_eq!(ended.code, Some(i32::from(!needed.is_empty())), "{ended:?}");
    let found = rows(ended);
    assert_eq!(with_outcome(&found, &["failed", "note"]), lacking, "{ended:?}");
    assert_eq!(with_outcome(&found, &["failed"]), needed, "{ended:?}");
}

fn check(folder: &Path, more: &[&str]) -> Ended {
    run(&[&["check", "--live", "--format", "json"], more].concat(), folder, &[])
}

/// Fails unless the bucket is as empty as it was made.
async fn expect_empty(bucket: &TestBucket) {
    let objects = bucket.s3.list_objects_v2().bucket(&bucket.bucket).send().await.expect("a listing");
    assert!(objects.contents().is_empty(), "{objects:?}");
    let open = bucket.s3.list_multipart_uploads().bucket(&bucket.bucket).send().await.expect("a listing");
    assert!(open.uploads().is_empty(), "{open:?}");
}

pub(crate) fn write_policies(folder: &TempDir, text: &str) {
    fs::write(folder.path().join("policies.toml"), text).unwrap();
}

async fn table(backend: Backend) {
    let store = tempfile::tempdir().unwrap();
    let database = backend.database().await;
    let bucket = backend.bucket(store.path()).await;
    let folder = installed(&database, &bucket, "log.filter = \"error\"");
    run(&["migrate"], folder.path(), &[]).expect(0);
    write_policies(&folder, EVERY_METHOD);
    let (lacking, needed) = (lacking(backend.kind), needed(backend.kind));

    let ended = check(folder.path(), &["--from-address", "127.0.0.11"]);
    expect_lacking(backend.kind, &ended);
    let found = rows(&ended);
    assert_eq!(with_outcome(&found, &["untried"]), ["cors", "service"].into(), "{ended:?}");
    for (name, row) in &found {
        assert_eq!(row["outcome"] == "failed", row["mend"].is_string(), "{name}: {row}");
    }
    for name in ["scope.admits", "scope.enforced", "scope.unforgeable", "scope.elsewhere"] {
        assert_eq!(found[name]["needed_by"], serde_json::json!(["default", "plain", "reading"]), "{name}");
    }
    assert_eq!(found["credentials.area"]["needed_by"], serde_json::json!(["signing"]));
    if needed.contains("form") {
        assert_eq!(found["form"]["needed_by"], serde_json::json!(["default"]));
    }
    assert_eq!(found["put"]["needed_by"], serde_json::json!(["everything"]));
    expect_empty(&bucket).await;

    // What nobody needs is a note: the same store is good enough for other policies.
    write_policies(&folder, "[policy.default]\nmethods = [\"put\"]\n");
    let ended = check(folder.path(), &[]).expect(0);
    assert_eq!(with_outcome(&rows(&ended), &["note"]), lacking, "{ended:?}");
    // For people.
    let text = run(&["check", "--live"], folder.path(), &[]).expect(0).stdout;
    let line = |name: &str| text.lines().find(|line| line.split_whitespace().nth(1) == Some(name)).unwrap_or_default();
    assert!(line("put").starts_with("ok ") && line("put").contains(" everything "), "{text}");
    if let Some(name) = lacking.first() {
        assert!(line(name).starts_with("note ") && line(name).contains(" nobody "), "{text}");
    }
    expect_empty(&bucket).await;
    bucket.end().await;
    database.end().await;
}

async fn mends(backend: Backend) {
    let store = tempfile::tempdir().unwrap();
    let database = backend.database().await;
    let bucket = backend.bucket(store.path()).await;
    let folder = installed(&database, &bucket, "log.filter = \"off\"");
    write_policies(&folder, "[policy.default]\nmethods = [\"put\"]\n");
    // Before there are tables.
    let found = rows(&check(folder.path(), &[]).expect(1));
    assert_eq!(found["database.schema"]["outcome"], "failed");
    assert!(found["database.schema"]["mend"].as_str().unwrap().contains("presignd migrate"), "{found:?}");
    run(&["migrate"], folder.path(), &[]).expect(0);

    // Nobody but root could listen there, and nobody does.
    let closed = "127.0.0.1:1";
    let closed_store = format!("http://{closed}");
    let closed_database = format!("postgres://nobody@{closed}/nothing");
    for (variables, capability, mend) in [
        (vec![("PRESIGND_S3__ENDPOINT", closed_store.as_str())], "store", "start the store"),
        (vec![("PRESIGND_S3__BUCKET", "no-such-bucket-at-all")], "store", "create the bucket"),
        (vec![("PRESIGND_S3__SECRET_ACCESS_KEY", "wrong")], "store", "correct s3.access_key_id"),
        (vec![("PRESIGND_S3__STS__ENDPOINT", closed_store.as_str())], "sts", "start the STS"),
        (vec![("PRESIGND_DATABASE__URL", closed_database.as_str())], "database", "start the database"),
    ] {
        let ended = run(&["check", "--live", "--format", "json"], folder.path(), &variables).expect(1);
        let row = &rows(&ended)[capability];
        assert_eq!(row["outcome"], "failed", "{variables:?}: {ended:?}");
        assert!(row["mend"].as_str().unwrap().starts_with(mend), "{variables:?}: {ended:?}");
    }
    expect_empty(&bucket).await;

    // A clock that is wrong is as wrong for both.
    let found = rows(&check(folder.path(), &[]).expect(0));
    for clock in ["database.clock", "store.clock"] {
        assert_eq!(found[clock]["outcome"], "ok", "{found:?}");
    }
    // As somebody else than the store sees, nothing is admitted.
    let found = rows(&check(folder.path(), &["--address", "192.0.2.77"]).expect(1));
    assert_eq!(with_outcome(&found, &["failed"]).iter().next(), Some(&"scope.admits"), "{found:?}");
    expect_empty(&bucket).await;
    bucket.end().await;
    database.end().await;
}

async fn running(backend: Backend) {
    // Whoever is at 127.0.0.1 may claim any address: what a proxy that passes its clients' headers on leads to.
    for (settings, outcome) in [("", "ok"), ("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]", "failed")] {
        let options = AppOptions { settings: settings.to_owned(), ..AppOptions::default() };
        let app = TestApp::start_with(&backend, options).await;
        let store = tempfile::tempdir().unwrap();
        let bucket = backend.bucket(store.path()).await;
        // Of its own, because the embedded one serves one connection.
        let database = backend.database().await;
        let folder = installed(&database, &bucket, "log.filter = \"off\"");
        write_policies(&folder, "[policy.default]\nmethods = [\"put\"]\n");
        run(&["migrate"], folder.path(), &[]).expect(0);
        let ended = check(folder.path(), &["--url", &app.base()]);
        assert_eq!(ended.code, Some(i32::from(outcome == "failed")), "{ended:?}");
        assert_eq!(rows(&ended)["service"]["outcome"], outcome, "{ended:?}");
        bucket.end().await;
        database.end().await;
        app.end().await;
    }
}

async fn refused_at_start(backend: Backend) {
    let put = "[policy.default]\nmethods = [\"put\"]\n";
    let settings_text = "[s3]\nprobe_on_start = true".to_owned();
    let options = AppOptions { policies: Some(put.to_owned()), settings: settings_text, ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    expect_empty(&app.bucket).await;
    // What was found at the start holds for later policies as well.
    let version = app.running.policies.current().version().to_owned();
    let status = app.change_policies(EVERY_METHOD).await;
    if needed(backend.kind).is_empty() {
        assert_ne!(status.version, version);
        app.end().await;
        return;
    }
    let error = status.last_error.expect("it is refused");
    assert!(error.contains("policy.default.methods: needs form, which the store was found not to do"), "{error}");
    assert_eq!(app.running.policies.current().version(), version);
    app.end().await;

    let store = tempfile::tempdir().unwrap();
    let database = backend.database().await;
    let bucket = backend.bucket(store.path()).await;
    let policies = store.path().join("policies.toml");
    fs::write(&policies, POLICIES).unwrap();
    let overlay = "[s3]\nprobe_on_start = true";
    let text = settings(&database, &bucket, &policies, overlay).to_string();
    let config = presignd::config::Config::parse(&text, "test settings", &BTreeMap::new()).unwrap();
    let started = Box::pin(app::start(&config, presignd::clock::Clock::System, backend.runtime.clone())).await;
    let Err(error @ StartError::Lacking(_)) = started else { panic!("{started:?}") };
    let told = error.to_string();
    assert!(told.contains("FAILED") && told.contains("form") && told.contains("mend: leave \"post\" out"), "{told}");
    expect_empty(&bucket).await;
    bucket.end().await;
    database.end().await;
}

async fn cors(backend: Backend) {
    let store = tempfile::tempdir().unwrap();
    let database = backend.database().await;
    let bucket = backend.bucket(store.path()).await;
    let overlay = "log.filter = \"off\"\n[server]\ncors_allowed_origins = [\"https://app.example.com\"]";
    let folder = installed(&database, &bucket, overlay);
    // Ceph RGW 16 takes no preflight for a URL of a session, whatever the bucket's rules.
    let mut settings: toml::Table = fs::read_to_string(folder.path().join("presignd.toml")).unwrap().parse().unwrap();
    settings["s3"].as_table_mut().unwrap().remove("sts");
    fs::write(folder.path().join("presignd.toml"), settings.to_string()).unwrap();
    write_policies(&folder, "[policy.default]\nmethods = [\"put\"]\nip_scope = \"off\"\n");
    run(&["migrate"], folder.path(), &[]).expect(0);
    let found = rows(&check(folder.path(), &[]).expect(1));
    assert_eq!(with_outcome(&found, &["failed"]), ["cors"].into(), "{found:?}");
    assert!(found["cors"]["mend"].as_str().unwrap().contains("presignd cors print"), "{found:?}");

    let printed = run(&["cors", "print"], folder.path(), &[]).expect(0).stdout;
    crate::cors::put_printed(&bucket, &serde_json::from_str(&printed).unwrap()).await;
    let found = rows(&check(folder.path(), &[]).expect(0));
    assert_eq!(found["cors"]["outcome"], "ok", "{found:?}");
    bucket.end().await;
    database.end().await;
}

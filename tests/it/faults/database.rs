//! PostgreSQL killed, restarted, absent, hanging and slow, and rows that it refuses.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{FutureExt as _, future::join_all};
use presignd::{
    clock::Clock,
    config::DatabaseConfig,
    db::{Database, DbError, Ledger, PartColumns, UploadIntent},
    model::{ByteSize, ContentType, FileName, IntentId, IntentState, Metadata, ObjectKey, UploadMethod},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use super::{RECOVERY, process::Ground};
use crate::{
    audit::{administrator, with_admin},
    revocations,
    support::{
        AppOptions, Backend, Caller, ChaosProxy, Program, Reply, TestApp,
        load::{Answer, Load, all_issued_are_recorded, eventually},
        services::postgres::{Postgres, Stop},
        suite::own_postgres,
    },
};

const DATABASE: &str = "presignd";

/// A PostgreSQL that only this test uses.
pub(crate) fn stoppable_postgres() -> (TempDir, Postgres) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The server runs under another account and has to get through.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let postgres = own_postgres(&folder.path().join("postgres"));
    postgres.create_database(DATABASE).expect("a database is made");
    (folder, postgres)
}

/// A service on that database instead of the backend's.
pub(crate) async fn start_on(backend: &Backend, postgres: &Postgres) -> TestApp {
    let url = postgres.url(DATABASE);
    let alter = async |settings: &mut toml::Table| settings["database"]["url"] = url.into();
    TestApp::start_altered(backend, AppOptions::default(), alter).await
}

fn says_unavailable(answers: &[Answer]) {
    for answer in answers {
        match answer {
            Answer::Issued { .. } => {}
            Answer::Refused { reply, took } => {
                reply.expect_problem(503, "database_unavailable");
                assert!(reply.headers.contains_key("retry-after"));
                assert!(*took < Duration::from_secs(10), "an answer took {took:?}");
            }
            Answer::Broken => panic!("a request was not answered"),
        }
    }
}

pub(crate) async fn readiness(caller: &Caller, status: StatusCode, database: &str) -> Duration {
    let shows = async || {
        let reply = caller.get("/readyz").await;
        (reply.status == status && reply.json()["database"] == database).then_some(())
    };
    eventually(RECOVERY, shows).await.1
}

pub(super) async fn restarted(backend: Backend, how: Stop) {
    let (_folder, mut postgres) = stoppable_postgres();
    let app = start_on(&backend, &postgres).await;
    let alice = app.user("alice");
    readiness(&alice, StatusCode::OK, "ok").await;
    let load = Load::start(&alice, 16, &backend.runtime);
    load.until_issued(300).await;

    postgres.stop(how).expect("it stops");
    load.until_refused(50).await;
    let down = readiness(&alice, StatusCode::SERVICE_UNAVAILABLE, "unavailable").await;

    postgres.start_again().expect("it starts again");
    let began = Instant::now();
    load.until_issued(1).await;
    eprintln!("measured: {how:?}: first upload {:?} after PostgreSQL is back, seen down in {down:?}", began.elapsed());
    assert!(began.elapsed() < RECOVERY);
    readiness(&alice, StatusCode::OK, "ok").await;
    load.until_issued(300).await;

    let answers = load.end().await;
    says_unavailable(&answers);
    all_issued_are_recorded(&answers, &postgres.url(DATABASE), &backend.runtime).await;
    app.end().await;
}

/// As an old primary is after a failover, to which the connections still lead.
pub(super) async fn read_only(backend: Backend) {
    let (_folder, postgres) = stoppable_postgres();
    let app = start_on(&backend, &postgres).await;
    let alice = app.user("alice");
    alice.issue("a.txt", b"bytes", &json!({})).await;
    let set = |read_only: &str| {
        postgres.psql(DATABASE, &format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}")).unwrap();
        postgres.psql(DATABASE, "SELECT pg_reload_conf()").unwrap();
    };
    set("on");
    readiness(&alice, StatusCode::SERVICE_UNAVAILABLE, "unavailable").await;
    let body = json!({ "original_file_name": "a.txt", "file_size": 5 });
    // On connections from before, and where there is none left.
    for _ in 0..4 {
        let refused = alice.post("/api/v1/uploads", &body).await;
        refused.expect_problem(503, "database_unavailable");
        assert!(refused.headers.contains_key("retry-after"));
    }
    set("off");
    readiness(&alice, StatusCode::OK, "ok").await;
    alice.issue("a.txt", b"bytes", &json!({})).await;
    app.end().await;
}

/// A transaction of somebody else, which goes on until this is dropped.
struct Transaction(Arc<Postgres>);

impl Transaction {
    const IS_IT: &str = "query LIKE '%the transaction of a test%' AND pid <> pg_backend_pid()";

    async fn begin(postgres: &Arc<Postgres>, statement: &str) -> Self {
        let text = format!("BEGIN; {statement}; SELECT pg_sleep(120) /* the transaction of a test */");
        let client = Arc::clone(postgres);
        // It ends with an error, because its connection does.
        thread::spawn(move || client.psql(DATABASE, &text));
        let asleep = format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND {}", Self::IS_IT);
        eventually(RECOVERY, async || (postgres.psql(DATABASE, &asleep).unwrap() == "1").then_some(())).await;
        Self(Arc::clone(postgres))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let end = format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {}", Self::IS_IT);
        self.0.psql(DATABASE, &end).expect("it ends");
    }
}

/// A dump reads tables for hours, and a new partition wants them for itself.
pub(super) async fn partitions_wait(backend: Backend) {
    let (_folder, postgres) = stoppable_postgres();
    let postgres = Arc::new(postgres);
    let app = start_on(&backend, &postgres).await;
    let database = &app.running.service.database;
    let next_year = Clock::System.now() + TimeDelta::days(365);
    let dump = Transaction::begin(&postgres, "SELECT count(*) FROM upload_intents").await;
    let began = Instant::now();
    let alice = app.user("alice");
    let (made, ()) = tokio::join!(database.ensure_partitions(next_year), async {
        for _ in 0..20 {
            alice.issue("a.txt", b"bytes", &json!({})).await;
        }
    });
    // For each of four months it waits for less than a statement may take.
    assert!(made.unwrap_err().to_string().contains("lock timeout"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(dump);
    database.ensure_partitions(next_year).await.expect("nobody is in the way");
    app.end().await;
}

/// A month without a partition in time: its rows are in the default one, and keep it from being made.
pub(super) async fn partition_too_late(backend: Backend) {
    let (_folder, postgres) = stoppable_postgres();
    let postgres = Arc::new(postgres);
    let app = start_on(&backend, &postgres).await;
    let database = &app.running.service.database;
    let now = Clock::System.now();
    let month = format!("upload_intents_{}", now.format("%Y_%m"));
    let rows = |table: &str| postgres.psql(DATABASE, &format!("SELECT count(*) FROM {table}")).unwrap();
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"bytes", &json!({ "method": "put" })).await;
    assert_eq!(alice.send(&issued, b"bytes").await.status, StatusCode::OK);
    let late = format!(
        "ALTER TABLE upload_intents DETACH PARTITION {month}; \
         INSERT INTO upload_intents_default SELECT * FROM {month}; DROP TABLE {month}"
    );
    postgres.psql(DATABASE, &late).unwrap();

    // Whoever asks for the lock has everybody else wait as well.
    let dump = Transaction::begin(&postgres, "SELECT count(*) FROM upload_intents").await;
    let refused = database.ensure_partitions(now).await.unwrap_err().to_string();
    assert!(refused.contains("upload_intents_default holds rows of it: presignd migrate --repartition"), "{refused}");
    drop(dump);

    let load = Load::start(&alice, 4, &backend.runtime);
    load.until_issued(50).await;
    let moved = database.move_from_default().await.unwrap().expect("rows to move");
    assert_eq!((moved.from.as_str(), moved.to.as_str()), ("upload_intents_default", month.as_str()));
    load.until_issued(50).await;
    let answers = load.end().await;
    for answer in &answers {
        assert!(matches!(answer, Answer::Issued { .. }), "{answer:?}");
    }
    assert_eq!(database.move_from_default().await.unwrap(), None);
    assert_eq!(rows("upload_intents_default"), "0");
    all_issued_are_recorded(&answers, &postgres.url(DATABASE), &backend.runtime).await;
    alice.complete(&issued).await.expect(StatusCode::OK);
    database.ensure_partitions(now).await.expect("nothing is in the way");
    app.end().await;
}

pub(super) async fn revocation_without_end(backend: Backend) {
    let (_folder, postgres) = stoppable_postgres();
    let postgres = Arc::new(postgres);
    let mut options = with_admin();
    options.settings.push_str("\n[database]\nstatement_timeout = \"500ms\"");
    let url = postgres.url(DATABASE);
    let app =
        TestApp::start_altered(&backend, options, async |settings| settings["database"]["url"] = url.into()).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"bytes", &json!({ "method": "put" })).await;
    let elsewhere = Transaction::begin(&postgres, "LOCK TABLE download_intents").await;
    let everything = json!({ "issued_before": Clock::System.now() });
    let revoked = administrator(&app).post(revocations::PATH, &everything).await.expect(StatusCode::OK);
    let end: DateTime<Utc> = revoked["urls_live_until"].as_str().unwrap().parse().unwrap();
    let days = (end - Clock::System.now()).num_hours();
    assert!((167..=168).contains(&days), "no URL is good for longer than seven days: {end}");
    alice.complete(&issued).await.expect_problem(410, "revoked");
    drop(elsewhere);
    app.end().await;
}

pub(super) async fn absent_at_start(backend: Backend) {
    let (_folder, mut postgres) = stoppable_postgres();
    postgres.stop(Stop::Fast).expect("it stops");
    let began = Instant::now();
    let app = start_on(&backend, &postgres).await;
    assert!(began.elapsed() < Duration::from_secs(5), "the start took {:?}", began.elapsed());
    let alice = app.user("alice");
    readiness(&alice, StatusCode::SERVICE_UNAVAILABLE, "unavailable").await;
    let load = Load::start(&alice, 4, &backend.runtime);
    load.until_refused(20).await;

    postgres.start_again().expect("it starts");
    let began = Instant::now();
    // Ready means that the migrations have been applied as well.
    readiness(&alice, StatusCode::OK, "ok").await;
    alice.issue("a.txt", b"bytes", &json!({})).await;
    eprintln!("measured: ready {:?} after PostgreSQL has started", began.elapsed());
    assert!(began.elapsed() < RECOVERY);
    load.until_issued(20).await;
    let answers = load.end().await;
    says_unavailable(&answers);
    all_issued_are_recorded(&answers, &postgres.url(DATABASE), &backend.runtime).await;
    app.end().await;
}

/// As after a roll-out in which the migrations have not been applied yet: what would not have started does not go on.
pub(super) async fn other_schema(backend: Backend) {
    let (folder, mut postgres) = stoppable_postgres();
    postgres.stop(Stop::Fast).expect("it stops");
    let ground = Ground::new(&backend).await;
    let mut settings = ground.settings("[database]\nmigrate_on_start = false");
    settings["database"]["url"] = postgres.url(DATABASE).into();
    let mut program = Program::start(folder.path(), settings);
    let alive = async || {
        let reply = Reply::try_of(program.anonymous().request(Method::GET, "/healthz")).await;
        reply.ok().filter(|reply| reply.status == StatusCode::OK)
    };
    eventually(RECOVERY, alive).await;
    postgres.start_again().expect("it starts");
    assert_eq!(program.wait_end().code(), Some(1));
    assert!(program.log().contains("the database lacks migrations"), "{}", program.log());
    ground.end().await;
}

/// Somebody else is at the migrations, and may be for hours.
pub(super) async fn start_given_up(backend: Backend) {
    let (folder, postgres) = stoppable_postgres();
    let postgres = Arc::new(postgres);
    let ground = Ground::new(&backend).await;
    let mut settings = ground.settings("[server]\nshutdown_timeout = \"1s\"\n[log]\nfilter = \"info\"");
    settings["database"]["url"] = postgres.url(DATABASE).into();
    let migrating = Transaction::begin(&postgres, "SELECT pg_advisory_lock(8102650225956974180)").await;
    let mut program = Program::start(folder.path(), settings);
    let waits = async || program.log().contains("another process is at the migrations").then_some(());
    eventually(RECOVERY, waits).await;
    program.terminate();
    assert!(program.wait_end().success());
    assert!(program.log().contains("the start did not end in time"), "{}", program.log());
    drop(migrating);
    ground.end().await;
}

const IMPATIENT: &str = "
    [server]
    workers = 2
    [database]
    acquire_timeout = \"500ms\"
    statement_timeout = \"500ms\"
    ledger = { writers = 1, queue = 16, max_batch = 4 }";

/// A service whose database is behind a proxy.
async fn start_behind_proxy(backend: &Backend, settings: &str) -> (TestApp, ChaosProxy) {
    let mut made = None;
    let options = AppOptions { settings: settings.to_owned(), ..AppOptions::default() };
    let alter = async |settings: &mut toml::Table| {
        let url = settings["database"]["url"].as_str().unwrap();
        let (proxy, url) = ChaosProxy::in_front_of(url, &backend.runtime).await;
        settings["database"]["url"] = url.into();
        made = Some(proxy);
    };
    let app = TestApp::start_altered(backend, options, alter).await;
    (app, made.unwrap())
}

pub(super) async fn hangs(backend: Backend) {
    let (app, proxy) = start_behind_proxy(&backend, IMPATIENT).await;
    let alice = app.user("alice");
    let known = alice.issue("a.txt", b"bytes", &json!({})).await;
    let known = format!("/api/v1/uploads/{}", known["id"].as_str().unwrap());

    proxy.black_hole();
    let timed = async |request| {
        let began = Instant::now();
        (Reply::of(request).await, began.elapsed())
    };
    let body = json!({ "original_file_name": "a.txt", "file_size": 5 });
    let issue = || alice.request(Method::POST, "/api/v1/uploads").json(&body);
    let plain = join_all((0..60).map(|_| timed(issue())));
    let keyed = join_all((0..6).map(|key| timed(issue().header("idempotency-key", key.to_string()))));
    let reads = join_all((0..6).map(|_| timed(alice.request(Method::GET, &known))));
    let began = Instant::now();
    let (plain, keyed, reads) = tokio::join!(plain, keyed, reads);
    eprintln!("measured: a database that hangs: all answered after {:?}", began.elapsed());

    // What does not fit into the queue is refused at once.
    let (overloaded, waited): (Vec<_>, Vec<_>) =
        plain.iter().partition(|(reply, _)| reply.json()["code"] == "overloaded");
    assert!(overloaded.len() >= 30, "{} of 60", overloaded.len());
    for (reply, took) in overloaded {
        reply.expect_problem(503, "overloaded");
        assert!(reply.headers.contains_key("retry-after"));
        assert!(*took < Duration::from_secs(1), "being refused took {took:?}");
    }
    // One statement that is not answered (1.5 s), one connection that is not made (3 s), and some slack.
    for (reply, took) in waited.into_iter().chain(&keyed).chain(&reads) {
        reply.expect_problem(503, "database_unavailable");
        assert!(*took < Duration::from_secs(7), "an answer took {took:?}");
    }

    proxy.heal();
    let works = async || {
        let (reply, _) = timed(issue()).await;
        (reply.status == StatusCode::CREATED).then_some(())
    };
    let ((), took) = eventually(RECOVERY, works).await;
    eprintln!("measured: first upload {took:?} after the database answers again");
    readiness(&alice, StatusCode::OK, "ok").await;
    assert_eq!(alice.get(&known).await.status, StatusCode::OK);
    app.end().await;
}

/// Each request reads the row of another user, so that an answer taken for another's would show.
pub(super) async fn slow(backend: Backend) {
    let (app, proxy) = start_behind_proxy(&backend, IMPATIENT).await;
    let mut owned = Vec::new();
    for user in ["alice", "bob", "carol"] {
        let caller = app.user(user);
        let issued = caller.issue("a.txt", b"bytes", &json!({})).await;
        owned.push((user, format!("/api/v1/uploads/{}", issued["id"].as_str().unwrap()), caller));
    }
    proxy.stall();
    let refused = join_all(owned.iter().map(|(_, path, caller)| caller.get(path))).await;
    for reply in refused {
        reply.expect_problem(503, "database_unavailable");
    }
    // Now the answers to all of those come, on whatever connection is still open.
    proxy.heal();
    for (user, path, caller) in owned.iter().rev().cycle().take(9) {
        let answered = async || {
            let reply = caller.get(path).await;
            (reply.status != StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
        };
        let (reply, _) = eventually(RECOVERY, answered).await;
        assert_eq!(reply.expect(StatusCode::OK)["created_by"], *user);
    }
    app.end().await;
}

pub(super) async fn bad_rows(backend: Backend) {
    let own = backend.database().await;
    let (proxy, url) = ChaosProxy::in_front_of(own.url(), &backend.runtime).await;
    let mut config =
        DatabaseConfig { url: url.into(), max_connections: own.max_connections(), ..DatabaseConfig::default() };
    config.ledger.writers = 1;
    let database = Database::new(&config, &backend.runtime).unwrap();
    database.migrate().await.unwrap();
    let (ledger, writers) = Ledger::start(&database, &config, &backend.runtime);
    let known = intent();
    ledger.record_upload(Box::new(known.clone())).await.unwrap();

    let mut rows: Vec<UploadIntent> = (0..20).map(|_| intent()).collect();
    rows[3].id = known.id;
    rows[7].confirm_until = rows[7].created_at;
    "nul\0".clone_into(&mut rows[11].subject);
    let bad = [3, 7, 11];
    // The writer is kept busy by one row, so that all others are taken together.
    proxy.stall();
    let (first, others) = {
        let (first, others) = (ledger.clone(), ledger.clone());
        let mut first = Box::pin(async move { first.record_upload(Box::new(intent())).await });
        // Once is enough to queue it, and only then does an empty queue mean that the writer has it.
        assert!(first.as_mut().now_or_never().is_none());
        eventually(Duration::from_secs(2), async || (ledger.status().queued == 0).then_some(())).await;
        let ids: Vec<IntentId> = rows.iter().map(|row| row.id).collect();
        let rows = rows.clone();
        let write = async move { join_all(rows.into_iter().map(|row| others.record_upload(Box::new(row)))).await };
        (first, (backend.runtime.spawn(write), ids))
    };
    let (others, ids) = others;
    eventually(Duration::from_secs(2), async || (ledger.status().queued >= 20).then_some(())).await;
    proxy.heal();
    first.await.expect("the first row is good");
    for (index, (outcome, id)) in others.await.unwrap().into_iter().zip(ids).enumerate() {
        match outcome {
            Ok(row) => {
                assert!(!bad.contains(&index), "row {index} is bad and was taken");
                assert_eq!(row.id, id);
                assert!(database.upload(id).await.unwrap().is_some());
            }
            Err(error) => {
                assert!(bad.contains(&index), "row {index} is good and failed: {error}");
                assert!(matches!(error, DbError::RowRefused(_) | DbError::Failed(_)), "{error}");
            }
        }
    }
    let status = ledger.status();
    assert_eq!((status.rows, status.failed_rows), (19, 3));
    drop(ledger);
    writers.drained().await;
    database.close();
    drop(database);
    own.end().await;
}

pub(crate) fn intent() -> UploadIntent {
    let now = Clock::System.now();
    let id = IntentId::at(now);
    UploadIntent {
        id,
        issuer: "https://issuer.test/".to_owned(),
        subject: "alice".to_owned(),
        tenant: None,
        original_file_name: FileName::parse("a.txt").unwrap(),
        upload_to: "uploads".to_owned(),
        bucket: "files".to_owned(),
        object_key: ObjectKey::parse(format!("uploads/{}-a.txt", id.hex())).unwrap(),
        file_size: ByteSize::from_bytes(5),
        file_size_is_limit: false,
        content_type: ContentType::guess("a.txt"),
        checksum_sha256: None,
        metadata: Metadata::default(),
        method: UploadMethod::Put,
        policy: "default".to_owned(),
        policy_version: "v1".to_owned(),
        client_network: None,
        state: IntentState::Issued,
        created_at: now,
        expires_at: now + TimeDelta::seconds(60),
        confirm_until: now + TimeDelta::seconds(120),
        settled_at: None,
        settled_via: None,
        etag: None,
        version_id: None,
        mismatches: None,
        stored_key: None,
        parts: PartColumns::default(),
    }
}

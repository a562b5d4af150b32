//! What is in the bucket and what the uploads say should be.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use presignd::{
    domain::{DriftCounts, DriftEvent, DriftKind, DriftOptions, Finding},
    model::{ETag, IntentId, IntentState},
    s3::{ListedObject, ListedPage, Listing, ObjectStore, S3Error},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    credentials::CLIENT_KEY,
    support::{Backend, Suite, TestApp, backend::BackendKind, caller::id},
    sweeper::{app, keys, program, put, row, still, sweep},
};

const BYTES: &[u8] = b"what was promised";

const OTHER: &[u8] = b"something else";

const REPORT: DriftOptions = DriftOptions { repair: false, resume: false, min_age: Duration::from_hours(24) };
const REPAIR: DriftOptions = DriftOptions { repair: true, ..REPORT };

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("drift_tells_orphans_foreign_and_missing_objects_apart", tells_apart);
    suite.everywhere("drift_removes_orphans_and_nothing_else", repairs);
    // The others take such keys over TLS only, or not at all.
    suite.on(&[BackendKind::SeaweedFs], "drift_removes_orphans_that_it_cannot_read", unreadable);
    suite.everywhere("drift_removes_nothing_without_the_right_database", another_database);
    // The embedded PostgreSQL has no connection to spare for changing rows.
    suite.on(&[BackendKind::SeaweedFs], "drift_removes_nothing_of_months_that_were_dropped", dropped_months);
    suite.everywhere("drift_spares_what_becomes_accounted_for_before_the_second_look", second_look);
    suite.everywhere("an_interrupted_drift_goes_on_where_it_was", resumes);
    // PostgreSQL inside the process serves one connection, and these look at it from outside.
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "drift_on_the_command_line_says_what_it_found", command_line);
    // The listing is made up, so the store does not matter.
    suite.on(&[BackendKind::SeaweedFs], "a_million_objects_are_compared_page_by_page", a_million);
}

async fn drift(app: &TestApp, options: DriftOptions) -> (DriftCounts, Vec<Finding>) {
    let service = &app.running.service;
    let mut findings = Vec::new();
    let counts = service.drift(&service.store, options, |event| {
        if let DriftEvent::Found(finding) = event {
            findings.push(finding.clone());
        }
    });
    let counts = counts.await.expect("store and database answer");
    (counts, findings)
}

/// An id as the service would have given it out this long after now, in hexadecimal digits. Made here, because those that
/// the service makes in this process never go back in time, and the clocks of tests do.
fn id_at(app: &TestApp, delta: TimeDelta) -> String {
    format!("{:012x}70008{:015x}", (app.clock.now() + delta).timestamp_millis(), 1)
}

/// A service with one upload of each kind, and one object of each kind that is no upload's. A day later.
struct Ground {
    app: TestApp,
    confirmed: Value,
    missing: Value,
    replaced: Value,
    orphan: String,
    staged_orphan: String,
}

impl Ground {
    async fn new(backend: &Backend) -> Self {
        let app = app(backend).await;
        let alice = app.user("alice");
        let (put_it, post) = (json!({ "method": "put" }), json!({ "method": "post" }));
        // In a row, because ids begin with their time and the first is the oldest.
        let confirmed = alice.upload("a.txt", BYTES, &post).await;
        let missing = alice.upload("b.txt", BYTES, &put_it).await;
        let replaced = alice.upload("c.txt", BYTES, &put_it).await;
        let open = alice.issue("d.txt", BYTES, &put_it).await;
        assert!(alice.send(&open, BYTES).await.status.is_success());
        let aborted = alice.issue("e.txt", BYTES, &post).await;
        alice.delete(&format!("/api/v1/uploads/{}", id(&aborted))).await.expect(StatusCode::OK);
        assert!(alice.send(&aborted, BYTES).await.status.is_success());

        let (s3, bucket) = (&app.bucket.s3, &app.bucket.bucket);
        let gone = row(&app, &missing).await;
        s3.delete_object().bucket(bucket).key(gone.object_key.as_str()).send().await.expect("it is deleted");
        put(&app, row(&app, &replaced).await.object_key.as_str(), OTHER).await;
        let orphan = format!("uploads/{}-f.txt", id_at(&app, TimeDelta::milliseconds(1)));
        let staged_orphan = "staging/whatever.txt".to_owned();
        let beside = format!("{}.thumbnail", row(&app, &open).await.object_key);
        let hash = "d41d8cd98f00b204e9800998ecf8427e";
        for key in [&orphan, &staged_orphan, &beside, "readme.txt", hash] {
            put(&app, key, BYTES).await;
        }
        app.clock.set(app.clock.now() + TimeDelta::hours(25));
        Self { app, confirmed, missing, replaced, orphan, staged_orphan }
    }

    fn expected() -> DriftCounts {
        DriftCounts {
            objects: 9,
            accounted: 3,
            pending: 1,
            foreign: 3,
            orphans: 2,
            missing: 1,
            replaced: 1,
            ..DriftCounts::default()
        }
    }
}

async fn tells_apart(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let app = &ground.app;
    let (counts, mut findings) = drift(app, REPORT).await;
    assert_eq!(counts, Ground::expected(), "{findings:?}");
    let found = |kind, key: &str, upload: Option<&Value>, state| Finding {
        kind,
        key: key.to_owned(),
        upload_id: upload.map(|upload| id(upload).parse().unwrap()),
        state,
        removed: false,
    };
    let confirmed = Some(IntentState::Confirmed);
    let orphan_id = json!({ "id": IntentId::all_in(&ground.orphan)[0].to_string() });
    let key = async |upload: &Value| row(app, upload).await.object_key.to_string();
    let mut expected = [
        found(DriftKind::Orphan, &ground.staged_orphan, None, None),
        found(DriftKind::Orphan, &ground.orphan, Some(&orphan_id), None),
        found(DriftKind::Missing, &key(&ground.missing).await, Some(&ground.missing), confirmed),
        found(DriftKind::Replaced, &key(&ground.replaced).await, Some(&ground.replaced), confirmed),
    ];
    // Ids of one millisecond come in any order.
    findings.sort_by(|a, b| a.key.cmp(&b.key));
    expected.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(findings, expected);
    assert_eq!(keys(app).await.len(), 9, "nothing was removed");

    // The same objects, before they are a day old.
    app.clock.set(app.clock.now() - TimeDelta::hours(24));
    let (young, _) = drift(app, REPAIR).await;
    assert_eq!(young, DriftCounts { orphans: 0, young: 2, ..Ground::expected() });
    ground.app.end().await;
}

async fn repairs(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let app = &ground.app;
    let mut spared = keys(app).await;
    spared.retain(|key| *key != ground.orphan && *key != ground.staged_orphan);
    let (counts, findings) = drift(app, REPAIR).await;
    assert_eq!(counts, DriftCounts { removed: 2, ..Ground::expected() });
    assert_eq!(findings.iter().filter(|finding| finding.removed).count(), 2);
    assert_eq!(keys(app).await, spared);
    // What is left to the sweeper, it removes.
    sweep(app).await;
    let (after, _) = drift(app, REPORT).await;
    let expected = Ground::expected();
    assert_eq!(after, DriftCounts { objects: 6, pending: 0, orphans: 0, accounted: 3, ..expected });
    app.clock.set(presignd::clock::Clock::System.now());
    assert_eq!(app.user("alice").download(&ground.confirmed).await.bytes, BYTES);
    ground.app.end().await;
}

async fn unreadable(backend: Backend) {
    let app = app(&backend).await;
    let replaced = app.user("alice").upload("a.txt", BYTES, &json!({ "method": "put" })).await;
    let orphan = format!("uploads/{}-f.txt", id_at(&app, TimeDelta::milliseconds(1)));
    for key in [orphan.as_str(), row(&app, &replaced).await.verified_key().as_str()] {
        let [algorithm, secret, digest] = CLIENT_KEY.map(|(_, value)| value);
        let written = app.bucket.s3.put_object().bucket(&app.bucket.bucket).key(key).body(OTHER.to_vec().into());
        let written = written.sse_customer_algorithm(algorithm).sse_customer_key(secret).sse_customer_key_md5(digest);
        written.send().await.expect("it is written");
    }
    app.clock.set(app.clock.now() + TimeDelta::hours(25));
    let (counts, findings) = drift(&app, REPAIR).await;
    assert_eq!((counts.orphans, counts.removed, counts.replaced), (1, 1, 1), "{findings:?}");
    assert!(!keys(&app).await.contains(&orphan));
    app.end().await;
}

async fn another_database(backend: Backend) {
    let app = app(&backend).await;
    let before = id_at(&app, -TimeDelta::days(1));
    let keys_before = [format!("staging/uploads/{before}-a.txt"), format!("uploads/{before}-a.txt")];
    for key in ["staging/b.txt", &keys_before[0], &keys_before[1]] {
        put(&app, key, BYTES).await;
    }
    app.clock.set(app.clock.now() + TimeDelta::days(2));
    // An empty one, then one that begins after the objects.
    let (empty, _) = drift(&app, REPAIR).await;
    assert_eq!(empty, DriftCounts { objects: 3, forgotten: 2, foreign: 1, ..DriftCounts::default() });
    app.clock.set(presignd::clock::Clock::System.now());
    app.user("alice").issue("a.txt", BYTES, &json!({})).await;
    app.clock.set(app.clock.now() + TimeDelta::days(2));
    let (later, findings) = drift(&app, REPAIR).await;
    assert_eq!(later, DriftCounts { objects: 3, forgotten: 2, orphans: 1, removed: 1, ..DriftCounts::default() });
    assert_eq!(findings.iter().filter(|it| it.kind == DriftKind::Forgotten).count(), 2);
    assert_eq!(keys(&app).await, keys_before);
    app.end().await;
}

/// One upload of long ago is no sign that all since then are known.
async fn dropped_months(backend: Backend) {
    let app = app(&backend).await;
    let old = app.user("alice").issue("a.txt", BYTES, &json!({})).await;
    let long_ago = id_at(&app, -TimeDelta::days(100));
    app.database.psql(&format!("UPDATE upload_intents SET id = '{long_ago}' WHERE id = '{}'", id(&old)));
    app.user("alice").issue("b.txt", BYTES, &json!({})).await;
    let key = format!("uploads/{}-c.txt", id_at(&app, -TimeDelta::days(50)));
    put(&app, &key, BYTES).await;
    app.clock.set(app.clock.now() + TimeDelta::days(2));
    let (counts, findings) = drift(&app, REPAIR).await;
    assert_eq!((counts.forgotten, counts.orphans), (1, 0), "{findings:?}");
    assert_eq!(keys(&app).await, [key]);
    app.end().await;
}

/// Shows an object as it was, to whoever has not looked again.
struct Outdated(Vec<ListedObject>);

impl Listing for Outdated {
    async fn page(&self, _: Option<&str>) -> Result<ListedPage, S3Error> {
        Ok(ListedPage { objects: self.0.clone(), is_last: true })
    }
}

async fn second_look(backend: Backend) {
    let app = app(&backend).await;
    app.user("alice").issue("a.txt", BYTES, &json!({})).await;
    let key = format!("uploads/{}-a.txt", id_at(&app, TimeDelta::milliseconds(1)));
    let service = &app.running.service;
    let old = Some(app.clock.now());
    let listed = |key: &str| ListedObject { key: key.to_owned(), etag: ETag::parse("0").ok(), last_modified: old };
    app.clock.set(app.clock.now() + TimeDelta::hours(25));
    let outdated = Outdated(vec![listed(&key)]);
    let counts = service.drift(&outdated, REPAIR, |_| ()).await.unwrap();
    assert_eq!((counts.orphans, counts.removed), (1, 0), "it is gone already");
    // Written anew since it was listed: by the store's clock it is a day old at most, by ours younger.
    put(&app, &key, BYTES).await;
    app.clock.set(app.clock.now() - TimeDelta::hours(2));
    let options = DriftOptions { min_age: Duration::from_hours(23), ..REPAIR };
    let listed_old = ListedObject { last_modified: old.map(|at| at - TimeDelta::minutes(1)), ..listed(&key) };
    let options = DriftOptions { min_age: options.min_age + Duration::from_secs(30), ..options };
    let counts = service.drift(&Outdated(vec![listed_old]), options, |_| ()).await.unwrap();
    assert_eq!((counts.orphans, counts.removed), (1, 0));
    assert_eq!(keys(&app).await, [key]);
    app.end().await;
}

/// Pages of two objects, and no answer to the request with this number.
struct Interrupted<'a> {
    store: &'a ObjectStore,
    fails_at: usize,
    asked: AtomicUsize,
}

impl Listing for Interrupted<'_> {
    async fn page(&self, after: Option<&str>) -> Result<ListedPage, S3Error> {
        if self.asked.fetch_add(1, Ordering::SeqCst) == self.fails_at {
            return Err(S3Error::Unavailable { operation: "ListObjectsV2", reason: "as the test says".to_owned() });
        }
        let mut page = self.store.page(after).await?;
        page.is_last = page.is_last && page.objects.len() <= 2;
        page.objects.truncate(2);
        Ok(page)
    }
}

async fn resumes(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let service = &ground.app.running.service;
    let resume = DriftOptions { resume: true, ..REPORT };
    let mut from = Vec::new();
    let mut findings = 0;
    let mut counts = None;
    for fails_at in [2, 1, 0, usize::MAX] {
        let listing = Interrupted { store: &service.store, fails_at, asked: AtomicUsize::new(0) };
        let done = service.drift(&listing, resume, |event| match event {
            DriftEvent::Resumed(counts) => from.push(counts.objects),
            DriftEvent::Found(_) => findings += 1,
            DriftEvent::Progress(_) => {}
        });
        counts = done.await.ok();
        assert_eq!(counts.is_some(), fails_at == usize::MAX);
    }
    assert_eq!(from, [4, 6, 6]);
    assert_eq!(counts, Some(Ground::expected()));
    assert_eq!(findings, 4, "each is told once");
    // What was finished does not go on.
    let (again, _) = drift(&ground.app, resume).await;
    assert_eq!(again, Ground::expected());
    ground.app.end().await;
}

async fn command_line(backend: Backend) {
    let app = app(&backend).await;
    app.user("alice").upload("a.txt", BYTES, &json!({ "method": "put" })).await;
    let orphan = format!("uploads/{}-b.txt", id_at(&app, TimeDelta::milliseconds(1)));
    put(&app, &orphan, BYTES).await;
    put(&app, "readme.txt", BYTES).await;
    let young = program(&app, &["drift"]);
    assert_eq!(young.status.code(), Some(0), "{young:?}");
    let found = program(&app, &["drift", "--json", "--min-age", "0s"]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let lines: Vec<Value> =
        found.stdout.split(|b| *b == b'\n').filter_map(|it| serde_json::from_slice(it).ok()).collect();
    assert_eq!(lines.len(), 2, "{found:?}");
    assert_eq!((&lines[0]["finding"]["kind"], &lines[0]["finding"]["key"]), (&json!("orphan"), &json!(orphan)));
    assert_eq!((&lines[1]["summary"]["orphans"], &lines[1]["summary"]["foreign"]), (&json!(1), &json!(1)));
    let repaired = program(&app, &["drift", "--repair", "--min-age", "0s"]);
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    let text = String::from_utf8(repaired.stdout).unwrap();
    assert!(text.starts_with(&format!("orphan, removed: {orphan}\n3 objects, ")), "{text}");
    assert!(text.contains("\n  1 accounted for\n") && text.contains("\n  1 orphans, 1 of them removed\n"), "{text}");
    assert_eq!(keys(&app).await.len(), 2);
    assert_eq!(app.database.psql("SELECT count(*) FROM drift_objects").trim(), "0");
    assert_eq!(app.database.psql("SELECT count(*) FROM drift_runs WHERE finished_at IS NULL").trim(), "0");
    app.end().await;
}

/// Objects of uploads that were issued one a millisecond.
struct Million {
    first: i64,
    etag: ETag,
    /// How many of them have been compared.
    compared: AtomicUsize,
}

const OBJECTS: i64 = 1_000_000;
const PAGE: i64 = 1_000;

impl Million {
    fn key(&self, index: i64) -> String {
        format!("uploads/{:012x}70008{index:015x}-a.bin", self.first + index)
    }
}

impl Listing for Million {
    async fn page(&self, after: Option<&str>) -> Result<ListedPage, S3Error> {
        let start = after.map_or(0, |key| i64::from_str_radix(&key[25..40], 16).unwrap() + 1);
        // No page is asked for before the one before it has been compared, and let go.
        assert_eq!(self.compared.load(Ordering::SeqCst), usize::try_from(start).unwrap());
        let end = (start + PAGE).min(OBJECTS);
        let objects = (start..end).map(|index| ListedObject {
            key: self.key(index),
            etag: Some(self.etag.clone()),
            last_modified: chrono::DateTime::from_timestamp_millis(self.first + index),
        });
        Ok(ListedPage { objects: objects.collect(), is_last: end == OBJECTS })
    }
}

/// Bytes that this process has in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
}

async fn a_million(backend: Backend) {
    let app = TestApp::start_with(&backend, still()).await;
    let first = (app.clock.now() - TimeDelta::hours(1)).timestamp_millis();
    let listing = Million {
        first,
        etag: ETag::parse("0123456789abcdef0123456789abcdef").unwrap(),
        compared: AtomicUsize::new(0),
    };
    // In pieces that end before the statement's time limit.
    for piece in 0..10 {
        let (from, to) = (piece * OBJECTS / 10, (piece + 1) * OBJECTS / 10 - 1);
        app.database.psql(&format!(
            "INSERT INTO upload_intents (id, issuer, subject, original_file_name, upload_to, bucket, object_key,
                 file_size, content_type, metadata, method, policy, policy_version, state, created_at, expires_at,
                 confirm_until, settled_at, settled_via, etag, owner_key)
             SELECT hex::uuid, 'i', 's', 'a.bin', 'uploads', '{bucket}', 'uploads/' || hex || '-a.bin', 1,
                 'application/octet-stream', '{{}}', 'put', 'default', 'v', 'confirmed', at, at + interval '1 minute',
                 at + interval '1 hour', at, 'callback', '{etag}', n
             FROM (SELECT n, to_timestamp(({first} + n) / 1000.0) AS at,
                 lpad(to_hex({first} + n), 12, '0') || '70008' || lpad(to_hex(n), 15, '0') AS hex
                 FROM generate_series({from}::bigint, {to}) AS n) AS made",
            bucket = app.bucket.bucket,
            etag = listing.etag,
        ));
    }
    app.database.psql("ANALYZE upload_intents");
    app.clock.set(app.clock.now() + TimeDelta::hours(25));

    let began = Instant::now();
    let (mut start, mut peak) = (0, 0);
    let counts = app.running.service.drift(&listing, REPORT, |event| {
        if let DriftEvent::Progress(counts) = event {
            // Once everything that is made once is there.
            if counts.objects == 20_000 {
                start = resident();
            }
            peak = peak.max(resident());
            listing.compared.store(usize::try_from(counts.objects).unwrap(), Ordering::SeqCst);
        }
    });
    let counts = counts.await.expect("the database answers");
    let took = began.elapsed();
    let objects = u64::try_from(OBJECTS).unwrap();
    assert_eq!(counts, DriftCounts { objects, accounted: objects, ..DriftCounts::default() });
    let growth = peak.saturating_sub(start);
    eprintln!(
        "measured: {objects} objects compared in {took:?}: {} a second; {} KiB more resident in this process, with all else that it \
         tests meanwhile, than after 20000",
        objects * 1000 / u64::try_from(took.as_millis()).unwrap(),
        growth / 1024
    );
    app.end().await;
}

//! Batches: many uploads in one request, each with its own result, all recorded together or not at all.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use presignd::{
    config::DatabaseConfig,
    db::{Database, DbError, Ledger, UploadIntent},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    faults::database::{intent, readiness, start_on, stoppable_postgres},
    support::{
        AppOptions, Backend, Caller, ChaosProxy, Reply, Suite, TestApp, app::POLICIES, backend::BackendKind,
        caller::id, load::eventually, services::postgres::Stop,
    },
};

const PATH: &str = "/api/v1/uploads/batch";

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_batch_has_a_result_for_each_file", mixture);
    suite.everywhere("a_batch_of_refused_files_records_nothing", all_refused);
    suite.everywhere("a_batch_of_100_is_one_commit_and_one_session", hundred);
    suite.everywhere("a_batch_that_breaks_a_rule_is_refused_as_a_whole", rules);
    suite.everywhere("a_repeated_batch_gives_the_same_uploads", replays);
    suite.everywhere("a_repeated_batch_fills_the_places_of_refused_files", fills);
    // The embedded PostgreSQL serves one connection.
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "a_batch_whose_rows_are_gone_is_not_signed_again", lost);
    suite.everywhere("batches_at_once_with_one_key_make_each_upload_once", at_once);
    suite.everywhere("files_in_parts_go_in_batches_and_leave_nothing_behind", in_parts);
    suite.everywhere("a_batch_with_a_bad_row_fails_alone_and_as_a_whole", bad_row);
    suite.everywhere("a_batch_takes_the_room_of_its_rows_in_the_queue", room);
    suite.with_own_postgres("a_killed_database_leaves_whole_batches", killed);
}

fn file(name: &str) -> Value {
    json!({ "original_file_name": name, "file_size": 5, "method": "put" })
}

async fn send(caller: &Caller, key: Option<&str>, uploads: &[Value]) -> Reply {
    let mut request = caller.request(Method::POST, PATH).json(&json!({ "uploads": uploads }));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    Reply::of(request).await
}

/// The results of a batch that was taken.
async fn issue(caller: &Caller, key: Option<&str>, uploads: &[Value]) -> Vec<Value> {
    let answer = send(caller, key, uploads).await.expect(StatusCode::OK);
    let results = answer["results"].as_array().expect("results").clone();
    assert_eq!(results.len(), uploads.len(), "{answer}");
    results
}

async fn recorded(caller: &Caller) -> usize {
    let list = caller.get("/api/v1/uploads?limit=100").await.expect(StatusCode::OK);
    list["uploads"].as_array().unwrap().len()
}

fn ids(results: &[Value]) -> Vec<&str> {
    results.iter().map(|result| id(&result["upload"])).collect()
}

async fn mixture(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let uploads = [
        file("first.txt"),
        json!({ "original_file_name": "a/b", "file_size": 5, "method": "patch" }),
        json!({ "original_file_name": "large.txt", "file_size": 8_388_609 }),
        json!({ "original_file_name": "a.txt", "file_size": "many" }),
        json!({ "original_file_name": "a.txt", "file_size": 5, "policy": "nope" }),
        json!(["first.txt", 5]),
        json!({ "original_file_name": "a.txt", "file_size": 5, "method": "put", "success_action_redirect": "https://a.b/" }),
        json!({ "original_file_name": "form.txt", "file_size": "5", "method": "post", "expires_in": 60 }),
        // The key of this policy has the tenant in it, and alice has none.
        json!({ "original_file_name": "a.txt", "file_size": 5, "policy": "public" }),
        file("first.txt"),
    ];
    let results = issue(&alice, None, &uploads).await;
    let statuses: Vec<u64> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 422, 422, 422, 422, 400, 422, 201, 422, 201], "{results:?}");
    let reply = send(&alice, None, &uploads[1..2]).await;
    let request_id = reply.headers["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(reply.json()["results"][0]["problem"]["request_id"], *request_id);
    for (index, code, fields) in [
        (1, "invalid_request", vec!["original_file_name", "method"]),
        (2, "policy_refused", vec!["file_size"]),
        (3, "invalid_request", vec!["file_size"]),
        (4, "invalid_request", vec!["policy"]),
        (5, "invalid_json", vec![]),
        (6, "invalid_request", vec!["success_action_redirect"]),
        (8, "policy_refused", vec!["policy"]),
    ] {
        let (status, problem) = (&results[index]["status"], &results[index]["problem"]);
        assert_eq!((&problem["status"], &problem["code"]), (status, &json!(code)), "{problem}");
        let named = problem["errors"].as_array().into_iter().flatten();
        assert_eq!(named.map(|error| error["field"].as_str().unwrap()).collect::<Vec<_>>(), fields, "{problem}");
        // What a request of its own is told.
        let alone = alice.post("/api/v1/uploads", &uploads[index]).await.json();
        for same in ["type", "title", "status", "code", "detail", "errors"] {
            assert_eq!(problem[same], alone[same], "{same}");
        }
    }
    assert_eq!(results[7]["upload"]["upload"]["method"], "POST");
    assert_eq!(recorded(&alice).await, 3, "only what was allowed");

    // The same name twice is two uploads.
    for index in [0, 9] {
        let upload = &results[index]["upload"];
        assert_eq!((&upload["original_file_name"], &upload["created_by"]), (&json!("first.txt"), &json!("alice")));
        assert!(alice.send(upload, b"12345").await.status.is_success());
        assert_eq!(alice.complete(upload).await.expect(StatusCode::OK)["state"], "confirmed");
    }
    assert_ne!(ids(&results[..1]), ids(&results[9..]));
    app.end().await;
}

async fn all_refused(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let refused = json!({ "original_file_name": "large.txt", "file_size": 8_388_609 });
    for key in [None, Some("k")] {
        let results = issue(&alice, key, &[refused.clone(), json!(null), refused.clone()]).await;
        assert_eq!(results.iter().filter(|result| result["problem"].is_object()).count(), 3, "{results:?}");
    }
    assert_eq!(recorded(&alice).await, 0);
    // Nothing was done under the key, so it is still unused.
    issue(&alice, Some("k"), &[file("a.txt")]).await;
    assert_eq!(recorded(&alice).await, 1);
    app.end().await;
}

async fn hundred(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let uploads: Vec<Value> = (0..100).map(|number| file(&format!("{number}.txt"))).collect();
    let before = app.running.service.ledger.status();
    let results = issue(&alice, None, &uploads).await;
    let after = app.running.service.ledger.status();
    assert_eq!((after.groups - before.groups, after.rows - before.rows), (1, 100), "one statement");
    for (number, result) in results.iter().enumerate() {
        assert_eq!(result["upload"]["original_file_name"], format!("{number}.txt"), "in the order of the request");
        assert_eq!(result["upload"]["client_network"], "127.0.0.1/32");
    }
    assert_eq!(ids(&results).into_iter().collect::<BTreeSet<_>>().len(), 100);
    assert_eq!(app.running.service.sessions.status().await.assumed, 1, "one session for one network");
    let last = &results[99]["upload"];
    assert!(alice.send(last, b"12345").await.status.is_success());
    alice.complete(last).await.expect(StatusCode::OK);
    assert_eq!(recorded(&alice).await, 100);
    app.end().await;
}

async fn rules(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    for count in [0, 101] {
        let reply = send(&alice, None, &vec![file("a.txt"); count]).await;
        let problem = reply.expect_problem(422, "invalid_request");
        let error = &problem["errors"][0];
        assert_eq!((&error["field"], &error["rule"]), (&json!("uploads"), &json!("must hold 1 to 100 uploads")));
        assert_eq!(error["received"], format!("{count} uploads"));
    }
    for (body, field) in [
        (json!({}), "uploads"),
        (json!({ "uploads": 5 }), "uploads"),
        (json!({ "uploads": null }), "uploads"),
        (json!({ "uploads": [], "policy": "default" }), "policy"),
    ] {
        let problem = alice.post(PATH, &body).await.expect_problem(422, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem}");
    }
    for body in ["[]", "5", r#"{"uploads":[{]}"#, r#"{"uploads":[{}"#, r#"{"uploads":[]} x"#] {
        let request = alice.request(Method::POST, PATH).header("content-type", "application/json").body(body);
        Reply::of(request).await.expect_problem(400, "invalid_json");
    }
    send(&alice, None, &[file(&"x".repeat(1 << 20))]).await.expect_problem(413, "body_too_large");
    send(&alice, Some(&"k".repeat(256)), &[file("a.txt")]).await.expect_problem(422, "invalid_request");
    let wrong = Reply::of(alice.request(Method::GET, PATH)).await;
    wrong.expect_problem(405, "method_not_allowed");
    app.anonymous().post(PATH, &json!({ "uploads": [file("a.txt")] })).await.expect_problem(401, "token_missing");
    assert_eq!(recorded(&alice).await, 0, "nothing refused is recorded");
    app.end().await;
}

async fn replays(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice").at("127.0.0.11");
    let bad = json!({ "original_file_name": "a/b", "file_size": 5 });
    let uploads = [file("a.txt"), bad, file("b.txt"), file("c.txt")];
    let first = issue(&alice, Some("k"), &uploads).await;
    alice.send(&first[3]["upload"], b"12345").await;
    alice.complete(&first[3]["upload"]).await.expect(StatusCode::OK);

    let there = alice.at("127.0.0.12");
    let again = issue(&there, Some("k"), &uploads).await;
    for index in [0, 2] {
        let (first, again) = (&first[index]["upload"], &again[index]["upload"]);
        assert_eq!(again["id"], first["id"]);
        assert_ne!(again["upload"]["url"], first["upload"]["url"], "a fresh URL for where the client is now");
        assert_eq!(again["client_network"], "127.0.0.12/32");
    }
    assert!(there.send(&again[0]["upload"], b"12345").await.status.is_success());
    assert_eq!((&again[1]["status"], &again[1]["problem"]["code"]), (&json!(422), &json!("invalid_request")));
    assert_eq!((&again[3]["status"], &again[3]["upload"]["id"]), (&json!(201), &first[3]["upload"]["id"]));
    assert_eq!((&again[3]["upload"]["state"], &again[3]["upload"]["upload"]), (&json!("confirmed"), &Value::Null));
    assert_eq!(recorded(&alice).await, 3);

    // The key belongs to this body, be it that of a batch or not.
    send(&alice, Some("k"), &uploads[..3]).await.expect_problem(422, "idempotency_mismatch");
    let one =
        |key: &str| alice.request(Method::POST, "/api/v1/uploads").header("idempotency-key", key).json(&file("a.txt"));
    Reply::of(one("k")).await.expect_problem(422, "idempotency_mismatch");
    Reply::of(one("k1")).await.expect(StatusCode::CREATED);
    send(&alice, Some("k1"), &uploads).await.expect_problem(422, "idempotency_mismatch");
    // Keys of others never meet.
    let others = issue(&app.user("bob"), Some("k"), &uploads).await;
    assert_ne!(others[0]["upload"]["id"], first[0]["upload"]["id"]);
    app.end().await;
}

async fn fills(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let large = json!({ "original_file_name": "large.txt", "file_size": 8_388_609, "method": "put" });
    let uploads = [large.clone(), file("a.txt"), large];
    let first = issue(&alice, Some("k"), &uploads).await;
    assert_eq!((&first[0]["status"], &first[2]["status"]), (&json!(422), &json!(422)));

    app.change_policies(&POLICIES.replace("8MiB", "9MiB")).await;
    let second = issue(&alice, Some("k"), &uploads).await;
    assert_eq!(second[1]["upload"]["id"], first[1]["upload"]["id"], "what was issued stays");
    assert_eq!((&second[0]["status"], &second[2]["status"]), (&json!(201), &json!(201)));
    // From now on these are what the key stands for, also when the policy refuses such files again.
    let third = issue(&alice, Some("k"), &uploads).await;
    assert_eq!(ids(&third), ids(&second));
    app.change_policies(POLICIES).await;
    let fourth = issue(&alice, Some("k"), &uploads).await;
    assert_eq!(fourth[0]["problem"]["code"], "policy_refused", "no fresh URL by today's policy");
    assert_eq!(fourth[1]["upload"]["id"], first[1]["upload"]["id"]);
    assert_eq!(recorded(&alice).await, 3);
    app.end().await;
}

async fn lost(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let uploads = [file("a.txt"), file("b.txt")];
    let first = issue(&alice, Some("k"), &uploads).await;
    app.database.psql(&format!("DELETE FROM upload_intents WHERE id = '{}'", ids(&first)[0]));
    // Not a URL in place of what the key stands for: nothing would be recorded of it.
    send(&alice, Some("k"), &uploads).await.expect_problem(500, "internal");
    assert_eq!(recorded(&alice).await, 1);
    app.end().await;
}

async fn at_once(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let uploads = [file("a.txt"), json!({}), file("b.txt")];
    let answers = join_all((0..10).map(|_| issue(&alice, Some("k"), &uploads))).await;
    for answer in &answers {
        for index in [0, 2] {
            assert_eq!(answer[index]["upload"]["id"], answers[0][index]["upload"]["id"]);
        }
    }
    assert_eq!(recorded(&alice).await, 2);
    app.end().await;
}

async fn in_parts(backend: Backend) {
    let policies = "[policy.default]\nmethods = [\"put\", \"multipart\"]\n".to_owned();
    let app = TestApp::start_with(&backend, AppOptions { policies: Some(policies), ..AppOptions::default() }).await;
    let alice = app.user("alice");
    let parts = json!({ "original_file_name": "large.bin", "file_size": 9 << 20, "method": "multipart" });
    let uploads = [parts.clone(), file("a.txt"), json!({}), parts];
    let answers = join_all((0..5).map(|_| issue(&alice, Some("k"), &uploads))).await;
    for answer in &answers {
        for index in [0, 1, 3] {
            assert_eq!(answer[index]["upload"]["id"], answers[0][index]["upload"]["id"]);
        }
        assert_eq!(answer[0]["upload"]["upload"]["part_count"], 2);
        assert_eq!(answer[3]["upload"]["upload"]["method"], "MULTIPART");
    }
    assert_eq!(recorded(&alice).await, 3);
    // Those that were begun by requests that came too late are given up.
    let open = app.bucket.s3.list_multipart_uploads().bucket(&app.bucket.bucket).send().await.unwrap();
    assert_eq!(open.uploads().len(), 2, "{open:?}");
    app.end().await;
}

/// A ledger whose only writer is kept busy by one row while `fill` queues what is to be taken together.
async fn taken_together<T>(
    backend: &Backend,
    queue: usize,
    fill: impl AsyncFnOnce(&Ledger) -> T,
    check: impl AsyncFnOnce(&Database, T),
) {
    let own = backend.database().await;
    let (proxy, url) = ChaosProxy::in_front_of(own.url(), &backend.runtime).await;
    let mut config =
        DatabaseConfig { url: url.into(), max_connections: own.max_connections(), ..DatabaseConfig::default() };
    config.ledger.writers = 1;
    config.ledger.queue = queue;
    let database = Database::new(&config, &backend.runtime).unwrap();
    database.migrate().await.unwrap();
    let (ledger, writers) = Ledger::start(&database, &config, &backend.runtime);
    ledger.record_upload(Box::new(intent())).await.unwrap();
    proxy.stall();
    let first = {
        let ledger = ledger.clone();
        let mut first = Box::pin(async move { ledger.record_upload(Box::new(intent())).await });
        // Once is enough to queue it, and only then does an empty queue mean that the writer has it.
        assert!(first.as_mut().now_or_never().is_none());
        first
    };
    eventually(Duration::from_secs(2), async || (ledger.status().queued == 0).then_some(())).await;
    let filled = fill(&ledger).await;
    proxy.heal();
    first.await.expect("the first row is good");
    check(&database, filled).await;
    drop(ledger);
    writers.drained().await;
    database.close();
    drop(database);
    own.end().await;
}

async fn bad_row(backend: Backend) {
    let mut batches: Vec<Vec<UploadIntent>> = (0..3).map(|_| (0..20).map(|_| intent()).collect()).collect();
    batches[1][7].confirm_until = batches[1][7].created_at;
    let written = batches.clone();
    let fill = async |ledger: &Ledger| {
        let write = |rows: Vec<UploadIntent>| {
            let ledger = ledger.clone();
            backend.runtime.spawn(async move { ledger.record_uploads(rows).await })
        };
        let waiting: Vec<_> = written.into_iter().map(write).collect();
        eventually(Duration::from_secs(2), async || (ledger.status().queued == 60).then_some(())).await;
        waiting
    };
    taken_together(&backend, 8192, fill, async |database, waiting| {
        for (index, (outcome, rows)) in join_all(waiting).await.into_iter().zip(&batches).enumerate() {
            let outcome = outcome.expect("no writer panics");
            let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
            let there = database.uploads(&ids).await.unwrap().len();
            if index == 1 {
                assert!(matches!(outcome, Err(DbError::RowRefused(_) | DbError::Failed(_))), "{outcome:?}");
                assert_eq!(there, 0, "not one row of it");
            } else {
                outcome.expect("a good batch is written");
                assert_eq!(there, 20);
            }
        }
    })
    .await;
}

async fn room(backend: Backend) {
    let rows = |count: usize| (0..count).map(|_| intent()).collect::<Vec<_>>();
    let fill = async |ledger: &Ledger| {
        let batch = |count: usize| {
            let (ledger, rows) = (ledger.clone(), rows(count));
            async move { ledger.record_uploads(rows).await }
        };
        let mut first = Box::pin(batch(7));
        assert!(first.as_mut().now_or_never().is_none());
        assert_eq!(ledger.status().queued, 7);
        let refused = batch(4).now_or_never().expect("refused at once");
        assert!(matches!(refused, Err(DbError::Overloaded)), "{refused:?}");
        let mut second = Box::pin(batch(3));
        assert!(second.as_mut().now_or_never().is_none());
        let refused = batch(1).now_or_never().expect("refused at once");
        assert!(matches!(refused, Err(DbError::Overloaded)), "{refused:?}");
        (first, second, ledger.clone())
    };
    taken_together(&backend, 10, fill, async |_, (first, second, ledger)| {
        first.await.expect("written");
        second.await.expect("written");
        assert_eq!(ledger.status().queued, 0);
        // More rows than the whole queue has places for are let in alone.
        ledger.record_uploads(rows(25)).await.expect("written");
        assert_eq!(ledger.status().queued, 0);
    })
    .await;
}

/// Batches are sent without end while the database is killed. What is there then of any of them is all of it.
async fn killed(backend: Backend) {
    let (_folder, mut postgres) = stoppable_postgres();
    let app = start_on(&backend, &postgres).await;
    let alice = app.user("alice");
    readiness(&alice, StatusCode::OK, "ok").await;
    let clients = (0..8).map(|client| {
        let alice = alice.clone();
        backend.runtime.spawn(async move {
            let mut answered = Vec::new();
            for round in 0.. {
                let name = format!("{client}-{round}.txt");
                // Every second client sends keys, whose batches take another way.
                let key = (client % 2 == 1).then_some(name.as_str());
                let reply = send(&alice, key, &vec![file(&name); 25]).await;
                if reply.status != StatusCode::OK {
                    reply.expect_problem(503, "database_unavailable");
                    break;
                }
                assert!(reply.json()["results"].as_array().unwrap().iter().all(|result| result["status"] == 201));
                answered.push(name);
            }
            answered
        })
    });
    let clients: Vec<_> = clients.collect();
    let rows = || app.running.service.ledger.status().rows;
    eventually(Duration::from_secs(20), async || (rows() > 1000).then_some(())).await;
    postgres.stop(Stop::Kill).expect("it stops");
    let answered: BTreeSet<String> = join_all(clients).await.into_iter().flat_map(Result::unwrap).collect();
    postgres.start_again().expect("it starts again");

    let (client, connection) = tokio_postgres::connect(&postgres.url("presignd"), tokio_postgres::NoTls).await.unwrap();
    let driver = backend.runtime.spawn(connection);
    let counts = "SELECT original_file_name, count(*) FROM upload_intents GROUP BY original_file_name";
    let counts = client.query(counts, &[]).await.unwrap();
    let recorded: BTreeSet<String> = counts.iter().map(|row| row.get(0)).collect();
    for row in &counts {
        assert_eq!(row.get::<_, i64>(1), 25, "a part of the batch {}", row.get::<_, String>(0));
    }
    assert!(answered.len() > 20 && answered.is_subset(&recorded), "{} of {}", answered.len(), recorded.len());
    drop(client);
    driver.await.unwrap().unwrap();
    app.end().await;
}

//! Tickets: how often, from where, until when, and never after they were taken back.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use presignd::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    audit::{ADMIN, SOON, administrator, records, with_admin},
    revocations,
    support::{
        AppOptions, Backend, Caller, Reply, Suite, TestApp,
        app::{ISSUER, POLICIES},
        backend::BackendKind,
        caller::id,
        load::eventually,
    },
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_ticket_is_redeemed_as_often_as_it_says", uses);
    suite.everywhere("each_range_of_a_stream_is_a_use_of_its_ticket", ranges);
    suite.everywhere("what_cannot_be_handed_out_costs_no_use", not_handed_out);
    suite.everywhere("a_ticket_works_from_one_network", network);
    suite.everywhere("a_ticket_that_was_taken_back_opens_nothing", taken_back);
    suite.everywhere("a_ticket_of_another_tenant_is_nobodys_to_take_back", taken_back_elsewhere);
    suite.everywhere("a_revocation_stops_tickets", revoked);
    suite.everywhere("a_use_that_is_overtaken_does_not_count", overtaken);
    suite.everywhere("looking_at_a_ticket_does_not_use_it", looking);
    suite.everywhere("without_sts_a_ticket_is_still_bound_to_a_network", without_sts);
    // The embedded PostgreSQL has no connection to spare for looking at the table.
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "a_ticket_is_kept_for_a_week_after_its_end", kept);
    // The embedded PostgreSQL serves one process, and one connection.
    suite.on(&[BackendKind::SeaweedFs], "a_flood_of_refusals_is_answered_and_accounted_for", flood);
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "of_a_thousand_redemptions_one_wins", thousand);
}

/// Every download of these policies is a ticket: for a redirect, a stream, or whichever its reader asks for.
fn options() -> AppOptions {
    let policies = format!(
        "{POLICIES}\n[policy.once]\nmethods = [\"put\"]\nreaders = \"authenticated\"\ndelivery = \"redirect\"\ndownload.uses = 1\n\
         [policy.streamed]\nmethods = [\"put\"]\ndelivery = \"stream\"\ndownload.uses = 2\n\
         [policy.plain]\nmethods = [\"put\"]\ndownload.uses = 6\n"
    );
    AppOptions { policies: Some(policies), ..with_admin() }
}

async fn upload(caller: &Caller, policy: &str) -> Value {
    caller.upload("a.txt", b"12345", &json!({ "method": "put", "policy": policy })).await
}

async fn ticket(caller: &Caller, upload: &Value) -> Value {
    let body = json!({ "upload_id": upload["id"], "file_name": "b.txt" });
    let issued = caller.post("/api/v1/downloads", &body).await.expect(StatusCode::CREATED);
    let token = url(&issued).rsplit_once("/t/").expect("a ticket").1;
    assert_eq!(token.len(), 43, "256 bits");
    issued
}

fn url(issued: &Value) -> &str {
    issued["url"].as_str().unwrap()
}

/// Without a token: whoever has the address.
async fn redeem(caller: &Caller, issued: &Value) -> Reply {
    Reply::of(caller.http.get(url(issued))).await
}

/// The bytes that a redirect leads to.
async fn follow(caller: &Caller, reply: &Reply) -> Reply {
    assert_eq!(reply.status, StatusCode::FOUND, "{}", reply.text());
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(reply.headers["referrer-policy"], "no-referrer");
    Reply::of(caller.http.get(reply.headers["location"].to_str().unwrap())).await
}

async fn uses(backend: Backend) {
    let options = AppOptions { clock: Clock::manual(Clock::System.now()), ..options() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let file = upload(&alice, "once").await;
    let issued = ticket(&alice, &file).await;
    assert_eq!((&issued["uses"], &issued["client_network"]), (&json!(1), &json!("127.0.0.1/32")));
    assert!(url(&issued).starts_with(&app.base()), "{issued}");
    let redeemed = redeem(&alice, &issued).await;
    let location = redeemed.headers["location"].to_str().unwrap();
    assert!(location.contains("X-Amz-Expires=10&"), "a URL of a few seconds");
    let got = follow(&alice, &redeemed).await;
    assert_eq!((got.status, got.bytes.as_slice()), (StatusCode::OK, &b"12345"[..]));
    assert_eq!(got.headers["content-disposition"], "attachment; filename=\"b.txt\"");
    redeem(&alice, &issued).await.expect_problem(410, "ticket_used");
    redeem(&alice, &issued).await.expect_problem(410, "ticket_used");

    let plain = ticket(&alice, &upload(&alice, "plain").await).await;
    let accepting = async |accept: &str| Reply::of(alice.http.get(url(&plain)).header("accept", accept)).await;
    for accept in ["application/json", "text/plain;q=0.5, application/json;q=0.1"] {
        let handed = accepting(accept).await.expect(StatusCode::OK);
        assert_eq!(Reply::of(alice.http.get(url(&handed))).await.bytes, b"12345");
    }
    // What a browser, `curl` or a mistake sends is somebody following a link.
    for accept in
        ["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "*/*", "application/json;q=0", "?"]
    {
        assert_eq!(follow(&alice, &accepting(accept).await).await.bytes, b"12345", "{accept}");
    }
    redeem(&alice, &plain).await.expect_problem(410, "ticket_used");

    let late = ticket(&alice, &file).await;
    app.clock.set(late["expires_at"].as_str().unwrap().parse().unwrap());
    redeem(&alice, &late).await.expect_problem(410, "ticket_expired");

    for unknown in ["A".repeat(43), "A".repeat(42), "a.b".to_owned(), "%00".to_owned()] {
        app.anonymous().get(&format!("/t/{unknown}")).await.expect_problem(404, "ticket_unknown");
    }
    let kinds = "kind=redeemed";
    let admin = administrator(&app);
    let told = records(&admin, kinds).await;
    assert!(told.len() == 7 && told.iter().all(|record| record["subject"] == "alice"), "{told:?}");
    // The clock stands still, so nothing says which came first.
    let of = |issued: &Value| told.iter().filter(|record| record["download_id"] == issued["id"]).count();
    assert_eq!((of(&issued), of(&plain)), (1, 6), "{told:?}");
    eventually(SOON, async || (records(&admin, "kind=refused").await.len() == 4).then_some(())).await;
    app.end().await;
}

async fn ranges(backend: Backend) {
    let app = TestApp::start_with(&backend, options()).await;
    let alice = app.user("alice");
    let issued = ticket(&alice, &upload(&alice, "streamed").await).await;
    let part = async |range: &str| Reply::of(alice.http.get(url(&issued)).header("range", range)).await;
    for (range, bytes) in [("bytes=0-1", &b"12"[..]), ("bytes=2-", b"345")] {
        let part = part(range).await;
        assert_eq!((part.status, part.bytes.as_slice()), (StatusCode::PARTIAL_CONTENT, bytes));
        assert_eq!(part.headers["content-disposition"], "attachment; filename=\"b.txt\"");
        assert_eq!(part.headers["referrer-policy"], "no-referrer");
    }
    part("bytes=0-1").await.expect_problem(410, "ticket_used");
    app.end().await;
}

async fn not_handed_out(backend: Backend) {
    let (app, proxy) = TestApp::start_behind_store_proxy(&backend, options()).await;
    let alice = app.user("alice");
    let issued = ticket(&alice, &upload(&alice, "streamed").await).await;
    let precondition = Reply::of(alice.http.get(url(&issued)).header("if-match", "\"other\"")).await;
    precondition.expect_problem(412, "precondition_failed");
    proxy.cut();
    let refused = redeem(&alice, &issued).await;
    assert!(refused.status.is_server_error(), "{refused:?}");
    proxy.heal();
    for _ in 0..2 {
        assert_eq!(redeem(&alice, &issued).await.bytes, b"12345");
    }
    redeem(&alice, &issued).await.expect_problem(410, "ticket_used");
    app.end().await;
}

async fn network(backend: Backend) {
    let app = TestApp::start_with(&backend, options()).await;
    let alice = app.user("alice");
    let issued = ticket(&alice, &upload(&alice, "once").await).await;
    let elsewhere = app.anonymous().at("127.0.0.12");
    redeem(&elsewhere, &issued).await.expect_problem(403, "ticket_elsewhere");
    let admin = administrator(&app);
    let refused = eventually(SOON, async || records(&admin, "kind=refused").await.pop()).await.0;
    let at = &refused["at"];
    assert_eq!(
        refused,
        json!({
            "id": refused["id"], "at": at, "kind": "refused", "issuer": ISSUER, "subject": "alice", "tenant": null,
            "upload_id": issued["upload_id"], "download_id": issued["id"], "policy": "once",
            "client_network": "127.0.0.12/32", "reason": "ticket_elsewhere", "prefix": null, "actor": null,
        })
    );
    // It was not used, and from elsewhere nobody learns when it is.
    assert_eq!(follow(&alice, &redeem(&alice, &issued).await).await.bytes, b"12345");
    redeem(&elsewhere, &issued).await.expect_problem(403, "ticket_elsewhere");
    app.end().await;
}

async fn taken_back(backend: Backend) {
    let app = TestApp::start_with(&backend, options()).await;
    let (alice, bob, admin) = (app.user("alice"), app.user("bob"), administrator(&app));
    let file = upload(&alice, "once").await;
    let path = |issued: &Value| format!("/api/v1/downloads/{}", id(issued));
    let issued = ticket(&bob, &file).await;
    // The owner of the upload is not who asked for the download.
    alice.delete(&path(&issued)).await.expect_problem(404, "not_found");
    let revoked = bob.delete(&path(&issued)).await.expect(StatusCode::OK);
    assert_eq!(revoked, json!({ "id": issued["id"], "upload_id": file["id"], "revoked_at": revoked["revoked_at"] }));
    assert_eq!(bob.delete(&path(&issued)).await.expect(StatusCode::OK), revoked, "repeating changes nothing");
    redeem(&bob, &issued).await.expect_problem(410, "revoked");

    let issued = ticket(&bob, &file).await;
    admin.delete(&path(&issued)).await.expect(StatusCode::OK);
    redeem(&bob, &issued).await.expect_problem(410, "revoked");
    let told = records(&admin, "kind=revoked").await;
    assert_eq!(told.len(), 2);
    assert_eq!((&told[0]["subject"], &told[0]["actor"]["subject"]), (&json!("bob"), &json!("root")));
    assert_eq!(told[1]["actor"]["subject"], "bob");

    let plain = alice.upload("a.txt", b"12345", &json!({ "method": "put" })).await;
    let plain = alice.post("/api/v1/downloads", &json!({ "upload_id": plain["id"] })).await.expect(StatusCode::CREATED);
    assert_eq!(plain["uses"], Value::Null);
    alice.delete(&path(&plain)).await.expect_problem(409, "not_a_ticket");
    alice.delete("/api/v1/downloads/1").await.expect_problem(404, "not_found");
    app.anonymous().delete(&path(&plain)).await.expect_problem(401, "token_missing");
    app.end().await;
}

async fn taken_back_elsewhere(backend: Backend) {
    let app = TestApp::start_with(&backend, options()).await;
    let carol = app.member("carol", "acme", &[]);
    let file = upload(&carol, "once").await;
    let path = |issued: &Value| format!("/api/v1/downloads/{}", id(issued));
    let issued = ticket(&carol, &file).await;
    for stranger in [app.member("carol", "globex", &[]), app.member("boss", "globex", &["manage"])] {
        stranger.delete(&path(&issued)).await.expect_problem(404, "not_found");
    }
    assert_eq!(follow(&carol, &redeem(&carol, &issued).await).await.bytes, b"12345");
    for own in [carol.clone(), app.member("boss", "acme", &["manage"])] {
        let issued = ticket(&carol, &file).await;
        own.delete(&path(&issued)).await.expect(StatusCode::OK);
        redeem(&carol, &issued).await.expect_problem(410, "revoked");
    }
    app.end().await;
}

/// Between the look at a ticket and its use, it may have become another one.
async fn overtaken(backend: Backend) {
    let app = TestApp::start_with(&backend, options()).await;
    let (alice, bob, admin) = (app.user("alice"), app.user("bob"), administrator(&app));
    let file = upload(&alice, "once").await;
    let use_of = async |issued: &Value, address: &str, at: DateTime<Utc>| {
        let ticket = URL_SAFE_NO_PAD.decode(url(issued).rsplit_once("/t/").unwrap().1).unwrap();
        let digest = digest(&SHA256, &ticket).as_ref().try_into().unwrap();
        app.running.service.database.redeem_ticket(&digest, address.parse().unwrap(), at).await.unwrap()
    };
    let now = app.clock.now();
    let issued = ticket(&alice, &file).await;
    assert!(!use_of(&issued, "127.0.0.12", now).await, "from elsewhere");
    let end = issued["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(!use_of(&issued, "127.0.0.1", end).await, "at its end");
    assert!(use_of(&issued, "127.0.0.1", now).await, "nothing of that was a use");
    assert!(!use_of(&issued, "127.0.0.1", now).await, "used");

    let issued = ticket(&alice, &file).await;
    alice.delete(&format!("/api/v1/downloads/{}", id(&issued))).await.expect(StatusCode::OK);
    assert!(!use_of(&issued, "127.0.0.1", now).await, "taken back");
    let issued = ticket(&bob, &file).await;
    let body = json!({ "user": { "issuer": ISSUER, "subject": "bob" } });
    admin.post(revocations::PATH, &body).await.expect(StatusCode::OK);
    assert!(!use_of(&issued, "127.0.0.1", now).await, "its user was stopped");
    assert_eq!(records(&admin, "kind=redeemed").await.len(), 1);
    app.end().await;
}

async fn revoked(backend: Backend) {
    let app = TestApp::start_with(&backend, options()).await;
    let (alice, bob, admin) = (app.user("alice"), app.user("bob"), administrator(&app));
    let file = upload(&alice, "once").await;
    let (hers, his) = (ticket(&alice, &file).await, ticket(&bob, &file).await);
    let body = json!({ "user": { "issuer": ISSUER, "subject": "bob" } });
    let stopped = admin.post(revocations::PATH, &body).await.expect(StatusCode::OK);
    assert_eq!(stopped["urls_live_until"], Value::Null, "a ticket is no URL of the store");
    redeem(&bob, &his).await.expect_problem(410, "revoked");
    assert_eq!(follow(&alice, &redeem(&alice, &hers).await).await.bytes, b"12345");
    // What is issued from then on is for policies to decide.
    let again = ticket(&bob, &file).await;
    admin.post(revocations::PATH, &json!({ "upload_id": file["id"] })).await.expect(StatusCode::OK);
    redeem(&bob, &again).await.expect_problem(410, "revoked");
    app.end().await;
}

async fn looking(backend: Backend) {
    let app = TestApp::start_with(&backend, options()).await;
    let alice = app.user("alice");
    let issued = ticket(&alice, &upload(&alice, "once").await).await;
    let head = async |caller: &Caller| Reply::of(caller.http.request(Method::HEAD, url(&issued))).await.status;
    assert_eq!(head(&alice).await, StatusCode::OK);
    assert_eq!(head(&alice.at("127.0.0.12")).await, StatusCode::FORBIDDEN);
    for (name, value) in [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch"), ("x-moz", "prefetch")] {
        let fetched = Reply::of(alice.http.get(url(&issued)).header(name, value)).await;
        fetched.expect_problem(403, "prefetch_refused");
    }
    assert_eq!(follow(&alice, &redeem(&alice, &issued).await).await.bytes, b"12345");
    assert_eq!(head(&alice).await, StatusCode::GONE);
    app.end().await;
}

async fn flood(backend: Backend) {
    // Room for one refusal at a time.
    let settings = format!("{ADMIN}[database.ledger]\nqueue = 1\n");
    let app = TestApp::start_with(&backend, AppOptions { settings, ..options() }).await;
    let alice = app.user("alice");
    let issued = ticket(&alice, &upload(&alice, "once").await).await;
    let elsewhere = app.anonymous().at("127.0.0.12");
    let mut attempts = JoinSet::new();
    for _ in 0..200 {
        let request = elsewhere.http.get(url(&issued));
        attempts.spawn(async move { Reply::of(request).await });
    }
    while let Some(reply) = attempts.join_next().await {
        reply.unwrap().expect_problem(403, "ticket_elsewhere");
    }
    let count = async |name: &str| {
        let metrics = app.anonymous().get("/metrics").await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name).to_owned();
        line.parse::<usize>().unwrap()
    };
    let written = async || count("presignd_access_events_total").await;
    let lost = async || count("presignd_access_events_lost_total").await;
    eventually(SOON, async || (written().await + lost().await == 200).then_some(())).await;
    assert_eq!(records(&administrator(&app), "kind=refused&limit=1000").await.len(), written().await);
    assert!(written().await > 0);
    // The ticket is as good as before.
    assert_eq!(follow(&alice, &redeem(&alice, &issued).await).await.bytes, b"12345");
    app.end().await;
}

async fn without_sts(backend: Backend) {
    let scoped = "[policy.default]\nmethods = [\"put\"]\nip_scope = \"off\"\ndelivery = \"redirect\"\ndownload.uses = 1\n\
                  download.ip_scope = { v4 = 32, v6 = 64 }\n";
    let options = AppOptions { policies: Some(scoped.to_owned()), unscoped: true, ..with_admin() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let file = upload(&alice, "default").await;
    let issued = ticket(&alice, &file).await;
    assert_eq!(issued["client_network"], "127.0.0.1/32");
    redeem(&app.anonymous().at("127.0.0.12"), &issued).await.expect_problem(403, "ticket_elsewhere");
    let redeemed = redeem(&alice, &issued).await;
    assert_eq!(follow(&alice, &redeemed).await.bytes, b"12345");
    // What the store is given then works from anywhere, and so for seconds only.
    assert!(redeemed.headers["location"].to_str().unwrap().contains("X-Amz-Expires=10&"));

    // Where downloads are no tickets, nobody could hold them to a network.
    let unheld = scoped.replace("download.uses = 1\n", "");
    let status = app.change_policies(&unheld).await;
    assert_eq!(status.failures_total, 1, "{status:?}");
    app.end().await;
}

async fn kept(backend: Backend) {
    let options = AppOptions { clock: Clock::manual(Clock::System.now()), ..options() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let issued = ticket(&alice, &upload(&alice, "once").await).await;
    let end: DateTime<Utc> = issued["expires_at"].as_str().unwrap().parse().unwrap();
    let count = |table: &str| app.database.psql(&format!("SELECT count(*) FROM {table}")).trim().to_owned();
    for (days, left) in [(6, "1"), (8, "0")] {
        app.clock.set(end + TimeDelta::days(days));
        app.running.service.maintain().await.expect("the database answers");
        assert_eq!(count("download_tickets"), left, "after {days} days");
    }
    assert_eq!(count("download_intents"), "1", "the permission stays");
    app.end().await;
}

async fn thousand(backend: Backend) {
    // So many at once wait for their turn at the database, and here nobody is to be sent away for that.
    let settings = format!("{ADMIN}[database]\nacquire_timeout = \"30s\"\n");
    let app = TestApp::start_with(&backend, AppOptions { settings: settings.clone(), ..options() }).await;
    let twin = app.twin(&settings).await;
    let alice = app.user("alice");
    let issued = ticket(&alice, &upload(&alice, "once").await).await;
    let token = url(&issued).rsplit_once('/').unwrap().1.to_owned();
    let bases = [app.base(), format!("http://{}", twin.address)];
    let mut attempts = JoinSet::new();
    for at in 0..1000 {
        let request = alice.http.get(format!("{}/t/{token}", bases[at % 2]));
        attempts.spawn(async move { Reply::of(request).await });
    }
    let mut won = Vec::new();
    while let Some(reply) = attempts.join_next().await {
        let reply = reply.unwrap();
        if reply.status == StatusCode::FOUND {
            won.push(reply);
        } else {
            reply.expect_problem(410, "ticket_used");
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(follow(&alice, &won[0]).await.bytes, b"12345");
    let admin = administrator(&app);
    assert_eq!(records(&admin, "kind=redeemed").await.len(), 1);
    let told = async || records(&admin, "kind=refused&limit=1000").await;
    eventually(SOON, async || (told().await.len() == 999).then_some(())).await;
    assert!(told().await.iter().all(|refused| refused["reason"] == "ticket_used"));
    twin.stop().await;
    app.end().await;
}

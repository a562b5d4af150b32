//! Who got what: the audit, asked for and exported.

use std::{process::Command, time::Duration};

use chrono::TimeDelta;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, Suite, TestApp,
    app::{ISSUER, OTHER_ISSUER, POLICIES, TokenOptions, settings},
    backend::BackendKind,
    caller::id,
    load::eventually,
};

pub(crate) const ADMIN: &str = "[auth.scopes]\nadmin = \"manage\"\n";

/// Within this, what nobody waits for is written.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("the_audit_tells_who_got_what", audit);
    suite.everywhere("the_audit_is_for_administrators", administrators);
    // The embedded PostgreSQL has no connection to spare for the export's process, nor for writing rows.
    suite.on(&[BackendKind::SeaweedFs], "the_audit_is_exported", export);
    suite.on(&[BackendKind::SeaweedFs], "a_page_of_the_audit_looks_at_bounded_rows", bounded);
}

/// An administrator of everything.
pub(crate) fn administrator(app: &TestApp) -> Caller {
    app.anonymous().with_token(app.token(&TokenOptions {
        subject: "root",
        scopes: &["manage"],
        ..TokenOptions::default()
    }))
}

pub(crate) fn with_admin() -> AppOptions {
    AppOptions { settings: ADMIN.to_owned(), ..AppOptions::default() }
}

/// All records that `query` leads to, over all pages.
pub(crate) async fn records(admin: &Caller, query: &str) -> Vec<Value> {
    let (mut records, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = admin.get(&format!("/api/v1/audit?{query}{cursor}")).await.expect(StatusCode::OK);
        records.extend(page["records"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return records,
        }
    }
}

fn field<'a>(records: &'a [Value], name: &str) -> Vec<&'a str> {
    records.iter().map(|record| record[name].as_str().unwrap_or("null")).collect()
}

async fn audit(backend: Backend) {
    let policies = POLICIES
        .replace("[policy.public]", "[policy.open]\nmethods = [\"put\"]\nreaders = \"authenticated\"\n[policy.public]");
    let app = TestApp::start_with(&backend, AppOptions { policies: Some(policies), ..with_admin() }).await;
    let admin = administrator(&app);
    let (alice, bob) = (app.user("alice"), app.user("bob").at("127.0.0.11"));
    let mine = alice.upload("a.txt", b"12345", &json!({ "method": "put", "policy": "open" })).await;
    let theirs = bob.issue("b.txt", b"12345", &json!({ "method": "put" })).await;
    let read = bob.post("/api/v1/downloads", &json!({ "upload_id": id(&mine) })).await.expect(StatusCode::CREATED);
    let granted = alice.post("/api/v1/capabilities", &json!({})).await.expect(StatusCode::CREATED);
    let path = granted["url"].as_str().unwrap().strip_prefix(&app.base()).unwrap().to_owned();
    let elsewhere = app.anonymous().at("127.0.0.12").get(&format!("{path}/s3/params?filename=a&type=text/plain")).await;
    assert_eq!(elsewhere.status, StatusCode::FORBIDDEN, "{}", elsewhere.text());
    // What is refused is not waited for.
    eventually(SOON, async || (records(&admin, "kind=refused").await.len() == 1).then_some(())).await;
    alice.post("/api/v1/downloads", &json!({ "upload_id": id(&theirs) })).await.expect_problem(404, "not_found");
    let read_refused = eventually(SOON, async || {
        let refused = records(&admin, &format!("kind=refused&upload_id={}", id(&theirs))).await;
        refused.into_iter().next()
    });
    let read_refused = read_refused.await.0;
    assert_eq!((&read_refused["subject"], &read_refused["reason"]), (&json!("alice"), &json!("not_found")));

    let mut all = records(&admin, "limit=2").await;
    assert_eq!(all, records(&admin, "").await, "pages leave nothing out and repeat nothing");
    assert_eq!(all.remove(0), read_refused);
    assert_eq!(field(&all, "kind"), ["refused", "download_issued", "upload_issued", "upload_issued"]);
    assert_eq!(field(&all, "subject"), ["alice", "bob", "bob", "alice"]);
    let download = &all[1];
    assert_eq!(
        *download,
        json!({
            "id": read["id"], "at": download["at"], "kind": "download_issued", "issuer": ISSUER, "subject": "bob",
            "tenant": null, "upload_id": mine["id"], "download_id": read["id"], "policy": "open",
            "client_network": "127.0.0.11/32", "reason": null, "prefix": null, "actor": null,
        })
    );
    assert_eq!(all[0]["reason"], "capability_elsewhere");
    assert_eq!(all[0]["client_network"], "127.0.0.12/32");
    assert!(all.iter().all(|record| record["at"].as_str().unwrap().ends_with('Z')), "{all:?}");

    let ids = async |query: &str| -> Vec<String> {
        records(&admin, query).await.iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect()
    };
    let [refused, download, second, first] = [0, 1, 2, 3].map(|at| all[at]["id"].as_str().unwrap().to_owned());
    assert_eq!([&second, &first], [id(&theirs), id(&mine)]);
    assert_eq!(ids(&format!("issuer={ISSUER}&subject=bob")).await, [download.clone(), second.clone()]);
    assert_eq!(ids(&format!("issuer={OTHER_ISSUER}&subject=bob")).await, Vec::<String>::new());
    assert_eq!(ids(&format!("upload_id={first}")).await, [download.clone(), first.clone()]);
    assert_eq!(ids("network=127.0.0.11").await, [download.clone(), second.clone()]);
    assert_eq!(ids("network=127.0.0.12/31&limit=1").await, std::slice::from_ref(&refused));
    assert_eq!(ids("network=10.0.0.0/8").await, Vec::<String>::new());
    assert_eq!(ids("kind=upload_issued").await, [second.clone(), first.clone()]);
    let at = all[1]["at"].as_str().unwrap();
    let later = read_refused["id"].as_str().unwrap().to_owned();
    assert_eq!(ids(&format!("since={at}")).await, [later, refused.clone(), download.clone()]);
    assert_eq!(ids(&format!("until={at}")).await, [second, first.clone()]);
    assert_eq!(ids(&format!("until={at}&since={at}")).await, Vec::<String>::new());

    let wrong = "kind=all&limit=0&since=now&network=here&upload_id=1&subject=bob&cursor=x&user=bob";
    let problem = admin.get(&format!("/api/v1/audit?{wrong}")).await.expect_problem(422, "invalid_request");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 8, "{problem}");
    // PostgreSQL has no such text.
    let problem = admin.get("/api/v1/audit?issuer=i&subject=%00").await.expect_problem(422, "invalid_request");
    assert_eq!(problem["errors"][0]["field"], "subject", "{problem}");
    app.end().await;
}

async fn administrators(backend: Backend) {
    let app = TestApp::start_with(&backend, with_admin()).await;
    let put = json!({ "method": "put" });
    let ours = app.member("carol", "acme", &[]).issue("a.txt", b"1", &put).await;
    app.member("dave", "globex", &[]).issue("a.txt", b"1", &put).await;
    // Another issuer may name a tenant of its own the same.
    app.user("alice").issue("a.txt", b"1", &put).await;
    assert_eq!(records(&administrator(&app), "").await.len(), 3);
    let bound = records(&app.member("boss", "acme", &["manage"]), "").await;
    assert_eq!(field(&bound, "id"), [id(&ours)]);
    assert_eq!(records(&app.member("boss", "initech", &["manage"]), "").await, Vec::<Value>::new());
    app.user("alice").get("/api/v1/audit").await.expect_problem(403, "scope_missing");
    app.anonymous().get("/api/v1/audit").await.expect_problem(401, "token_missing");
    app.end().await;

    // Where no scope is configured, nobody is one.
    let app = TestApp::start(&backend).await;
    administrator(&app).get("/api/v1/audit").await.expect_problem(403, "scope_missing");
    app.end().await;
}

async fn export(backend: Backend) {
    let app = TestApp::start_with(&backend, with_admin()).await;
    let formula = app.user("=cmd|' /C calc'!A1");
    let issued = formula.issue("a.txt", b"1", &json!({ "method": "put" })).await;
    app.user("bob").issue("b.txt", b"1", &json!({ "method": "put" })).await;
    let config = app.folder().join("presignd.toml");
    std::fs::write(&config, settings(&app.database, &app.bucket, &app.policies_file, ADMIN).to_string()).unwrap();
    let export = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_presignd"));
        command.env_clear().args(["audit", "export", "--config"]).arg(&config).args(arguments);
        let output = command.output().expect("it runs");
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
        String::from_utf8(output.stdout).unwrap()
    };

    let lines = export(&["--format", "jsonl"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(field(&lines, "subject"), ["bob", "=cmd|' /C calc'!A1"]);
    assert_eq!(lines[1]["id"], issued["id"]);
    let csv = export(&["--format", "csv", "--issuer", ISSUER, "--user", "=cmd|' /C calc'!A1"]);
    let rows: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert_eq!(rows.len(), 2, "{csv}");
    assert!(rows[1].contains(&format!(",{ISSUER},'=cmd|' /C calc'!A1,")), "{csv}");
    let later = (app.clock.now() + TimeDelta::days(1)).to_rfc3339();
    assert_eq!(export(&["--format", "jsonl", "--since", &later]), "");
    let one = export(&["--format", "jsonl", "--upload", id(&issued), "--until", &later]);
    assert_eq!(one.lines().count(), 1, "{one}");
    app.end().await;
}

async fn bounded(backend: Backend) {
    let app = TestApp::start_with(&backend, with_admin()).await;
    let admin = administrator(&app);
    let first = (app.clock.now() - TimeDelta::hours(1)).timestamp_millis();
    // One from the network that is asked for, below 45,000 from elsewhere.
    app.database.psql(&format!(
        "INSERT INTO access_events (id, kind, client_network, reason)
         SELECT (lpad(to_hex({first} + n), 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid, 'refused',
             CASE n WHEN 1 THEN '192.0.2.1/32' ELSE '198.51.100.1/32' END, 'ticket_elsewhere'
         FROM generate_series(1::bigint, 45001) AS n"
    ));
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = admin.get(&format!("/api/v1/audit?network=192.0.2.0/24{cursor}")).await.expect(StatusCode::OK);
        pages.push(page["records"].as_array().unwrap().len());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, [0, 0, 1], "20,000 rows are looked at for a page");
    app.end().await;
}

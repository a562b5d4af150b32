//! URLs for CloudFront, judged by botocore and by an implementation of RSA and ECDSA that is not this project's.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use presignd::{
    clock::Clock,
    config::secret,
    model::{ClientNetwork, ObjectKey},
    signing::cloudfront::{CloudFront, CookieScope, KeyPair, SameSite},
};
use proptest::{
    prelude::*,
    sample::select,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    audit::{administrator, records, with_admin},
    revocations,
    support::{
        AppOptions, Backend, Reply, Suite, TestApp,
        app::{OTHER_ISSUER, TokenOptions},
    },
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boto3/cloudfront.py");
const CASES: usize = 200;
const SEED: [u8; 32] = *b"presignd signs for CloudFront so";
const DOMAIN: &str = "d111111abcdef8.cloudfront.net";

#[derive(Debug)]
struct Case {
    key_file: &'static str,
    origin_path: &'static str,
    path: String,
    query: BTreeMap<String, String>,
    network: Option<&'static str>,
    now: DateTime<Utc>,
    expires_in: u64,
}

pub(crate) fn register(suite: &mut Suite<'_>) {
    // Needs `python3` with botocore and `cryptography`.
    suite.everywhere("the_cdn_delivers_what_its_policy_allows_and_records_it", delivered);
    suite.everywhere("a_ticket_leads_to_the_cdn_for_seconds", tickets);
    suite.everywhere("cookies_open_a_prefix_for_one_visitor_and_are_recorded", cookies);
    suite.everywhere("policies_ask_of_the_cdn_only_what_it_can_do", demands);
    suite.alone_in_full_run("botocore_and_cryptography_agree_on_cloudfront", botocore_and_cryptography_agree);
}

fn botocore_and_cryptography_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new("python3").args([SCRIPT, "keys"]).arg(folder.path()).status();
    assert!(made.expect("python3 must be installed").success(), "{SCRIPT} has failed");

    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = case();
    let cases: Vec<Case> = (0..CASES).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let lines: Vec<Value> = cases.iter().map(|case| case.signed(folder.path())).collect();
    let verdicts = judged(folder.path(), &lines);
    assert_eq!(verdicts.len(), CASES, "python3 has stopped early");
    for (verdict, case) in verdicts.iter().zip(&cases) {
        assert_eq!(verdict, "ok", "{case:?}");
    }

    let lines: Vec<Value> = cases.iter().map(|case| case.cookies(folder.path())).collect();
    let verdicts = judged(folder.path(), &lines);
    assert_eq!(verdicts.len(), CASES, "python3 has stopped early");
    for (verdict, case) in verdicts.iter().zip(&cases) {
        assert_eq!(verdict, "ok", "cookies of {case:?}");
    }

    // A judge that finds nothing wrong with anything would be none.
    let mut tampered = lines[0].clone();
    tampered["ends_at"] = (tampered["ends_at"].as_i64().unwrap() + 1).into();
    let verdicts = judged(folder.path(), &[tampered]);
    assert!(verdicts.len() == 1 && verdicts[0] != "ok", "{verdicts:?}");
}

/// Settings of a distribution whose key is in a file of `folder`.
pub(crate) fn distribution(folder: &Path, ipv6: bool, origin_path: &str) -> toml::Value {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let file = folder.join("cloudfront.pem");
    let der = STANDARD.encode(key.to_pkcs8v1().unwrap());
    std::fs::write(&file, format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n")).unwrap();
    let table = format!(
        "domain = \"{DOMAIN}\"\nipv6 = {ipv6}\norigin_path = \"{origin_path}\"\n\
         keys = [{{ id = \"K2JCJMDEHXQW5F\", private_key_file = \"{}\" }}]",
        file.display()
    );
    toml::Value::Table(table.parse().unwrap())
}

const THROUGH_CDN: &str = "[policy.default]\nmethods = [\"put\"]\ndelivery = [\"cdn\", \"url\"]\n";

/// The policy in a URL for CloudFront.
fn policy_of(url: &str) -> Value {
    let policy = url.split_once("Policy=").unwrap().1.split('&').next().unwrap();
    let policy = STANDARD.decode(policy.replace('-', "+").replace('_', "=").replace('~', "/")).unwrap();
    serde_json::from_slice(&policy).unwrap()
}

async fn delivered(backend: Backend) {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = "[server]\ntrusted_proxies = [\"127.0.0.12/32\"]".to_owned();
    let options = AppOptions { policies: Some(THROUGH_CDN.to_owned()), settings, ..AppOptions::default() };
    let app = TestApp::start_altered(&backend, options, async |settings| {
        settings.insert("cdn".to_owned(), distribution(folder.path(), false, "uploads"));
    })
    .await;
    let alice = app.user("alice");
    let upload = alice.upload("a b.txt", b"12345", &json!({})).await;
    let body = json!({ "upload_id": upload["id"], "expires_in": 30, "disposition": "inline" });
    let issued = alice.post("/api/v1/downloads", &body).await.expect(StatusCode::CREATED);
    assert_eq!(issued["delivery"], "cdn");
    let url = issued["url"].as_str().unwrap();
    let hex = upload["id"].as_str().unwrap().replace('-', "");
    assert!(
        url.starts_with(&format!("https://{DOMAIN}/")) && !url.contains("/uploads/") && url.contains(&hex),
        "{url}"
    );
    let statement = &policy_of(url)["Statement"][0];
    assert_eq!(statement["Resource"].as_str().unwrap(), url.split_once("&Policy=").unwrap().0);
    assert_eq!(statement["Condition"]["IpAddress"]["AWS:SourceIp"], "127.0.0.1/32");
    let ends_at: DateTime<Utc> = issued["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(statement["Condition"]["DateLessThan"]["AWS:EpochTime"], ends_at.timestamp());
    assert!(url.contains("response-content-disposition=inline%3B%20filename%3D%22a%20b.txt%22"), "{url}");
    assert!(url.contains("&response-content-type=text%2Fplain"), "{url}");

    // A browser is sent there, and nothing of it is kept.
    let path = format!("/api/v1/files/{}", upload["id"].as_str().unwrap());
    let reply = alice.get(&path).await;
    assert_eq!(reply.status, StatusCode::FOUND);
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert!(reply.headers["location"].to_str().unwrap().starts_with(&format!("https://{DOMAIN}/")));
    // The store is still there for whom the policy lets choose.
    let reply = alice.get(&format!("{path}?delivery=url")).await.expect(StatusCode::OK);
    assert!(!reply["url"].as_str().unwrap().contains(DOMAIN));

    // Over IPv6, where the distribution could not hold anybody to a network, there is no URL of it at all.
    let over_ipv6 = |path: String| {
        let request = alice.at("127.0.0.12").request(Method::GET, &path);
        Reply::of(request.header("x-forwarded-for", "2001:db8::7"))
    };
    over_ipv6(path.clone()).await.expect_problem(409, "ipv4_required");
    assert_eq!(over_ipv6(format!("{path}?delivery=url")).await.status, StatusCode::OK);
    // Without a scope there is nothing to hold anybody to.
    app.change_policies(&format!("{THROUGH_CDN}ip_scope = \"off\"\n")).await;
    let reply = over_ipv6(path).await;
    assert_eq!(reply.status, StatusCode::FOUND);
    let policy = policy_of(reply.headers["location"].to_str().unwrap());
    assert_eq!(policy["Statement"][0]["Condition"].as_object().unwrap().len(), 1, "{policy}");
    app.end().await;
}

async fn tickets(backend: Backend) {
    let folder = tempfile::tempdir().expect("a folder");
    let policies = "[policy.default]\nmethods = [\"put\"]\ndelivery = \"cdn\"\ndownload.uses = 1\n".to_owned();
    let clock = Clock::manual(Clock::System.now());
    let options = AppOptions { policies: Some(policies), clock, ..AppOptions::default() };
    let app = TestApp::start_altered(&backend, options, async |settings| {
        settings.insert("cdn".to_owned(), distribution(folder.path(), false, "uploads"));
    })
    .await;
    let alice = app.user("alice");
    let upload = alice.upload("a.txt", b"12345", &json!({})).await;
    let issued = alice.post("/api/v1/downloads", &json!({ "upload_id": upload["id"] })).await;
    let issued = issued.expect(StatusCode::CREATED);
    let reply = Reply::of(alice.http.get(issued["url"].as_str().unwrap())).await;
    assert_eq!(reply.status, StatusCode::FOUND, "{}", reply.text());
    assert_eq!(reply.headers["cache-control"], "no-store");
    let location = reply.headers["location"].to_str().unwrap();
    assert!(location.starts_with(&format!("https://{DOMAIN}/")), "{location}");
    let condition = &policy_of(location)["Statement"][0]["Condition"];
    assert_eq!(condition["IpAddress"]["AWS:SourceIp"], "127.0.0.1/32");
    assert_eq!(condition["DateLessThan"]["AWS:EpochTime"], app.clock.now().timestamp() + 10);
    Reply::of(alice.http.get(issued["url"].as_str().unwrap())).await.expect_problem(410, "ticket_used");
    app.end().await;
}

async fn cookies(backend: Backend) {
    const PATH: &str = "/api/v1/admin/cdn-cookies";
    let folder = tempfile::tempdir().expect("a folder");
    let policies = format!("{THROUGH_CDN}download.expires_in = \"5m\"\n[policy.direct]\nmethods = [\"put\"]\n");
    let clock = Clock::manual(Clock::System.now());
    let options = AppOptions { policies: Some(policies), clock, ..with_admin() };
    let app = TestApp::start_altered(&backend, options, async |settings| {
        settings.insert("cdn".to_owned(), distribution(folder.path(), false, "uploads"));
    })
    .await;
    let admin = administrator(&app);
    let body = json!({ "prefix": "uploads/a b/", "client_address": "192.0.2.7", "domain": "example.org" });
    let issued = admin.post(PATH, &body).await.expect(StatusCode::CREATED);
    assert_eq!((&issued["prefix"], &issued["policy"]), (&json!("uploads/a b"), &json!("default")));
    assert_eq!(issued["client_network"], "192.0.2.7/32");
    let ends_at: DateTime<Utc> = issued["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(ends_at.timestamp(), app.clock.now().timestamp() + 300, "as long as the policy lets it");
    let cookies: Vec<&str> = issued["set_cookie"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    assert_eq!(cookies.len(), 4);
    for cookie in &cookies {
        assert!(cookie.ends_with("; Domain=example.org; Path=/a%20b/; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
    }
    let statement = &policy_of(&cookies[0].replace("CloudFront-", "").replace(';', "&"))["Statement"][0];
    assert_eq!(statement["Resource"], format!("https://{DOMAIN}/a%20b/*"));
    assert_eq!(statement["Condition"]["IpAddress"]["AWS:SourceIp"], "192.0.2.7/32");

    // They are in the audit, and a revocation tells how long they are good.
    let told = records(&admin, "kind=cookies_issued").await;
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["id"], &told[0]["prefix"]), (&issued["id"], &issued["prefix"]));
    assert_eq!((&told[0]["client_network"], &told[0]["actor"]["subject"]), (&json!("192.0.2.7/32"), &json!("root")));
    app.clock.set(app.clock.now() + TimeDelta::seconds(1));
    let stopped = admin.post(revocations::PATH, &json!({ "issued_before": app.clock.now() })).await;
    assert_eq!(stopped.expect(StatusCode::OK)["urls_live_until"], issued["expires_at"]);
    app.clock.set(ends_at);
    let stopped = admin.post(revocations::PATH, &json!({ "issued_before": app.clock.now() })).await;
    assert_eq!(stopped.expect(StatusCode::OK)["urls_live_until"], Value::Null, "they have ended");

    for (body, field) in [
        (json!({ "prefix": "other", "client_address": "192.0.2.7" }), "prefix"),
        (json!({ "prefix": "uploads", "client_address": "192.0.2.7" }), "prefix"),
        (json!({ "prefix": "uploads/../x", "client_address": "192.0.2.7" }), "prefix"),
        (json!({ "prefix": "uploads/a" }), "client_address"),
        (json!({ "prefix": "uploads/a", "client_address": "192.0.2.0/24" }), "client_address"),
        (json!({ "prefix": "uploads/a", "client_address": "192.0.2.7", "expires_in": 0 }), "expires_in"),
        (json!({ "prefix": "uploads/a", "client_address": "192.0.2.7", "domain": "a; Path=/" }), "domain"),
        (json!({ "prefix": "uploads/a", "client_address": "192.0.2.7", "policy": "other" }), "policy"),
    ] {
        let problem = admin.post(PATH, &body).await.expect_problem(422, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
    let direct = json!({ "prefix": "uploads/a", "client_address": "192.0.2.7", "policy": "direct" });
    admin.post(PATH, &direct).await.expect_problem(422, "policy_refused");
    let over_ipv6 = json!({ "prefix": "uploads/a", "client_address": "2001:db8::7" });
    admin.post(PATH, &over_ipv6).await.expect_problem(409, "ipv4_required");
    app.user("alice").post(PATH, &body).await.expect_problem(403, "scope_missing");
    app.anonymous().post(PATH, &body).await.expect_problem(401, "token_missing");
    let of_acme =
        TokenOptions { issuer: OTHER_ISSUER, tenant: Some("acme"), scopes: &["manage"], ..TokenOptions::default() };
    let of_acme = app.anonymous().with_token(app.token(&of_acme));
    of_acme.post(PATH, &body).await.expect_problem(403, "tenant_bound");
    assert_eq!(records(&admin, "kind=cookies_issued").await.len(), 1, "what was refused was not issued");

    // Where nobody is scoped, an address that is given is heeded all the same.
    app.change_policies(&format!("{THROUGH_CDN}ip_scope = \"off\"\n")).await;
    for (address, network) in [(Value::Null, Value::Null), (json!("192.0.2.7"), json!("192.0.2.7/32"))] {
        let body = json!({ "prefix": "uploads/a", "client_address": address, "expires_in": 60, "same_site": "none" });
        assert_eq!(admin.post(PATH, &body).await.expect(StatusCode::CREATED)["client_network"], network);
    }
    app.end().await;
}

async fn demands(backend: Backend) {
    let folder = tempfile::tempdir().expect("a folder");
    let app = TestApp::start_altered(&backend, AppOptions::default(), async |settings| {
        settings.insert("cdn".to_owned(), distribution(folder.path(), true, "uploads"));
    })
    .await;
    let version = app.running.policies.current().version().to_owned();
    for (policies, rule) in [
        (THROUGH_CDN.to_owned(), "policy.default.ip_scope: must be \"off\" where delivery has \"cdn\""),
        (
            format!("{THROUGH_CDN}ip_scope = \"off\"\nkey = \"other/{{id}}\"\n"),
            "policy.default.key: must begin with cdn.origin_path",
        ),
    ] {
        let status = app.change_policies(&policies).await;
        let failure = status.last_error.unwrap_or_default();
        assert!(failure.contains(rule), "{failure}");
        assert_eq!(app.running.policies.current().version(), version);
    }
    app.change_policies(&format!("{THROUGH_CDN}ip_scope = \"off\"\n")).await;
    assert_ne!(app.running.policies.current().version(), version);
    app.end().await;

    let app = TestApp::start(&backend).await;
    let status = app.change_policies(THROUGH_CDN).await;
    let failure = status.last_error.unwrap_or_default();
    assert!(failure.contains("policy.default.delivery: needs the [cdn] settings"), "{failure}");
    app.end().await;
}

fn judged(folder: &Path, lines: &[Value]) -> Vec<String> {
    let mut python = Command::new("python3")
        .args([SCRIPT, "judge"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 must be installed");
    let mut input = python.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        // From a thread of its own: with both pipes full, neither side could go on.
        scope.spawn(move || lines.iter().try_for_each(|line| writeln!(input, "{line}")));
        python.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "python3 ended with {}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

impl Case {
    fn distribution(&self, folder: &Path) -> CloudFront {
        let pem = secret::read_file(&folder.join(self.key_file)).unwrap();
        let pair = KeyPair::from_pem("K2JCJMDEHXQW5F", None, &pem).unwrap();
        CloudFront::new(DOMAIN, self.origin_path, vec![pair]).unwrap()
    }

    fn key(&self) -> ObjectKey {
        let key = match self.origin_path {
            "" => self.path.clone(),
            folder => format!("{folder}/{}", self.path),
        };
        ObjectKey::parse(key).unwrap()
    }

    fn network(&self) -> Option<ClientNetwork> {
        self.network.map(|network| network.parse().unwrap())
    }

    fn signed(&self, folder: &Path) -> Value {
        let query: Vec<(&str, &str)> = self.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let life = Duration::from_secs(self.expires_in);
        let signed = self.distribution(folder).presign(&self.key(), &query, self.network(), self.now, life);
        let signed = signed.expect("it is signed");
        let mut case = self.line(signed.expires_at);
        // In the order of the URL.
        case["query"] = json!(query);
        case["url"] = json!(signed.url());
        case
    }

    /// Cookies for all that lies below the path.
    fn cookies(&self, folder: &Path) -> Value {
        let life = Duration::from_secs(self.expires_in);
        let scope = CookieScope::new(None, SameSite::Lax).unwrap();
        let signed = self.distribution(folder).sign_cookies(&self.key(), self.network(), self.now, life, scope);
        let signed = signed.expect("they are signed");
        let mut case = self.line(signed.expires_at);
        case["cookies"] = json!(signed.set_cookie_headers());
        case
    }

    fn line(&self, ends_at: DateTime<Utc>) -> Value {
        json!({
            "key_file": self.key_file,
            "key_id": "K2JCJMDEHXQW5F",
            "origin": format!("https://{DOMAIN}"),
            "path": self.path,
            "query": [],
            "network": self.network,
            "ends_at": ends_at.timestamp(),
        })
    }
}

/// Text with every character that some encoder or JSON writer treats differently.
fn text() -> impl Strategy<Value = String> {
    let alphabet = " +%&=~#?;,:@!$'()*[]{}<>|^`\"-_.aZ09éß日🦀\u{a0}\u{2028}\u{feff}";
    prop::collection::vec(select(alphabet.chars().collect::<Vec<_>>()), 1..20)
        .prop_map(|chars| chars.into_iter().collect())
}

fn case() -> impl Strategy<Value = Case> {
    let key_file = select(vec!["rsa-pkcs8.pem", "rsa-traditional.pem", "ecdsa-pkcs8.pem", "ecdsa-traditional.pem"]);
    let origin_path = select(vec!["", "uploads", "uploads/a b"]);
    let path =
        prop::collection::vec(text().prop_map(|text| format!("{text}k")), 1..4).prop_map(|segments| segments.join("/"));
    let query = prop::collection::btree_map(text(), text(), 0..3);
    let network = select(vec![None, Some("192.0.2.7/32"), Some("192.0.2.0/24"), Some("10.0.0.0/8")]);
    let now = (0_i64..4_102_444_800).prop_map(|seconds| DateTime::from_timestamp(seconds, 0).unwrap());
    (key_file, origin_path, path, query, network, now, 1_u64..=604_800).prop_map(
        |(key_file, origin_path, path, query, network, now, expires_in)| Case {
            key_file,
            origin_path,
            path,
            query,
            network,
            now,
            expires_in,
        },
    )
}

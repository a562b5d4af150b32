//! `openapi.yaml` is the contract: it lists what is served, and what is served looks as it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_sdk_s3::primitives::ByteStream;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonschema::Validator;
use presignd::http::ErrorCode;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::cloudfront::distribution;
use crate::events::TOKEN;
use crate::support::{
    AppOptions, Backend, Caller, Reply, Suite, TestApp, TestScanner,
    app::{ISSUER, OTHER_ISSUER, POLICIES, TokenOptions},
    backend::BackendKind,
    caller::{headers, id},
    load::eventually,
    scanner::Answer,
};
use crate::sweeper::row;

const NOBODYS: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.alone("the_contract_lists_the_routes_and_no_others", routes);
    suite.alone("the_contract_lists_the_error_codes_and_no_others", error_codes);
    suite.on(&[BackendKind::Embedded], "bodies_have_the_fields_of_the_contract", fields);
    suite.everywhere("every_answer_looks_as_the_contract_says", answers);
}

fn contract() -> Value {
    serde_yaml_ng::from_str(include_str!("../../openapi.yaml")).expect("openapi.yaml is YAML")
}

/// The methods that a path item can have: its other fields are not operations.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

fn operations(contract: &Value) -> BTreeSet<(String, String)> {
    let paths = contract["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| METHODS.contains(&key.as_str()));
            methods.map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect()
}

fn routes() {
    // The table is read as text, because actix does not tell which routes it has.
    let source = include_str!("../../src/http.rs").split_whitespace().collect::<Vec<_>>().join(" ");
    // However long the lines of the table are.
    let source = source.replace("at( app, ", "at(app, ");
    let mut served = BTreeSet::new();
    for line in source.split(" at(app, ").skip(1) {
        let mut quoted = line.split('"').skip(1).step_by(2);
        let (path, allowed) = (quoted.next().expect("a path"), quoted.next().expect("the methods"));
        let handlers = line.split("); ").next().unwrap();
        for method in allowed.split(", ") {
            let route = format!("web::{}()", method.to_lowercase());
            assert!(handlers.contains(&route), "{path} says that it allows {method}");
            served.insert((method.to_owned(), path.to_owned()));
        }
        assert_eq!(handlers.matches("web::").count(), allowed.split(", ").count(), "{path} allows {allowed}");
    }
    assert!(served.contains(&("DELETE".to_owned(), "/api/v1/uploads/{id}".to_owned())), "{served:?}");
    assert_eq!(operations(&contract()), served);
}

fn error_codes() {
    let contract = contract();
    let listed = resolve(&contract, &contract["components"]["schemas"]["Problem"]["properties"]["code"]);
    let listed: Vec<&str> = listed["enum"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    let unique: BTreeSet<&str> = listed.iter().copied().collect();
    assert_eq!(unique.len(), listed.len());
    assert_eq!(unique, ErrorCode::ALL.iter().map(|code| code.as_str()).collect());
}

/// What a `$ref` leads to, or `value` itself.
fn resolve<'a>(contract: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        None => value,
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("a reference into the document");
            contract.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
    }
}

/// Holds every answer to the contract, and remembers which it has seen.
struct Judge {
    contract: Value,
    validators: BTreeMap<(String, String, u16), Validator>,
    seen: BTreeSet<(String, String)>,
    codes: BTreeSet<String>,
}

impl Judge {
    fn new() -> Self {
        let nothing = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { contract: contract(), validators: nothing.0, seen: nothing.1, codes: nothing.2 }
    }

    /// Sends `request` to an operation of the contract and judges the answer.
    async fn call(&mut self, status: u16, method: Method, path: &str, request: RequestBuilder) -> Reply {
        let name = format!("{method} {path}");
        // A batch is answered whatever its items are.
        if status < 300 && path != "/api/v1/uploads/batch" {
            self.judge_request(&name, &method, path, &request);
        }
        let reply = Reply::of(request).await;
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
        let operation = &self.contract["paths"][path][method.as_str().to_lowercase()];
        let response = &operation["responses"][status.to_string()];
        assert!(!response.is_null(), "{name} is not said to answer {status}: {}", reply.text());
        let response = resolve(&self.contract, response);
        for (header, described) in response["headers"].as_object().into_iter().flatten() {
            let described = resolve(&self.contract, described);
            let Some(value) = reply.headers.get(header) else {
                assert!(described["required"] != true, "{name} {status}: no {header}");
                continue;
            };
            let text = value.to_str().expect("a header of text");
            let value = match described["schema"]["type"].as_str() {
                Some("integer") => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
                _ => text.into(),
            };
            let valid = jsonschema::is_valid(&described["schema"], &value);
            assert!(valid, "{name} {status}: {header}: {text} is not {}", described["schema"]);
        }
        if method == Method::HEAD || response["content"].is_null() {
            assert_eq!(reply.bytes, b"");
            self.seen.insert((method.to_string(), path.to_owned()));
            return reply;
        }
        let content_type = reply.headers["content-type"].to_str().unwrap();
        let essence = content_type.split(';').next().unwrap();
        let content = response["content"].as_object().unwrap();
        let media = content.get(content_type).or_else(|| content.get(essence)).or_else(|| content.get("*/*"));
        let media = media.unwrap_or_else(|| panic!("{name} {status} is not said to answer {content_type}"));
        if essence.ends_with("json") {
            let schema = self.schema(&media["schema"]);
            let key = (method.to_string(), path.to_owned(), status);
            let validator = self.validators.entry(key).or_insert_with(|| {
                let options = jsonschema::options().should_validate_formats(true);
                options.build(&schema).unwrap_or_else(|error| panic!("{name} {status}: {error}"))
            });
            let body = reply.json();
            let wrong: Vec<String> =
                validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
            assert_eq!(wrong, Vec::<String>::new(), "{name} {status}: {body}");
            if status >= 400 && essence == "application/problem+json" {
                self.codes.insert(body["code"].as_str().unwrap().to_owned());
            }
        }
        let answers = operation["responses"].as_object().unwrap();
        // What never succeeds has been seen when it has answered.
        if status < 300 || answers.keys().all(|status| !status.starts_with(['2', '3'])) {
            self.seen.insert((method.to_string(), path.to_owned()));
        }
        reply
    }

    /// What succeeds has to be a request that the contract shows.
    fn judge_request(&self, name: &str, method: &Method, path: &str, request: &RequestBuilder) {
        let item = &self.contract["paths"][path];
        let operation = &item[method.as_str().to_lowercase()];
        let request = request.try_clone().and_then(|request| request.build().ok()).expect("a request from memory");
        let parameters = [&item["parameters"], &operation["parameters"]];
        let named: BTreeSet<&str> = parameters
            .iter()
            .flat_map(|list| list.as_array().into_iter().flatten())
            .map(|parameter| resolve(&self.contract, parameter))
            .filter(|parameter| parameter["in"] == "query")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        for (query, _) in request.url().query_pairs() {
            // An object's members are `name[member]`.
            let query = query.split('[').next().unwrap_or_default();
            assert!(named.contains(query), "{name}: {query} is none of {named:?}");
        }
        let Some(body) = request.body().and_then(|body| body.as_bytes()).filter(|body| !body.is_empty()) else {
            return;
        };
        let content = &resolve(&self.contract, &operation["requestBody"])["content"];
        assert!(!content.is_null(), "{name} is not said to take a body");
        let Some(schema) = content.get("application/json").map(|media| &media["schema"]) else { return };
        let schema = self.schema(schema);
        let body: Value = serde_json::from_slice(body).expect("JSON");
        let wrong: Vec<String> = jsonschema::validator_for(&schema)
            .expect("a schema")
            .iter_errors(&body)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(wrong, Vec::<String>::new(), "{name}: {body}");
    }

    /// A schema of the contract with all that it refers to.
    fn schema(&self, schema: &Value) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema],
            "components": self.contract["components"],
        })
    }

    async fn get(&mut self, status: u16, caller: &Caller, path: &str) -> Reply {
        self.call(status, Method::GET, path, caller.request(Method::GET, path)).await
    }

    async fn post(&mut self, status: u16, caller: &Caller, path: &str, body: &Value) -> Reply {
        self.call(status, Method::POST, path, caller.request(Method::POST, path).json(body)).await
    }

    /// A call on one upload. `action` is what follows its id in the path.
    async fn on(&mut self, status: u16, caller: &Caller, method: Method, id: &str, action: &str) -> Reply {
        let request = caller.request(method.clone(), &format!("/api/v1/uploads/{id}{action}"));
        self.call(status, method, &format!("/api/v1/uploads/{{id}}{action}"), request).await
    }
}

/// Bodies have the fields that the contract shows, and no others: the answer to an unknown one names all.
async fn fields(backend: Backend) {
    let app = TestApp::start_with(&backend, crate::audit::with_admin()).await;
    let admin = crate::audit::administrator(&app);
    let contract = contract();
    let id = admin.issue("a.txt", b"1", &json!({})).await["id"].as_str().expect("an id").to_owned();
    let mut tried = 0;
    for (path, item) in contract["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let content = &resolve(&contract, &operation["requestBody"])["content"]["application/json"];
            let schema = resolve(&contract, &content["schema"]);
            // The others are contracts of somebody else, whose clients may send more.
            if schema["additionalProperties"] != false {
                continue;
            }
            let method: Method = method.to_uppercase().parse().expect("a method");
            let request = admin.request(method, &path.replace("{id}", &id)).json(&json!({ "no_such_field": 1 }));
            let problem = Reply::of(request).await.expect_problem(422, "invalid_request");
            let rule = problem["errors"][0]["rule"].as_str().expect("a rule");
            assert!(rule.starts_with("unknown field `no_such_field`, expected "), "{path}: {rule}");
            let accepted: BTreeSet<&str> = rule.split('`').skip(3).step_by(2).collect();
            let shown: BTreeSet<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(accepted, shown, "{path}");
            tried += 1;
        }
    }
    assert!(tried >= 9, "{tried}");
    app.end().await;
}

async fn answers(backend: Backend) {
    let scanner = TestScanner::start(Answer::Wait, &backend.runtime).await;
    let settings = format!(
        "[server]\nbody_limit = \"4KiB\"\ntrusted_proxies = [\"127.0.0.12/32\"]\n\
         redirect_allowed_origins = [\"https://app.example.com\"]\n\
         [auth.scopes]\nupload = \"write\"\ndownload = \"read\"\nadmin = \"manage\"\n\
         [events]\nbody_limit = \"64KiB\"\ntokens = [{{ secret = \"{TOKEN}\" }}]\n\
         [delivery]\naccel = \"nginx\"\n\
         [inspection]\nurl = \"{}\"",
        scanner.url()
    );
    // Clients with contracts of their own send small files by form and large ones in parts, under one policy.
    let by_all = POLICIES.replace("[\"post\", \"put\"]", "[\"post\", \"put\", \"multipart\"]");
    let policies = format!(
        "{by_all}\n[policy.ticketed]\nmethods = [\"put\"]\ndelivery = [\"url\", \"redirect\"]\ndownload.uses = 1\n\
         [policy.inspected]\nmethods = [\"put\"]\ninspection = \"required\"\n\
         [policy.large]\nmethods = [\"multipart\"]\n\
         [policy.delivered]\nmethods = [\"put\"]\ndelivery = [\"url\", \"redirect\", \"stream\", \"accel\"]\n\
         [policy.far]\nmethods = [\"put\"]\ndelivery = \"cdn\"\n"
    );
    let options = AppOptions { policies: Some(policies), settings, ..AppOptions::default() };
    let folder = tempfile::tempdir().expect("a folder");
    let app = TestApp::start_altered(&backend, options, async |settings| {
        settings.insert("cdn".to_owned(), distribution(folder.path(), false, ""));
    })
    .await;
    let with =
        |scopes: &[&str]| app.anonymous().with_token(app.token(&TokenOptions { scopes, ..TokenOptions::default() }));
    let (alice, nobody, anybody) = (with(&["read", "write"]), with(&[]), app.anonymous());
    let mut judge = Judge::new();

    for path in ["/healthz", "/readyz", "/metrics", "/openapi.yaml", "/docs"] {
        judge.get(200, &anybody, path).await;
    }
    for path in ["/healthz", "/readyz"] {
        judge.call(200, Method::HEAD, path, anybody.request(Method::HEAD, path)).await;
    }
    judge.get(200, &alice, "/api/v1/policies").await;
    judge.get(401, &anybody, "/api/v1/policies").await;
    judge.get(401, &anybody.with_token("garbage"), "/api/v1/policies").await;

    uploads(&mut judge, &alice, [&nobody, &anybody]).await;
    inspected(&mut judge, &alice, &scanner).await;
    settling(&mut judge, &app, &alice, [&nobody, &anybody]).await;
    parts(&mut judge, &app, &alice, [&nobody, &anybody]).await;
    downloads(&mut judge, &alice, [&nobody, &anybody]).await;
    files(&mut judge, &app, &alice, [&nobody, &anybody]).await;
    tickets(&mut judge, &alice, &anybody).await;
    let admin = with(&["manage"]);
    administration(&mut judge, &admin, [&nobody, &anybody]).await;
    cookies(&mut judge, &app, &admin, [&nobody, &anybody]).await;
    events(&mut judge, &app, &anybody).await;
    form_return(&mut judge, &alice, &anybody).await;
    clients(&mut judge, &alice, [&nobody, &anybody]).await;

    // A change that is still to come.
    let planned = "[[policy.default.schedule]]\nfrom = \"2999-01-01T00:00:00Z\"\nip_scope = \"off\"\n[policy.shared]";
    app.change_policies(&POLICIES.replace("[policy.shared]", planned)).await;
    judge.get(200, &alice, "/api/v1/policies").await;

    assert_eq!(judge.seen, operations(&judge.contract), "every operation has been seen to succeed");
    let told: BTreeSet<String> = [
        "invalid_json",
        "client_address_unknown",
        "token_missing",
        "token_invalid",
        "callback_token_invalid",
        "event_sender_unknown",
        "capability_invalid",
        "capability_elsewhere",
        "tenant_bound",
        "ipv4_required",
        "ticket_elsewhere",
        "prefetch_refused",
        "ticket_unknown",
        "ticket_used",
        "not_a_ticket",
        "revoked",
        "credentials_not_given",
        "scope_missing",
        "not_behind_proxy",
        "file_gone",
        "precondition_failed",
        "range_not_satisfiable",
        "not_found",
        "upload_incomplete",
        "invalid_state",
        "not_multipart",
        "network_changed",
        "parts_gone",
        "upload_not_confirmed",
        "body_too_large",
        "unsupported_media_type",
        "invalid_request",
        "policy_refused",
        "upload_mismatch",
        "etag_mismatch",
        "idempotency_mismatch",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(judge.codes, told, "the problems of a service whose parts all work");
    app.end().await;
}

async fn uploads(judge: &mut Judge, alice: &Caller, [nobody, anybody]: [&Caller; 2]) {
    let path = "/api/v1/uploads";
    let body = json!({ "original_file_name": "a.txt", "file_size": 5, "method": "put", "metadata": { "case": "42" } });
    let form = json!({
        "original_file_name": "a.txt", "file_size": "5", "method": "post",
        "checksum_sha256": "WZRHGrsBESr8wYFZ9sx0tPURuZgG2lmzyvWpwXPKz8U=",
    });
    judge.post(201, alice, path, &form).await;
    let with_key = |body: &Value| alice.request(Method::POST, path).header("idempotency-key", "k").json(body);
    let issued = judge.call(201, Method::POST, path, with_key(&body)).await.json();
    judge.call(201, Method::POST, path, with_key(&body)).await;
    judge.call(422, Method::POST, path, with_key(&form)).await;
    judge.on(200, alice, Method::DELETE, id(&issued), "").await;
    judge.call(201, Method::POST, path, with_key(&body)).await;

    judge.post(401, anybody, path, &body).await;
    judge.post(403, nobody, path, &body).await;
    let broken = json!({ "original_file_name": "a/b", "file_size": 5, "method": "patch", "metadata": { "A": "1" } });
    judge.post(422, alice, path, &broken).await;
    judge.post(422, alice, path, &json!({ "original_file_name": "a", "file_size": "many" })).await;
    judge.post(422, alice, path, &json!({ "original_file_name": "a", "file_size": u64::MAX })).await;
    judge.post(413, alice, path, &json!({ "original_file_name": "a".repeat(5000), "file_size": 5 })).await;
    judge.call(400, Method::POST, path, alice.request(Method::POST, path).json("text")).await;
    judge.call(415, Method::POST, path, alice.request(Method::POST, path).body("{}")).await;
    let garbage = alice.at("127.0.0.12").request(Method::POST, path).header("x-forwarded-for", "garbage");
    judge.call(400, Method::POST, path, garbage.json(&body)).await;

    batch(judge, alice, [nobody, anybody]).await;

    judge.get(200, alice, path).await;
    judge.call(200, Method::GET, path, alice.request(Method::GET, &format!("{path}?limit=1&state=issued"))).await;
    judge.call(200, Method::GET, path, alice.request(Method::GET, &format!("{path}?limit=1"))).await;
    judge.call(422, Method::GET, path, alice.request(Method::GET, &format!("{path}?limit=0"))).await;
    judge.get(401, anybody, path).await;
}

async fn batch(judge: &mut Judge, alice: &Caller, [nobody, anybody]: [&Caller; 2]) {
    let path = "/api/v1/uploads/batch";
    let file = json!({ "original_file_name": "a.txt", "file_size": 5 });
    let put = json!({ "original_file_name": "a.txt", "file_size": 5, "method": "put" });
    let mixed =
        json!({ "uploads": [file, put, { "original_file_name": "a/b", "file_size": 5 }, 5, { "file_size": -1 }] });
    judge.post(200, alice, path, &mixed).await;
    let with_key = |body: &Value| alice.request(Method::POST, path).header("idempotency-key", "b").json(body);
    let issued = judge.call(200, Method::POST, path, with_key(&mixed)).await.json();
    judge.on(200, alice, Method::DELETE, id(&issued["results"][0]["upload"]), "").await;
    let replayed = judge.call(200, Method::POST, path, with_key(&mixed)).await.json();
    assert_eq!(replayed["results"][0]["upload"]["state"], "aborted");
    judge.call(422, Method::POST, path, with_key(&json!({ "uploads": [file] }))).await;
    judge.post(422, alice, path, &json!({ "uploads": [] })).await;
    judge.post(422, alice, path, &json!({})).await;
    judge.post(401, anybody, path, &mixed).await;
    judge.post(403, nobody, path, &mixed).await;
    judge.post(413, alice, path, &json!({ "uploads": ["x".repeat(1 << 20)] })).await;
    judge.call(400, Method::POST, path, alice.request(Method::POST, path).json("text")).await;
    judge.call(415, Method::POST, path, alice.request(Method::POST, path).body("{}")).await;
    let garbage = alice.at("127.0.0.12").request(Method::POST, path).header("x-forwarded-for", "garbage");
    judge.call(400, Method::POST, path, garbage.json(&mixed)).await;
}

async fn inspected(judge: &mut Judge, alice: &Caller, scanner: &TestScanner) {
    let issued = alice.issue("a.png", b"12345", &json!({ "policy": "inspected" })).await;
    assert!(alice.send(&issued, b"12345").await.status.is_success());
    judge.on(202, alice, Method::POST, id(&issued), "/complete").await;
    scanner.asked(1).await;
    judge.on(202, alice, Method::POST, id(&issued), "/complete").await;
    let shown = judge.on(200, alice, Method::GET, id(&issued), "").await.json();
    assert_eq!((&shown["state"], &shown["warnings"][0]["field"]), (&json!("inspecting"), &json!("content")));
    judge.get(200, alice, "/api/v1/uploads").await;
    scanner.go_on();
    let confirmed = async || {
        let reply = alice.get(&format!("/api/v1/uploads/{}", id(&issued))).await;
        (reply.json()["state"] == "confirmed").then_some(())
    };
    eventually(Duration::from_secs(20), confirmed).await;
    judge.on(200, alice, Method::GET, id(&issued), "").await;
}

async fn settling(judge: &mut Judge, app: &TestApp, alice: &Caller, [nobody, anybody]: [&Caller; 2]) {
    let put = json!({ "method": "put" });
    let issued = alice.issue("a.txt", b"12345", &put).await;
    let complete =
        |id: &str, body: Value| alice.request(Method::POST, &format!("/api/v1/uploads/{id}/complete")).json(&body);
    let path = "/api/v1/uploads/{id}/complete";
    judge.on(200, alice, Method::GET, id(&issued), "").await;
    judge.on(200, alice, Method::POST, id(&issued), "/renew").await;
    judge.on(409, alice, Method::POST, id(&issued), "/complete").await;
    assert!(alice.send(&issued, b"12345").await.status.is_success());
    judge.call(422, Method::POST, path, complete(id(&issued), json!({ "etag": "other" }))).await;
    judge.call(422, Method::POST, path, complete(id(&issued), json!({ "etag": "W/\"x\"" }))).await;
    judge.call(400, Method::POST, path, complete(id(&issued), json!(5))).await;
    judge.call(413, Method::POST, path, complete(id(&issued), json!({ "etag": "x".repeat(2 << 20) }))).await;
    judge.call(401, Method::POST, path, complete(id(&issued), json!({ "token": "garbage" }))).await;
    let text = alice.request(Method::POST, &format!("/api/v1/uploads/{}/complete", id(&issued))).body("{}");
    judge.call(415, Method::POST, path, text).await;
    judge.call(200, Method::POST, path, complete(id(&issued), json!({ "token": issued["callback"]["token"] }))).await;
    judge.on(200, alice, Method::GET, id(&issued), "").await;
    judge.on(409, alice, Method::DELETE, id(&issued), "").await;
    judge.on(409, alice, Method::POST, id(&issued), "/renew").await;

    let rejected = alice.issue("b.txt", b"12345", &put).await;
    let key = rejected["upload"]["url"].as_str().unwrap().split('?').next().unwrap();
    let key = key.split_once(&format!("/{}/", app.bucket.bucket)).unwrap().1;
    let wrong = app.bucket.s3.put_object().bucket(&app.bucket.bucket).key(key).body(ByteStream::from_static(b"1"));
    wrong.send().await.expect("the administrator may put");
    judge.on(422, alice, Method::POST, id(&rejected), "/complete").await;
    judge.on(200, alice, Method::GET, id(&rejected), "").await;

    let aborted = alice.issue("c.txt", b"12345", &put).await;
    judge.on(200, alice, Method::DELETE, id(&aborted), "").await;
    judge.on(409, alice, Method::POST, id(&aborted), "/complete").await;
    judge.on(200, alice, Method::GET, id(&aborted), "").await;
    judge.get(200, alice, "/api/v1/uploads").await;

    for (method, action) in
        [(Method::GET, ""), (Method::DELETE, ""), (Method::POST, "/renew"), (Method::POST, "/complete")]
    {
        judge.on(404, alice, method.clone(), NOBODYS, action).await;
        judge.on(401, anybody, method.clone(), NOBODYS, action).await;
        if method != Method::GET {
            judge.on(403, nobody, method, NOBODYS, action).await;
        }
    }
    let unknown = alice.at("127.0.0.12").request(Method::POST, &format!("/api/v1/uploads/{NOBODYS}/renew"));
    let unknown = unknown.header("x-forwarded-for", "garbage");
    judge.call(400, Method::POST, "/api/v1/uploads/{id}/renew", unknown).await;
}

async fn parts(judge: &mut Judge, app: &TestApp, alice: &Caller, [nobody, anybody]: [&Caller; 2]) {
    let path = "/api/v1/uploads/{id}/parts";
    let large = json!({ "original_file_name": "a.bin", "file_size": 5, "policy": "large" });
    let with_key =
        |body: &Value| alice.request(Method::POST, "/api/v1/uploads").header("idempotency-key", "m").json(body);
    let issued = judge.call(201, Method::POST, "/api/v1/uploads", with_key(&large)).await.json();
    judge.call(201, Method::POST, "/api/v1/uploads", with_key(&large)).await;
    let empty = json!({ "original_file_name": "a.bin", "file_size": 0, "policy": "large" });
    judge.post(422, alice, "/api/v1/uploads", &empty).await;
    let ask = |caller: &Caller, id: &str, body: &Value| {
        caller.request(Method::POST, &format!("/api/v1/uploads/{id}/parts")).json(body)
    };
    let first = json!({ "part_numbers": [1] });
    let signed = judge.call(200, Method::POST, path, ask(alice, id(&issued), &first)).await.json();
    judge.on(200, alice, Method::GET, id(&issued), "/parts").await;
    judge.call(422, Method::POST, path, ask(alice, id(&issued), &json!({ "part_numbers": [2] }))).await;
    judge.call(400, Method::POST, path, ask(alice, id(&issued), &json!(5))).await;
    let long = json!({ "part_numbers": vec![1_000_000; 300_000] });
    judge.call(413, Method::POST, path, ask(alice, id(&issued), &long)).await;
    let text = alice.request(Method::POST, &format!("/api/v1/uploads/{}/parts", id(&issued))).body("{}");
    judge.call(415, Method::POST, path, text).await;
    judge.call(409, Method::POST, path, ask(&alice.at("127.0.0.11"), id(&issued), &first)).await;
    let garbage = ask(&alice.at("127.0.0.12"), id(&issued), &first).header("x-forwarded-for", "garbage");
    judge.call(400, Method::POST, path, garbage).await;
    judge.on(409, alice, Method::POST, id(&issued), "/complete").await;
    judge.on(200, alice, Method::POST, id(&issued), "/renew").await;
    let part = &signed["parts"][0];
    let sent = Reply::of(alice.http.put(part["url"].as_str().unwrap()).headers(headers(part)).body("12345")).await;
    assert!(sent.status.is_success(), "{}", sent.text());
    let listed = judge.on(200, alice, Method::GET, id(&issued), "/parts").await.json();
    let complete = |parts: Value| {
        let path = format!("/api/v1/uploads/{}/complete", id(&issued));
        alice.request(Method::POST, &path).json(&json!({ "parts": parts }))
    };
    let completed = "/api/v1/uploads/{id}/complete";
    let other = complete(json!([{ "part_number": 1, "etag": "other" }]));
    judge.call(422, Method::POST, completed, other).await;
    let claimed = complete(json!([{ "part_number": 1, "etag": listed["parts"][0]["etag"] }]));
    judge.call(200, Method::POST, completed, claimed).await;
    judge.on(409, alice, Method::GET, id(&issued), "/parts").await;

    let gone = alice.issue("b.bin", b"12345", &json!({ "policy": "large" })).await;
    let upload = row(app, &gone).await;
    let abort = app.bucket.s3.abort_multipart_upload().bucket(&app.bucket.bucket).key(upload.object_key.as_str());
    abort.upload_id(upload.multipart().unwrap().upload_id).send().await.expect("the administrator may abort");
    judge.on(409, alice, Method::GET, id(&gone), "/parts").await;
    judge.on(409, alice, Method::POST, id(&gone), "/complete").await;
    judge.on(200, alice, Method::DELETE, id(&gone), "").await;
    let put = alice.issue("c.bin", b"12345", &json!({ "method": "put" })).await;
    judge.call(409, Method::POST, path, ask(alice, id(&put), &first)).await;

    for (caller, status) in [(alice, 404), (anybody, 401), (nobody, 403)] {
        judge.call(status, Method::POST, path, ask(caller, NOBODYS, &first)).await;
        judge.on(status, caller, Method::GET, NOBODYS, "/parts").await;
    }
}

async fn events(judge: &mut Judge, app: &TestApp, anybody: &Caller) {
    let path = "/api/v1/callbacks/s3-events";
    let store = anybody.with_token(TOKEN);
    let record = json!({ "eventName": "ObjectCreated:Put",
        "s3": { "bucket": { "name": app.bucket.bucket }, "object": { "key": "k" } } });
    let body = json!({ "Records": [record] });
    judge.post(200, &store, path, &body).await;
    judge.post(401, anybody, path, &body).await;
    judge.post(400, &store, path, &json!({})).await;
    judge.post(413, &store, path, &json!({ "Records": ["x".repeat(64 << 10)] })).await;
    let secret_path = format!("{path}/{{token}}");
    let at = |token: &str| anybody.request(Method::POST, &format!("{path}/{token}"));
    judge.call(200, Method::POST, &secret_path, at(TOKEN).json(&body)).await;
    judge.call(401, Method::POST, &secret_path, at("garbage").json(&body)).await;
    judge.call(400, Method::POST, &secret_path, at(TOKEN).json(&json!({}))).await;
    judge.call(413, Method::POST, &secret_path, at(TOKEN).body(vec![b' '; (64 << 10) + 1])).await;
}

async fn form_return(judge: &mut Judge, alice: &Caller, anybody: &Caller) {
    let path = "/api/v1/callbacks/form/{id}/{token}/{page}";
    let page = json!({ "method": "post", "success_action_redirect": "https://app.example.com/done" });
    let issued = alice.issue("a.txt", b"12345", &page).await;
    let renewal = format!("/api/v1/uploads/{}/renew", id(&issued));
    let renew = |body: Value| alice.request(Method::POST, &renewal).json(&body);
    let renewed = "/api/v1/uploads/{id}/renew";
    let good = json!({ "success_action_redirect": "https://app.example.com/done" });
    judge.call(200, Method::POST, renewed, renew(good)).await;
    let elsewhere = json!({ "success_action_redirect": "https://evil.example/" });
    judge.call(422, Method::POST, renewed, renew(elsewhere)).await;
    judge.call(400, Method::POST, renewed, renew(json!(5))).await;
    judge.call(413, Method::POST, renewed, renew(json!({ "success_action_redirect": "x".repeat(5000) }))).await;
    judge.call(415, Method::POST, renewed, alice.request(Method::POST, &renewal).body("{}")).await;
    let callback = issued["upload"]["fields"]["success_action_redirect"].as_str().unwrap();
    let callback = &callback[callback.find("/api/").unwrap()..];
    let get = |path: &str| anybody.request(Method::GET, path);
    judge.call(303, Method::GET, path, get(callback)).await;
    judge.call(401, Method::GET, path, get(&callback.replace(id(&issued), NOBODYS))).await;
    judge.call(422, Method::GET, path, get(&format!("{callback}x"))).await;
}

async fn clients(judge: &mut Judge, alice: &Caller, [nobody, anybody]: [&Caller; 2]) {
    let path = "/api/v1/capabilities";
    let granted = judge.post(201, alice, path, &json!({ "policy": "default", "expires_in": 60 })).await.json();
    judge.post(401, anybody, path, &json!({})).await;
    judge.post(403, nobody, path, &json!({})).await;
    judge.post(422, alice, path, &json!({ "policy": "nobodys" })).await;
    judge.post(400, alice, path, &json!([])).await;
    judge.post(413, alice, path, &json!({ "policy": "x".repeat(5000) })).await;
    judge.call(415, Method::POST, path, alice.request(Method::POST, path).body("{}")).await;
    let url = granted["url"].as_str().unwrap();
    let capability = &url[url.find("/u/").unwrap()..];
    let elsewhere = anybody.at("127.0.0.11");

    for (path, query, status) in [("/s3/params", "?filename=a.txt&type=text/plain", 200), ("/s3/sts", "", 400)] {
        let by_capability = format!("/u/{{capability}}{path}");
        let get = |caller: &Caller, base: &str| caller.request(Method::GET, &format!("{base}{path}{query}"));
        judge.call(status, Method::GET, path, get(alice, "")).await;
        judge.call(401, Method::GET, path, get(anybody, "")).await;
        judge.call(status, Method::GET, &by_capability, get(anybody, capability)).await;
        judge.call(401, Method::GET, &by_capability, get(anybody, "/u/garbage")).await;
        judge.call(403, Method::GET, &by_capability, get(&elsewhere, capability)).await;
    }
    judge.call(403, Method::GET, "/s3/params", nobody.request(Method::GET, "/s3/params?filename=a.txt")).await;
    judge.call(422, Method::GET, "/s3/params", alice.request(Method::GET, "/s3/params")).await;

    let object = json!({ "method": "PUT", "key": "a.txt", "contentType": "text/plain", "size": 5 });
    judge.post(200, alice, "/api/v1/sign", &object).await;
    judge.post(401, anybody, "/api/v1/sign", &object).await;
    judge.post(403, nobody, "/api/v1/sign", &object).await;
    judge.post(422, alice, "/api/v1/sign", &json!({ "method": "HEAD", "key": "a.txt" })).await;
    judge.post(400, alice, "/api/v1/sign", &json!(5)).await;

    in_parts(judge, alice, anybody, capability).await;

    let checksum = STANDARD.encode([7; 16]);
    let blob = json!({ "blob": { "filename": "a.txt", "content_type": "", "byte_size": 5, "checksum": checksum } });
    let path = "/rails/active_storage/direct_uploads";
    let by_capability = format!("/u/{{capability}}{path}");
    judge.post(200, alice, path, &blob).await;
    judge.post(401, anybody, path, &blob).await;
    judge.post(422, alice, path, &json!({ "blob": { "filename": "a.txt", "byte_size": 5, "checksum": "x" } })).await;
    let post = |base: &str| anybody.request(Method::POST, &format!("{base}{path}")).json(&blob);
    judge.call(200, Method::POST, &by_capability, post(capability)).await;
    judge.call(401, Method::POST, &by_capability, post("/u/garbage")).await;

    let complete = "/u/{capability}/uploads/{id}/complete";
    let issued = alice.issue("a.txt", b"12345", &json!({ "method": "put" })).await;
    let confirm = |base: &str, id: &str| anybody.request(Method::POST, &format!("{base}/uploads/{id}/complete"));
    judge.call(409, Method::POST, complete, confirm(capability, id(&issued))).await;
    assert!(alice.send(&issued, b"12345").await.status.is_success());
    judge.call(200, Method::POST, complete, confirm(capability, id(&issued))).await;
    judge.call(404, Method::POST, complete, confirm(capability, NOBODYS)).await;
    judge.call(401, Method::POST, complete, confirm("/u/garbage", id(&issued))).await;
}

/// The calls of clients that send files in parts, with a token and by `capability`.
async fn in_parts(judge: &mut Judge, alice: &Caller, anybody: &Caller, capability: &str) {
    for (caller, base, pattern) in [(alice, "", ""), (anybody, capability, "/u/{capability}")] {
        let of = |what: &str| format!("{pattern}/s3/multipart{what}");
        let create = |body: Value| caller.request(Method::POST, &format!("{base}/s3/multipart")).json(&body);
        let begun = judge.call(200, Method::POST, &of(""), create(json!({ "filename": "a.bin" }))).await.json();
        judge.call(422, Method::POST, &of(""), create(json!({ "filename": "a/b" }))).await;
        let (id, key) = (begun["uploadId"].as_str().unwrap(), begun["key"].as_str().unwrap());
        let at = |id: &str, what: &str| format!("{base}/s3/multipart/{id}{what}?key={key}");
        let signed =
            judge.call(200, Method::GET, &of("/{id}/{part}"), caller.request(Method::GET, &at(id, "/1"))).await;
        judge.call(422, Method::GET, &of("/{id}/{part}"), caller.request(Method::GET, &at(id, "/99"))).await;
        judge.call(404, Method::GET, &of("/{id}/{part}"), caller.request(Method::GET, &at(NOBODYS, "/1"))).await;
        let batch = caller.request(Method::GET, &format!("{}&partNumbers=1", at(id, "/batch")));
        judge.call(200, Method::GET, &of("/{id}/batch"), batch).await;
        let sent = Reply::of(caller.http.put(signed.json()["url"].as_str().unwrap()).body("12345")).await;
        let part = json!({ "PartNumber": 1, "ETag": sent.headers["etag"].to_str().unwrap() });
        judge.call(200, Method::GET, &of("/{id}"), caller.request(Method::GET, &at(id, ""))).await;
        let twice = caller.request(Method::GET, &format!("{}&key=b", at(id, "")));
        judge.call(422, Method::GET, &of("/{id}"), twice).await;
        // Nobody has planned these parts.
        let renew = alice.request(Method::POST, &format!("/api/v1/uploads/{id}/renew"));
        let renewed = judge.call(200, Method::POST, "/api/v1/uploads/{id}/renew", renew).await.json();
        assert_eq!(renewed["upload"]["part_size"], Value::Null);
        let parts = alice.request(Method::GET, &format!("/api/v1/uploads/{id}/parts"));
        let parts = judge.call(200, Method::GET, "/api/v1/uploads/{id}/parts", parts).await.json();
        assert_eq!((&parts["part_count"], &parts["parts"][0]["size"]), (&Value::Null, &json!(5)), "{parts}");
        let complete =
            |parts: Value| caller.request(Method::POST, &at(id, "/complete")).json(&json!({ "parts": parts }));
        judge.call(409, Method::POST, &of("/{id}/complete"), complete(json!([]))).await;
        judge.call(200, Method::POST, &of("/{id}/complete"), complete(json!([part]))).await;
        let other = judge.call(200, Method::POST, &of(""), create(json!({ "filename": "b.bin" }))).await.json();
        let (id, key) = (other["uploadId"].as_str().unwrap(), other["key"].as_str().unwrap());
        let abort = caller.request(Method::DELETE, &format!("{base}/s3/multipart/{id}?key={key}"));
        judge.call(200, Method::DELETE, &of("/{id}"), abort).await;
    }

    // What Uppy would tell the store, it is sent to tell this service.
    let sign = async |judge: &mut Judge, body: Value| {
        let signed = judge.post(200, alice, "/api/v1/sign", &body).await.json();
        let url = signed["url"].as_str().unwrap().to_owned();
        url.find("/u/").map_or(url.clone(), |at| url[at..].to_owned())
    };
    let url = sign(judge, json!({ "method": "POST", "key": "a b.bin" })).await;
    let post = |url: &str| anybody.request(Method::POST, url).header("content-type", "application/octet-stream");
    let created = judge.call(200, Method::POST, "/u/{capability}/xml", post(&url)).await.text();
    judge.call(422, Method::POST, "/u/{capability}/xml", post(url.split('?').next().unwrap())).await;
    judge.call(401, Method::POST, "/u/{capability}/xml", post("/u/garbage/xml?file_name=a")).await;
    let id = created.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap();
    let part = sign(judge, json!({ "method": "PUT", "key": "a", "uploadId": id, "partNumber": 1 })).await;
    let sent = Reply::of(anybody.http.put(&part).body("12345")).await;
    let etag = sent.headers["etag"].to_str().unwrap().trim_matches('"');
    let path = "/u/{capability}/xml/{id}";
    let url = sign(judge, json!({ "method": "GET", "key": "a", "uploadId": id })).await;
    let listed = judge.call(200, Method::GET, path, anybody.request(Method::GET, &url)).await.text();
    assert!(listed.contains("<PartNumber>1</PartNumber>") && listed.contains("<Size>5</Size>"), "{listed}");
    judge.call(401, Method::GET, path, anybody.request(Method::GET, &url.replace(id, NOBODYS))).await;
    let (_, capability) = crate::clients::capability(alice, &json!({})).await;
    judge.call(404, Method::GET, path, anybody.request(Method::GET, &format!("{capability}/xml/{NOBODYS}"))).await;
    let url = sign(judge, json!({ "method": "POST", "key": "a", "uploadId": id })).await;
    judge.call(400, Method::POST, path, post(&url).body("<CompleteMultipartUpload>")).await;
    judge.call(413, Method::POST, path, post(&url).body(vec![b' '; 3 << 20])).await;
    let xml = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let completed = judge.call(200, Method::POST, path, post(&url).body(xml)).await.text();
    assert!(completed.contains("<Location>") && completed.contains("<Key>"), "{completed}");
    let url = sign(judge, json!({ "method": "DELETE", "key": "a", "uploadId": id })).await;
    judge.call(409, Method::DELETE, path, anybody.request(Method::DELETE, &url)).await;
    let other = alice.post("/s3/multipart", &json!({ "filename": "c.bin" })).await.expect(reqwest::StatusCode::OK);
    let other = other["uploadId"].as_str().unwrap();
    let url = sign(judge, json!({ "method": "DELETE", "key": "a", "uploadId": other })).await;
    judge.call(204, Method::DELETE, path, anybody.request(Method::DELETE, &url)).await;
}

async fn tickets(judge: &mut Judge, alice: &Caller, anybody: &Caller) {
    let path = "/api/v1/downloads";
    let file = alice.upload("a.txt", b"12345", &json!({ "method": "put", "policy": "ticketed" })).await;
    let redirected = json!({ "upload_id": file["id"], "delivery": "redirect" });
    let issued = judge.post(201, alice, path, &redirected).await.json();
    let by_url = judge.post(201, alice, path, &json!({ "upload_id": file["id"] })).await.json();
    let at = |issued: &Value| issued["url"].as_str().unwrap().to_owned();
    let (ticket, get, head) = ("/t/{ticket}", Method::GET, Method::HEAD);
    judge.call(200, head.clone(), ticket, anybody.http.head(at(&issued))).await;
    judge.call(403, get.clone(), ticket, anybody.at("127.0.0.11").http.get(at(&issued))).await;
    judge.call(403, get.clone(), ticket, anybody.http.get(at(&issued)).header("purpose", "prefetch")).await;
    judge.call(302, get.clone(), ticket, anybody.http.get(at(&issued))).await;
    judge.call(410, get.clone(), ticket, anybody.http.get(at(&issued))).await;
    judge.call(410, head, ticket, anybody.http.head(at(&issued))).await;
    judge.call(200, get.clone(), ticket, anybody.http.get(at(&by_url)).header("accept", "application/json")).await;
    let unknown = anybody.request(Method::GET, &format!("/t/{}", "A".repeat(43)));
    judge.call(404, get.clone(), ticket, unknown).await;

    let issued = judge.post(201, alice, path, &redirected).await.json();
    let one = "/api/v1/downloads/{id}";
    let delete = |caller: &Caller, id: &str| caller.request(Method::DELETE, &format!("{path}/{id}"));
    judge.call(200, Method::DELETE, one, delete(alice, id(&issued))).await;
    judge.call(410, get, ticket, anybody.http.get(at(&issued))).await;
    judge.call(404, Method::DELETE, one, delete(alice, NOBODYS)).await;
    judge.call(401, Method::DELETE, one, delete(anybody, id(&issued))).await;
    let plain = alice.upload("a.txt", b"12345", &json!({ "method": "put" })).await;
    let plain = alice.post(path, &json!({ "upload_id": plain["id"] })).await.expect(reqwest::StatusCode::CREATED);
    judge.call(409, Method::DELETE, one, delete(alice, id(&plain))).await;
}

async fn administration(judge: &mut Judge, admin: &Caller, [nobody, anybody]: [&Caller; 2]) {
    let path = "/api/v1/audit";
    judge.get(200, admin, path).await;
    let with = |query: &str| admin.request(Method::GET, &format!("{path}?{query}"));
    let page =
        judge.call(200, Method::GET, path, with("kind=download_issued&network=127.0.0.0/8&limit=1")).await.json();
    assert_eq!(page["records"][0]["kind"], "download_issued", "{page}");
    judge.call(422, Method::GET, path, with("kind=all&user=alice")).await;
    judge.get(401, anybody, path).await;
    judge.get(403, nobody, path).await;

    let path = "/api/v1/admin/revocations";
    let everything = json!({ "issued_before": "2026-01-01T00:00:00Z", "reason": "a leak" });
    let user = json!({ "user": { "issuer": ISSUER, "subject": "nobody" } });
    judge.post(200, admin, path, &everything).await;
    judge.post(200, admin, path, &user).await;
    judge.post(404, admin, path, &json!({ "upload_id": NOBODYS })).await;
    judge.post(401, anybody, path, &user).await;
    judge.post(403, nobody, path, &user).await;
    for wrong in [json!({}), json!({ "issued_before": "2999-01-01T00:00:00Z" }), json!({ "user": "alice" })] {
        judge.post(422, admin, path, &wrong).await;
    }
    judge.post(400, admin, path, &json!([])).await;
    judge.post(413, admin, path, &json!({ "reason": "x".repeat(5000) })).await;
    judge.call(415, Method::POST, path, admin.request(Method::POST, path).body("{}")).await;
    judge.get(200, admin, path).await;
    judge.call(422, Method::GET, path, admin.request(Method::GET, &format!("{path}?limit=0"))).await;
    judge.get(401, anybody, path).await;
    judge.get(403, nobody, path).await;
}

async fn cookies(judge: &mut Judge, app: &TestApp, admin: &Caller, [nobody, anybody]: [&Caller; 2]) {
    let path = "/api/v1/admin/cdn-cookies";
    let body = json!({ "prefix": "uploads/acme", "policy": "far", "client_address": "192.0.2.7", "expires_in": 60 });
    judge.post(201, admin, path, &body).await;
    let over_ipv6 = json!({ "prefix": "uploads/acme", "policy": "far", "client_address": "2001:db8::7" });
    judge.post(409, admin, path, &over_ipv6).await;
    let of_acme =
        TokenOptions { issuer: OTHER_ISSUER, tenant: Some("acme"), scopes: &["manage"], ..TokenOptions::default() };
    let of_acme = app.anonymous().with_token(app.token(&of_acme));
    judge.post(403, &of_acme, path, &body).await;
    judge.post(401, anybody, path, &body).await;
    judge.post(403, nobody, path, &body).await;
    judge.post(422, admin, path, &json!({ "prefix": "uploads/acme", "client_address": "192.0.2.7" })).await;
    judge.post(422, admin, path, &json!({ "prefix": "/", "client_address": "192.0.2.7" })).await;
    judge.post(400, admin, path, &json!([])).await;
    judge.post(413, admin, path, &json!({ "prefix": "x".repeat(5000) })).await;
    judge.call(415, Method::POST, path, admin.request(Method::POST, path).body("{}")).await;
}

async fn downloads(judge: &mut Judge, alice: &Caller, [nobody, anybody]: [&Caller; 2]) {
    let path = "/api/v1/downloads";
    let put = json!({ "method": "put" });
    let confirmed = alice.upload("a.html", b"12345", &put).await;
    let issued = alice.issue("b.txt", b"12345", &put).await;
    let body =
        json!({ "upload_id": confirmed["id"], "disposition": "attachment", "file_name": "b.html", "expires_in": 5 });
    judge.post(201, alice, path, &body).await;
    judge.post(201, alice, path, &json!({ "upload_id": confirmed["id"] })).await;
    judge.post(401, anybody, path, &body).await;
    judge.post(403, nobody, path, &body).await;
    judge.post(404, alice, path, &json!({ "upload_id": NOBODYS })).await;
    judge.post(409, alice, path, &json!({ "upload_id": issued["id"] })).await;
    judge.post(422, alice, path, &json!({ "upload_id": confirmed["id"], "disposition": "inline" })).await;
    judge.post(422, alice, path, &json!({ "upload_id": confirmed["id"], "expires_in": 0 })).await;
    judge.post(400, alice, path, &json!([])).await;
    judge.post(413, alice, path, &json!({ "upload_id": "x".repeat(5000) })).await;
    judge.call(415, Method::POST, path, alice.request(Method::POST, path).body("{}")).await;
    let garbage = alice.at("127.0.0.12").request(Method::POST, path).header("x-forwarded-for", "garbage");
    judge.call(400, Method::POST, path, garbage.json(&body)).await;
    judge.post(422, alice, path, &json!({ "upload_id": confirmed["id"], "delivery": "redirect" })).await;
}

async fn files(judge: &mut Judge, app: &TestApp, alice: &Caller, [nobody, anybody]: [&Caller; 2]) {
    let pattern = "/api/v1/files/{id}";
    let put = json!({ "method": "put", "policy": "delivered" });
    let confirmed = alice.upload("a.html", b"12345", &put).await;
    let issued = alice.issue("b.txt", b"12345", &put).await;
    for (id, query, caller, status) in [
        (id(&confirmed), "", alice, 200),
        (id(&confirmed), "?delivery=redirect&file_name=b.html&expires_in=5", alice, 302),
        (id(&confirmed), "?delivery=stream", alice, 200),
        (id(&confirmed), "?delivery=accel", alice, 403),
        (id(&confirmed), "?delivery=post", alice, 422),
        (id(&confirmed), "?disposition=inline", alice, 422),
        (id(&confirmed), "", anybody, 401),
        (id(&confirmed), "", nobody, 403),
        (NOBODYS, "", alice, 404),
        (id(&issued), "", alice, 409),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let request = caller.request(method.clone(), &format!("/api/v1/files/{id}{query}"));
            judge.call(status, method, pattern, request).await;
        }
    }
    let path = format!("/api/v1/files/{}", id(&confirmed));
    let garbage = alice.at("127.0.0.12").request(Method::GET, &path).header("x-forwarded-for", "garbage");
    judge.call(400, Method::GET, pattern, garbage).await;
    let streamed = format!("{path}?delivery=stream");
    for (header, value, status) in [
        ("range", "bytes=1-2", 206),
        ("range", "bytes=0-0,2-3", 206),
        ("range", "bytes=9-", 416),
        ("if-none-match", "*", 304),
        ("if-match", "\"other\"", 412),
    ] {
        let request = alice.request(Method::GET, &streamed).header(header, value);
        judge.call(status, Method::GET, pattern, request).await;
    }
    let row = app.running.service.database.upload(id(&confirmed).parse().unwrap()).await.unwrap().unwrap();
    let delete = app.bucket.s3.delete_object().bucket(&app.bucket.bucket).key(row.verified_key().as_str());
    delete.send().await.expect("it is removed");
    judge.call(410, Method::GET, pattern, alice.request(Method::GET, &streamed)).await;
}

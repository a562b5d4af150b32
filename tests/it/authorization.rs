//! Who may do what: tokens, owners, scopes.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use jsonwebtoken::Algorithm;
use presignd::auth::{DevelopmentToken, mint_development_token};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, Reply, Suite, TestApp,
    app::{AUDIENCE, ISSUER, JWT_SECRET, OTHER_ISSUER, TokenOptions},
    caller::id,
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("uploads_of_others_do_not_exist", others);
    suite.everywhere("a_request_without_a_valid_token_learns_why", tokens);
    suite.everywhere("a_token_without_the_scope_is_forbidden", scopes);
}

/// Every call that names an upload.
async fn calls_on(caller: &Caller, id: &str) -> Vec<Reply> {
    let path = format!("/api/v1/uploads/{id}");
    vec![
        caller.get(&path).await,
        caller.post_nothing(&format!("{path}/renew")).await,
        caller.post_nothing(&format!("{path}/complete")).await,
        caller.delete(&path).await,
        caller.post("/api/v1/downloads", &json!({ "upload_id": id })).await,
    ]
}

/// Without what is different in every problem.
fn anonymised(reply: &Reply) -> Value {
    let mut problem = reply.json();
    problem.as_object_mut().unwrap().remove("request_id");
    problem
}

async fn others(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let member = |subject, tenant| app.member(subject, tenant, &[]);
    let put = json!({ "method": "put" });
    let checksum = "WZRHGrsBESr8wYFZ9sx0tPURuZgG2lmzyvWpwXPKz8U=";
    let shared = json!({ "policy": "shared", "checksum_sha256": checksum });
    let (alice, carol) = (app.user("alice"), member("carol", "acme"));
    let (bob, namesake) = (app.user("bob"), member("alice", "acme"));
    // Of another tenant, and of another issuer without any.
    let (foreigner, other_carol) = (member("dave", "globex"), app.user("carol"));

    let nobodys = "01890a5d-ac96-774b-bcce-b302099a8057";
    // The same person in another tenant, whose list and answers are that tenant's.
    let elsewhere = member("carol", "globex");
    for (owner, strangers, more) in
        [(&alice, &[&bob, &namesake][..], &put), (&carol, &[&foreigner, &other_carol, &elsewhere], &shared)]
    {
        let issued = owner.issue("a.txt", b"12345", more).await;
        let confirmed = owner.upload("a.txt", b"12345", more).await;
        for stranger in strangers {
            let unknown = calls_on(stranger, nobodys).await;
            for upload in [&issued, &confirmed] {
                for (reply, unknown) in calls_on(stranger, id(upload)).await.iter().zip(&unknown) {
                    reply.expect_problem(404, "not_found");
                    assert_eq!(anonymised(reply), anonymised(unknown), "as if it did not exist");
                }
            }
            let list = stranger.get("/api/v1/uploads").await.expect(StatusCode::OK);
            assert_eq!(list["uploads"], json!([]));
        }
        let path = |upload| format!("/api/v1/uploads/{}", id(upload));
        assert_eq!(owner.get(&path(&issued)).await.expect(StatusCode::OK)["state"], "issued");
        assert_eq!(owner.get(&path(&confirmed)).await.expect(StatusCode::OK), confirmed);
    }
    let once = |caller: &Caller| {
        let body = json!({ "original_file_name": "a.txt", "file_size": 5, "method": "put", "policy": "default" });
        Reply::of(caller.request(Method::POST, "/api/v1/uploads").header("idempotency-key", "k").json(&body))
    };
    once(&carol).await.expect(StatusCode::CREATED);
    once(&elsewhere).await.expect_problem(422, "idempotency_mismatch");
    for id in [nobodys, "1", "00000000-0000-0000-0000-000000000000", "%ff", "'%20OR%20''='", "nul%00"] {
        let by_path = format!("/api/v1/uploads/{id}");
        alice.get(&by_path).await.expect_problem(404, "not_found");
        alice.delete(&by_path).await.expect_problem(404, "not_found");
    }
    for id in ["1", "", "nul\0", nobodys] {
        alice.post("/api/v1/downloads", &json!({ "upload_id": id })).await.expect_problem(404, "not_found");
    }
    app.end().await;
}

async fn tokens(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let now = app.clock.now();
    let mint = |issuer, audience, secret: &str, now| {
        let token = DevelopmentToken {
            issuer,
            audience,
            subject: "alice",
            tenant: None,
            scope_claim: "scope",
            scopes: &[],
            lifetime: std::time::Duration::from_hours(1),
            algorithm: Algorithm::HS256,
        };
        mint_development_token(&SecretString::from(secret), &token, now).unwrap().expose_secret().to_owned()
    };
    let good = mint(ISSUER, AUDIENCE, JWT_SECRET, now);
    let (header, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let none = encode(r#"{"alg":"none","typ":"JWT"}"#);
    let stronger = encode(r#"{"alg":"HS512","typ":"JWT"}"#);
    let altered = {
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        encode(&claims.replace("alice", "admin"))
    };
    let bearer = |token: &str| format!("Bearer {token}");
    let table = [
        (bearer(&mint(ISSUER, AUDIENCE, JWT_SECRET, now - TimeDelta::hours(2))), "token_expired"),
        (bearer(&mint(ISSUER, "somebody-else", JWT_SECRET, now)), "wrong_audience"),
        (bearer(&mint("https://nobody.test/", AUDIENCE, JWT_SECRET, now)), "unknown_issuer"),
        (bearer(&mint(ISSUER, AUDIENCE, "another secret that is long enough for HS256", now)), "signature_invalid"),
        (bearer(&mint(OTHER_ISSUER, AUDIENCE, JWT_SECRET, now)), "tenant_missing"),
        (bearer(&format!("{none}.{claims}.")), ""),
        (bearer(&format!("{none}.{claims}.{signature}")), ""),
        (bearer(&format!("{stronger}.{claims}.{signature}")), "algorithm_not_allowed"),
        (bearer(&format!("{header}.{altered}.{signature}")), "signature_invalid"),
        (bearer(&format!("{header}.{claims}.")), "signature_invalid"),
        (bearer(&format!("{header}.{claims}")), "token_malformed"),
        (bearer("garbage"), "token_malformed"),
        (bearer(&"x".repeat(64 * 1024 - 100)), "token_too_large"),
        (format!("Basic {good}"), "not_bearer"),
        (good.clone(), "not_bearer"),
    ];
    let routes = [
        (Method::POST, "/api/v1/uploads"),
        (Method::GET, "/api/v1/uploads"),
        (Method::GET, "/api/v1/uploads/01890a5d-ac96-774b-bcce-b302099a8057"),
        (Method::DELETE, "/api/v1/uploads/01890a5d-ac96-774b-bcce-b302099a8057"),
        (Method::POST, "/api/v1/uploads/01890a5d-ac96-774b-bcce-b302099a8057/renew"),
        (Method::POST, "/api/v1/uploads/01890a5d-ac96-774b-bcce-b302099a8057/complete"),
        (Method::GET, "/api/v1/uploads/01890a5d-ac96-774b-bcce-b302099a8057/parts"),
        (Method::POST, "/api/v1/uploads/01890a5d-ac96-774b-bcce-b302099a8057/parts"),
        (Method::POST, "/api/v1/downloads"),
        (Method::GET, "/api/v1/policies"),
    ];
    let anybody = app.anonymous();
    for (method, path) in routes {
        let missing = Reply::of(anybody.request(method.clone(), path)).await;
        missing.expect_problem(401, "token_missing");
        assert_eq!(missing.headers["www-authenticate"], "Bearer realm=\"presignd\"");
        for (authorization, reason) in &table {
            let request = anybody.request(method.clone(), path).header("authorization", authorization);
            let reply = Reply::of(request).await;
            let problem = reply.expect_problem(401, "token_invalid");
            let told = problem["reason"].as_str().unwrap();
            assert!(reason.is_empty() || told == *reason, "{problem}: {authorization}");
            assert_eq!(
                reply.headers["www-authenticate"].to_str().unwrap(),
                format!("Bearer realm=\"presignd\", error=\"invalid_token\", error_description=\"{told}\"")
            );
            let text = reply.text();
            assert!(!text.contains(signature) && !text.contains(claims), "a token is not repeated: {text}");
        }
    }
    let listed =
        Reply::of(anybody.request(Method::GET, "/api/v1/uploads").header("authorization", bearer(&good))).await;
    assert_eq!(listed.expect(StatusCode::OK)["uploads"], json!([]), "none of them recorded anything");
    app.end().await;
}

async fn scopes(backend: Backend) {
    let settings = "[auth.scopes]\nupload = \"files:write\"\ndownload = \"files:read\"".to_owned();
    let app = TestApp::start_with(&backend, AppOptions { settings, ..AppOptions::default() }).await;
    let with =
        |scopes: &[&str]| app.anonymous().with_token(app.token(&TokenOptions { scopes, ..TokenOptions::default() }));
    let (both, writer, reader, neither) =
        (with(&["files:read", "files:write"]), with(&["files:write"]), with(&["files:read"]), with(&["files"]));
    let put = json!({ "method": "put" });
    let confirmed = writer.upload("a.txt", b"12345", &put).await;
    let issued = writer.issue("b.txt", b"12345", &put).await;
    let body = json!({ "original_file_name": "c.txt", "file_size": 5 });
    let path = format!("/api/v1/uploads/{}", id(&issued));
    for caller in [&reader, &neither] {
        for refused in [
            caller.post("/api/v1/uploads", &body).await,
            caller.post_nothing(&format!("{path}/renew")).await,
            caller.complete(&issued).await,
            caller.delete(&path).await,
            caller.get(&format!("{path}/parts")).await,
            caller.post(&format!("{path}/parts"), &json!({ "part_numbers": [1] })).await,
        ] {
            refused.expect_problem(403, "scope_missing");
        }
    }
    let download = json!({ "upload_id": confirmed["id"] });
    for caller in [&writer, &neither] {
        caller.post("/api/v1/downloads", &download).await.expect_problem(403, "scope_missing");
    }
    for caller in [&both, &reader] {
        assert_eq!(caller.download(&confirmed).await.bytes, b"12345");
    }
    assert_eq!(writer.get(&path).await.expect(StatusCode::OK)["state"], "issued", "nothing refused has changed it");
    both.delete(&path).await.expect(StatusCode::OK);
    app.end().await;
}

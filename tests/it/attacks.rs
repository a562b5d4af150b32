//! Whoever holds a URL or a form changes it, and sends it to the store.
//!
//! Nothing may come of it: the store refuses, its bucket stays as it was, and the service says the same of the upload
//! as before. Where a store is known to let something through, confirming has to tell what is really there.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, Reply, Suite, TestApp,
    backend::BackendKind,
    caller::{client_at, id},
    tampered::{Request, one_bit_flipped},
};

/// Where the attacked URLs and forms are issued to.
const HERE: &str = "127.0.0.11";
const ELSEWHERE: &str = "127.0.0.12";

const CONTENT: &[u8] = b"%PDF-1.7 what was promised";
/// As long as [`CONTENT`].
const EVIL: &[u8] = b"%PDF-1.7 not at all that..";
/// What another upload holds, of another length.
const OTHERS: &[u8] = b"%PDF-1.7 of somebody else";

/// Changes a request. The second one is a genuine request of the same kind for another object, which was issued to
/// [`ELSEWHERE`] and has been sent: its object is there to be attacked.
type Tamper = fn(&mut Request, &Request);
type Attacks = &'static [(&'static str, Tamper)];

/// On any URL.
const URL: Attacks = &[
    ("key with a suffix", |r, _| r.set_path(&format!("{}.html", r.path()))),
    ("key of another object", |r, other| r.set_path(other.path())),
    ("signature with one bit flipped", |r, _| r.change_parameter("X-Amz-Signature", one_bit_flipped)),
    ("signature of another URL", |r, other| r.take_parameter("X-Amz-Signature", other)),
    ("signature left out", |r, _| r.set_parameter("X-Amz-Signature", None)),
    ("query left out", |r, _| r.url.truncate(r.url.find('?').unwrap())),
    ("query of another URL", |r, other| r.url = other.url.replacen(other.path(), r.path(), 1)),
    ("expiry raised", |r, _| r.set_parameter("X-Amz-Expires", Some("86400"))),
    ("expiry given twice", |r, _| r.url.push_str("&X-Amz-Expires=86400")),
    ("date moved", |r, _| r.change_parameter("X-Amz-Date", one_bit_flipped)),
    ("credential with one bit flipped", |r, _| r.change_parameter("X-Amz-Credential", one_bit_flipped)),
    ("algorithm changed", |r, _| r.set_parameter("X-Amz-Algorithm", Some("AWS4-ECDSA-P256-SHA256"))),
    ("no header signed", |r, _| r.set_parameter("X-Amz-SignedHeaders", Some(""))),
    ("?versionId added", |r, _| r.set_parameter("versionId", Some("null"))),
    ("?acl added", |r, _| r.set_parameter("acl", Some(""))),
    ("?tagging added", |r, _| r.set_parameter("tagging", Some(""))),
    ("?uploadId and ?partNumber added", |r, _| {
        r.set_parameter("uploadId", Some("1"));
        r.set_parameter("partNumber", Some("1"));
    }),
    ("?response-content-language added", |r, _| r.set_parameter("response-content-language", Some("en"))),
];

/// On a URL to PUT to.
const PUT: Attacks = &[
    ("sent with GET", |r, _| r.method = Method::GET),
    ("sent with HEAD", |r, _| r.method = Method::HEAD),
    ("sent with DELETE", |r, _| r.method = Method::DELETE),
    ("sent with POST", |r, _| r.method = Method::POST),
    ("one byte more", |r, _| r.body.push(b'!')),
    ("one byte less", |r, _| r.body.truncate(CONTENT.len() - 1)),
    ("nothing", |r, _| r.body.clear()),
    ("chunked, of no stated length", |r, _| r.chunked = true),
    ("content type changed", |r, _| r.set_header("content-type", Some("text/html"))),
    ("content type left out", |r, _| r.set_header("content-type", None)),
    ("If-None-Match left out", |r, _| r.set_header("if-none-match", None)),
    ("If-None-Match of an ETag", |r, _| r.set_header("if-none-match", Some("\"d41d8cd98f00b204e9800998ecf8427e\""))),
    ("metadata changed", |r, _| r.set_header("x-amz-meta-case", Some("43"))),
    ("metadata left out", |r, _| r.set_header("x-amz-meta-case", None)),
    ("metadata added", |r, _| r.set_header("x-amz-meta-more", Some("1"))),
    ("x-amz-acl added", |r, _| r.set_header("x-amz-acl", Some("public-read"))),
    ("x-amz-tagging added", |r, _| r.set_header("x-amz-tagging", Some("a=b"))),
    ("x-amz-copy-source added", |r, other| r.set_header("x-amz-copy-source", Some(other.path()))),
];

/// On a URL to PUT to, of an upload whose checksum was promised.
const PUT_CHECKSUM: Attacks = &[
    ("other bytes, checksum as promised", |r, _| r.body = EVIL.to_vec()),
    ("other bytes, and their checksum", |r, _| {
        r.body = EVIL.to_vec();
        r.set_header("x-amz-checksum-sha256", Some(&sha256(EVIL)));
    }),
    ("checksum left out", |r, _| r.set_header("x-amz-checksum-sha256", None)),
    ("other bytes, checksum left out", |r, _| {
        r.body = EVIL.to_vec();
        r.set_header("x-amz-checksum-sha256", None);
    }),
    ("x-amz-copy-source added, checksum promised", |r, other| r.set_header("x-amz-copy-source", Some(other.path()))),
];

/// On a URL to PUT to that has done its work.
const PUT_AGAIN: Attacks = &[
    ("other bytes", |r, _| r.body = EVIL.to_vec()),
    ("other bytes, If-None-Match left out", |r, _| {
        r.body = EVIL.to_vec();
        r.set_header("if-none-match", None);
    }),
];

/// On a URL to GET.
const GET: Attacks = &[
    ("sent with PUT", |r, _| {
        r.method = Method::PUT;
        r.body = EVIL.to_vec();
    }),
    ("sent with DELETE", |r, _| r.method = Method::DELETE),
    ("sent with HEAD", |r, _| r.method = Method::HEAD),
    ("sent with POST", |r, _| r.method = Method::POST),
    ("shown instead of saved", |r, _| r.set_parameter("response-content-disposition", Some("inline"))),
    ("disposition left out", |r, _| r.set_parameter("response-content-disposition", None)),
    ("content type changed", |r, _| r.set_parameter("response-content-type", Some("text%2Fhtml"))),
    ("content type given twice", |r, _| r.url.push_str("&response-content-type=text%2Fhtml")),
];

/// On a URL that is signed by a session for [`HERE`].
const URL_SESSION: Attacks = &[
    ("session token left out", |r, _| r.set_parameter("X-Amz-Security-Token", None)),
    ("session token with one bit flipped", |r, _| r.change_parameter("X-Amz-Security-Token", one_bit_flipped)),
    ("session token of another address", |r, other| r.take_parameter("X-Amz-Security-Token", other)),
    ("session token and credential of another address", |r, other| {
        r.take_parameter("X-Amz-Security-Token", other);
        r.take_parameter("X-Amz-Credential", other);
    }),
];

/// On anything that is signed by a session for [`HERE`].
const ADDRESS: Attacks = &[
    ("from another address", |r, _| r.from = ELSEWHERE),
    ("from another address, X-Forwarded-For", |r, _| pretend(r, "x-forwarded-for", HERE)),
    ("from another address, X-Forwarded-For with hops", |r, _| {
        pretend(r, "x-forwarded-for", &format!("{HERE}, {ELSEWHERE}, {HERE}"));
    }),
    ("from another address, Forwarded", |r, _| pretend(r, "forwarded", &format!("for={HERE};by={HERE}"))),
    ("from another address, X-Real-IP", |r, _| pretend(r, "x-real-ip", HERE)),
];

/// On a form.
const FORM: Attacks = &[
    ("sent with PUT", |r, _| r.method = Method::PUT),
    ("key with a suffix", |r, _| r.change_field("key", |key| format!("{key}.html"))),
    ("key with ${filename}", |r, _| r.change_field("key", |key| format!("{key}${{filename}}"))),
    ("key of another object", |r, other| r.take_field("key", other)),
    ("key left out", |r, _| r.set_field("key", None)),
    ("one byte more", |r, _| r.body.push(b'!')),
    ("one byte less", |r, _| r.body.truncate(CONTENT.len() - 1)),
    ("nothing", |r, _| r.body.clear()),
    ("content type changed", |r, _| r.set_field("Content-Type", Some("text/html"))),
    ("content type left out", |r, _| r.set_field("Content-Type", None)),
    ("metadata changed", |r, _| r.set_field("x-amz-meta-case", Some("43"))),
    ("metadata left out", |r, _| r.set_field("x-amz-meta-case", None)),
    ("metadata added", |r, _| r.set_field("x-amz-meta-more", Some("1"))),
    ("acl added", |r, _| r.set_field("acl", Some("public-read"))),
    ("redirect added", |r, _| r.set_field("success_action_redirect", Some("http://127.0.0.1/"))),
    ("policy with a later end", |r, _| r.change_policy(|policy| policy["expiration"] = json!("2099-01-01T00:00:00Z"))),
    ("policy with a wider range, one byte more", |r, _| {
        r.body.push(b'!');
        let range = json!(["content-length-range", 0, 9999]);
        r.change_policy(|policy| *condition(policy, |c| c[0] == "content-length-range") = range);
    }),
    ("policy with another key", |r, _| {
        r.change_field("key", |key| format!("{key}.html"));
        let key = r.field("key").to_owned();
        r.change_policy(|policy| *condition(policy, |c| c.get("key").is_some()) = json!({ "key": key }));
    }),
    ("policy of another form", |r, other| r.take_field("policy", other)),
    ("policy left out", |r, _| r.set_field("policy", None)),
    ("signature with one bit flipped", |r, _| r.change_field("x-amz-signature", one_bit_flipped)),
    ("signature of another form", |r, other| r.take_field("x-amz-signature", other)),
    ("signature left out", |r, _| r.set_field("x-amz-signature", None)),
    ("policy and signature of another form", |r, other| {
        r.take_field("policy", other);
        r.take_field("x-amz-signature", other);
    }),
    ("policy and signature left out", |r, _| {
        r.set_field("policy", None);
        r.set_field("x-amz-signature", None);
    }),
    ("credential with one bit flipped", |r, _| r.change_field("x-amz-credential", one_bit_flipped)),
    ("date moved", |r, _| r.change_field("x-amz-date", one_bit_flipped)),
];

/// On a form of an upload whose checksum was promised.
const FORM_CHECKSUM: Attacks = &[
    ("other bytes, checksum as promised", |r, _| r.body = EVIL.to_vec()),
    ("other bytes, and their checksum", |r, _| {
        r.body = EVIL.to_vec();
        r.set_field("x-amz-checksum-sha256", Some(&sha256(EVIL)));
    }),
    ("other bytes, checksum left out", |r, _| {
        r.body = EVIL.to_vec();
        r.set_field("x-amz-checksum-sha256", None);
    }),
];

/// On a form that is signed by a session for [`HERE`].
const FORM_SESSION: Attacks = &[
    ("session token left out", |r, _| r.set_field("x-amz-security-token", None)),
    ("session token with one bit flipped", |r, _| r.change_field("x-amz-security-token", one_bit_flipped)),
    ("session token of another address", |r, other| r.take_field("x-amz-security-token", other)),
];

/// What stores take although AWS refuses it. Confirming has to be right about these all the same.
const TAKEN: &[(BackendKind, &str)] = &[
    // Ceph RGW 16 acts on x-amz-* headers that were not signed.
    (BackendKind::Rgw, "metadata added"),
    (BackendKind::Rgw, "x-amz-acl added"),
    (BackendKind::Rgw, "x-amz-tagging added"),
    // Ceph RGW 16 does not know x-amz-checksum-*.
    (BackendKind::Rgw, "other bytes, checksum as promised"),
    // SeaweedFS 4.48 takes these fields without asking the policy.
    (BackendKind::SeaweedFs, "acl added"),
    (BackendKind::SeaweedFs, "redirect added"),
];

/// The same, of what a session for writing alone may not do.
const TAKEN_UNSCOPED: &[(BackendKind, &str)] = &[
    // Ceph RGW 16 copies whatever the credentials may read, and does not ask If-None-Match.
    (BackendKind::Rgw, "x-amz-copy-source added"),
    (BackendKind::Rgw, "x-amz-copy-source added, checksum promised"),
];

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_changed_put_is_refused", |backend| async move {
        let mut arena = Arena::scoped(&backend).await;
        arena.attack_uploads("put", &json!({}), &[URL, PUT, URL_SESSION, ADDRESS], PUT_AGAIN).await;
        arena.attack_uploads("put", &checksum(), &[PUT_CHECKSUM], PUT_AGAIN).await;
        arena.end().await;
    });
    suite.everywhere("a_changed_unscoped_put_is_refused", |backend| async move {
        let mut arena = Arena::unscoped(&backend).await;
        arena.attack_uploads("put", &json!({}), &[URL, PUT], PUT_AGAIN).await;
        arena.attack_uploads("put", &checksum(), &[PUT_CHECKSUM], PUT_AGAIN).await;
        arena.end().await;
    });
    suite.everywhere("a_changed_get_is_refused", |backend| async move {
        let mut arena = Arena::scoped(&backend).await;
        arena.attack_downloads(&[URL, GET, URL_SESSION, ADDRESS]).await;
        arena.end().await;
    });
    suite.everywhere("a_changed_unscoped_get_is_refused", |backend| async move {
        let mut arena = Arena::unscoped(&backend).await;
        arena.attack_downloads(&[URL, GET]).await;
        arena.end().await;
    });
    // Neither real store takes a form that is signed by a session with a policy: SeaweedFS answers InvalidAccessKeyId,
    // and Ceph RGW 16 answers 201 and stores nothing.
    suite.on(&[BackendKind::Embedded], "a_changed_form_is_refused", |backend| async move {
        let mut arena = Arena::scoped(&backend).await;
        arena.attack_uploads("post", &json!({}), &[FORM, FORM_SESSION, ADDRESS], &[]).await;
        arena.attack_uploads("post", &checksum(), &[FORM_CHECKSUM], &[]).await;
        arena.end().await;
    });
    suite.everywhere("a_changed_unscoped_form_is_refused", |backend| async move {
        let mut arena = Arena::unscoped(&backend).await;
        arena.attack_uploads("post", &json!({}), &[FORM], &[]).await;
        arena.attack_uploads("post", &checksum(), &[FORM_CHECKSUM], &[]).await;
        arena.end().await;
    });
    suite.everywhere("an_expired_url_is_refused", |backend| expired(backend, false));
    suite.everywhere("an_expired_unscoped_url_or_form_is_refused", |backend| expired(backend, true));
    suite.everywhere("a_renewed_url_works_where_it_was_renewed", renewed_elsewhere);
}

/// A service, and somebody with two addresses.
struct Arena {
    app: TestApp,
    kind: BackendKind,
    scoped: bool,
    owner: Caller,
    clients: BTreeMap<&'static str, Client>,
    attacks: usize,
    failures: Vec<String>,
}

impl Arena {
    async fn scoped(backend: &Backend) -> Self {
        Self::of(TestApp::start(backend).await, true)
    }

    async fn unscoped(backend: &Backend) -> Self {
        Self::of(TestApp::start_with(backend, AppOptions::unscoped()).await, false)
    }

    fn of(app: TestApp, scoped: bool) -> Self {
        let clients = [HERE, ELSEWHERE].map(|address| (address, client_at(address.parse().unwrap())));
        Self {
            kind: app.backend.kind,
            scoped,
            owner: app.user("alice").at(HERE),
            app,
            clients: clients.into(),
            attacks: 0,
            failures: Vec::new(),
        }
    }

    /// Attacks fresh uploads, each in one way, and then one that has been sent and confirmed, in the same ways and
    /// those of `again`.
    async fn attack_uploads(&mut self, method: &str, promise: &Value, tables: &[Attacks], again: Attacks) {
        let mut fields = json!({ "method": method, "file_type": "application/pdf", "metadata": { "case": "42" } });
        fields.as_object_mut().unwrap().extend(promise.as_object().cloned().unwrap());
        let others = self.others(&fields).await;
        let other = Request::upload(ELSEWHERE, &others["upload"], OTHERS);

        for (name, tamper) in tables.iter().copied().flatten() {
            let issued = self.owner.issue("report.pdf", CONTENT, &fields).await;
            let request = changed(&Request::upload(HERE, &issued["upload"], CONTENT), *tamper, &other, name);
            let outcome = self.send(&request).await;
            if outcome.is_refusal() {
                let state = self.state(&issued).await;
                let completed = self.owner.complete(&issued).await;
                let incomplete = completed.status == 409 && completed.json()["code"] == "upload_incomplete";
                self.check(state == "issued" && incomplete, name, || format!("{state}, {}", completed.text()));
            } else if self.takes(name) {
                self.confirming_tells_what_is_there(&issued, name).await;
            } else {
                self.check(false, name, || outcome.describe());
            }
        }

        // Unchanged it goes through, so what was refused was refused for its change.
        let issued = self.owner.issue("report.pdf", CONTENT, &fields).await;
        let genuine = Request::upload(HERE, &issued["upload"], CONTENT);
        let sent = genuine.send(&self.clients[HERE]).await.expect("an answer");
        assert!(sent.status.is_success(), "{sent:?}");
        let confirmed = self.owner.complete(&issued).await.expect(StatusCode::OK);

        if method == "put" {
            let outcome = self.send(&genuine).await;
            let status = outcome.answer.as_ref().map(|answer| answer.status);
            let refused = status == Some(StatusCode::PRECONDITION_FAILED) && outcome.unchanged;
            self.check(refused, "nothing changed, sent again", || outcome.describe());
        }
        for (name, tamper) in tables.iter().copied().chain([again]).flatten() {
            // What a store takes replaces an object that is there, if no If-None-Match is in its way: a form has none.
            if self.takes(name) && (method == "post" || TAKEN_UNSCOPED.contains(&(self.kind, name))) {
                continue;
            }
            let request = changed(&genuine, *tamper, &other, name);
            let outcome = self.send(&request).await;
            self.check(outcome.is_refusal(), name, || format!("after confirming: {}", outcome.describe()));
        }
        let repeated = self.owner.complete(&issued).await.expect(StatusCode::OK);
        assert_eq!(repeated["etag"], confirmed["etag"]);
        let downloaded = self.owner.download(&confirmed).await;
        self.check(downloaded.bytes == CONTENT, "all of them", || {
            "what was confirmed is not what is handed out".to_owned()
        });
    }

    async fn attack_downloads(&mut self, tables: &[Attacks]) {
        let others = self.others(&json!({ "method": "put" })).await;
        let other = self.owner.at(ELSEWHERE).post("/api/v1/downloads", &json!({ "upload_id": others["id"] })).await;
        let other = Request::download(ELSEWHERE, &other.expect(StatusCode::CREATED));
        let upload = self.owner.upload("report.pdf", CONTENT, &json!({ "method": "put" })).await;
        let issued = self.owner.post("/api/v1/downloads", &json!({ "upload_id": upload["id"] })).await;
        let genuine = Request::download(HERE, &issued.expect(StatusCode::CREATED));

        for (name, tamper) in tables.iter().copied().flatten() {
            let outcome = self.send(&changed(&genuine, *tamper, &other, name)).await;
            let bytes = outcome.answer.as_ref().map_or(&[][..], |answer| &answer.bytes);
            let silent = !bytes.windows(8).any(|bytes| bytes == &CONTENT[..8]);
            self.check(outcome.is_refusal() && silent, name, || outcome.describe());
        }

        let answer = genuine.send(&self.clients[HERE]).await.expect("an answer");
        assert_eq!((answer.status, answer.bytes.as_slice()), (StatusCode::OK, CONTENT));
        assert_eq!(self.state(&upload).await, "confirmed");
    }

    /// An upload from [`ELSEWHERE`], sent and confirmed.
    async fn others(&self, fields: &Value) -> Value {
        let mut fields = fields.clone();
        if fields.get("checksum_sha256").is_some() {
            fields["checksum_sha256"] = sha256(OTHERS).into();
        }
        let elsewhere = self.owner.at(ELSEWHERE);
        let others = elsewhere.issue("others.pdf", OTHERS, &fields).await;
        assert!(elsewhere.send(&others, OTHERS).await.status.is_success());
        elsewhere.complete(&others).await.expect(StatusCode::OK);
        others
    }

    /// Sends a changed request, and looks at the bucket before and after it.
    async fn send(&mut self, request: &Request) -> Outcome {
        self.attacks += 1;
        let before = self.objects().await;
        let answer = request.send(&self.clients[request.from]).await.ok();
        Outcome { answer, unchanged: before == self.objects().await }
    }

    /// What an administrator sees of every object.
    async fn objects(&self) -> Vec<String> {
        let bucket = &self.app.bucket;
        let listed = bucket.s3.list_objects_v2().bucket(&bucket.bucket).send().await.expect("a list");
        assert_ne!(listed.is_truncated(), Some(true), "a test with more objects than a list has room for");
        let describe = |object: &aws_sdk_s3::types::Object| {
            format!("{:?} {:?} {:?} {:?}", object.key(), object.size(), object.e_tag(), object.last_modified())
        };
        listed.contents().iter().map(describe).collect()
    }

    async fn state(&self, upload: &Value) -> Value {
        self.owner.get(&format!("/api/v1/uploads/{}", id(upload))).await.expect(StatusCode::OK)["state"].take()
    }

    /// The store has taken what it should have refused. Confirmed is only what was promised.
    async fn confirming_tells_what_is_there(&mut self, issued: &Value, name: &str) {
        let genuine = Request::upload(HERE, &issued["upload"], CONTENT);
        let stored = self.stored(genuine.key()).await;
        let is_pdf = stored.content_type() == Some("application/pdf");
        let as_promised = stored.body.collect().await.expect("its bytes").into_bytes() == CONTENT && is_pdf;
        let completed = self.owner.complete(issued).await;
        let state = self.state(issued).await;
        let truth = if as_promised {
            (200, json!("confirmed"), Value::Null)
        } else {
            (422, json!("rejected"), json!("upload_mismatch"))
        };
        let told = (completed.status.as_u16(), state, completed.json()["code"].take());
        self.check(told == truth, name, || format!("taken, and confirming says {told:?}"));
    }

    /// What an administrator reads.
    async fn stored(&self, key: &str) -> GetObjectOutput {
        let bucket = &self.app.bucket;
        bucket.s3.get_object().bucket(&bucket.bucket).key(key).send().await.expect("the object is there")
    }

    fn takes(&self, name: &str) -> bool {
        let taken = (self.kind, name);
        TAKEN.contains(&taken) || (!self.scoped && TAKEN_UNSCOPED.contains(&taken))
    }

    fn check(&mut self, holds: bool, attack: &str, what: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(format!("{}: {attack}: {}", self.kind.as_str(), what()));
        }
    }

    async fn end(self) {
        self.app.end().await;
        let failures = &self.failures;
        assert!(failures.is_empty(), "{} of {} attacks:\n{}", failures.len(), self.attacks, failures.join("\n"));
    }
}

/// What came of a changed request.
struct Outcome {
    /// None if the store cut the connection: SeaweedFS does that to a credential with a date that does not exist. That
    /// it serves on, the genuine request shows that follows the changed ones.
    answer: Option<Reply>,
    /// Whether the bucket is as it was.
    unchanged: bool,
}

impl Outcome {
    fn is_refusal(&self) -> bool {
        let refused = self.answer.as_ref().is_none_or(|answer| {
            // Some stores call a signature of an unknown kind not implemented, rather than wrong.
            answer.status.is_client_error() || answer.status == StatusCode::NOT_IMPLEMENTED
        });
        refused && self.unchanged
    }

    fn describe(&self) -> String {
        let answer = self.answer.as_ref().map_or_else(|| "cut off".to_owned(), |answer| answer.status.to_string());
        format!("{answer}, {}", if self.unchanged { "bucket as it was" } else { "bucket changed" })
    }
}

fn changed(genuine: &Request, tamper: Tamper, other: &Request, name: &str) -> Request {
    let mut request = genuine.clone();
    tamper(&mut request, other);
    assert!(request != *genuine, "{name}: changes nothing");
    request
}

fn pretend(request: &mut Request, header: &'static str, value: &str) {
    request.from = ELSEWHERE;
    request.set_header(header, Some(value));
}

fn condition(policy: &mut Value, wanted: impl Fn(&Value) -> bool) -> &mut Value {
    policy["conditions"].as_array_mut().unwrap().iter_mut().find(|c| wanted(c)).expect("the condition")
}

fn sha256(bytes: &[u8]) -> String {
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

fn checksum() -> Value {
    json!({ "checksum_sha256": sha256(CONTENT) })
}

async fn expired(backend: Backend, unscoped: bool) {
    let mut arena = if unscoped { Arena::unscoped(&backend).await } else { Arena::scoped(&backend).await };
    let upload = arena.owner.upload("report.pdf", CONTENT, &json!({ "method": "put" })).await;
    // A form that is signed by a session is judged on the embedded store alone.
    let forms = unscoped || backend.kind == BackendKind::Embedded;
    let mut uploads = Vec::new();
    for method in ["put", "post"].into_iter().filter(|method| *method == "put" || forms) {
        let fields = json!({ "method": method, "expires_in": 1 });
        uploads.push((method, arena.owner.issue("late.pdf", CONTENT, &fields).await));
    }
    let body = json!({ "upload_id": upload["id"], "expires_in": 1 });
    let download = arena.owner.post("/api/v1/downloads", &body).await.expect(StatusCode::CREATED);

    refused_in_time(&arena.clients[HERE], &Request::download(HERE, &download)).await;
    for (method, issued) in uploads {
        let outcome = arena.send(&Request::upload(HERE, &issued["upload"], CONTENT)).await;
        arena.check(outcome.is_refusal(), method, || format!("expired, {}", outcome.describe()));
        arena.owner.complete(&issued).await.expect_problem(409, "upload_incomplete");
    }
    arena.end().await;
}

/// Asks until the store's clock has passed the end of the URL, which was issued last.
async fn refused_in_time(client: &Client, download: &Request) {
    const OFTEN: Duration = Duration::from_millis(50);
    let refused = async {
        while download.send(client).await.expect("an answer").status.is_success() {
            tokio::time::sleep(OFTEN).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("a URL of one second outlived 30");
}

async fn renewed_elsewhere(backend: Backend) {
    let mut arena = Arena::scoped(&backend).await;
    let elsewhere = arena.owner.at(ELSEWHERE);
    let issued = arena.owner.issue("report.pdf", CONTENT, &json!({ "method": "put" })).await;
    let renewed = elsewhere.post_nothing(&format!("/api/v1/uploads/{}/renew", id(&issued))).await;
    let renewed = renewed.expect(StatusCode::OK);
    for (name, from, upload) in [
        ("the old URL from the new address", ELSEWHERE, &issued["upload"]),
        ("the new URL from the old address", HERE, &renewed["upload"]),
    ] {
        let outcome = arena.send(&Request::upload(from, upload, CONTENT)).await;
        arena.check(outcome.is_refusal(), name, || outcome.describe());
    }
    assert!(elsewhere.send(&renewed, CONTENT).await.status.is_success());
    elsewhere.complete(&issued).await.expect(StatusCode::OK);
    arena.end().await;
}

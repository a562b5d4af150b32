//! Amazon SNS: messages of its shape, signed by OpenSSL with a certificate made here and pinned in the settings.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use presignd::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{PATH, TOKEN, counts, notification, put, sent, shown};
use crate::support::{AppOptions, Backend, Reply, Suite, TestApp, backend::BackendKind, certificates::openssl};

const TOPIC: &str = "arn:aws:sns:eu-central-1:111122223333:uploads";
const OTHER_TOPIC: &str = "arn:aws:sns:eu-central-1:111122223333:other";
const CERTIFICATE_URL: &str =
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-9c6465fa7f48f5cacd23014631ec1136.pem";

pub(super) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_signed_message_of_sns_confirms", signed);
    // Nothing in these depends on the store.
    let embedded = &[BackendKind::Embedded];
    suite.on(embedded, "a_message_of_sns_that_was_changed_is_refused", changed);
    suite.on(embedded, "a_message_of_sns_is_good_for_an_hour", ages);
    suite.on(embedded, "a_message_of_sns_under_an_expired_certificate_is_refused", expired);
    suite.on(embedded, "a_subscription_elsewhere_is_not_visited", subscriptions);
    suite.on(embedded, "what_sns_delivers_raw_needs_a_token", raw);
}

/// A key and its certificate, good for two days.
struct Signer {
    folder: PathBuf,
}

impl Signer {
    fn new(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let signer = Self { folder };
        let (key, certificate) = (signer.file("key.pem"), signer.file("certificate.pem"));
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=sns.amazonaws.com",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ]);
        signer
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// `message` with its signature in it, over the fields that the documentation of Amazon SNS lists for its type.
    fn sign(&self, mut message: Value) -> Value {
        let fields: &[&str] = match message["Type"].as_str().unwrap() {
            "Notification" => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
            _ => &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
        };
        let present = fields.iter().filter_map(|name| Some((name, message[*name].as_str()?)));
        let text: Vec<String> = present.map(|(name, value)| format!("{name}\n{value}\n")).collect();
        let digest = if message["SignatureVersion"] == "1" { "-sha1" } else { "-sha256" };
        let (input, output) = (self.file("message"), self.file("signature"));
        std::fs::write(&input, text.concat()).unwrap();
        openssl(&["dgst", digest, "-sign", &self.file("key.pem"), "-out", &output, &input]);
        message["Signature"] = STANDARD.encode(std::fs::read(output).unwrap()).into();
        message
    }
}

/// A service that takes messages of [`TOPIC`] under a certificate of its own signer.
async fn start(backend: &Backend, clock: Clock) -> (TestApp, Signer) {
    let mut made = None;
    let options = AppOptions { clock, ..super::with_tokens() };
    let alter = async |settings: &mut toml::Table| {
        let folder = Path::new(settings["policies"]["file"].as_str().unwrap()).parent().unwrap().join("signer");
        let signer = Signer::new(folder);
        let sns = format!("topics = [\"{TOPIC}\"]\ncertificate_file = \"{}\"", signer.file("certificate.pem"));
        settings["events"].as_table_mut().unwrap().insert("sns".to_owned(), sns.parse::<toml::Table>().unwrap().into());
        made = Some(signer);
    };
    let app = TestApp::start_altered(backend, options, alter).await;
    (app, made.unwrap())
}

fn time(at: DateTime<Utc>) -> Value {
    at.to_rfc3339_opts(SecondsFormat::Millis, true).into()
}

/// What SNS sends when `published` was published to [`TOPIC`].
fn message(app: &TestApp, version: &str, published: &Value) -> Value {
    json!({
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Subject": "Amazon S3 Notification",
        "Message": published.to_string(),
        "Timestamp": time(app.clock.now()),
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE_URL,
        "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=arn",
    })
}

fn subscription(app: &TestApp, url: &str) -> Value {
    json!({
        "Type": "SubscriptionConfirmation",
        "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "Token": "2336412f37fb687f5d51e6e2425f004ae0ac4d44e4de3f1a",
        "TopicArn": TOPIC,
        "Message": "You have chosen to subscribe to the topic. To confirm, visit the SubscribeURL.",
        "SubscribeURL": url,
        "Timestamp": time(app.clock.now()),
        "SignatureVersion": "2",
        "SigningCertURL": CERTIFICATE_URL,
    })
}

/// Delivers as SNS does: as text, and without any token.
async fn deliver(app: &TestApp, message: &Value) -> Reply {
    let request = app
        .anonymous()
        .request(Method::POST, PATH)
        .header("x-amz-sns-message-type", message["Type"].as_str().unwrap_or_default())
        .header("x-amz-sns-topic-arn", TOPIC)
        .header("content-type", "text/plain; charset=UTF-8")
        .body(message.to_string());
    Reply::of(request).await
}

async fn signed(backend: Backend) {
    let (app, signer) = start(&backend, Clock::System).await;
    for version in ["1", "2"] {
        for subject in [json!("Amazon S3 Notification"), json!("é\nMessage"), Value::Null] {
            let (issued, key) = sent(&app, &put()).await;
            let mut message = message(&app, version, &notification(&app, &[&key]));
            message["Subject"] = subject;
            let counted = deliver(&app, &signer.sign(message)).await.expect(StatusCode::OK);
            assert_eq!(counted, counts(1, 1, 0, 0));
            assert_eq!(shown(&app.user("alice"), &issued).await["confirmed_via"], "event");
        }
    }
    // What S3 publishes when the topic is set up, and the end of a subscription.
    let test = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": app.bucket.bucket });
    let counted = deliver(&app, &signer.sign(message(&app, "2", &test))).await.expect(StatusCode::OK);
    assert_eq!(counted, counts(1, 0, 0, 0));
    let mut end = subscription(&app, "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription");
    end["Type"] = "UnsubscribeConfirmation".into();
    assert_eq!(deliver(&app, &signer.sign(end)).await.expect(StatusCode::OK), counts(0, 0, 0, 0));
    // Something else that was published to the topic is no event, and says so to whoever reads SNS's delivery log.
    let other = signer.sign(message(&app, "2", &json!({ "hello": "world" })));
    deliver(&app, &other).await.expect_problem(400, "invalid_json");
    app.end().await;
}

async fn changed(backend: Backend) {
    let (app, signer) = start(&backend, Clock::System).await;
    let (issued, key) = sent(&app, &put()).await;
    let event = notification(&app, &[&key]);
    let stranger = Signer::new(app.folder().join("stranger"));
    let later = time(app.clock.now() + TimeDelta::seconds(1));
    for version in ["1", "2"] {
        let good = signer.sign(message(&app, version, &event));
        let flipped = {
            let mut signature = STANDARD.decode(good["Signature"].as_str().unwrap()).unwrap();
            signature[100] ^= 1;
            STANDARD.encode(signature)
        };
        for (field, value) in [
            ("Type", json!("SubscriptionConfirmation")),
            ("Type", json!("Other")),
            ("MessageId", json!("22b80b92-fdea-4c2c-8f9d-bdfb0c7bf325")),
            ("TopicArn", json!(OTHER_TOPIC)),
            ("TopicArn", json!(TOPIC.to_uppercase())),
            ("Subject", json!("Amazon S3 notification")),
            ("Subject", Value::Null),
            ("Message", json!(format!("{event} "))),
            ("Message", json!("{\"Records\":[]}")),
            ("Timestamp", later.clone()),
            ("Timestamp", json!("yesterday")),
            ("SignatureVersion", json!(if version == "1" { "2" } else { "1" })),
            ("SignatureVersion", json!("3")),
            ("Signature", json!(flipped)),
            ("Signature", json!("")),
            ("Signature", json!("not base64")),
            ("SigningCertURL", json!(CERTIFICATE_URL.replace("https", "http"))),
            ("SigningCertURL", json!(CERTIFICATE_URL.replace("eu-central-1", "us-east-1"))),
            ("SigningCertURL", json!(CERTIFICATE_URL.replace("sns.eu-central-1.amazonaws.com", "evil.example"))),
            ("SigningCertURL", json!(CERTIFICATE_URL.replace(".pem", ".txt"))),
        ] {
            let mut message = good.clone();
            message[field] = value;
            deliver(&app, &message).await.expect_problem(401, "event_sender_unknown");
        }
        for field in good.as_object().unwrap().keys().filter(|field| *field != "UnsubscribeURL") {
            let mut message = good.clone();
            message.as_object_mut().unwrap().remove(field);
            deliver(&app, &message).await.expect_problem(401, "event_sender_unknown");
        }
        // Signed all right, but for another topic, or by somebody else.
        let mut other_topic = message(&app, version, &event);
        other_topic["TopicArn"] = OTHER_TOPIC.into();
        deliver(&app, &signer.sign(other_topic)).await.expect_problem(401, "event_sender_unknown");
        let by_stranger = stranger.sign(message(&app, version, &event));
        deliver(&app, &by_stranger).await.expect_problem(401, "event_sender_unknown");
        // Not declared as what it is, it is a body without a token.
        let undeclared = app.anonymous().post(PATH, &good).await;
        undeclared.expect_problem(401, "event_sender_unknown");
        assert_eq!(shown(&app.user("alice"), &issued).await["state"], "issued");
    }
    let mut unsigned_field = signer.sign(message(&app, "2", &event));
    unsigned_field["UnsubscribeURL"] = "https://elsewhere.example/".into();
    assert_eq!(deliver(&app, &unsigned_field).await.expect(StatusCode::OK), counts(1, 1, 0, 0));
    app.end().await;
}

async fn ages(backend: Backend) {
    let (app, signer) = start(&backend, Clock::System).await;
    for (age, is_good) in [
        (TimeDelta::minutes(59), true),
        (TimeDelta::minutes(61), false),
        (TimeDelta::days(400), false),
        (TimeDelta::minutes(-4), true),
        (TimeDelta::minutes(-6), false),
    ] {
        let mut message = message(&app, "2", &json!({ "Records": [] }));
        message["Timestamp"] = time(app.clock.now() - age);
        let reply = deliver(&app, &signer.sign(message)).await;
        if is_good {
            reply.expect(StatusCode::OK);
        } else {
            reply.expect_problem(401, "event_sender_unknown");
        }
    }
    app.end().await;
}

async fn expired(backend: Backend) {
    let clock = Clock::manual(Clock::System.now());
    let (app, signer) = start(&backend, clock.clone()).await;
    let today = clock.now();
    for (ahead, is_good) in [(TimeDelta::hours(1), true), (TimeDelta::days(3), false), (TimeDelta::days(-1), false)] {
        clock.set(today + ahead);
        let reply = deliver(&app, &signer.sign(message(&app, "2", &json!({ "Records": [] })))).await;
        if is_good {
            reply.expect(StatusCode::OK);
        } else {
            let refused = reply.expect_problem(401, "event_sender_unknown");
            assert_eq!(refused["detail"], "the message's certificate is not usable now");
        }
    }
    app.end().await;
}

async fn subscriptions(backend: Backend) {
    let (app, signer) = start(&backend, Clock::System).await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let address = elsewhere.local_addr().unwrap();
    for url in [
        format!("http://{address}/?Action=ConfirmSubscription"),
        format!("https://{address}/?Action=ConfirmSubscription"),
        format!("https://sns.eu-central-1.amazonaws.com@{address}/?Action=ConfirmSubscription"),
        format!("http://sns.eu-central-1.amazonaws.com:{}/?Action=ConfirmSubscription", address.port()),
        "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription".to_owned(),
    ] {
        let message = signer.sign(subscription(&app, &url));
        deliver(&app, &message).await.expect_problem(401, "event_sender_unknown");
        // A token does not open it either: only SNS itself may have this service visit a URL.
        let request = app.anonymous().with_token(TOKEN).request(Method::POST, PATH);
        let request = request.header("x-amz-sns-message-type", "SubscriptionConfirmation").body(message.to_string());
        Reply::of(request).await.expect_problem(401, "event_sender_unknown");
    }
    let visited = elsewhere.accept();
    assert_eq!(visited.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody came");
    app.end().await;
}

async fn raw(backend: Backend) {
    let (app, _) = start(&backend, Clock::System).await;
    let (_, key) = sent(&app, &put()).await;
    let event = notification(&app, &[&key]);
    let deliver = |token: Option<&str>| {
        let request = app.anonymous().request(Method::POST, PATH).header("x-amz-sns-message-type", "Notification");
        let request = request.header("x-amz-sns-rawdelivery", "true").json(&event);
        Reply::of(if let Some(token) = token { request.basic_auth("sns", Some(token)) } else { request })
    };
    let refused = deliver(None).await;
    refused.expect_problem(401, "event_sender_unknown");
    // Only then does SNS send what its URL holds.
    assert!(refused.headers["www-authenticate"].to_str().unwrap().starts_with("Basic"));
    assert_eq!(deliver(Some(TOKEN)).await.expect(StatusCode::OK), counts(1, 1, 0, 0));
    app.end().await;
}

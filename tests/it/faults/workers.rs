//! A worker that is stuck, and clients that are.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use actix_web::{App, HttpServer, middleware::from_fn, web};
use presignd::{
    app::prepare_schema,
    auth::{Authenticator, EventSenders},
    clock::Clock,
    config::Config,
    db::{Database, Ledger},
    domain::{CallbackTokens, Capabilities, Judging, Outbox, Service, SweepProgress},
    http::{self, Metrics, State},
    policy::{self, PolicyHandle},
    s3::{ObjectReader, ObjectStore, Sdk, Sessions},
    signing::Endpoint,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Handle,
    time::timeout,
};

use super::metric;
use crate::support::{
    AppOptions, Backend, Caller, Reply, TestApp,
    app::{CALLBACK_SECRET, POLICIES, TokenOptions, settings, token},
    caller::{client_at, id, upload_request},
    load::eventually,
};

/// The service's parts as the application puts them together.
async fn service(config: &Config, runtime: &Handle) -> (Service, Authenticator) {
    let clock = Clock::System;
    let database = Database::new(&config.database, runtime).unwrap();
    prepare_schema(&database, true, clock.now()).await.unwrap();
    let (ledger, _writers) = Ledger::start(&database, &config.database, runtime);
    let sdk = Sdk::from_config(&config.s3).await;
    let endpoint = Endpoint::new(&config.s3.client_endpoint(), &config.s3.bucket, config.s3.addressing).unwrap();
    let store = ObjectStore::new(sdk.clone(), &config.s3.bucket, runtime.clone());
    let service = Service {
        accel: None,
        reader: ObjectReader::new(store.clone(), &config.delivery, runtime.clone()),
        ledger,
        store,
        sessions: Sessions::new(sdk, &config.s3, Arc::new(endpoint), clock.clone(), runtime.clone()),
        policies: PolicyHandle::fixed(policy::load(&config.policies.file, |_| Ok(())).unwrap()),
        callback_tokens: CallbackTokens::new([("k1", CALLBACK_SECRET.into())].into_iter().collect()),
        capabilities: Capabilities::default(),
        clock: clock.clone(),
        database,
        outbox: Outbox::default(),
        staged_methods: Arc::default(),
        sweep_progress: SweepProgress::default(),
        inspection: None,
        cdn: None,
        judging: Judging::new(runtime.clone()),
        sniffed: Arc::default(),
    };
    let authenticator = Authenticator::from_config(&config.auth, clock, runtime.clone()).await.unwrap();
    (service, authenticator)
}

/// One HTTP/1.1 connection to the service, with a token.
struct OneConnection {
    stream: TcpStream,
    jwt: String,
}

impl OneConnection {
    async fn open(address: SocketAddr, jwt: &str) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), jwt: jwt.to_owned() }
    }

    /// Sends a request and reads the answer: its status and its body.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.jwt,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(answer).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).await.unwrap();
        (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
    }
}

async fn worker() -> String {
    format!("{:?}", std::thread::current().id())
}

pub(super) async fn blocked(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies.toml");
    std::fs::write(&policies, POLICIES).unwrap();
    let (database, bucket) = (backend.database().await, backend.bucket(folder.path()).await);
    let config = settings(&database, &bucket, &policies, "").to_string();
    let config = Config::parse(&config, "test settings", &BTreeMap::new()).unwrap();
    let (service, authenticator) = service(&config, &backend.runtime).await;
    let connections = service.database.clone();

    // Beside the routes of the service: one that tells workers apart, and one that blocks its worker until released.
    let (entered, mut blocked) = tokio::sync::mpsc::unbounded_channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let state =
        web::Data::new(State::new(&config, service, authenticator, EventSenders::default(), Metrics::new().unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let base = format!("http://{address}");
    let server = HttpServer::new(move || {
        let (entered, released) = (entered.clone(), Arc::clone(&released));
        let block = move || {
            entered.send(()).unwrap();
            let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(15));
            std::future::ready("released")
        };
        App::new()
            .app_data(state.clone())
            .route("/worker", web::get().to(worker))
            .route("/block", web::get().to(block))
            .configure(http::routes)
            .wrap(from_fn(http::finish))
    })
    .workers(2)
    .disable_signals()
    .listen(listener)
    .unwrap()
    .run();
    let handle = server.handle();
    let serving = backend.runtime.spawn(server);

    let jwt = token(&TokenOptions::default(), Clock::System.now());
    let first = Caller::new(base.clone(), Some(jwt.clone()), [127, 0, 0, 1].into());
    let first_worker = first.get("/worker").await.text();
    // A connection stays with one worker. This is one connection, and not a client that may open another at any time.
    let mut second = OneConnection::open(address, &jwt).await;
    for _ in 0..20 {
        if second.ask("GET", "/worker", "").await.1 != first_worker {
            break;
        }
        second = OneConnection::open(address, &jwt).await;
    }
    assert_ne!(second.ask("GET", "/worker", "").await.1, first_worker, "both connections are with one worker");

    // Connections to PostgreSQL, the store and its STS are made for the first worker...
    let put = json!({ "method": "put" });
    first.upload("a.txt", b"bytes", &put).await;
    // ...which then is blocked.
    let blocking = backend.runtime.spawn(async move { first.get("/block").await });
    timeout(Duration::from_secs(5), blocked.recv()).await.expect("the worker is blocked").unwrap();
    let began = Instant::now();
    let work = async {
        let body = json!({ "original_file_name": "b.txt", "file_size": 5, "method": "put" }).to_string();
        let (status, issued) = second.ask("POST", "/api/v1/uploads", &body).await;
        assert_eq!(status, 201, "{issued}");
        let issued: Value = serde_json::from_str(&issued).unwrap();
        let store = client_at([127, 0, 0, 1].into());
        assert!(Reply::of(upload_request(&store, &issued["upload"], b"bytes")).await.status.is_success());
        let (status, confirmed) = second.ask("POST", &format!("/api/v1/uploads/{}/complete", id(&issued)), "").await;
        assert_eq!(status, 200, "{confirmed}");
        let body = json!({ "upload_id": id(&issued) }).to_string();
        let (status, download) = second.ask("POST", "/api/v1/downloads", &body).await;
        assert_eq!(status, 201, "{download}");
        assert_eq!(second.ask("GET", "/readyz", "").await.0, 200);
    };
    // Shorter than the five seconds after which the SDK gives up a connection that says nothing and makes another.
    timeout(Duration::from_secs(3), work).await.expect("the other worker serves");
    eprintln!("measured: upload, confirmation and download beside a blocked worker: {:?}", began.elapsed());
    assert!(!blocking.is_finished());

    release.send(()).unwrap();
    assert_eq!(blocking.await.unwrap().text(), "released");
    handle.stop(true).await;
    serving.await.unwrap().unwrap();
    connections.close();
    drop(connections);
    bucket.end().await;
    database.end().await;
}

/// The head of an issue request and its body, as bytes.
fn raw_request(caller: &Caller) -> (String, &'static str) {
    let body = r#"{"original_file_name":"a.txt","file_size":5}"#;
    let request = caller.request(Method::POST, "/api/v1/uploads").build().unwrap();
    let authorization = request.headers()["authorization"].to_str().unwrap();
    let head = format!(
        "POST /api/v1/uploads HTTP/1.1\r\nHost: test\r\nAuthorization: {authorization}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head, body)
}

pub(super) async fn clients_break_off(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    alice.issue("a.txt", b"bytes", &json!({})).await;
    let (head, body) = raw_request(&alice);
    for client in 0..90 {
        let mut connection = TcpStream::connect(app.address()).await.unwrap();
        // In the head, in the body, and while the intent is being written.
        let sent = match client % 3 {
            0 => head[..head.len() / 2].to_owned(),
            1 => format!("{head}{}", &body[..10]),
            _ => format!("{head}{body}"),
        };
        connection.write_all(sent.as_bytes()).await.unwrap();
        if client % 2 == 0 {
            connection.set_zero_linger().unwrap();
        }
    }
    for _ in 0..10 {
        assert_eq!(alice.upload("b.txt", b"bytes", &json!({ "method": "put" })).await["state"], "confirmed");
    }
    let settled = async || (metric(&alice, "presignd_ledger_queued_intents").await == 0).then_some(());
    eventually(Duration::from_secs(5), settled).await;
    assert_eq!(metric(&alice, "presignd_ledger_failed_intents_total").await, 0);
    app.end().await;
}

pub(super) async fn slow_body(backend: Backend) {
    let options = AppOptions { settings: "[server]\nrequest_timeout = \"1s\"".to_owned(), ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let (head, body) = raw_request(&app.user("alice"));
    let mut slow_body = TcpStream::connect(app.address()).await.unwrap();
    let mut slow_head = TcpStream::connect(app.address()).await.unwrap();
    let began = Instant::now();
    slow_body.write_all(format!("{head}{}", &body[..10]).as_bytes()).await.unwrap();
    slow_head.write_all(&head.as_bytes()[..30]).await.unwrap();
    let answer = async |connection: &mut TcpStream| {
        let mut answer = Vec::new();
        // The answer, or nothing more than the end of the connection.
        let read = timeout(Duration::from_secs(4), connection.read_to_end(&mut answer)).await;
        read.expect("the connection is closed").expect("in order");
        (String::from_utf8(answer).unwrap(), began.elapsed())
    };
    let ((body_answer, body_took), (head_answer, head_took)) =
        tokio::join!(answer(&mut slow_body), answer(&mut slow_head));
    eprintln!("measured: slow body {body_took:?}, slow head {head_took:?}");
    assert!(body_answer.starts_with("HTTP/1.1 408 "), "{body_answer}");
    assert!(body_answer.contains(r#""code":"request_timeout""#), "{body_answer}");
    assert!(body_took >= Duration::from_secs(1) && body_took < Duration::from_secs(3), "{body_took:?}");
    assert!(head_answer.is_empty() || head_answer.starts_with("HTTP/1.1 408 "), "{head_answer}");
    assert!(head_took < Duration::from_secs(3), "{head_took:?}");
    app.end().await;
}

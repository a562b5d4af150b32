//! Two processes under mixed traffic, killed in turns, over and over: afterwards everything is accounted for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use fastrand::Rng;
use presignd::{
    app::{self, Running},
    clock::Clock,
    config::{Config, SweeperConfig},
    domain::{DriftOptions, Sweeper},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::process::Ground;
use crate::support::{
    Backend, Caller, Program, Reply, WebhookReceiver,
    caller::{id, upload_request},
    load::eventually,
    receiver::KEY,
};

const KILLS: usize = 50;
const CLIENTS: usize = 8;
/// Between two kills, so that every one of them meets traffic.
const ISSUED_BETWEEN_KILLS: usize = 10;
const BYTES: &[u8] = b"bytes";

const POLICIES: &str = r#"
[policy.default]
methods = ["post", "put"]
upload.expires_in = "5s"
confirm.grace = "5s"
ip_scope = "off"
"#;

/// What the clients know.
#[derive(Debug, Default)]
struct Known {
    issued: BTreeSet<String>,
    confirmed: BTreeSet<String>,
}

struct Traffic {
    callers: RwLock<Vec<Caller>>,
    known: Mutex<Known>,
    issued: AtomicUsize,
    stop: AtomicBool,
}

pub(super) async fn over_and_over(backend: Backend) {
    let ground = Ground::with_policies(&backend, POLICIES).await;
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    let settings = settings(&ground, &receiver);
    let mut programs: Vec<Program> = (0..2).map(|at| ground.start_at(at, settings.clone())).collect();
    let traffic = Arc::new(Traffic {
        callers: RwLock::new(programs.iter().map(|program| program.user("alice")).collect()),
        known: Mutex::default(),
        issued: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    });
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let traffic = Arc::clone(&traffic);
        clients.spawn_on(async move { traffic.client().await }, &backend.runtime);
    }
    for kill in 0..KILLS {
        let goal = traffic.issued.load(Ordering::Relaxed) + ISSUED_BETWEEN_KILLS;
        let enough = async || (traffic.issued.load(Ordering::Relaxed) >= goal).then_some(());
        eventually(Duration::from_secs(30), enough).await;
        let victim = kill % 2;
        programs[victim].kill();
        programs[victim] = ground.start_at(victim, settings.clone());
        traffic.callers.write().unwrap()[victim] = programs[victim].user("alice");
    }
    traffic.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client panics");
    }
    programs.iter_mut().for_each(Program::kill);
    let known = std::mem::take(&mut *traffic.known.lock().unwrap());
    everything_is_accounted_for(&backend, &ground, settings, &receiver, &known).await;
    ground.end().await;
}

/// With the service's own credentials, because the real stores take no forms that are signed by a session with a policy.
fn settings(ground: &Ground, receiver: &WebhookReceiver) -> toml::Table {
    let mut settings = ground.settings(&format!(
        r#"
        [sweeper]
        interval = "100ms"
        requests_per_second = 1000
        [webhooks]
        allowed_networks = ["127.0.0.0/8"]
        poll_interval = "100ms"
        timeout = "2s"
        endpoints = [{{ name = "receiver", url = "{}", keys = [{{ secret = "{KEY}" }}] }}]
        "#,
        receiver.url()
    ));
    settings["s3"].as_table_mut().unwrap().remove("sts");
    settings
}

impl Traffic {
    async fn client(&self) {
        let mut rng = Rng::new();
        while !self.stop.load(Ordering::Relaxed) {
            // A connection that breaks is what a kill looks like from here: on with the next upload.
            let _ = self.upload(&mut rng).await;
        }
    }

    /// One upload, as far as a client of some kind takes it. Every request goes to either process.
    async fn upload(&self, rng: &mut Rng) -> Option<()> {
        let method = if rng.bool() { "post" } else { "put" };
        let body = json!({ "original_file_name": "a.bin", "file_size": BYTES.len(), "method": method });
        let issued = self.ask(rng, Method::POST, "/api/v1/uploads", Some(&body)).await?;
        assert_eq!(issued.status, StatusCode::CREATED, "{}", issued.text());
        let issued = issued.json();
        self.known.lock().unwrap().issued.insert(id(&issued).to_owned());
        self.issued.fetch_add(1, Ordering::Relaxed);
        let path = format!("/api/v1/uploads/{}", id(&issued));
        // Some never send, some never come back, some change their minds.
        if rng.u8(..8) == 0 {
            return None;
        }
        let http = self.callers.read().unwrap()[0].http.clone();
        let sent = Reply::of(upload_request(&http, &issued["upload"], BYTES)).await;
        assert!(sent.status.is_success(), "{}", sent.text());
        match rng.u8(..8) {
            0 => None,
            1 => self.ask(rng, Method::DELETE, &path, None).await.map(drop),
            2 => self.ask(rng, Method::POST, &format!("{path}/renew"), None).await.map(drop),
            _ => {
                let completed = self.ask(rng, Method::POST, &format!("{path}/complete"), None).await?;
                if completed.status == StatusCode::OK {
                    self.known.lock().unwrap().confirmed.insert(id(&issued).to_owned());
                }
                Some(())
            }
        }
    }

    /// The answer, if there is a whole one.
    async fn ask(&self, rng: &mut Rng, method: Method, path: &str, body: Option<&Value>) -> Option<Reply> {
        let caller = self.callers.read().unwrap()[rng.usize(..2)].clone();
        let request = caller.request(method, path);
        let request = if let Some(body) = body { request.json(body) } else { request };
        Reply::try_of(request).await.ok()
    }
}

/// A process that nobody kills finishes what is left, in a time of its own. Then bucket, rows and receiver agree.
async fn everything_is_accounted_for(
    backend: &Backend,
    ground: &Ground,
    mut settings: toml::Table,
    receiver: &WebhookReceiver,
    known: &Known,
) {
    settings["sweeper"].as_table_mut().unwrap().insert("enabled".to_owned(), false.into());
    let config = Config::parse(&settings.to_string(), "test settings", &BTreeMap::new()).expect("valid settings");
    let clock = Clock::manual(Clock::System.now());
    let running = Box::pin(app::start(&config, clock.clone(), backend.runtime.clone())).await.expect("it starts");
    let left = |what: &str| ground.database.psql(&format!("SELECT count(*) FROM {what}")).trim().to_owned();
    sweep_to_the_end(&running, &clock, || left("upload_intents WHERE look_at IS NOT NULL") == "0").await;
    let delivered = async || {
        clock.set(clock.now() + TimeDelta::minutes(1));
        (left("webhook_deliveries WHERE state = 'pending'") == "0").then_some(())
    };
    eventually(Duration::from_secs(30), delivered).await;

    let rows = ground.database.psql("SELECT id, state FROM upload_intents");
    let states: BTreeMap<&str, &str> = rows.lines().filter_map(|row| row.split_once('|')).collect();
    for id in &known.issued {
        assert!(states.contains_key(id.as_str()), "{id} was answered and is not recorded");
    }
    for id in &known.confirmed {
        assert_eq!(states.get(id.as_str()), Some(&"confirmed"), "{id} was confirmed");
    }
    let mut told = BTreeMap::<String, BTreeSet<(String, String)>>::new();
    for message in receiver.taken() {
        told.entry(message.upload()).or_default().insert((message.id().to_owned(), message.event_type()));
    }
    for (id, state) in &states {
        let events: Vec<&str> = told.get(*id).into_iter().flatten().map(|(_, event)| event.as_str()).collect();
        assert_eq!(events, [format!("upload.{state}")], "{id}");
    }
    assert_eq!(left("webhook_deliveries WHERE state <> 'delivered'"), "0");
    assert_eq!(left("upload_copies"), "0");
    let options = DriftOptions { repair: false, resume: false, min_age: Duration::ZERO };
    let mut findings = Vec::new();
    let counts = running.service.drift(&running.service.store, options, |event| findings.push(format!("{event:?}")));
    let counts = counts.await.expect("store and database answer");
    assert!(counts.is_clean(), "{counts:?} {findings:#?}");
    let confirmed = states.values().filter(|state| **state == "confirmed").count();
    assert_eq!(counts.objects, u64::try_from(confirmed).unwrap(), "{counts:?}");
    eprintln!("measured: {KILLS} kills among {} uploads, {confirmed} of them confirmed: {counts:?}", states.len());
    running.stop().await;
}

async fn sweep_to_the_end(running: &Running, clock: &Clock, is_done: impl Fn() -> bool) {
    let settings = SweeperConfig { requests_per_second: 10_000, ..SweeperConfig::default() };
    let sweeper = Sweeper::new(running.service.clone(), &settings);
    // Leases of the dead, the last looks of the longest tombstone, and the grace before: two days are enough.
    for _ in 0..200 {
        sweeper.sweep_due().await.expect("the database answers");
        if is_done() {
            return;
        }
        clock.set(clock.now() + TimeDelta::minutes(15));
    }
    panic!("the sweeper does not come to an end");
}

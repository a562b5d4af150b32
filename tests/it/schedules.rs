//! Random schedules of everything that can happen to an upload, on the real code, PostgreSQL and a store.
//!
//! Each upload gets a handful of actors: its client, who sends what was promised or something else, confirms, renews and
//! aborts; the store's events, late, twice or before anything was sent; the sweeper; somebody who sends the form again.
//! They run at once, each is held up at random between any two of its steps, and some die there. In between, time passes.
//! Then everything is swept to its end, and the outcome is held against what was really sent.
//!
//! `PRESIGND_SCHEDULES` says how many schedules a run tries, `PRESIGND_SCHEDULES_SEED` repeats one.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aws_sdk_s3::primitives::ByteStream;
use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use futures_util::{StreamExt as _, future::join_all, stream};
use presignd::{
    clock::Clock,
    config::SweeperConfig,
    db::{SettledVia, UploadIntent},
    domain::{Caller, Claim, Confirmer, DomainError, IssueRequest, Service, Sweeper, UploadTarget},
    model::{ETag, FileName, IntentId, IntentState, Metadata, Principal, Sha256Digest, UploadMethod},
};
use secrecy::ExposeSecret as _;

use crate::support::{AppOptions, Backend, Suite, TestApp, backend::BackendKind};

/// Uploads that are played at once.
const ROUND: usize = 64;

const PROMISED: &[u8] = b"what was promised";
/// As long as what was promised.
const TWIN: &[u8] = b"something else...";
const LONGER: &[u8] = b"something else, and longer";

const SETTINGS: &str = r#"
[sweeper]
enabled = false
tombstone_for = "5m"
requests_per_second = 100000
concurrency = 32
[[webhooks.endpoints]]
name = "receiver"
url = "https://receiver.invalid/"
keys = [{ secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" }]
"#;

const POLICIES: &str = r#"
[policy.default]
methods = ["post", "put"]
upload.expires_in = "1m"
confirm.grace = "1m"
ip_scope = "off"
"#;

pub(crate) fn register(suite: &mut Suite<'_>) {
    // What happened is read from the database behind the service's back, which the embedded one does not allow.
    let real = [BackendKind::Rgw, BackendKind::SeaweedFs];
    suite.on(&real, "no_schedule_confirms_falsely_or_loses_a_confirmation", schedules);
}

async fn schedules(backend: Backend) {
    let wanted = number("PRESIGND_SCHEDULES").unwrap_or(1_024);
    let seed = number("PRESIGND_SCHEDULES_SEED").unwrap_or_else(|| fastrand::u64(..));
    let clock = Clock::manual(Clock::System.now());
    let options = AppOptions {
        policies: Some(POLICIES.to_owned()),
        settings: SETTINGS.to_owned(),
        unscoped: true,
        clock: clock.clone(),
    };
    let app = TestApp::start_with(&backend, options).await;
    let began = Instant::now();
    let mut tally = Tally::default();
    for round in 0..wanted.div_ceil(u64::try_from(ROUND).unwrap()) {
        let mut stage = Stage::new(&app, clock.clone(), seed.wrapping_add(round));
        stage.play().await;
        stage.sweep_to_the_end().await;
        stage.judge(&mut tally).await;
        stage.clear().await;
    }
    let rate = f64::from(u32::try_from(tally.schedules).unwrap()) / began.elapsed().as_secs_f64();
    eprintln!("measured: {} on {}: {tally:?}, {rate:.0}/s, seed {seed}", tally.schedules, backend.kind.as_str());
    for (what, count) in tally
        .states
        .iter()
        .map(|(state, count)| (*state, *count))
        .chain([("crashes", tally.crashes), ("uploads that several confirmed", tally.contested)])
    {
        assert!(count > 0, "no schedule led to {what}: {tally:?}");
    }
    assert_eq!(tally.states.len(), 4, "every final state is reached: {tally:?}");
    app.end().await;
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var_os(variable)?;
    Some(text.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{variable} is a number")))
}

/// What the schedules led to.
#[derive(Debug, Default)]
struct Tally {
    schedules: usize,
    crashes: usize,
    contested: usize,
    states: BTreeMap<&'static str, usize>,
}

/// One round.
struct Stage<'a> {
    app: &'a TestApp,
    service: Service,
    sweeper: Sweeper,
    owner: Principal,
    clock: Clock,
    seed: u64,
    rng: Rng,
    uploads: Vec<Arc<Played>>,
}

/// An upload, and what is known of it from outside.
struct Played {
    intent: UploadIntent,
    token: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What somebody began to send.
    sent: BTreeSet<&'static [u8]>,
    /// Whether what was promised was in the store in time.
    arrived: bool,
    /// Whether the owner tried to give it up.
    aborted: bool,
    /// The bytes of the object when it was first seen confirmed, and its `ETag`.
    confirmed: Option<(Vec<u8>, String)>,
    confirmations: usize,
    crashes: usize,
}

/// What an actor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Send(&'static [u8]),
    Confirm,
    ConfirmByToken,
    Event,
    Sweep,
    Abort,
    Renew,
    Wait,
}

impl<'a> Stage<'a> {
    fn new(app: &'a TestApp, clock: Clock, seed: u64) -> Self {
        let service = app.running.service.clone();
        let settings = SweeperConfig {
            tombstone_for: Duration::from_mins(5),
            requests_per_second: 100_000,
            concurrency: 32,
            ..SweeperConfig::default()
        };
        let owner = Principal {
            issuer: "https://issuer.test/".to_owned(),
            subject: "alice".to_owned(),
            tenant: None,
            can_upload: true,
            can_download: true,
            can_administer: false,
            authenticated_until: DateTime::<Utc>::MAX_UTC,
        };
        let sweeper = Sweeper::new(service.clone(), &settings);
        Self { app, service, sweeper, owner, clock, seed, rng: Rng::with_seed(seed), uploads: Vec::new() }
    }

    fn caller(&self) -> Caller<'_> {
        Caller { principal: &self.owner, address: [127, 0, 0, 1].into() }
    }

    fn pass(&self, time: TimeDelta) {
        self.clock.set(self.clock.now() + time);
    }

    async fn issue(&mut self) -> Arc<Played> {
        let method = if self.rng.bool() { UploadMethod::Post } else { UploadMethod::Put };
        let checksum = self.rng.u8(..4) == 0;
        let request = IssueRequest {
            original_file_name: FileName::parse("a.bin").unwrap(),
            file_size: PROMISED.len().try_into().ok(),
            content_type: None,
            policy: "default".to_owned(),
            method: Some(method),
            checksum_sha256: checksum.then(|| digest(PROMISED)),
            part_checksums: false,
            free_parts: false,
            content_md5: None,
            metadata: Metadata::default(),
            expires_in: None,
            form_return: None,
        };
        let issued = self.service.issue_upload(self.caller(), request, None).await.expect("an upload");
        assert!(matches!(issued.target, Some(UploadTarget::Post(_) | UploadTarget::Put(_))));
        let token = issued.callback_token.expect("a token").expose_secret().to_owned();
        Arc::new(Played { intent: *issued.intent, token, known: Mutex::default() })
    }

    /// Everything at once: the actors of all uploads, and time.
    async fn play(&mut self) {
        for _ in 0..ROUND {
            let played = self.issue().await;
            self.uploads.push(played);
        }
        let uploads = self.uploads.clone();
        let rng = &mut self.rng;
        let script = |upload: &Arc<Played>| {
            let acts = script(rng).into_iter();
            acts.map(|act| (Arc::clone(upload), act, rng.fork())).collect::<Vec<_>>()
        };
        let parts: Vec<_> = uploads.iter().flat_map(script).collect();
        let mut rng = self.rng.fork();
        let stage = &*self;
        let actors = parts.into_iter().map(|(upload, act, rng)| stage.actor(upload, act, rng));
        let time = async {
            for _ in 0..rng.u8(..12) {
                for _ in 0..rng.u16(..600) {
                    tokio::task::yield_now().await;
                }
                stage.pass(TimeDelta::seconds(rng.i64(1..30)));
            }
        };
        tokio::join!(join_all(actors), time);
    }

    async fn actor(&self, upload: Arc<Played>, act: Act, mut rng: Rng) {
        // Most schedules are decided in the first moments; some begin late.
        let patience = if rng.bool() { 50 } else { 2_000 };
        for _ in 0..rng.u16(..patience) {
            tokio::task::yield_now().await;
        }
        let crashes = (rng.u8(..8) == 0).then(|| rng.u16(1..40));
        let died = HeldUp { act: Box::pin(self.act(&upload, act)), rng, polls_left: crashes }.await;
        if died {
            upload.known.lock().unwrap().crashes += 1;
        }
    }

    async fn act(&self, upload: &Played, act: Act) {
        let id = upload.intent.id;
        match act {
            Act::Send(bytes) => self.send(upload, bytes).await,
            Act::Confirm => {
                let confirmer = Confirmer::Owner(&self.owner);
                self.observe(upload, self.service.confirm_upload(id, confirmer, Claim::default()).await).await;
            }
            Act::ConfirmByToken => {
                let confirmer = Confirmer::Token(&upload.token);
                self.observe(upload, self.service.confirm_upload(id, confirmer, Claim::default()).await).await;
            }
            Act::Event => {
                let intent = self.service.database.upload(id).await.unwrap().expect("its row");
                self.observe(upload, self.service.confirm_intent(intent, SettledVia::Event, Claim::default()).await)
                    .await;
            }
            Act::Sweep => {
                self.sweeper.sweep_due().await.expect("the database answers");
            }
            Act::Abort => {
                upload.known.lock().unwrap().aborted = true;
                match self.service.abort_upload(&self.owner, id).await {
                    Ok(_) | Err(DomainError::InvalidState(_)) => {}
                    Err(error) => panic!("{id}: aborting: {error}"),
                }
            }
            Act::Renew => match self.service.renew_upload(self.caller(), id, None).await {
                Ok(_) | Err(DomainError::InvalidState(_) | DomainError::Expired) => {}
                Err(error) => panic!("{id}: renewing: {error}"),
            },
            Act::Wait => {}
        }
    }

    /// As the holder of the URL or form can: a PUT writes once, a form as often as it is sent. Nobody holds a URL that
    /// is no longer good.
    async fn send(&self, upload: &Played, bytes: &'static [u8]) {
        if self.clock.now() > upload.intent.expires_at {
            return;
        }
        upload.known.lock().unwrap().sent.insert(bytes);
        let bucket = &self.app.bucket;
        let put = bucket.s3.put_object().bucket(&bucket.bucket).key(upload.intent.object_key.as_str());
        let put = put.content_type(upload.intent.content_type.as_str()).body(ByteStream::from_static(bytes));
        let put = if upload.intent.method == UploadMethod::Put { put.if_none_match("*") } else { put };
        let sent = put.send().await;
        let mut known = upload.known.lock().unwrap();
        // Time may have run out meanwhile.
        known.arrived |= sent.is_ok() && bytes == PROMISED && self.clock.now() <= upload.intent.expires_at;
    }

    async fn observe(&self, upload: &Played, outcome: Result<UploadIntent, DomainError>) {
        let id = upload.intent.id;
        match outcome {
            Ok(intent) => {
                assert_eq!(intent.state, IntentState::Confirmed, "{id}");
                let etag = intent.etag.as_ref().expect("an ETag").as_str().to_owned();
                let bytes = self.verified(&intent).await.unwrap_or_else(|| panic!("{id}: confirmed and not there"));
                let mut known = upload.known.lock().unwrap();
                known.confirmations += 1;
                let first = known.confirmed.get_or_insert_with(|| (bytes.clone(), etag.clone()));
                assert!(*first == (bytes, etag), "{id}: what was confirmed has changed");
            }
            Err(
                DomainError::Incomplete
                | DomainError::Mismatched(_)
                | DomainError::Expired
                | DomainError::InvalidState(IntentState::Aborted)
                | DomainError::CallbackTokenInvalid,
            ) => {}
            Err(error) => panic!("{id}: confirming: {error}"),
        }
    }

    /// The bytes that a download of `intent` gets.
    async fn verified(&self, intent: &UploadIntent) -> Option<Vec<u8>> {
        let bucket = &self.app.bucket;
        let get = bucket.s3.get_object().bucket(&bucket.bucket).key(intent.verified_key().as_str());
        let object = get.send().await.ok()?;
        assert_eq!(object.e_tag().map(|etag| etag.trim_matches('"')), intent.etag.as_ref().map(ETag::as_str));
        Some(object.body.collect().await.expect("its bytes").to_vec())
    }

    /// Nobody confirms any more: what is left is the sweeper's.
    async fn sweep_to_the_end(&self) {
        // What an actor that died had asked the store for is still being done. Hours pass below in no time, and nothing
        // that is asked for takes hours.
        while self.service.store.requests_under_way() > 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..200 {
            self.sweeper.sweep_due().await.expect("the database answers");
            if self.app.database.psql("SELECT count(*) FROM upload_intents WHERE look_at IS NOT NULL").trim() == "0" {
                return;
            }
            self.pass(TimeDelta::minutes(1));
        }
        panic!("seed {}: the sweeper does not come to an end", self.seed);
    }

    async fn judge(&self, tally: &mut Tally) {
        let objects = self.objects().await;
        let events = self.app.database.psql("SELECT upload_id, event_type FROM webhook_deliveries");
        let copies = self.app.database.psql("SELECT upload_id FROM upload_copies");
        assert_eq!(copies.trim(), "", "seed {}: copies that nobody settled", self.seed);
        let rows: Vec<UploadIntent> = stream::iter(&self.uploads)
            .map(async |upload| self.service.database.upload(upload.intent.id).await.unwrap().expect("its row"))
            .buffered(8)
            .collect()
            .await;
        for (upload, row) in self.uploads.iter().zip(rows) {
            let id = row.id;
            let known = upload.known.lock().unwrap();
            let context = format!("seed {}, upload {id} ({}): {known:?}", self.seed, row.method);
            let told: Vec<&str> = events.lines().filter(|line| line.starts_with(&id.to_string())).collect();
            assert_eq!(told, [format!("{id}|upload.{}", row.state)], "one event: {context}");
            let kept = objects.get(&id).cloned().unwrap_or_default();
            if row.state == IntentState::Confirmed {
                assert_eq!(kept, [row.verified_key().as_str().to_owned()], "its object and no other: {context}");
            } else {
                assert!(kept.is_empty(), "nothing is left: {kept:?} {context}");
                assert_eq!(known.confirmed, None, "{} after it was confirmed: {context}", row.state);
            }
            if known.arrived && known.sent.len() == 1 && !known.aborted {
                assert_eq!(row.state, IntentState::Confirmed, "a confirmation was lost: {context}");
            }
            if row.state == IntentState::Aborted {
                assert!(known.aborted, "nobody gave it up: {context}");
            }
            tally.schedules += 1;
            tally.crashes += known.crashes;
            tally.contested += usize::from(known.confirmations > 1);
            *tally.states.entry(row.state.as_str()).or_default() += 1;
        }
        for (upload, intent) in self.confirmed().await {
            let bytes = self.verified(&intent).await.expect("a confirmed object");
            let known = upload.known.lock().unwrap();
            let acceptable = known.sent.iter().any(|sent| *sent == bytes) && bytes.len() == PROMISED.len();
            let as_promised = intent.checksum_sha256.is_none() || bytes == PROMISED;
            assert!(acceptable && as_promised, "seed {}: falsely confirmed: {} {known:?}", self.seed, intent.id);
            if let Some((then, _)) = &known.confirmed {
                assert!(*then == bytes, "seed {}: what was confirmed has changed: {}", self.seed, intent.id);
            }
        }
    }

    /// Room for the next round, whose lists would otherwise grow with every one before.
    async fn clear(&self) {
        let bucket = &self.app.bucket;
        for key in self.objects().await.into_values().flatten() {
            bucket
                .s3
                .delete_object()
                .bucket(&bucket.bucket)
                .key(key)
                .send()
                .await
                .expect("the administrator may delete");
        }
        self.app.database.psql("TRUNCATE upload_intents, upload_copies, webhook_deliveries");
    }

    async fn confirmed(&self) -> Vec<(Arc<Played>, UploadIntent)> {
        let mut confirmed = Vec::new();
        for upload in &self.uploads {
            let row = self.service.database.upload(upload.intent.id).await.unwrap().expect("its row");
            if row.state == IntentState::Confirmed {
                confirmed.push((Arc::clone(upload), row));
            }
        }
        confirmed
    }

    /// The keys in the bucket, by upload.
    async fn objects(&self) -> BTreeMap<IntentId, Vec<String>> {
        let bucket = &self.app.bucket;
        let mut found = BTreeMap::<IntentId, Vec<String>>::new();
        let by_hex: BTreeMap<String, IntentId> =
            self.uploads.iter().map(|upload| (upload.intent.id.hex(), upload.intent.id)).collect();
        let mut pages = bucket.s3.list_objects_v2().bucket(&bucket.bucket).into_paginator().send();
        while let Some(page) = pages.next().await {
            for object in page.expect("a page").contents() {
                let key = object.key().expect("a key");
                let name = key.rsplit('/').next().unwrap_or_default();
                if let Some(id) = name.get(..32).and_then(|hex| by_hex.get(hex)) {
                    found.entry(*id).or_default().push(key.to_owned());
                }
            }
        }
        found
    }
}

/// Three to eight acts, of which most are those of an honest client.
fn script(rng: &mut Rng) -> Vec<Act> {
    let mut acts = Vec::new();
    for _ in 0..rng.u8(3..9) {
        acts.push(match rng.u8(..32) {
            0..10 => Act::Send(PROMISED),
            10..12 => Act::Send(TWIN),
            12 => Act::Send(LONGER),
            13..19 => Act::Confirm,
            19..21 => Act::ConfirmByToken,
            21..25 => Act::Event,
            25..27 => Act::Sweep,
            27 => Act::Abort,
            28..30 => Act::Renew,
            _ => Act::Wait,
        });
    }
    acts
}

fn digest(bytes: &[u8]) -> Sha256Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Sha256Digest::from_bytes(digest.as_ref().try_into().unwrap())
}

/// An act that is held up at random whenever it waits, and that dies when it has been polled often enough: between two of
/// its steps, wherever that is. Gives whether it died.
struct HeldUp<'a> {
    act: Pin<Box<dyn Future<Output = ()> + 'a>>,
    rng: Rng,
    polls_left: Option<u16>,
}

impl Future for HeldUp<'_> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if self.rng.u8(..3) > 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(left) = &mut self.polls_left {
            *left -= 1;
            if *left == 0 {
                return Poll::Ready(true);
            }
        }
        self.act.as_mut().poll(context).map(|()| false)
    }
}

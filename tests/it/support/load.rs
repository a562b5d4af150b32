//! Clients that issue uploads as fast as they are answered, and remember every answer.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{runtime::Handle, sync::watch, task::JoinSet};
use tokio_postgres::NoTls;
use uuid::Uuid;

use super::{Caller, Reply};

/// Nothing is waited for longer.
const LONGEST: Duration = Duration::from_secs(30);

/// No load lasts longer, whoever forgets to end it.
const LIFETIME: Duration = Duration::from_mins(5);

/// What became of one request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// 201, for the request with this idempotency key if it had one.
    Issued { id: String, key: Option<String> },
    /// Any other whole answer.
    Refused { reply: Reply, took: Duration },
    /// No answer, or a part of one.
    Broken,
}

/// How many of each so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) issued: usize,
    pub(crate) refused: usize,
}

/// Running clients.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Answer>>>,
    counts: watch::Sender<Counts>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts `clients` of them; every second one sends idempotency keys. A client ends when it is not answered.
    pub(crate) fn start(caller: &Caller, clients: usize, runtime: &Handle) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            answers: Arc::default(),
            counts: watch::Sender::default(),
            clients: JoinSet::new(),
        };
        for client in 0..clients {
            let (caller, with_key) = (caller.clone(), client % 2 == 1);
            let (stop, answers, counts) = (Arc::clone(&load.stop), Arc::clone(&load.answers), load.counts.clone());
            let began = Instant::now();
            let work = async move {
                while !stop.load(Ordering::Relaxed) && began.elapsed() < LIFETIME {
                    let answer = issue(&caller, with_key).await;
                    counts.send_modify(|counts| match answer {
                        Answer::Issued { .. } => counts.issued += 1,
                        Answer::Refused { .. } => counts.refused += 1,
                        Answer::Broken => {}
                    });
                    let broken = matches!(answer, Answer::Broken);
                    answers.lock().unwrap().push(answer);
                    if broken {
                        return;
                    }
                }
            };
            load.clients.spawn_on(work, runtime);
        }
        load
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Waits until the counts are so.
    pub(crate) async fn until(&self, holds: impl FnMut(&Counts) -> bool) {
        let mut counts = self.counts.subscribe();
        let waited = tokio::time::timeout(LONGEST, counts.wait_for(holds)).await;
        let _counts = waited.unwrap_or_else(|_| panic!("the load comes to nothing: {:?}", self.counts())).unwrap();
    }

    /// Waits until `more` uploads have been issued from now on.
    pub(crate) async fn until_issued(&self, more: usize) {
        let goal = self.counts().issued + more;
        self.until(|counts| counts.issued >= goal).await;
    }

    /// Waits until `more` requests have been refused from now on.
    pub(crate) async fn until_refused(&self, more: usize) {
        let goal = self.counts().refused + more;
        self.until(|counts| counts.refused >= goal).await;
    }

    /// Lets every client have its last answer, and gives all of them.
    pub(crate) async fn end(mut self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no client panics");
        }
        std::mem::take(&mut *self.answers.lock().unwrap())
    }
}

async fn issue(caller: &Caller, with_key: bool) -> Answer {
    let key = with_key.then(|| Uuid::now_v7().to_string());
    let mut request = caller.request(Method::POST, "/api/v1/uploads");
    request = request.json(&json!({ "original_file_name": "a.bin", "file_size": 7, "method": "put" }));
    if let Some(key) = &key {
        request = request.header("idempotency-key", key);
    }
    let began = Instant::now();
    match Reply::try_of(request).await {
        Err(_) => Answer::Broken,
        Ok(reply) if reply.status == StatusCode::CREATED => {
            Answer::Issued { id: super::caller::id(&reply.json()).to_owned(), key }
        }
        Ok(reply) => Answer::Refused { reply, took: began.elapsed() },
    }
}

/// Everything that was answered with 201 is in the database at `url`. Gives how many rows there are.
pub(crate) async fn all_issued_are_recorded(answers: &[Answer], url: &str, runtime: &Handle) -> usize {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the database answers");
    let driver = runtime.spawn(connection);
    let uploads = client.query("SELECT id::text FROM upload_intents", &[]).await.unwrap();
    let uploads: HashSet<String> = uploads.iter().map(|row| row.get(0)).collect();
    let keys = client.query("SELECT key, upload_id::text FROM idempotency_keys", &[]).await.unwrap();
    let keys: HashMap<String, String> = keys.iter().map(|row| (row.get(0), row.get(1))).collect();
    drop(client);
    driver.await.unwrap().unwrap();
    for answer in answers {
        if let Answer::Issued { id, key } = answer {
            assert!(uploads.contains(id), "{id} was answered and is not recorded");
            assert!(key.as_ref().is_none_or(|key| keys.get(key) == Some(id)), "{id} has lost its idempotency key");
        }
    }
    uploads.len()
}

/// Polls until `attempt` gives something, for at most `limit`. Gives how long it took as well.
pub(crate) async fn eventually<T>(limit: Duration, attempt: impl AsyncFn() -> Option<T>) -> (T, Duration) {
    let began = Instant::now();
    loop {
        if let Some(outcome) = attempt().await {
            return (outcome, began.elapsed());
        }
        assert!(began.elapsed() < limit, "not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

//! A receiver of webhooks that can be made to misbehave, and remembers what it was sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

/// No test waits longer for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key of 32 bytes for endpoints of tests.
pub(crate) const KEY: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// What the receiver does with what it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers with this status.
    Answer(u16),
    /// The same, with a header more.
    AnswerWith(u16, &'static str, String),
    /// Takes it once it is told to.
    Wait,
    /// Closes the connection without a word.
    Down,
    /// Never answers.
    Hang,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// Whether it was answered with 2xx.
    pub(crate) taken: bool,
}

impl Received {
    pub(crate) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub(crate) fn event(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    pub(crate) fn event_type(&self) -> String {
        self.event()["type"].as_str().expect("a type").to_owned()
    }

    /// The upload that it is about.
    pub(crate) fn upload(&self) -> String {
        let data = &self.event()["data"];
        let id = data.get("upload_id").unwrap_or(&data["id"]);
        id.as_str().expect("an id").to_owned()
    }
}

/// The receiver. Dropping it closes everything.
#[derive(Debug)]
pub(crate) struct WebhookReceiver {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    mood: watch::Sender<Mood>,
    received: watch::Sender<Vec<Received>>,
    /// Requests that wait to be taken.
    waiting: watch::Sender<usize>,
    /// How many of them may be.
    permits: Semaphore,
}

impl WebhookReceiver {
    /// A receiver on a free port of 127.0.0.1 that takes everything.
    pub(crate) async fn start(runtime: &Handle) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port for the receiver");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State {
            mood: watch::Sender::new(Mood::Answer(204)),
            received: watch::Sender::default(),
            waiting: watch::Sender::default(),
            permits: Semaphore::new(0),
        });
        let serving = runtime.spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state.mood.send_replace(mood);
    }

    /// Waits until so many requests wait to be taken at the same time.
    pub(crate) async fn until_waiting(&self, count: usize) {
        let mut waiting = self.state.waiting.subscribe();
        let waited = tokio::time::timeout(PATIENCE, waiting.wait_for(|waiting| *waiting >= count)).await;
        let _count = waited.unwrap_or_else(|_| panic!("{count} do not wait within {PATIENCE:?}")).unwrap();
    }

    pub(crate) fn waiting(&self) -> usize {
        *self.state.waiting.borrow()
    }

    /// Takes one of those that wait, or the next one.
    pub(crate) fn take_one(&self) {
        self.state.permits.add_permits(1);
    }

    /// Everything so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.borrow().clone()
    }

    /// What was answered with 2xx, each event once, as an idempotent receiver sees it.
    pub(crate) fn taken(&self) -> Vec<Received> {
        first_of_each(&self.state.received.borrow())
    }

    /// Waits until `what` holds of everything so far, and gives that.
    pub(crate) async fn until(&self, what: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let mut received = self.state.received.subscribe();
        let waited = tokio::time::timeout(PATIENCE, received.wait_for(|received| what(received))).await;
        let Ok(received) = waited else { panic!("not within {PATIENCE:?}: {:#?}", self.received()) };
        received.expect("the receiver lives").clone()
    }

    /// Waits until `count` different events were taken, and gives them in the order in which they were.
    pub(crate) async fn until_taken(&self, count: usize) -> Vec<Received> {
        first_of_each(&self.until(|received| first_of_each(received).len() >= count).await)
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn first_of_each(received: &[Received]) -> Vec<Received> {
    let mut seen = BTreeSet::new();
    received.iter().filter(|one| one.taken && seen.insert(one.id().to_owned())).cloned().collect()
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.spawn(answer_all(stream, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers the requests of one connection, until it ends or the mood ends it.
async fn answer_all(stream: TcpStream, state: Arc<State>) {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read(&mut stream).await {
        let mood = state.mood.borrow().clone();
        let (status, header) = match mood {
            Mood::Answer(status) => (status, String::new()),
            Mood::AnswerWith(status, name, value) => (status, format!("{name}: {value}\r\n")),
            Mood::Wait => {
                state.waiting.send_modify(|count| *count += 1);
                state.permits.acquire().await.expect("it is never closed").forget();
                state.waiting.send_modify(|count| *count -= 1);
                (200, String::new())
            }
            Mood::Down | Mood::Hang => {
                state.received.send_modify(|all| all.push(request));
                if mood == Mood::Hang {
                    std::future::pending::<()>().await;
                }
                return;
            }
        };
        request.taken = (200..300).contains(&status);
        // Remembered before it is answered: whoever sends the next event after the answer must come second here too.
        state.received.send_modify(|all| all.push(request));
        let answer = format!("HTTP/1.1 {status} Status\r\n{header}content-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let headers: BTreeMap<String, String> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).expect("UTF-8");
    Some(Received { head, headers, body, taken: false })
}

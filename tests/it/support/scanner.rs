//! A scanner of files, as bridges to virus scanners are, which can be told what to answer.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use reqwest::Client;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
};

/// What the scanner does with the next request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// This status and body, once all has arrived.
    Reply(u16, &'static str),
    /// The same before anything but the head has been read.
    Hasty(u16, &'static str),
    /// Clean, unless the file holds `EICAR`.
    Scan,
    /// Nothing: it hangs.
    Hang,
    /// Nothing: it closes the connection.
    Down,
    /// As `Scan`, once it is told to go on.
    Wait,
}

/// One request that the scanner read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The file.
    pub(crate) file: Vec<u8>,
}

/// The scanner. Dropping it closes everything.
#[derive(Debug)]
pub(crate) struct TestScanner {
    address: SocketAddr,
    answer: watch::Sender<Answer>,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    scans: Mutex<Vec<Scan>>,
    asked: watch::Sender<usize>,
    go_on: Notify,
}

impl TestScanner {
    pub(crate) async fn start(answer: Answer, runtime: &Handle) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port for the scanner");
        let address = listener.local_addr().expect("its address");
        let (answer, state) = (watch::Sender::new(answer), Arc::new(State::default()));
        let serving = runtime.spawn(serve(listener, answer.subscribe(), Arc::clone(&state)));
        Self { address, answer, state, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v2/scan", self.address)
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// Lets one of those that wait go on.
    pub(crate) fn go_on(&self) {
        self.state.go_on.notify_one();
    }

    /// Waits until the scanner has been asked so often.
    pub(crate) async fn asked(&self, times: usize) {
        let mut asked = self.state.asked.subscribe();
        let asked = asked.wait_for(|asked| *asked >= times);
        let limit = std::time::Duration::from_secs(20);
        tokio::time::timeout(limit, asked).await.expect("the scanner is asked").expect("it runs");
    }

    pub(crate) fn times_asked(&self) -> usize {
        *self.state.asked.borrow()
    }

    pub(crate) fn scans(&self) -> Vec<Scan> {
        self.state.scans.lock().unwrap().clone()
    }
}

impl Drop for TestScanner {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, answer: watch::Receiver<Answer>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let answer = answer.borrow().clone();
                    connections.spawn(serve_one(stream, answer, Arc::clone(&state)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One request for each connection.
async fn serve_one(mut stream: TcpStream, answer: Answer, state: Arc<State>) -> Option<()> {
    if answer == Answer::Down {
        state.asked.send_modify(|asked| *asked += 1);
        return None;
    }
    let mut bytes = Vec::new();
    let end_of_head = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end_of_head]).to_lowercase();
    if let Answer::Hasty(status, body) = answer {
        state.asked.send_modify(|asked| *asked += 1);
        return reply(&mut stream, status, body).await;
    }
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    while bytes.len() < end_of_head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = bytes.split_off(end_of_head);
    let file = file_of(&head, &body).await?;
    let infected = file.windows(5).any(|window| window == b"EICAR");
    state.scans.lock().unwrap().push(Scan { head, body, file });
    state.asked.send_modify(|asked| *asked += 1);
    let (status, body) = match answer {
        Answer::Hang => std::future::pending().await,
        Answer::Reply(status, body) => (status, body),
        _ => {
            if answer == Answer::Wait {
                state.go_on.notified().await;
            }
            if infected { (406, r#"[{"Status":"FOUND"}]"#) } else { (200, r#"[{"Status":"OK"}]"#) }
        }
    };
    reply(&mut stream, status, body).await
}

async fn reply(stream: &mut TcpStream, status: u16, body: &str) -> Option<()> {
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

/// The only part of a form, or what is behind the URL in JSON.
async fn file_of(head: &str, body: &[u8]) -> Option<Vec<u8>> {
    if head.contains("content-type: application/json") {
        let request: Value = serde_json::from_slice(body).ok()?;
        let answer = Client::builder().no_proxy().build().ok()?.get(request["url"].as_str()?).send().await.ok()?;
        return Some(answer.error_for_status().ok()?.bytes().await.ok()?.to_vec());
    }
    let start = body.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let boundary = body.split(|byte| *byte == b'\r').next()?.len();
    // What follows the file: a line end, the boundary, two dashes and a line end.
    Some(body.get(start..body.len().checked_sub(boundary + 6)?)?.to_vec())
}

//! An issuer's web server, on a free port of 127.0.0.1.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
};

pub(super) struct JwksServer {
    pub(super) url: String,
    /// The next answers, as they go over the wire.
    answer: Arc<Mutex<String>>,
    /// How many requests were received.
    requests: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl JwksServer {
    pub(super) async fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(key_set(keys)));
        let (count, requests) = watch::channel(0);
        let answers = Arc::clone(&answer);
        let task = Handle::current().spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.send_modify(|count| *count += 1);
                let answer = answers.lock().unwrap().clone();
                serve(stream, &answer).await;
            }
        });
        Self { url, answer, requests, task }
    }

    pub(super) fn publish(&self, keys: &[Value]) {
        self.answer_with(key_set(keys));
    }

    pub(super) fn answer_with(&self, answer: String) {
        *self.answer.lock().unwrap() = answer;
    }

    pub(super) fn requests(&self) -> usize {
        *self.requests.borrow()
    }

    pub(super) async fn wait_for_requests(&self, count: usize) {
        self.requests.clone().wait_for(|received| *received >= count).await.unwrap();
    }
}

impl Drop for JwksServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key_set(keys: &[Value]) -> String {
    response("200 OK", "", &json!({ "keys": keys }).to_string())
}

pub(super) fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// Reads one request and answers it. The client may go away before the end, which is its right.
async fn serve(mut stream: TcpStream, answer: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

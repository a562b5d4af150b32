//! Reading on after a refusal.
//!
//! A request is mostly refused before its body was read. Closing the connection then makes the kernel reset it, and a
//! client that is still sending loses the answer that says why it was refused. So what the operation leaves unread is
//! read and thrown away, within bounds, while the answer is already on its way.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hyper::{Request, body::Incoming, header::EXPECT};
use s3s::{
    Body, StdError,
    stream::{ByteStream, DynByteStream, RemainingLength},
};
use tokio::{runtime::Handle, time::timeout};

/// How much of a refused body is read on: 64 MiB.
const MAX_DRAINED_BYTES: usize = 64 << 20;

/// How long that may take.
const MAX_DRAIN_TIME: Duration = Duration::from_secs(10);

/// Gives `request` a body that is read to its end also when it is dropped before.
///
/// A client that asked to be told first whether to send its body is left alone: it has not sent any.
pub(super) fn unread_bodies(request: Request<Incoming>, runtime: &Handle) -> Request<Body> {
    if request.headers().contains_key(EXPECT) {
        return request.map(Body::from);
    }
    request.map(|body| {
        let drained: DynByteStream = Box::pin(Drained { body: Some(Body::from(body)), runtime: runtime.clone() });
        Body::from(drained)
    })
}

struct Drained {
    /// `None` once it has ended or failed.
    body: Option<Body>,
    runtime: Handle,
}

impl Stream for Drained {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let next = body.poll_next_unpin(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        next
    }
}

impl ByteStream for Drained {
    fn remaining_length(&self) -> RemainingLength {
        self.body.as_ref().map_or_else(|| RemainingLength::new_exact(0), ByteStream::remaining_length)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| body.remaining_length().exact() != Some(0)) else { return };
        self.runtime.spawn(timeout(MAX_DRAIN_TIME, discard(body)));
    }
}

async fn discard(mut body: Body) {
    let mut discarded = 0;
    while let Some(Ok(bytes)) = body.next().await {
        discarded += bytes.len();
        if discarded > MAX_DRAINED_BYTES {
            return;
        }
    }
}

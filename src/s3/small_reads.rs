//! An HTTP client for the SDK that reads in small pieces.
//!
//! The SDK's own lets the buffer of a connection grow to 400 KiB when data comes fast, and has a few of them under way for
//! each response. That is nothing for an answer and half a gigabyte for 500 downloads.

use std::{io, sync::Arc, time::Duration};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::crypto::aws_lc_rs;

/// What is read from a socket at once, and so the size of a piece.
const PIECE: usize = 32 << 10;

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
struct SmallReads(Client<HttpsConnector<connect::HttpConnector>, SdkBody>);

/// A client with connections of its own. Certificates are verified against the system's authorities.
///
/// # Errors
/// When those cannot be read.
pub(super) fn http_client(connect_timeout: Duration) -> io::Result<SharedHttpClient> {
    let mut tcp = connect::HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_timeout));
    let tls = HttpsConnectorBuilder::new().with_provider_and_native_roots(Arc::new(aws_lc_rs::default_provider()))?;
    let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).http1_read_buf_exact_size(PIECE);
    let connector = SharedHttpConnector::new(SmallReads(builder.build(connector)));
    Ok(http_client_fn(move |_, _| connector.clone()))
}

impl HttpConnector for SmallReads {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let response = client.request(request).await.map_err(failed)?;
            let response = HttpResponse::try_from(response.map(SdkBody::from_body_1_x));
            response.map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// What the SDK may try again: everything but a request that cannot be sent.
fn failed(error: legacy::Error) -> ConnectorError {
    ConnectorError::io(error.into())
}

//! An S3-compatible store inside the process, with STS.
//!
//! It speaks S3 through `s3s`, which parses requests and verifies signatures and form policies, and adds what AWS
//! enforces and that layer does not: session tokens and session policies with `aws:SourceIp`, the region of the scope,
//! unsigned `x-amz-*` headers, bodies that are checked before they are visible, atomic conditional writes, and CORS.
//!
//! Unlike AWS it does not substitute `${filename}` in form keys, holds the file of a form in memory while it arrives
//! (at most [`MAX_FORM_FILE_BYTES`]), keeps one version of an object, and judges the dates of signatures by the
//! machine's clock, whatever [`Clock`] it was given.
//!
//! `s3s` writes whole requests, signatures included, to the log at debug level, and every refusal at error level: the
//! log filter has to leave the target `s3s` out.

mod access;
mod checksum;
mod cors;
mod drain;
mod operations;
mod post_form;
mod session;
mod session_policy;
mod signed_request;
mod sts;
#[cfg(test)]
mod tests;
mod volume;

use std::{convert::Infallible, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{HeaderValue, LOCATION},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::{
    Body,
    config::{S3Config, StaticConfigProvider},
    path::check_bucket_name,
    service::{S3Service, S3ServiceBuilder},
};
use secrecy::SecretString;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use self::{
    access::{AccessCheck, Peer},
    cors::Cors,
    operations::Operations,
    session::{Credentials, SecretKeys},
    signed_request::HoistedHeaders,
    sts::AssumeRole,
    volume::Volume,
};
use super::DevError;
use crate::{clock::Clock, config::server::url_of};

/// The largest file of a browser form: it is held in memory until its policy has been checked.
pub const MAX_FORM_FILE_BYTES: u64 = 512 << 20;

/// The longest life of a form policy: as long as that of a presigned URL.
const MAX_FORM_LIFE_SECONDS: u32 = 604_800;

/// How long running requests may take to finish once the store is to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How long a client may take to send the head of a request, which also ends idle connections.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);

/// How an [`EmbeddedStore`] is set up.
#[derive(Debug)]
pub struct StoreOptions {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where objects are kept. Without one they are kept in a temporary directory, which goes away with the store.
    pub data_dir: Option<PathBuf>,
    /// The root credentials, which may do everything.
    pub access_key_id: String,
    /// The secret to `access_key_id`.
    pub secret_access_key: SecretString,
    /// The region that credential scopes must name.
    pub region: String,
    /// Buckets to create unless they exist.
    pub buckets: Vec<String>,
    /// Origins that browsers may use the store from, such as `http://localhost:5173`; `*` is any.
    pub cors_allowed_origins: Vec<String>,
    /// The one role that `sts:AssumeRole` opens sessions of.
    pub role_arn: String,
}

/// A running store. Dropping it stops it at once; [`EmbeddedStore::shutdown`] lets running requests finish.
pub struct EmbeddedStore {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("address", &self.address).finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the data directory and serves it on `runtime`. `clock` dates objects and ends sessions.
    pub async fn start(options: StoreOptions, clock: Clock, runtime: Handle) -> Result<Self, DevError> {
        if let Some(name) = options.buckets.iter().find(|name| !check_bucket_name(name)) {
            return Err(DevError::BucketName { name: name.clone() });
        }
        let volume = {
            let (data_dir, clock) = (options.data_dir.clone(), clock.clone());
            blocking(&runtime, move || Volume::open(data_dir.as_deref(), clock)).await?
        };
        let volume = Arc::new(volume);
        for bucket in &options.buckets {
            volume
                .create_bucket(bucket)
                .map_err(|source| DevError::Disk { path: options.data_dir.clone().unwrap_or_default(), source })?;
        }
        let listener = {
            let _on_runtime = runtime.enter();
            let listen = |source| DevError::Listen { address: options.listen, source };
            let socket = std::net::TcpListener::bind(options.listen).map_err(listen)?;
            socket.set_nonblocking(true).map_err(listen)?;
            TcpListener::from_std(socket).map_err(listen)?
        };
        let address = listener.local_addr().map_err(|source| DevError::Listen { address: options.listen, source })?;
        let front = Arc::new(Front {
            cors: Cors::new(options.cors_allowed_origins),
            s3: s3_service(
                volume,
                Arc::new(Credentials::new(options.access_key_id, options.secret_access_key, clock)),
                options.region,
                options.role_arn,
                runtime.clone(),
            ),
            base_url: url_of(address),
            runtime: runtime.clone(),
        });
        let (stop, stopping) = watch::channel(false);
        let server = runtime.spawn(serve(listener, front, stopping, runtime.clone()));
        Ok(Self { address, stop, server })
    }

    /// The URL of the store and of its STS, such as `http://127.0.0.1:9000`, without a slash at the end.
    pub fn endpoint(&self) -> String {
        url_of(self.address)
    }

    /// Stops accepting, lets running requests finish for a few seconds, and releases the data directory.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        // The server task panics or is cancelled only with the runtime, and then there is nothing left to stop.
        let _ = (&mut self.server).await;
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn blocking<T: Send + 'static>(
    runtime: &Handle,
    work: impl FnOnce() -> Result<T, DevError> + Send + 'static,
) -> Result<T, DevError> {
    match runtime.spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(DevError::Disk { path: PathBuf::new(), source: error.into() }),
    }
}

fn s3_service(
    volume: Arc<Volume>,
    credentials: Arc<Credentials>,
    region: String,
    role_arn: String,
    runtime: Handle,
) -> S3Service {
    let mut config = S3Config::default();
    // The layer holds the age of forms to this, though their policy says how long they are good for. It also widens
    // what that layer takes for a fresh header signature, which the access check narrows again.
    config.presigned_url_max_skew_time_secs = MAX_FORM_LIFE_SECONDS;
    config.post_object_max_file_size = MAX_FORM_FILE_BYTES;
    let mut builder = S3ServiceBuilder::new(Operations::new(volume, region.clone(), runtime));
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.set_auth(SecretKeys(Arc::clone(&credentials)));
    builder.set_access(AccessCheck { credentials: Arc::clone(&credentials), region: region.clone() });
    builder.set_route(AssumeRole { credentials, region, role_arn });
    builder.build()
}

async fn serve(listener: TcpListener, front: Arc<Front>, mut stopping: watch::Receiver<bool>, runtime: Handle) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let connection = serve_connection(stream, peer, Arc::clone(&front), stopping.clone());
                    connections.spawn_on(connection, &runtime);
                }
                // Out of file descriptors, most likely: trying again at once would only spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
            _ = stopping.changed() => break,
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // Connections that outlast the grace are cut when the set is dropped.
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, all_ended).await;
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, front: Arc<Front>, mut stopping: watch::Receiver<bool>) {
    // Responses go out in one or two writes; waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let peer = Peer(peer.ip().to_canonical());
    let service = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { Ok::<_, Infallible>(front.answer(request, peer).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A connection that fails has failed for its client too, and there is nobody else to tell.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// What a request passes on its way to the S3 layer.
struct Front {
    cors: Cors,
    s3: S3Service,
    base_url: String,
    runtime: Handle,
}

impl Front {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        if let Some(preflight) = self.cors.preflight(&request) {
            return preflight;
        }
        let grant = self.cors.grant(request.headers());
        let request = drain::unread_bodies(request, &self.runtime);
        let mut response = self.forward(request, peer).await;
        self.make_location_absolute(&mut response);
        Cors::finish(grant, response.headers_mut());
        response
    }

    async fn forward(&self, mut request: Request<Body>, peer: Peer) -> Response<Body> {
        request.extensions_mut().insert(peer);
        let hoisted: Vec<_> = signed_request::hoisted_headers(request.uri())
            .filter_map(|(name, value)| Some((name, HeaderValue::try_from(value.as_ref()).ok()?)))
            .filter(|(name, _)| !request.headers().contains_key(name))
            .collect();
        request.extensions_mut().insert(HoistedHeaders(hoisted.iter().map(|(name, _)| name.clone()).collect()));
        request.headers_mut().extend(hoisted);
        let forwarded = match post_form::boundary(request.headers()) {
            Some(boundary) if request.method() == hyper::Method::POST => {
                let (mut parts, body) = request.into_parts();
                post_form::read_ahead(body, &boundary).await.map(|(form, body)| {
                    parts.extensions.insert(form);
                    Request::from_parts(parts, body)
                })
            }
            _ => Ok(request),
        };
        let answered = match forwarded {
            Ok(request) => self.s3.call(request).await.ok(),
            Err(error) => error.to_http_response().ok(),
        };
        answered.unwrap_or_else(|| {
            let mut failed = Response::new(Body::empty());
            *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            failed
        })
    }

    /// The operations know paths only.
    fn make_location_absolute(&self, response: &mut Response<Body>) {
        let relative = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        if let Some(path) = relative.filter(|location| location.starts_with('/'))
            && let Ok(location) = HeaderValue::try_from(format!("{}{path}", self.base_url))
        {
            response.headers_mut().insert(LOCATION, location);
        }
    }
}

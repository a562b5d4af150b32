//! A TCP proxy in front of a server, which can be made to misbehave and to behave again.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What the proxy does with what passes through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    /// Passes it on.
    #[default]
    Pass,
    /// Keeps it until it passes it on: a server that is slow.
    Stall,
    /// Loses it, and everything else on that connection for good, without closing anything: a server that hangs.
    BlackHole,
    /// Closes connections, old ones at once and new ones as they come: a server that is down.
    Cut,
}

/// The proxy. Dropping it closes everything.
#[derive(Debug)]
pub(crate) struct ChaosProxy {
    address: SocketAddr,
    way: Way,
    serving: JoinHandle<()>,
}

/// Transfers that are to break off in the middle.
#[derive(Debug, Default)]
struct Breaks {
    /// How many are left.
    left: Mutex<usize>,
}

impl Breaks {
    /// Takes one of those that are left.
    fn take(&self) -> bool {
        let mut left = self.left.lock().unwrap();
        let taken = *left > 0;
        *left = left.saturating_sub(1);
        taken
    }
}

/// Requests that are kept.
#[derive(Debug, Default)]
struct Held {
    /// What they hold.
    text: Mutex<Option<String>>,
    is_kept: watch::Sender<bool>,
    count: AtomicUsize,
}

impl Held {
    /// Returns when what is in `bytes` may go on.
    async fn pass(&self, bytes: &[u8]) {
        let holds = |text: &String| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        if self.text.lock().unwrap().as_ref().is_some_and(holds) {
            self.count.fetch_add(1, Ordering::SeqCst);
            let _ = self.is_kept.subscribe().wait_for(|is_kept| !is_kept).await;
        }
    }
}

/// How much of a transfer passes before it breaks off, in bytes: more than any other request has.
const BREAKS_AFTER: usize = 1_000_000;

impl ChaosProxy {
    /// A proxy on a free port of 127.0.0.1 that passes everything on to `upstream`.
    pub(crate) async fn start(upstream: SocketAddr, runtime: &Handle) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port for the proxy");
        let address = listener.local_addr().expect("its address");
        let way = Way::default();
        let serving = runtime.spawn(serve(listener, upstream, way.clone()));
        Self { address, way, serving }
    }

    /// The first `host:port` in `url` becomes that of a proxy in front of it. Gives the URL through the proxy.
    pub(crate) async fn in_front_of(url: &str, runtime: &Handle) -> (Self, String) {
        let start = url.find("127.0.0.1:").expect("a loopback URL");
        let rest = &url[start..];
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let proxy = Self::start(rest[..end].parse().expect("host and port"), runtime).await;
        let through = url.replacen(&rest[..end], &proxy.address.to_string(), 1);
        (proxy, through)
    }

    /// Behaves again. Connections that have lost something stay lost.
    pub(crate) fn heal(&self) {
        self.way.held.is_kept.send_replace(false);
        self.way.mode.send_replace(Mode::Pass);
    }

    /// Keeps requests whose head holds `text`, and passes on everything else, until it behaves again.
    pub(crate) fn hold(&self, text: impl Into<String>) {
        self.way.held.is_kept.send_replace(true);
        *self.way.held.text.lock().unwrap() = Some(text.into());
    }

    /// How many of those have come, also since.
    pub(crate) fn held(&self) -> usize {
        self.way.held.count.load(Ordering::SeqCst)
    }

    pub(crate) fn stall(&self) {
        self.way.mode.send_replace(Mode::Stall);
    }

    /// Whether anything has been kept since it stalls.
    pub(crate) fn has_kept(&self) -> bool {
        self.way.has_kept.load(Ordering::Relaxed)
    }

    pub(crate) fn black_hole(&self) {
        self.way.mode.send_replace(Mode::BlackHole);
    }

    pub(crate) fn cut(&self) {
        self.way.mode.send_replace(Mode::Cut);
    }

    /// Closes the next `count` connections over which a client has sent a megabyte, at that moment.
    pub(crate) fn break_transfers(&self, count: usize) {
        *self.way.breaks.left.lock().unwrap() = count;
    }

    /// Closes the next connection over which the server has sent a megabyte, at that moment, and is slow from then on
    /// until it is to behave again.
    pub(crate) fn break_answer(&self) {
        *self.way.answer_breaks.left.lock().unwrap() = 1;
    }

    /// Whether that has come.
    pub(crate) fn has_broken_answer(&self) -> bool {
        *self.way.answer_breaks.left.lock().unwrap() == 0
    }

    /// How many of those transfers have not come yet.
    pub(crate) fn breaks_left(&self) -> usize {
        *self.way.breaks.left.lock().unwrap()
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What a connection is subject to.
#[derive(Debug, Clone, Default)]
struct Way {
    mode: watch::Sender<Mode>,
    breaks: Arc<Breaks>,
    answer_breaks: Arc<Breaks>,
    held: Arc<Held>,
    has_kept: Arc<AtomicBool>,
}

async fn serve(listener: TcpListener, upstream: SocketAddr, way: Way) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted
                    && *way.mode.borrow() != Mode::Cut
                {
                    connections.spawn(connect(client, upstream, way.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(mut client: TcpStream, upstream: SocketAddr, way: Way) {
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let mut cut = way.mode.subscribe();
    // A side that ends takes the other with it only when it breaks; a half-closed connection is one still.
    tokio::select! {
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
        _ = async { tokio::try_join!(
            pump(from_client, to_server, &way, Some(&way.held), || way.breaks.take()),
            pump(from_server, to_client, &way, None, || {
                let breaks = way.answer_breaks.take();
                if breaks {
                    way.mode.send_replace(Mode::Stall);
                }
                breaks
            })
        ) } => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: &Way,
    held: Option<&Held>,
    breaks: impl Fn() -> bool,
) -> io::Result<()> {
    let mut mode = way.mode.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    let mut lost = false;
    let mut passed = 0;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            // Whoever has lost something hears nothing more, not even that the other side has gone.
            return if lost { Err(io::ErrorKind::BrokenPipe.into()) } else { to.shutdown().await };
        }
        if *mode.borrow() == Mode::Stall {
            way.has_kept.store(true, Ordering::Relaxed);
        }
        let mode = *mode.wait_for(|mode| *mode != Mode::Stall).await.map_err(io::Error::other)?;
        lost |= mode == Mode::BlackHole;
        let before = passed;
        passed += read;
        if before < BREAKS_AFTER && passed >= BREAKS_AFTER && breaks() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if let Some(held) = held {
            held.pass(&buffer[..read]).await;
        }
        if !lost {
            to.write_all(&buffer[..read]).await?;
        }
    }
}

//! The parts of the `dev` command that stand in for installed servers: PostgreSQL and an S3-compatible store, both
//! inside this process, both on loopback.
//!
//! Neither is for production, and neither judges whether the service is right: what passes here must pass on the
//! servers that they stand in for.

use std::{io, net::SocketAddr, path::PathBuf};

pub mod postgres;
pub mod store;

pub use postgres::EmbeddedPostgres;
pub use store::{EmbeddedStore, StoreOptions};

/// Why an embedded part does not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The listening socket cannot be opened, most often because another process has the port.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file or directory of the data directory cannot be read or written.
    #[error("cannot use {}", path.display())]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A record in the data directory cannot be read, so that going on would lose what it describes.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the text stops making sense.
        source: serde_json::Error,
    },
    /// Another process serves the same data directory.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// A bucket to create has a name that S3 does not allow.
    #[error("{name:?} is not a bucket name: 3 to 63 of a-z, 0-9, '.' and '-'")]
    BucketName {
        /// The name.
        name: String,
    },
    /// The embedded PostgreSQL does not start.
    #[error("embedded PostgreSQL does not start: {reason}")]
    Postgres {
        /// Its own account of why.
        reason: String,
    },
}

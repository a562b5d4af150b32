//! The store: what is asked of it with the service's own credentials, and the sessions that URLs are signed with.

mod copy;
mod error;
mod listing;
mod multipart;
mod object_body;
mod object_reader;
mod object_store;
mod pace;
mod purge;
mod sdk;
mod sessions;
mod small_reads;

pub use copy::CopyLimits;
pub use error::S3Error;
pub use listing::{ListedObject, ListedPage, Listing};
pub use multipart::{MultipartMarker, OpenMultipart, StoredPart};
pub use object_body::ObjectBody;
pub use object_reader::{ObjectPieces, ObjectReader, PinnedObject, ReadError, ReadPlace, ReadStatus};
pub use object_store::{ObjectAttributes, ObjectHead, ObjectStore};
pub use sdk::Sdk;
pub use sessions::{ASSUME_ROLE, Access, SessionStatus, Sessions};

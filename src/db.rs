//! PostgreSQL: one file for each table, the ledger that writes intents in groups, and the migrations.

pub mod access_events;
pub mod audit;
mod connect;
pub mod copies;
pub mod downloads;
pub mod drift;
mod error;
mod group_insert;
mod hosts;
pub mod idempotency;
pub mod inspections;
pub mod ledger;
mod listen;
mod live;
mod migrate;
mod partitions;
pub mod revocations;
#[expect(clippy::doc_markdown, reason = "generated from the comments in the database, which are for psql as well")]
mod schema;
pub mod tickets;
mod types;
pub mod uploads;
pub mod webhooks;

pub use access_events::AccessEvent;
pub use audit::{AuditFilter, AuditPage, AuditRecord};
pub use connect::Database;
pub use downloads::DownloadIntent;
pub use error::DbError;
pub use hosts::may_be_in_plaintext;
pub use inspections::DueInspection;
pub use ledger::{Ledger, LedgerStatus, LedgerWriters};
pub use migrate::SchemaState;
pub use partitions::MovedRows;
pub use uploads::{
    MultipartUpload, Outcome, PartColumns, SettledVia, Settlement, UploadAccount, UploadIntent, VerifiedObject,
};
pub use webhooks::{
    AfterAttempt, Attempt, ClaimedDelivery, Delivery, DeliveryFilter, DeliveryState, LastAttempt, NewDelivery,
};

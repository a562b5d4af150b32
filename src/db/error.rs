//! What can go wrong with the database, in the terms that callers act on.

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::pooled_connection::deadpool::PoolError;

use crate::config::Problem;

/// A database failure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    /// No connection, a broken one, or a statement that ran out of time: trying again later may work.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The ledger's queue is full.
    #[error("too many intents are waiting to be written")]
    Overloaded,
    /// The database refused this row for what is in it.
    #[error("the database refused the row: {0}")]
    RowRefused(String),
    /// A setting cannot be used.
    #[error("{0}")]
    Setting(Problem),
    /// A statement failed for a reason that trying again will not mend.
    #[error("a statement failed: {0}")]
    Failed(String),
}

impl From<DieselError> for DbError {
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::DatabaseError(kind, information) => {
                // The message only: details and hints quote values of the row.
                let message = information.message().to_owned();
                match kind {
                    DatabaseErrorKind::UniqueViolation
                    | DatabaseErrorKind::ForeignKeyViolation
                    | DatabaseErrorKind::NotNullViolation
                    | DatabaseErrorKind::CheckViolation => Self::RowRefused(message),
                    // The last is a server that was primary until a moment ago.
                    DatabaseErrorKind::ClosedConnection
                    | DatabaseErrorKind::UnableToSendCommand
                    | DatabaseErrorKind::ReadOnlyTransaction => Self::Unavailable(message),
                    _ if is_transient(&message) => Self::Unavailable(message),
                    _ => Self::Failed(message),
                }
            }
            DieselError::BrokenTransactionManager => Self::Unavailable(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Whether the connection that gave `error` leads to a server that writes nothing, and would be of no more use next time.
pub(super) fn is_read_only(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _))
}

impl From<PoolError> for DbError {
    fn from(error: PoolError) -> Self {
        Self::Unavailable(match error {
            PoolError::Timeout(_) => "no connection became free in time".to_owned(),
            PoolError::Backend(error) => error.to_string(),
            other => other.to_string(),
        })
    }
}

/// diesel keeps no SQLSTATE for these, so the wording of PostgreSQL and tokio-postgres is all there is. A miss is
/// harmless: it answers 500 instead of 503.
fn is_transient(message: &str) -> bool {
    [
        "connection closed",
        "error communicating with the server",
        "terminating connection",
        "the database system is",
        "canceling statement due to statement timeout",
        "could not serialize access",
        "deadlock detected",
        "too many clients",
        "remaining connection slots",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}

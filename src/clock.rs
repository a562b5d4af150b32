//! The only source of "now".

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, SubsecRound as _, Utc};

/// A clock in whole milliseconds of UTC: what JSON shows, what PostgreSQL stores and what is compared are then equal.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that stands still until it is set, in milliseconds since 1970, for tests.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that shows `now` until [`Clock::set`].
    pub fn manual(now: DateTime<Utc>) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(now.timestamp_millis())))
    }

    /// The present instant, in whole milliseconds.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now().trunc_subsecs(3),
            Self::Manual(millis) => DateTime::from_timestamp_millis(millis.load(Ordering::SeqCst)).unwrap_or_default(),
        }
    }

    /// Moves a manual clock; does nothing to the system clock.
    pub fn set(&self, now: DateTime<Utc>) {
        if let Self::Manual(millis) = self {
            millis.store(now.timestamp_millis(), Ordering::SeqCst);
        }
    }
}

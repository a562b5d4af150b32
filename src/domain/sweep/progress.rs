//! What the sweeper has done, for metrics and for whoever watches it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Counts of one process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SweepProgress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    looked: AtomicU64,
    confirmed: AtomicU64,
    rejected: AtomicU64,
    expired: AtomicU64,
    deleted: AtomicU64,
    multiparts_aborted: AtomicU64,
    failed: AtomicU64,
    due: AtomicI64,
    oldest_due_seconds: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepStatus {
    /// Looks at uploads.
    pub looked: u64,
    /// Uploads that were found finished and as promised.
    pub confirmed: u64,
    /// Uploads that were found finished and not as promised.
    pub rejected: u64,
    /// Uploads whose time ran out.
    pub expired: u64,
    /// Objects removed.
    pub deleted: u64,
    /// Multipart uploads aborted.
    pub multiparts_aborted: u64,
    /// Looks that failed and will be repeated.
    pub failed: u64,
    /// Uploads that were due at the last round.
    pub due: i64,
    /// For how long the oldest of them had been.
    pub oldest_due: Duration,
}

impl SweepProgress {
    /// The counts now.
    pub fn status(&self) -> SweepStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SweepStatus {
            looked: read(&self.0.looked),
            confirmed: read(&self.0.confirmed),
            rejected: read(&self.0.rejected),
            expired: read(&self.0.expired),
            deleted: read(&self.0.deleted),
            multiparts_aborted: read(&self.0.multiparts_aborted),
            failed: read(&self.0.failed),
            due: self.0.due.load(Ordering::Relaxed),
            oldest_due: Duration::from_secs(read(&self.0.oldest_due_seconds)),
        }
    }

    pub(super) fn looked(&self) {
        self.0.looked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn confirmed(&self) {
        self.0.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.0.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn expired(&self) {
        self.0.expired.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn deleted(&self) {
        self.0.deleted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn multipart_aborted(&self) {
        self.0.multiparts_aborted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.0.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_backlog(&self, due: i64, oldest: Duration) {
        self.0.due.store(due, Ordering::Relaxed);
        self.0.oldest_due_seconds.store(oldest.as_secs(), Ordering::Relaxed);
    }
}

//! How fast a store is asked.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// At most so many requests in a second, evenly spread: a burst is what makes stores say `SlowDown`.
#[derive(Debug)]
pub(super) struct Pace {
    period: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(per_second: usize) -> Self {
        let per_second = u32::try_from(per_second).unwrap_or(u32::MAX).max(1);
        Self { period: Duration::from_secs(1) / per_second, next: Mutex::new(Instant::now()) }
    }

    /// Waits for this request's turn.
    pub(super) async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            *next = at + self.period;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

//! When a delivery that failed is tried again.

use std::time::Duration;

use crate::config::WebhooksConfig;

/// Exponential backoff with jitter, and an end.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetrySchedule {
    first: Duration,
    longest: Duration,
    max_attempts: usize,
}

impl RetrySchedule {
    pub(super) fn new(config: &WebhooksConfig) -> Self {
        Self { first: config.first_retry, longest: config.longest_retry, max_attempts: config.max_attempts }
    }

    /// How long to wait after `made` attempts have failed; `None` when that was the last one.
    ///
    /// The wait doubles with each attempt up to the longest. `random` decides within its second half, so that many
    /// deliveries that failed together do not come back together. An endpoint that asks for a longer wait is given it,
    /// up to the longest.
    pub(super) fn wait(&self, made: usize, random: u32, retry_after: Option<Duration>) -> Option<Duration> {
        if made >= self.max_attempts {
            return None;
        }
        let doublings = u32::try_from(made.saturating_sub(1)).unwrap_or(u32::MAX);
        let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
        let half = self.first.saturating_mul(factor).min(self.longest) / 2;
        let wait = half + half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        Some(wait.max(retry_after.unwrap_or_default()).min(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule() -> RetrySchedule {
        RetrySchedule::new(&WebhooksConfig::default())
    }

    #[test]
    fn waits_double_from_the_first_to_the_longest() {
        let range = |made| [0, u32::MAX].map(|random| schedule().wait(made, random, None).unwrap());
        let seconds = Duration::from_secs;
        assert_eq!(range(1), [Duration::from_millis(2500), seconds(5)]);
        assert_eq!(range(2), [seconds(5), seconds(10)]);
        assert_eq!(range(3), [seconds(10), seconds(20)]);
        assert_eq!(range(12), [seconds(5120), seconds(10240)]);
        assert_eq!(range(13), [seconds(7200), seconds(14400)]);
        assert_eq!(range(15), [seconds(7200), seconds(14400)]);
        assert_eq!(schedule().wait(16, 0, None), None);
        assert_eq!(schedule().wait(17, 0, Some(seconds(1))), None);
    }

    #[test]
    fn an_endpoint_may_ask_for_more_but_not_for_less_or_for_ever() {
        let wait =
            |retry_after| schedule().wait(1, u32::MAX, Some(Duration::from_secs(retry_after))).unwrap().as_secs();
        assert_eq!([wait(0), wait(4), wait(6), wait(14400), wait(1 << 40)], [5, 5, 6, 14400, 14400]);
    }

    proptest! {
        #[test]
        fn no_wait_is_out_of_bounds(
            first in 1_u64..3600,
            more in 0_u64..86400,
            max_attempts in 1_usize..100,
            made in 1_usize..200,
            random: u32,
            asked in proptest::option::of(any::<u64>()),
        ) {
            let (first, longest) = (Duration::from_secs(first), Duration::from_secs(first + more));
            let schedule = RetrySchedule { first, longest, max_attempts };
            match schedule.wait(made, random, asked.map(Duration::from_secs)) {
                Some(wait) => prop_assert!(made < max_attempts && wait >= first / 2 && wait <= longest),
                None => prop_assert!(made >= max_attempts),
            }
        }
    }
}

//! `[sweeper]`: who looks at uploads that nobody confirms, and removes what nobody needs.

use std::time::Duration;

use serde::Deserialize;

use super::{Problem, duration, number, switch};

/// Settings of the sweeper.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SweeperConfig {
    /// Whether `serve` sweeps. Where it does not, `presignd sweep` has to run somewhere.
    #[serde(deserialize_with = "switch::deserialize")]
    pub enabled: bool,
    /// How often it is looked for uploads that are due.
    #[serde(deserialize_with = "duration::deserialize")]
    pub interval: Duration,
    /// Uploads taken at once.
    #[serde(deserialize_with = "number::deserialize")]
    pub batch: usize,
    /// Uploads looked at at the same time.
    #[serde(deserialize_with = "number::deserialize")]
    pub concurrency: usize,
    /// Requests to the store in a second, of this process.
    #[serde(deserialize_with = "number::deserialize")]
    pub requests_per_second: usize,
    /// How long what was taken stays with this process without a word from it. After it others take what is left of it.
    #[serde(deserialize_with = "duration::deserialize")]
    pub lease: Duration,
    /// How long after the end of an upload the store is looked at for the last time: longer than any transfer takes.
    #[serde(deserialize_with = "duration::deserialize")]
    pub tombstone_for: Duration,
    /// How often the bucket's multipart uploads are listed.
    #[serde(deserialize_with = "duration::deserialize")]
    pub multipart_interval: Duration,
    /// Age at which a multipart upload that belongs to no open upload is aborted.
    #[serde(deserialize_with = "duration::deserialize")]
    pub multipart_after: Duration,
}

impl Default for SweeperConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(10),
            batch: 100,
            concurrency: 8,
            requests_per_second: 50,
            lease: Duration::from_mins(15),
            tombstone_for: Duration::from_hours(24),
            multipart_interval: Duration::from_hours(1),
            multipart_after: Duration::from_hours(24),
        }
    }
}

/// Far beyond what anybody wants, and near enough that adding it to an instant cannot overflow.
const LONGEST: Duration = Duration::from_hours(365 * 24);

impl SweeperConfig {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, key: &str, rule: &str| {
            if !holds {
                problems.push(Problem::new(format!("sweeper.{key}"), rule));
            }
        };
        let within = |value: Duration, least: Duration| (least..=LONGEST).contains(&value);
        require(within(self.interval, Duration::from_millis(10)), "interval", "must be 10ms to 365d");
        require((1..=10_000).contains(&self.batch), "batch", "must be 1 to 10000");
        require((1..=256).contains(&self.concurrency), "concurrency", "must be 1 to 256");
        require((1..=100_000).contains(&self.requests_per_second), "requests_per_second", "must be 1 to 100000");
        require(within(self.lease, Duration::from_mins(1)), "lease", "must be 1m to 365d");
        require(within(self.tombstone_for, Duration::from_mins(1)), "tombstone_for", "must be 1m to 365d");
        require(
            within(self.multipart_interval, Duration::from_millis(10)),
            "multipart_interval",
            "must be 10ms to 365d",
        );
        require(within(self.multipart_after, Duration::from_hours(1)), "multipart_after", "must be 1h to 365d");
        problems
    }
}

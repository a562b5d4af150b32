//! Speeds of transfer, written in configuration with a unit.

use std::{fmt, num::NonZeroU64, str::FromStr, time::Duration};

use super::{ByteSize, Invalid};

/// A number of bytes a second, at least 1. Parsed from `"64KiB/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(NonZeroU64);

impl ByteRate {
    /// The number of bytes a second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0.get()
    }

    /// How long `bytes` take at this speed, in whole seconds, rounded up.
    pub const fn time_for(self, bytes: u64) -> Duration {
        Duration::from_secs(bytes.div_ceil(self.0.get()))
    }
}

impl FromStr for ByteRate {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let size = text.strip_suffix("/s").and_then(|size| size.parse::<ByteSize>().ok());
        let rate = size.and_then(|size| NonZeroU64::new(size.bytes()));
        rate.map(Self).ok_or_else(|| Invalid::new("must be a speed such as \"64KiB/s\" or \"1MB/s\", at least 1B/s"))
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", ByteSize::from_bytes(self.0.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_units_and_prints_what_it_parses() {
        for (text, rate) in [("64KiB/s", 65_536), ("1MB/s", 1_000_000), ("1B/s", 1), ("512/s", 512)] {
            let parsed: ByteRate = text.parse().unwrap();
            assert_eq!(parsed.bytes_per_second(), rate, "{text}");
            assert_eq!(parsed.to_string().parse::<ByteRate>().unwrap(), parsed, "{text}");
        }
        for wrong in ["64KiB", "64KiB/m", "0/s", "0KiB/s", "/s", "-1B/s", "fast", "64 KiB / h"] {
            assert!(wrong.parse::<ByteRate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn time_is_rounded_up_and_never_overflows() {
        let rate: ByteRate = "64KiB/s".parse().unwrap();
        for (bytes, seconds) in [(0, 0), (1, 1), (65_536, 1), (65_537, 2), (5 << 30, 81_920)] {
            assert_eq!(rate.time_for(bytes), Duration::from_secs(seconds), "{bytes}");
        }
        let slowest: ByteRate = "1B/s".parse().unwrap();
        assert_eq!(slowest.time_for(u64::MAX), Duration::from_secs(u64::MAX));
    }
}

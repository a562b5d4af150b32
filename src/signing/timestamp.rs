//! The one date format of a signature.

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};

use super::SigningError;

/// An instant as `X-Amz-Date` has it: ISO 8601 basic format in UTC with whole seconds, `20130524T000000Z`.
pub(super) struct AmzDate(String);

impl AmzDate {
    /// # Errors
    /// When the year has more than four digits or is before the common era.
    pub(super) fn new(instant: DateTime<Utc>) -> Result<Self, SigningError> {
        let instant = instant.naive_utc();
        let year =
            u32::try_from(instant.year()).ok().filter(|year| *year <= 9999).ok_or(SigningError::DateOutOfRange)?;
        // Not chrono's `format`: it interprets its pattern on every call, which takes longer than the signature.
        let mut text = String::with_capacity(16);
        for two_digits in [year / 100, year % 100, instant.month(), instant.day()] {
            push_two_digits(&mut text, two_digits);
        }
        text.push('T');
        for two_digits in [instant.hour(), instant.minute(), instant.second()] {
            push_two_digits(&mut text, two_digits);
        }
        text.push('Z');
        Ok(Self(text))
    }

    /// `20130524T000000Z`
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The day alone, which is the first part of a credential scope: `20130524`
    pub(super) fn date(&self) -> &str {
        self.0.split('T').next().unwrap_or_default()
    }
}

fn push_two_digits(text: &mut String, number: u32) {
    for digit in [number / 10, number % 10] {
        text.extend(char::from_digit(digit, 10));
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;
    use crate::signing::published_example;

    #[test]
    fn published_example_has_this_date() {
        let date = AmzDate::new(published_example::now()).unwrap();
        assert_eq!((date.as_str(), date.date()), ("20130524T000000Z", "20130524"));
    }

    #[test]
    fn every_part_has_its_place_and_its_zeros() {
        let instant = |year, month, day, hour, minute, second| {
            NaiveDate::from_ymd_opt(year, month, day).unwrap().and_hms_opt(hour, minute, second).unwrap().and_utc()
        };
        for (instant, expected) in [
            (instant(2027, 12, 31, 23, 58, 59), "20271231T235859Z"),
            (instant(1, 2, 3, 4, 5, 6), "00010203T040506Z"),
            (instant(9999, 10, 9, 8, 7, 10), "99991009T080710Z"),
        ] {
            assert_eq!(AmzDate::new(instant).unwrap().as_str(), expected);
        }
        assert!(AmzDate::new(instant(10_000, 1, 1, 0, 0, 0)).is_err());
        assert!(AmzDate::new(instant(-1, 1, 1, 0, 0, 0)).is_err());
    }
}

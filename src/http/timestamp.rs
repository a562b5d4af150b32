//! Instants in the answers that are given most often: RFC 3339 in UTC, as chrono writes it, without its formatting
//! machinery, which takes as long as everything else that is written about an upload.

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};
use serde::{Serialize as _, Serializer};

/// For `serialize_with`.
pub(super) fn serialize<S: Serializer>(instant: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    let nanoseconds = instant.nanosecond();
    match u32::try_from(instant.year()) {
        Ok(year @ ..=9999) if nanoseconds.is_multiple_of(1_000_000) && nanoseconds < 1_000_000_000 => {
            let text = text(instant, year, nanoseconds / 1_000_000);
            let used = if nanoseconds == 0 { 20 } else { 24 };
            serializer.serialize_str(text.get(..used).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default())
        }
        _ => instant.serialize(serializer),
    }
}

/// `2013-05-24T00:00:00.123Z`, or `2013-05-24T00:00:00Z` and four bytes that are nothing.
fn text(instant: &DateTime<Utc>, year: u32, milliseconds: u32) -> [u8; 24] {
    let digit = |number: u32| u8::try_from(number % 10).map_or(b'0', |digit| b'0' + digit);
    let tens = |number: u32| [digit(number / 10), digit(number)];
    let ([y1, y2], [y3, y4]) = (tens(year / 100), tens(year));
    let ([m1, m2], [d1, d2]) = (tens(instant.month()), tens(instant.day()));
    let ([h1, h2], [n1, n2], [s1, s2]) = (tens(instant.hour()), tens(instant.minute()), tens(instant.second()));
    let [f0, f1, f2, f3, f4] = match milliseconds {
        0 => [b'Z', 0, 0, 0, 0],
        _ => [b'.', digit(milliseconds / 100), digit(milliseconds / 10), digit(milliseconds), b'Z'],
    };
    [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, f0, f1, f2, f3, f4]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(instant: DateTime<Utc>) -> String {
        serialize(&instant, serde_json::value::Serializer).unwrap().as_str().unwrap().to_owned()
    }

    fn by_chrono(instant: DateTime<Utc>) -> String {
        serde_json::to_value(instant).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn every_part_has_its_place() {
        for text in [
            "2013-05-24T00:00:00Z",
            "2027-12-31T23:58:59.123Z",
            "0001-02-03T04:05:06.007Z",
            "9999-10-09T08:07:10.800Z",
            "2027-12-31T23:58:59.123456Z",
            "2016-12-31T23:59:60Z",
            "2016-12-31T23:59:60.500Z",
        ] {
            let instant: DateTime<Utc> = text.parse().unwrap();
            assert_eq!(written(instant), by_chrono(instant), "{text}");
        }
        for instant in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC] {
            assert_eq!(written(instant), by_chrono(instant));
        }
    }

    proptest! {
        #[test]
        fn it_is_what_chrono_writes(millis in -70_000_000_000_000_i64..260_000_000_000_000) {
            let instant = DateTime::from_timestamp_millis(millis).unwrap();
            prop_assert_eq!(written(instant), by_chrono(instant));
        }
    }
}

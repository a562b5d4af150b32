//! Which bytes a request asks for (RFC 9110 section 14.2). Pure.

use std::ops::RangeInclusive;

use actix_web::{
    HttpRequest,
    http::{
        Method,
        header::{self, Header as _, Range},
    },
};

/// Ranges that are answered one by one. Who asks for more gets the whole file, as section 17.15 advises: each is a
/// request to the store.
const MOST_RANGES: usize = 16;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything: 200.
    Whole,
    /// Some of it, at least one range: 206.
    Ranges(Vec<RangeInclusive<u64>>),
    /// Nothing that is there: 416.
    Nothing,
}

/// What `request` asks for of a file of `size` bytes.
pub(super) fn wanted(request: &HttpRequest, size: u64) -> Wanted {
    // Ranges mean nothing to other methods (section 14.2).
    if *request.method() != Method::GET || request.headers().get_all(header::RANGE).count() != 1 {
        return Wanted::Whole;
    }
    // What cannot be read, and units that nobody has heard of, are as good as no header.
    let Ok(Range::Bytes(specs)) = Range::parse(request) else { return Wanted::Whole };
    let written = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // The parser leaves out what it cannot read. One such range makes the whole header invalid.
    if written.split(',').filter(|spec| !spec.trim().is_empty()).count() != specs.len() {
        return Wanted::Whole;
    }
    let ranges: Vec<RangeInclusive<u64>> =
        specs.iter().filter_map(|spec| spec.to_satisfiable_range(size)).map(|(first, last)| first..=last).collect();
    let total: u64 = ranges.iter().fold(0, |total, range| total.saturating_add(length(range)));
    match ranges.len() {
        // Of an empty file there is no range, and a client that asks for its beginning wants all of it.
        0 if size == 0 => Wanted::Whole,
        0 => Wanted::Nothing,
        // Ranges that overlap would be sent more than once.
        2.. if ranges.len() > MOST_RANGES || total > size => Wanted::Whole,
        _ => Wanted::Ranges(ranges),
    }
}

/// How many bytes `range` has.
pub(super) fn length(range: &RangeInclusive<u64>) -> u64 {
    range.end() - range.start() + 1
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn of_ten(range: &str) -> Wanted {
        wanted(&TestRequest::get().insert_header((header::RANGE, range)).to_http_request(), 10)
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        let ranges = |ranges: &[(u64, u64)]| Wanted::Ranges(ranges.iter().map(|(a, b)| *a..=*b).collect());
        for (asked, expected) in [
            ("bytes=0-0", ranges(&[(0, 0)])),
            ("bytes=2-5", ranges(&[(2, 5)])),
            ("bytes=5-", ranges(&[(5, 9)])),
            ("bytes=9-100", ranges(&[(9, 9)])),
            ("bytes=-3", ranges(&[(7, 9)])),
            ("bytes=-100", ranges(&[(0, 9)])),
            ("bytes=0-9", ranges(&[(0, 9)])),
            ("bytes=0-1, 4-5", ranges(&[(0, 1), (4, 5)])),
            ("bytes=8-, 0-1", ranges(&[(8, 9), (0, 1)])),
            // What cannot be satisfied is left out as long as something can.
            ("bytes=0-1,20-30", ranges(&[(0, 1)])),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=20-30,40-", Wanted::Nothing),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=0-1,a-b", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes=0-7,2-9", Wanted::Whole),
            ("bytes=99999999999999999999-", Wanted::Whole),
        ] {
            assert_eq!(of_ten(asked), expected, "{asked}");
        }
        let many = |count: usize| (0..count).map(|at| format!("{}-{}", at * 2, at * 2)).collect::<Vec<_>>().join(",");
        let asked = |ranges: String| {
            wanted(
                &TestRequest::get().insert_header((header::RANGE, format!("bytes={ranges}"))).to_http_request(),
                1000,
            )
        };
        assert!(matches!(asked(many(MOST_RANGES)), Wanted::Ranges(ranges) if ranges.len() == MOST_RANGES));
        assert_eq!(asked(many(MOST_RANGES + 1)), Wanted::Whole);
    }

    #[test]
    fn ranges_are_for_get_and_for_one_header() {
        let head = TestRequest::with_uri("/").method(Method::HEAD).insert_header((header::RANGE, "bytes=0-1"));
        assert_eq!(wanted(&head.to_http_request(), 10), Wanted::Whole);
        let twice = TestRequest::get().append_header((header::RANGE, "bytes=0-1"));
        let twice = twice.append_header((header::RANGE, "bytes=2-3"));
        assert_eq!(wanted(&twice.to_http_request(), 10), Wanted::Whole);
        let empty = TestRequest::get().insert_header((header::RANGE, "bytes=0-")).to_http_request();
        assert_eq!(wanted(&empty, 0), Wanted::Whole);
    }
}

//! The only encoder: what it writes is both what is signed and what is sent.
//!
//! A second encoder that differs in a single character (`+` for a space, `~` escaped, lower-case hexadecimal) makes
//! URLs that work until somebody uploads a file with that character in its name.

use std::borrow::Cow;

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;

/// Percent-encodes everything but the unreserved characters of RFC 3986 section 2.3, with upper-case hexadecimal, as
/// `UriEncode` of the `SigV4` specification demands for names and values of a query.
pub(super) fn component(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_unreserved) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + text.len() / 2);
    push_encoded(&mut encoded, text, is_unreserved);
    Cow::Owned(encoded)
}

/// Appends an object key, encoded once and with its slashes kept: S3 neither encodes twice nor normalises paths.
pub(super) fn push_key(out: &mut String, key: &str) {
    push_encoded(out, key, |c| c == '/' || is_unreserved(c));
}

/// The canonical query string of names and values that are encoded already: sorted by encoded name, then by value.
pub(super) fn canonical_query(mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)>) -> String {
    pairs.sort_unstable();
    let mut query = String::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len() + 2).sum());
    for (name, value) in &pairs {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        query.push_str(value);
    }
    query
}

/// Appends a SHA-256 digest or signature in lower-case hexadecimal.
pub(super) fn push_hex(out: &mut String, digest: &[u8]) {
    let mut digits = [0; SHA256_OUTPUT_LEN * 2];
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(digest) {
        *pair = hex_pair(*byte, b'a');
    }
    out.push_str(str::from_utf8(&digits).unwrap_or_default());
}

fn push_encoded(out: &mut String, text: &str, keep: impl Fn(char) -> bool) {
    let mut rest = text;
    // In runs, because most of a key or a value stays as it is.
    while let Some(at) = rest.find(|c| !keep(c)) {
        let (kept, tail) = rest.split_at(at);
        out.push_str(kept);
        let mut chars = tail.chars();
        if let Some(c) = chars.next() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                out.push('%');
                out.extend(hex_pair(byte, b'A').map(char::from));
            }
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}

/// The two digits of `byte`, with those above nine counted from `ten`: `b'a'` or `b'A'`.
fn hex_pair(byte: u8, ten: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| if digit < 10 { b'0' + digit } else { ten + (digit - 10) })
}

fn is_unreserved(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::published_example;

    #[test]
    fn published_example_has_this_query() {
        let pairs = [
            ("X-Amz-SignedHeaders", "host"),
            ("X-Amz-Expires", "86400"),
            ("X-Amz-Date", "20130524T000000Z"),
            ("X-Amz-Credential", "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"),
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ];
        let query = canonical_query(pairs.map(|(name, value)| (component(name), component(value))).into());
        assert_eq!(query, published_example::QUERY);
    }

    #[test]
    fn unreserved_characters_and_nothing_else_stay() {
        for (plain, encoded) in [
            ("", ""),
            ("AZaz09-._~", "AZaz09-._~"),
            (" +%/", "%20%2B%25%2F"),
            (
                "!\"#$&'()*,:;<=>?@[\\]^`{|}",
                "%21%22%23%24%26%27%28%29%2A%2C%3A%3B%3C%3D%3E%3F%40%5B%5C%5D%5E%60%7B%7C%7D",
            ),
            ("é日🦀", "%C3%A9%E6%97%A5%F0%9F%A6%80"),
        ] {
            assert_eq!(component(plain), encoded);
        }
    }

    #[test]
    fn key_keeps_slashes_and_is_encoded_once() {
        let mut path = String::from("/");
        push_key(&mut path, "a/b c/100%25+é~.pdf");
        assert_eq!(path, "/a/b%20c/100%2525%2B%C3%A9~.pdf");
    }

    #[test]
    fn sorting_is_by_encoded_name_then_value() {
        // Decoded, "a" < "a/" < "a0"; encoded, "a" < "a%2F" < "a0". Decoded, "~" > "é"; encoded, "%C3%A9" < "~".
        let pairs =
            [("~", "1"), ("é", "1"), ("b", "2"), ("b", "1"), ("b", ""), ("a0", ""), ("a/", ""), ("a", ""), ("B", "")];
        let query = canonical_query(pairs.map(|(name, value)| (component(name), component(value))).into());
        assert_eq!(query, "%C3%A9=1&B=&a=&a%2F=&a0=&b=&b=1&b=2&~=1");
    }

    #[test]
    fn hexadecimal_is_lower_case() {
        let mut out = String::new();
        push_hex(&mut out, &[0x09, 0xaf, 0xf0, 0x9a].repeat(8));
        assert_eq!(out, "09aff09a".repeat(8));
    }
}

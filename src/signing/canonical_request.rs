//! Stage 1: the request in the one form that client and store both derive from it.

use std::borrow::Cow;

use super::SigningError;

/// Stands for the hash of a body that is not known when the URL is made.
pub(super) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// Headers that belong to the signer, or that a query signature has no use for.
const RESERVED: [&str; 5] = ["authorization", "host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"];

/// The headers that a signature binds, `host` among them, in the order of their names.
pub(super) struct SignedHeaders<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl<'a> SignedHeaders<'a> {
    /// # Errors
    /// When a name is not a lower-case token, is given twice or belongs to the signer, or a value holds anything but
    /// visible ASCII and spaces: proxies and stores disagree about other bytes, so the signature would fail on some.
    pub(super) fn new(host: &'a str, headers: &'a [(Cow<'a, str>, Cow<'a, str>)]) -> Result<Self, SigningError> {
        let mut signed = Vec::with_capacity(headers.len() + 1);
        signed.push(("host", Cow::Borrowed(host)));
        for (name, value) in headers {
            let refuse = |rule| Err(SigningError::Header { name: name.clone().into_owned(), rule });
            if name.is_empty() || !name.bytes().all(is_lower_case_token) {
                return refuse("names are lower-case tokens");
            }
            if RESERVED.contains(&name.as_ref()) {
                return refuse("it is the signer's own");
            }
            if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                return refuse("values are visible ASCII characters and spaces");
            }
            signed.push((name.as_ref(), trim_all(value)));
        }
        signed.sort_unstable();
        if let Some([(name, _), _]) = signed.array_windows().find(|[(name, _), (next, _)]| name == next) {
            return Err(SigningError::Header { name: (*name).to_owned(), rule: "it is given twice" });
        }
        Ok(Self(signed))
    }

    /// The value of `X-Amz-SignedHeaders`, not encoded: `content-type;host`
    pub(super) fn names(&self) -> Cow<'static, str> {
        if let [(_host, _)] = self.0.as_slice() {
            return Cow::Borrowed("host");
        }
        let mut names = String::with_capacity(64);
        for (name, _) in &self.0 {
            if !names.is_empty() {
                names.push(';');
            }
            names.push_str(name);
        }
        Cow::Owned(names)
    }
}

/// The canonical request. `path` and `query` are those that are sent, already encoded; `names` are those of `headers`.
pub(super) fn canonical_request(
    method: &str,
    path: &str,
    query: &str,
    headers: &SignedHeaders<'_>,
    names: &str,
) -> String {
    let headers_len: usize = headers.0.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let rest = method.len() + path.len() + query.len() + names.len() + UNSIGNED_PAYLOAD.len() + 5;
    let mut text = String::with_capacity(headers_len + rest);
    for line in [method, path, query] {
        text.push_str(line);
        text.push('\n');
    }
    for (name, value) in &headers.0 {
        text.push_str(name);
        text.push(':');
        text.push_str(value);
        text.push('\n');
    }
    text.push('\n');
    text.push_str(names);
    text.push('\n');
    text.push_str(UNSIGNED_PAYLOAD);
    text
}

/// `Trimall` of the specification: no spaces at the ends, and one for each run of them inside.
fn trim_all(value: &str) -> Cow<'_, str> {
    let trimmed = value.trim_matches(' ');
    if !trimmed.contains("  ") {
        return Cow::Borrowed(trimmed);
    }
    let words: Vec<&str> = trimmed.split(' ').filter(|word| !word.is_empty()).collect();
    Cow::Owned(words.join(" "))
}

/// RFC 9110 section 5.6.2, without upper case.
fn is_lower_case_token(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::published_example;

    fn headers(pairs: &[(&'static str, &'static str)]) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
        pairs.iter().map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(*value))).collect()
    }

    #[test]
    fn published_example_has_this_canonical_request() {
        let signed = SignedHeaders::new("examplebucket.s3.amazonaws.com", &[]).unwrap();
        let text = canonical_request("GET", "/test.txt", published_example::QUERY, &signed, &signed.names());
        assert_eq!(text, published_example::CANONICAL_REQUEST);
    }

    #[test]
    fn headers_are_sorted_and_their_spaces_folded() {
        let given =
            headers(&[("x-amz-meta-b", "  two  inner   spaces "), ("content-type", "a/b"), ("x-amz-meta-a", "")]);
        let signed = SignedHeaders::new("h:9000", &given).unwrap();
        assert_eq!(signed.names(), "content-type;host;x-amz-meta-a;x-amz-meta-b");
        assert_eq!(
            canonical_request("PUT", "/k", "q=", &signed, &signed.names()),
            "PUT\n/k\nq=\ncontent-type:a/b\nhost:h:9000\nx-amz-meta-a:\nx-amz-meta-b:two inner spaces\n\n\
             content-type;host;x-amz-meta-a;x-amz-meta-b\nUNSIGNED-PAYLOAD"
        );
    }

    #[test]
    fn headers_that_could_arrive_otherwise_are_refused() {
        for (name, value) in [
            ("", "x"),
            ("Content-Type", "a/b"),
            ("a b", "x"),
            ("a:b", "x"),
            ("a\n", "x"),
            ("é", "x"),
            ("a", "é"),
            ("a", "x\r\ny: z"),
            ("a", "x\ty"),
            ("host", "h"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            ("x-amz-date", "x"),
            ("x-amz-security-token", "x"),
            ("authorization", "x"),
        ] {
            let refused = SignedHeaders::new("h", &headers(&[(name, value)])).err();
            assert!(matches!(&refused, Some(SigningError::Header { name: named, .. }) if named == name), "{name:?}");
        }
        assert!(SignedHeaders::new("h", &headers(&[("a", "1"), ("b", "2"), ("a", "3")])).is_err());
    }
}

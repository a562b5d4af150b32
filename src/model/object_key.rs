//! Where an object lies in its bucket.

use std::fmt;

use super::Invalid;

/// S3's bound on a key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;

/// An S3 object key that stays inside its bucket whatever joins, decodes or normalises it on the way.
///
/// The only constructor validates and nothing rewrites: a key that is not acceptable is refused, never repaired,
/// because a repaired key is a key that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Validates `key`.
    ///
    /// # Errors
    /// When it is empty or over 1,024 bytes, holds a control character or a backslash, starts or ends with `/`, or
    /// has a segment that is empty, `.` or `..`, plainly or percent-encoded.
    pub fn parse(key: impl Into<String>) -> Result<Self, Invalid> {
        let key = key.into();
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(Invalid::new("must be 1 to 1024 bytes of UTF-8"));
        }
        if key.chars().any(|c| c.is_control() || c == '\\') {
            return Err(Invalid::new("must not hold control characters or backslashes"));
        }
        if key.split('/').any(|segment| segment.is_empty() || is_dot_segment(segment)) {
            return Err(Invalid::new("must not start or end with \"/\", nor have empty, \".\" or \"..\" segments"));
        }
        Ok(Self(key))
    }

    /// The key, not encoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `.` and `..`, also with dots written `%2e`: WHATWG URL parsers resolve those as well.
fn is_dot_segment(segment: &str) -> bool {
    segment.len() <= 6 && matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_keys_that_could_leave_the_bucket() {
        let long = "k".repeat(MAX_KEY_BYTES + 1);
        for bad in [
            "", "/", "/k", "k/", "a//b", "../x", "a/../b", "a/./b", ".", "..", "%2e%2e", "a/%2E./b", "a/.%2e", "a\\b",
            "a\0b", "a\nb", &long,
        ] {
            assert!(ObjectKey::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["k", "a/b", "...", "a/..b", "a b+c&d=e%f", "é/日本語.pdf", "%2e%2e%2e", &"k".repeat(MAX_KEY_BYTES)]
        {
            assert!(ObjectKey::parse(good).is_ok(), "{good:?}");
        }
    }
}

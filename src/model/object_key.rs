//! Where an object lies in its bucket.

use std::fmt;

use super::Invalid;

/// S3's bound on a key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;

/// The staging area. It is no setting: what was issued under another would no longer be known for staged.
pub const STAGING: &str = "staging/";

/// What all areas of the staging area have in front. No key that a policy makes begins like it: the character that it
/// begins with stands in none but in front of two hexadecimal digits.
const AREAS: &str = "~credentials/";

/// Hexadecimal digits that tell the copies of one upload apart.
pub const ATTEMPT_DIGITS: usize = 16;

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
            return Err(too_long());
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

    /// The same key in the staging area. What a form writes can be written again until the form expires, so it lands
    /// there and is copied to a key of its own once it is to be verified.
    ///
    /// # Errors
    /// When this key is too long for that and for the copy's key.
    pub fn staged(&self) -> Result<Self, Invalid> {
        // The segments that are added break no rule but, perhaps, the one of the length.
        let longest = self.0.len() + STAGING.len().max(ATTEMPT_DIGITS + 1);
        if longest > MAX_KEY_BYTES {
            return Err(too_long());
        }
        Ok(Self([STAGING, &self.0].concat()))
    }

    /// The same key in an area of the staging area.
    ///
    /// # Errors
    /// When this key is too long for that and for the copy's key.
    pub fn staged_in(&self, area: StagingArea) -> Result<Self, Invalid> {
        let staged = area.prefix() + &self.0;
        if staged.len() > MAX_KEY_BYTES { Err(too_long()) } else { Ok(Self(staged)) }
    }

    /// Whether the key is in the staging area.
    pub fn is_staged(&self) -> bool {
        self.0.starts_with(STAGING)
    }

    /// The area of the staging area that the key is in, where it is in one.
    pub fn area(&self) -> Option<StagingArea> {
        StagingArea::split(self.0.strip_prefix(STAGING)?).map(|(area, _)| area)
    }

    /// Key of one copy of this staged object: outside the staging area, with the same last segment, below a segment
    /// that only `attempt` has.
    ///
    /// # Errors
    /// When the key would be too long, which [`ObjectKey::staged`] rules out.
    pub fn copied(&self, attempt: &str) -> Result<Self, Invalid> {
        let key = self.0.strip_prefix(STAGING).unwrap_or(&self.0);
        let key = StagingArea::split(key).map_or(key, |(_, key)| key);
        match key.rsplit_once('/') {
            Some((folder, name)) => Self::parse([folder, "/", attempt, "/", name].concat()),
            None => Self::parse([attempt, "/", key].concat()),
        }
    }

    /// Whether `key` is that of a copy of this staged object, whichever attempt made it.
    pub fn has_copy(&self, key: &Self) -> bool {
        let attempt = key.0.rsplit('/').nth(1);
        self.is_staged()
            && attempt.is_some_and(|attempt| {
                attempt.len() == ATTEMPT_DIGITS && self.copied(attempt).is_ok_and(|copy| copy == *key)
            })
    }

    /// The last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

/// A part of the staging area that somebody may write to by credentials of their own. What is known of its place tells
/// nothing about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StagingArea(u128);

impl StagingArea {
    const DIGITS: usize = 32;

    /// The area of whoever is named by `digest`.
    pub const fn from_digest(digest: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(digest))
    }

    /// What every key in it begins with; ends with a slash.
    pub fn prefix(self) -> String {
        format!("{STAGING}{AREAS}{:0digits$x}/", self.0, digits = Self::DIGITS)
    }

    /// The area that `key`, without the staging area's prefix, is in, and the rest.
    fn split(key: &str) -> Option<(Self, &str)> {
        let (area, rest) = key.strip_prefix(AREAS)?.split_once('/')?;
        let is_area = area.len() == Self::DIGITS && area.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_area.then(|| u128::from_str_radix(area, 16).ok().map(|area| (Self(area), rest)))?
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn too_long() -> Invalid {
    Invalid::new("must be 1 to 1024 bytes of UTF-8")
}

/// `.` and `..`, also with dots written `%2e`: WHATWG URL parsers resolve those as well.
fn is_dot_segment(segment: &str) -> bool {
    let may_be = |first: &u8| matches!(first, b'.' | b'%');
    segment.len() <= 6
        && segment.as_bytes().first().is_some_and(may_be)
        && matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_known_by_its_keys_and_left_by_their_copies() {
        let area = StagingArea::from_digest([0x0f; 16]);
        let key = ObjectKey::parse("uploads/2026/a.pdf").unwrap();
        let staged = key.staged_in(area).unwrap();
        assert_eq!(staged.as_str(), "staging/~credentials/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/uploads/2026/a.pdf");
        assert!(staged.as_str().starts_with(&area.prefix()) && staged.is_staged());
        assert_eq!((staged.area(), key.area(), key.staged().unwrap().area()), (Some(area), None, None));
        let copy = staged.copied("0123456789abcdef").unwrap();
        assert_eq!(copy.as_str(), "uploads/2026/0123456789abcdef/a.pdf");
        assert!(staged.has_copy(&copy) && !staged.has_copy(&key));
        let digits = "0".repeat(32);
        for other in [
            format!("staging/~credentials/{digits}"),
            format!("staging/~credentials/{}/a", "F".repeat(32)),
            format!("staging/~credentials/{digits}0/a"),
            format!("~credentials/{digits}/a"),
        ] {
            assert_eq!(ObjectKey::parse(other.as_str()).unwrap().area(), None, "{other}");
        }
        let longest = MAX_KEY_BYTES - area.prefix().len();
        assert!(ObjectKey::parse("k".repeat(longest)).unwrap().staged_in(area).is_ok());
        assert!(ObjectKey::parse("k".repeat(longest + 1)).unwrap().staged_in(area).is_err());
    }

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

    #[test]
    fn copies_lie_outside_the_staging_area_and_keep_the_name() {
        let key = ObjectKey::parse("uploads/2026/11/0-a.pdf").unwrap();
        let staged = key.staged().unwrap();
        assert_eq!(staged.as_str(), "staging/uploads/2026/11/0-a.pdf");
        assert!(staged.is_staged() && !key.is_staged());
        let copy = staged.copied("0123456789abcdef").unwrap();
        assert_eq!(copy.as_str(), "uploads/2026/11/0123456789abcdef/0-a.pdf");
        assert_eq!(copy.file_name(), staged.file_name());
        assert!(staged.has_copy(&copy));
        assert!(!staged.has_copy(&staged) && !staged.has_copy(&key) && !key.has_copy(&copy));
        let bare = ObjectKey::parse("0-a.pdf").unwrap().staged().unwrap();
        assert_eq!(bare.copied("f").unwrap().as_str(), "f/0-a.pdf");
    }

    #[test]
    fn a_key_is_staged_only_if_its_copy_fits() {
        let longest = MAX_KEY_BYTES - ATTEMPT_DIGITS - 1;
        assert!(ObjectKey::parse("k".repeat(longest)).unwrap().staged().is_ok());
        assert!(ObjectKey::parse("k".repeat(longest + 1)).unwrap().staged().is_err());
    }
}

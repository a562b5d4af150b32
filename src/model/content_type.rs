//! Media types as RFC 9110 section 8.3 spells them, and the ranges that a policy allows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::Invalid;

/// The longest accepted media type, in bytes. RFC 6838 section 4.2 bounds each name at 127; parameters add to that.
const MAX_LEN: usize = 255;

/// A media type with optional parameters, such as `text/plain; charset=utf-8`, kept exactly as it was written
/// because the signature binds the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ContentType(String);

impl ContentType {
    /// What a file of unknown type is declared as.
    pub fn octet_stream() -> Self {
        Self("application/octet-stream".to_owned())
    }

    /// The type guessed from the extension of `file_name`, or `application/octet-stream`.
    pub fn guess(file_name: &str) -> Self {
        mime_guess::from_path(file_name).first_raw().map_or_else(Self::octet_stream, |guess| Self(guess.to_owned()))
    }

    /// The type in a row. It was checked when the row was written, perhaps by fewer rules than today's.
    ///
    /// # Errors
    /// When it could break a header.
    pub fn recorded(text: &str) -> Result<Self, Invalid> {
        let rule = || Invalid::new("must be a media type such as \"application/pdf\", at most 255 ASCII characters");
        if text.len() > MAX_LEN || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) || text.trim() != text {
            return Err(rule());
        }
        let essence = text.split(';').next().unwrap_or_default().trim_end();
        match essence.split_once('/') {
            Some((kind, subtype)) if is_token(kind) && is_token(subtype) => Ok(Self(text.to_owned())),
            _ => Err(rule()),
        }
    }

    /// The value as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a browser takes it for several types: a comma separates the values of a header, and the last type counts
    /// (Fetch standard, "extract a MIME type").
    pub fn is_several(&self) -> bool {
        self.0.contains(',')
    }

    /// `type/subtype` without parameters, as written.
    pub fn essence(&self) -> &str {
        self.0.split(';').next().unwrap_or_default().trim_end()
    }

    /// Whether both name the same type, ignoring the letter case of type and subtype and spaces around parameters:
    /// stores normalise those when they answer a HEAD.
    pub fn equivalent(&self, other: &str) -> bool {
        let mut ours = self.0.split(';').map(str::trim);
        let mut theirs = other.split(';').map(str::trim);
        let same_essence = match (ours.next(), theirs.next()) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            _ => false,
        };
        same_essence && ours.eq(theirs)
    }
}

impl FromStr for ContentType {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let content_type = Self::recorded(text)?;
        if content_type.is_several() {
            return Err(Invalid::new("must hold no comma: browsers would take what follows it for the type"));
        }
        Ok(content_type)
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of media types: `*/*`, `image/*` or one exact `type/subtype`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct MediaRange(String);

impl MediaRange {
    /// Whether `content_type` lies in this range. Parameters are ignored.
    pub fn matches(&self, content_type: &ContentType) -> bool {
        let (Some((kind, subtype)), Some((their_kind, their_subtype))) =
            (self.0.split_once('/'), content_type.essence().split_once('/'))
        else {
            return false;
        };
        (kind == "*" || kind.eq_ignore_ascii_case(their_kind))
            && (subtype == "*" || subtype.eq_ignore_ascii_case(their_subtype))
    }
}

impl FromStr for MediaRange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.split_once('/') {
            Some(("*", "*")) => Ok(Self(text.to_owned())),
            Some((kind, subtype)) if is_token(kind) && kind != "*" && is_token(subtype) => Ok(Self(text.to_owned())),
            _ => Err(Invalid::new("must be a media range: \"*/*\", \"image/*\" or \"application/pdf\"")),
        }
    }
}

impl fmt::Display for MediaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MediaRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_match_as_an_accept_header_would() {
        let pdf: ContentType = "application/pdf".parse().unwrap();
        let text: ContentType = "Text/Plain; charset=utf-8".parse().unwrap();
        for (range, on_pdf, on_text) in [
            ("*/*", true, true),
            ("application/*", true, false),
            ("text/plain", false, true),
            ("image/*", false, false),
        ] {
            let range: MediaRange = range.parse().unwrap();
            assert_eq!((range.matches(&pdf), range.matches(&text)), (on_pdf, on_text), "{range}");
        }
    }

    #[test]
    fn refuses_what_could_break_a_header() {
        for bad in ["", "pdf", "a/", "/b", "a/b\r\nX: y", "a/b\u{e9}", " a/b", "a b/c", &"a/b".repeat(100)] {
            assert!(bad.parse::<ContentType>().is_err(), "{bad:?}");
        }
        for bad in
            ["image/png, text/html", "image/png; a, text/html", "text/plain;charset=gbk, text/html", "a/b;c=\",\""]
        {
            assert!(bad.parse::<ContentType>().is_err(), "{bad}");
            // Nothing in a row may be unreadable for that.
            assert_eq!(ContentType::recorded(bad).is_ok_and(|read| read.is_several()), bad.contains(';'), "{bad}");
        }
        for bad in ["*/pdf", "image", "image/", "*"] {
            assert!(bad.parse::<MediaRange>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn equivalence_ignores_only_what_stores_normalise() {
        let text: ContentType = "text/plain;charset=utf-8".parse().unwrap();
        assert!(text.equivalent("Text/Plain; charset=utf-8"));
        assert!(!text.equivalent("text/plain"));
        assert!(!text.equivalent("text/html;charset=utf-8"));
    }
}

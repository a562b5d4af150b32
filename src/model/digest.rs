//! Checksums and entity tags, as S3 carries them.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Invalid;

/// A SHA-256 digest. On the wire it is padded base64, the form of `x-amz-checksum-sha256`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// The digest of these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses padded standard base64 of exactly 32 bytes.
    ///
    /// # Errors
    /// When the text is anything else; the rule names the common mistake of sending hexadecimal.
    pub fn from_base64(text: &str) -> Result<Self, Invalid> {
        STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(|| {
            Invalid::new("must be the base64 of a SHA-256 digest: 44 characters ending in \"=\" (not hexadecimal)")
        })
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Padded standard base64.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }
}

/// An MD5 digest: no proof against an attacker, but what older clients send for the store to check the bytes against.
/// On the wire it is padded base64, the form of `Content-MD5` (RFC 1864).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Md5Digest([u8; 16]);

impl Md5Digest {
    /// Parses padded standard base64 of exactly 16 bytes.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn from_base64(text: &str) -> Result<Self, Invalid> {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        let rule = "must be the base64 of an MD5 digest: 24 characters ending in \"==\" (not hexadecimal)";
        bytes.map(Self).ok_or_else(|| Invalid::new(rule))
    }

    /// Padded standard base64.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }
}

/// An entity tag without its quotes, as S3 reports it for an object or a part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ETag(String);

impl ETag {
    /// Accepts the tag with or without quotes: browsers and SDKs hand it on in both forms.
    ///
    /// # Errors
    /// When it is empty, longer than 255 bytes, weak (`W/`), or holds a quote or a control character.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let allowed = |b: u8| b == b'!' || (b'#'..=b'~').contains(&b);
        if bare.is_empty() || bare.len() > 255 || !bare.bytes().all(allowed) {
            return Err(Invalid::new("must be a strong entity tag of at most 255 visible ASCII characters"));
        }
        Ok(Self(bare.to_owned()))
    }

    /// The tag without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_round_trips_and_refuses_hexadecimal() {
        let text = "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=";
        assert_eq!(Sha256Digest::from_base64(text).unwrap().to_base64(), text);
        for bad in ["", "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg", &"9f".repeat(32), "AAAA"] {
            assert!(Sha256Digest::from_base64(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn md5_round_trips_and_refuses_hexadecimal() {
        let text = "XUFAKrxLKna5cZ2REBfFkg==";
        assert_eq!(Md5Digest::from_base64(text).unwrap().to_base64(), text);
        for bad in ["", "XUFAKrxLKna5cZ2REBfFkg", "5d41402abc4b2a76b9719d911017c592"] {
            assert!(Md5Digest::from_base64(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn etag_is_the_same_with_and_without_quotes() {
        assert_eq!(ETag::parse("\"abc-2\"").unwrap(), ETag::parse("abc-2").unwrap());
        for bad in ["", "\"\"", "a\"b", "a\nb", "W/\"x\""] {
            assert!(ETag::parse(bad).is_err(), "{bad}");
        }
    }
}

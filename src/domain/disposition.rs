//! `Content-Disposition` for file names in any script.

use std::{fmt::Write as _, str::FromStr};

use crate::model::{ContentType, FileName, Invalid};

/// What a browser shall do with a downloaded file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Disposition {
    /// Save it.
    #[default]
    Attachment,
    /// Show it.
    Inline,
}

/// What serde reads it by: of itself it would also take an object with one of the names.
impl TryFrom<String> for Disposition {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl FromStr for Disposition {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "attachment" => Ok(Self::Attachment),
            "inline" => Ok(Self::Inline),
            _ => Err(Invalid::new("must be \"attachment\" or \"inline\"")),
        }
    }
}

/// The header's value as RFC 6266 has it: a plain `filename` for old clients, and where that cannot hold the name a
/// `filename*` in the encoding of RFC 8187.
pub fn content_disposition(disposition: Disposition, name: &FileName) -> String {
    let name = name.as_str();
    let mut value = String::from(match disposition {
        Disposition::Attachment => "attachment; filename=\"",
        Disposition::Inline => "inline; filename=\"",
    });
    // A percent sign would be decoded by some clients, a backslash is an escape, a quote ends the string.
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ';
    value.extend(name.chars().map(|c| if plain(c) { c } else { '_' }));
    value.push('"');
    if !name.chars().all(plain) {
        value.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            // attr-char of RFC 8187 section 3.2.1.
            if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                value.push(char::from(byte));
            } else {
                let _ = write!(value, "%{byte:02X}");
            }
        }
    }
    value
}

/// Whether a browser that shows a file of this type would run what is in it, or take it for another type.
pub(super) fn is_active(content_type: &ContentType) -> bool {
    let essence = content_type.essence().to_ascii_lowercase();
    content_type.is_several()
        // A message of several parts, each with a type of its own.
        || essence.starts_with("multipart/")
        // What browsers take for a type that nobody knows, and go by the bytes for
        // (<https://mimesniff.spec.whatwg.org/#determining-the-computed-mime-type-of-a-resource>).
        || essence.contains('*')
        || essence.ends_with("/unknown")
        || ["html", "xml", "xsl"].iter().any(|active| essence.ends_with(active))
        // With versions behind them (<https://mimesniff.spec.whatwg.org/#javascript-mime-type>).
        || ["javascript", "ecmascript", "jscript", "livescript"].iter().any(|script| essence.contains(script))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(name: &str) -> String {
        content_disposition(Disposition::Attachment, &FileName::parse(name).unwrap())
    }

    #[test]
    fn plain_names_stay_plain() {
        assert_eq!(attachment("lorem ipsum.pdf"), "attachment; filename=\"lorem ipsum.pdf\"");
        assert_eq!(
            content_disposition(Disposition::Inline, &FileName::parse("a.png").unwrap()),
            "inline; filename=\"a.png\""
        );
    }

    #[test]
    fn other_names_are_encoded_and_never_end_the_header() {
        assert_eq!(attachment("naïve.txt"), "attachment; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt");
        assert_eq!(attachment("a\"b%20.txt"), "attachment; filename=\"a_b_20.txt\"; filename*=UTF-8''a%22b%2520.txt");
        assert_eq!(attachment("日本.txt"), "attachment; filename=\"__.txt\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.txt");
        assert!(attachment("🦀.txt").is_ascii());
    }

    #[test]
    fn what_a_browser_would_run_is_active() {
        for active in [
            "text/html",
            "text/html; charset=utf-8",
            "image/svg+xml",
            "Application/XHTML+xml",
            "text/xml",
            "text/xsl",
            "text/javascript1.5",
            "application/x-ecmascript",
            "text/jscript",
            "text/livescript",
            "text/javascript",
            "multipart/x-mixed-replace; boundary=a",
            "image/png; a, text/html",
            "application/unknown",
            "Unknown/Unknown",
            "*/*",
        ] {
            assert!(is_active(&ContentType::recorded(active).unwrap()), "{active}");
        }
        for inert in ["application/pdf", "image/png", "text/plain", "text/plain; a=html", "application/octet-stream"] {
            assert!(!is_active(&ContentType::recorded(inert).unwrap()), "{inert}");
        }
    }
}

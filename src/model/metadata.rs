//! User metadata that travels with an object as `x-amz-meta-*`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Invalid;

/// S3's bound on user metadata: the bytes of all names and values together.
const MAX_BYTES: usize = 2048;

/// Names (without the `x-amz-meta-` prefix) and values, in name order, which is the order that signing needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// Validates names and values.
    ///
    /// # Errors
    /// Gives the name at fault and the rule: names are 1 to 64 of `a-z 0-9 - _`; values are visible ASCII and inner
    /// single spaces, because headers carry nothing else safely; all together at most 2,048 bytes.
    pub fn parse(entries: BTreeMap<String, String>) -> Result<Self, (String, Invalid)> {
        let mut bytes = 0;
        for (name, value) in &entries {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
            if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
                return Err((name.clone(), Invalid::new("names must be 1 to 64 of the characters a-z, 0-9, - and _")));
            }
            if value.is_empty() || !Self::carries(value) {
                let rule = "values must be visible ASCII with single inner spaces; encode anything else, for example as base64";
                return Err((name.clone(), Invalid::new(rule)));
            }
            bytes += name.len() + value.len();
            if bytes > MAX_BYTES {
                return Err((name.clone(), Invalid::new("all names and values together must be at most 2048 bytes")));
            }
        }
        Ok(Self(entries))
    }

    /// Whether `value` goes through signatures, headers and stores unchanged: visible ASCII and inner single spaces. SigV4
    /// folds inner runs of spaces and trims the ends, stores do not, so that a value with such could never verify.
    pub fn carries(value: &str) -> bool {
        value.bytes().all(|b| (b' '..=b'~').contains(&b)) && value.trim() == value && !value.contains("  ")
    }

    /// Names and values in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// An object of strings.
    pub fn to_json(&self) -> serde_json::Value {
        self.iter().map(|(name, value)| (name.to_owned(), serde_json::Value::from(value))).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<Metadata, (String, Invalid)> {
        Metadata::parse(BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn accepts_what_headers_carry_and_names_what_they_do_not() {
        assert!(parse("case", "42 and more").is_ok());
        for (name, value) in
            [("Case", "x"), ("", "x"), ("a:b", "x"), ("a", ""), ("a", " x"), ("a", "x  y"), ("a", "é"), ("a", "x\r\ny")]
        {
            assert_eq!(parse(name, value).unwrap_err().0, name, "{name:?}={value:?}");
        }
        assert!(parse("a", &"x".repeat(MAX_BYTES)).is_err());
    }
}

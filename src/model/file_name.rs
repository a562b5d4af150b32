//! The name that a user gave a file, and the safe name that goes into an object key.

use super::Invalid;

/// The longest slug put into an object key, in bytes: the key also holds a prefix and an id and may not pass 1,024.
pub const MAX_SLUG: usize = 120;

/// The longest extension of it, in bytes.
const MAX_EXTENSION: usize = 16;

/// A file name as the user wrote it, in any script: 1 to 255 characters, no path separators, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(String);

impl FileName {
    /// Validates `name` and keeps it exactly as it is.
    ///
    /// # Errors
    /// When it is empty, longer than 255 characters, `.` or `..`, or holds `/`, `\` or a control character.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        if name.trim().is_empty() || name.chars().count() > 255 {
            return Err(Invalid::new("must be 1 to 255 characters, not only spaces"));
        }
        if name == "." || name == ".." || name.contains(['/', '\\']) {
            return Err(Invalid::new("must be a file name, not a path: no \"/\" or \"\\\", not \".\" or \"..\""));
        }
        // Bidirectional overrides make "exe.gpj" read as "jpg.exe" in a download list.
        if name.chars().any(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) {
            return Err(Invalid::new("must not hold control characters or bidirectional overrides"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in lower-case ASCII letters, digits, `-`, `_` and `.`, transliterated, at most 120 bytes, never
    /// empty, with its extension kept: what an object key holds, so that no client or proxy has to escape it.
    pub fn slug(&self) -> String {
        let (stem, extension) = match self.0.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => (stem, slugify(extension, MAX_EXTENSION)),
            _ => (self.0.as_str(), String::new()),
        };
        // What is left beside the extension and its dot.
        let mut slug = slugify(stem, MAX_SLUG - MAX_EXTENSION - 1);
        if slug.is_empty() {
            slug.push_str("file");
        }
        if !extension.is_empty() {
            slug.push('.');
            slug.push_str(&extension);
        }
        slug
    }
}

/// ASCII letters, digits, `_` and inner dots; every run of anything else becomes one `-`.
fn slugify(text: &str, max_len: usize) -> String {
    let mut slug = String::with_capacity(text.len());
    let mut push = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() || c == '_' {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with(['-', '.']) {
            slug.push(if c == '.' { '.' } else { '-' });
        }
    };
    if text.is_ascii() {
        text.chars().for_each(&mut push);
    } else {
        deunicode::deunicode(text).chars().for_each(&mut push);
    }
    slug.truncate(max_len);
    slug.truncate(slug.trim_end_matches(['-', '.']).len());
    slug
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slug(name: &str) -> String {
        FileName::parse(name).unwrap().slug()
    }

    #[test]
    fn slugs_keep_what_a_reader_needs() {
        assert_eq!(slug("lorem-ipsum.pdf"), "lorem-ipsum.pdf");
        assert_eq!(slug("Año Nuevo (final) \"v2\".PDF"), "ano-nuevo-final-v2.pdf");
        assert_eq!(slug("отчёт.docx"), "otchiot.docx");
        assert_eq!(slug("no extension"), "no-extension");
        assert_eq!(slug(".bashrc"), "bashrc");
        assert_eq!(slug("archive.tar.gz"), "archive.tar.gz");
        assert_eq!(slug("???.png"), "file.png");
    }

    #[test]
    fn refuses_paths_and_control_characters() {
        for bad in ["", "   ", ".", "..", "a/b", "a\\b", "a\0b", "a\nb", "x\u{202e}gpj.exe", &"a".repeat(256)] {
            assert!(FileName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(FileName::parse(&"é".repeat(255)).is_ok());
    }

    proptest! {
        #[test]
        fn every_accepted_name_has_a_short_plain_slug(name in "\\PC{1,255}") {
            if let Ok(name) = FileName::parse(&name) {
                let slug = name.slug();
                prop_assert!(!slug.is_empty() && slug.len() <= MAX_SLUG);
                prop_assert!(slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
                prop_assert!(!slug.starts_with('.') && !slug.ends_with('.'), "{slug}");
            }
        }
    }
}

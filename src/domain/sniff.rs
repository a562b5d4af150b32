//! What the first bytes of a file show, against the type that it was declared as.
//!
//! Everything here is total and pure. Formats are told apart by their signatures; what a browser would run is looked
//! for as the WHATWG's MIME Sniffing Standard does (<https://mimesniff.spec.whatwg.org/>), and somewhat harder, because
//! it is searched for in files that claim to be something else.

use crate::model::ContentType;

/// How much of a file is looked at. The standard looks at 1445 bytes; a PDF may begin within the first 1024, and
/// documents of XML may have long comments in front.
pub(super) const BEGINNING: u64 = 8 * 1024;

const HTML: &str = "text/html";
const SVG: &str = "image/svg+xml";
const XML: &str = "text/xml";
const UNKNOWN: &str = "application/octet-stream";
const PLAIN: &str = "text/plain";

/// The type that `beginning`, the first bytes of a file, shows and that a file declared as `declared` cannot have;
/// `None` when nothing contradicts the declaration. An empty file contradicts nothing.
pub(super) fn contradiction(declared: &ContentType, beginning: &[u8]) -> Option<&'static str> {
    let declared = declared.essence().to_ascii_lowercase();
    // Declares nothing, and no browser guesses what is in it.
    if beginning.is_empty() || declared == UNKNOWN {
        return None;
    }
    match markup(beginning) {
        Some(found) => (!may_hold_markup(&declared, found)).then_some(found),
        None if is_textual(&declared) => binary_posing_as_text(beginning),
        None => other_format(&declared, beginning),
    }
}

/// Whether a file that is declared as `declared` and is `found`, a kind of markup, is what it says.
fn may_hold_markup(declared: &str, found: &str) -> bool {
    if declared == SVG {
        return found != HTML;
    }
    if declared.starts_with("text/") || declared.ends_with("html") || declared.ends_with("xml") {
        return true;
    }
    if declared.ends_with("javascript") || declared.ends_with("ecmascript") {
        // Old scripts begin with a comment of HTML.
        return found == HTML;
    }
    // Plain XML runs nowhere, and many formats that do not say so are made of it. None of those is a medium.
    found == XML && medium(declared).is_none() && Format::of(declared).is_none()
}

/// Types whose files are text for people or programs to read.
fn is_textual(declared: &str) -> bool {
    declared.starts_with("text/")
        || ["html", "xml", "json", "javascript", "ecmascript", "yaml"].iter().any(|end| declared.ends_with(end))
}

/// Text needs no signature, and may begin with what is the signature of something else ("BM", "MZ"). What it does not
/// hold is control characters.
fn binary_posing_as_text(beginning: &[u8]) -> Option<&'static str> {
    let format = infer::get(beginning)?;
    let in_utf_16 = beginning.starts_with(&[0xFF, 0xFE]) || beginning.starts_with(&[0xFE, 0xFF]);
    (!in_utf_16 && !format.mime_type().starts_with("text/") && beginning.iter().any(|byte| is_binary(*byte)))
        .then(|| format.mime_type())
}

/// A "binary data byte" of the standard.
const fn is_binary(byte: u8) -> bool {
    matches!(byte, 0x00..=0x08 | 0x0B | 0x0E..=0x1A | 0x1C..=0x1F)
}

fn other_format(declared: &str, beginning: &[u8]) -> Option<&'static str> {
    let expected = Format::of(declared);
    if expected.is_some_and(|format| format.begins(beginning)) {
        return None;
    }
    let found = infer::get(beginning).map(|found| found.mime_type());
    let Some(expected) = expected else {
        // Formats that nobody here knows may be made of others, but a medium of another sort they are not.
        return found.filter(|found| medium(declared).is_some() && !related(declared, found));
    };
    match found {
        Some(found) if expected.names(found) => None,
        Some(found) if expected.signatures.is_empty() => (!related(declared, found)).then_some(found),
        Some(found) => Some(found),
        None if expected.signatures.is_empty() || expected.begins_late(beginning) => None,
        None if beginning.iter().any(|byte| is_binary(*byte)) => Some(UNKNOWN),
        None => Some(PLAIN),
    }
}

/// Whether both are the same sort of medium. Films and sounds come in the same containers.
fn related(declared: &str, found: &str) -> bool {
    medium(declared) == medium(found)
}

fn medium(essence: &str) -> Option<&'static str> {
    match essence.split('/').next() {
        Some("image") => Some("image"),
        Some("audio" | "video") => Some("audio or video"),
        Some("font") => Some("font"),
        _ => None,
    }
}

/// A format that some types share. A file of such a type has to begin with one of the signatures, if there are any.
struct Format {
    /// The types: what clients declare, and what the detection calls them. One that ends with `*` is a prefix, one
    /// that begins with it an ending.
    types: &'static [&'static str],
    /// How files begin: bytes at offsets, all of which have to be there.
    signatures: &'static [&'static [(usize, &'static [u8])]],
    /// How many bytes may come before the signature.
    preamble: usize,
}

impl Format {
    fn of(essence: &str) -> Option<&'static Self> {
        FORMATS.iter().find(|format| format.names(essence))
    }

    fn names(&self, essence: &str) -> bool {
        self.types.iter().any(|name| match (name.strip_prefix('*'), name.strip_suffix('*')) {
            (Some(end), _) => essence.ends_with(end),
            (None, Some(start)) => essence.starts_with(start),
            (None, None) => *name == essence,
        })
    }

    fn begins(&self, beginning: &[u8]) -> bool {
        self.signatures.iter().any(|signature| {
            signature.iter().all(|(at, bytes)| beginning.get(*at..).is_some_and(|rest| rest.starts_with(bytes)))
        })
    }

    fn begins_late(&self, beginning: &[u8]) -> bool {
        (0..=self.preamble).any(|at| beginning.get(at..).is_some_and(|rest| self.begins(rest)))
    }
}

const ZIP: [&[(usize, &[u8])]; 3] = [&[(0, b"PK\x03\x04")], &[(0, b"PK\x05\x06")], &[(0, b"PK\x07\x08")]];
const OLE: &[(usize, &[u8])] = &[(0, b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1")];

const FORMATS: &[Format] = &[
    format(&["image/png", "image/x-png", "image/apng"], &[&[(0, b"\x89PNG\r\n\x1A\n")]]),
    format(&["image/jpeg", "image/jpg", "image/pjpeg"], &[&[(0, b"\xFF\xD8\xFF")]]),
    format(&["image/gif"], &[&[(0, b"GIF87a")], &[(0, b"GIF89a")]]),
    format(&["image/webp"], &[&[(0, b"RIFF"), (8, b"WEBP")]]),
    format(&["image/bmp", "image/x-bmp", "image/x-ms-bmp"], &[&[(0, b"BM")]]),
    format(&["image/tiff", "image/tiff-fx"], &[&[(0, b"II*\0")], &[(0, b"MM\0*")], &[(0, b"II+\0")], &[(0, b"MM\0+")]]),
    format(&["image/vnd.adobe.photoshop", "image/x-photoshop"], &[&[(0, b"8BPS")]]),
    format(
        &[
            "image/heic",
            "image/heic-sequence",
            "image/heif",
            "image/heif-sequence",
            "image/avif",
            "image/avif-sequence",
        ],
        &[&[(4, b"ftyphe")], &[(4, b"ftypmif1")], &[(4, b"ftypmsf1")], &[(4, b"ftypavi")], &[(4, b"ftypmiaf")]],
    ),
    // Older films begin with another box than "ftyp".
    format(
        &[
            "video/mp4",
            "audio/mp4",
            "application/mp4",
            "video/x-m4v",
            "audio/m4a",
            "audio/x-m4a",
            "video/quicktime",
            "video/3gpp",
            "audio/3gpp",
            "video/3gpp2",
            "audio/3gpp2",
        ],
        &[&[(4, b"ftyp")], &[(4, b"moov")], &[(4, b"mdat")], &[(4, b"wide")], &[(4, b"free")], &[(4, b"skip")]],
    ),
    format(
        &["video/webm", "audio/webm", "video/x-matroska", "video/matroska", "audio/x-matroska", "audio/matroska"],
        &[&[(0, b"\x1A\x45\xDF\xA3")]],
    ),
    format(&["video/x-msvideo", "video/avi", "video/msvideo", "video/vnd.avi"], &[&[(0, b"RIFF"), (8, b"AVI ")]]),
    format(&["video/x-flv"], &[&[(0, b"FLV")]]),
    format(
        &["video/x-ms-wmv", "video/x-ms-asf", "audio/x-ms-wma", "application/vnd.ms-asf"],
        &[&[(0, b"\x30\x26\xB2\x75\x8E\x66\xCF\x11")]],
    ),
    format(
        &["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"],
        &[&[(0, b"RIFF"), (8, b"WAVE")], &[(0, b"RF64"), (8, b"WAVE")]],
    ),
    format(&["audio/aiff", "audio/x-aiff"], &[&[(0, b"FORM"), (8, b"AIF")]]),
    format(&["audio/ogg", "video/ogg", "application/ogg", "audio/opus", "audio/vorbis"], &[&[(0, b"OggS")]]),
    format(&["audio/flac", "audio/x-flac"], &[&[(0, b"fLaC")], &[(0, b"ID3")]]),
    format(&["audio/midi", "audio/x-midi", "audio/mid"], &[&[(0, b"MThd")]]),
    // Streams: cut anywhere, they are still good.
    format(&["audio/mpeg", "audio/mp3", "audio/x-mp3", "audio/x-mpeg", "audio/aac", "audio/x-aac", "audio/aacp"], &[]),
    format(&["video/mpeg", "video/mp2t", "video/x-mpeg"], &[]),
    // Readers take a PDF that begins within the first 1024 bytes.
    Format { types: &["application/pdf", "application/x-pdf"], signatures: &[&[(0, b"%PDF-")]], preamble: 1023 },
    // A document under a password is an OLE container.
    format(&["application/vnd.openxmlformats-officedocument.*", "*.macroenabled.12"], &[ZIP[0], ZIP[1], ZIP[2], OLE]),
    format(
        &[
            "application/zip",
            "application/x-zip-compressed",
            "application/x-zip",
            "application/java-archive",
            "application/x-java-archive",
            "application/vnd.oasis.opendocument.*",
            "application/vnd.android.package-archive",
            "*+zip",
            "image/openraster",
        ],
        &ZIP,
    ),
    format(&["application/gzip", "application/x-gzip"], &[&[(0, b"\x1F\x8B")]]),
    format(&["application/x-7z-compressed"], &[&[(0, b"7z\xBC\xAF\x27\x1C")]]),
    format(&["application/vnd.rar", "application/x-rar-compressed", "application/x-rar"], &[&[(0, b"Rar!\x1A\x07")]]),
    format(&["application/x-bzip2"], &[&[(0, b"BZh")]]),
    format(&["application/x-xz"], &[&[(0, b"\xFD7zXZ\0")]]),
    format(&["application/zstd"], &[&[(0, b"\x28\xB5\x2F\xFD")]]),
    format(&["font/woff", "application/font-woff", "application/x-font-woff"], &[&[(0, b"wOFF")]]),
    format(&["font/woff2"], &[&[(0, b"wOF2")]]),
    format(
        &["font/ttf", "font/otf", "font/sfnt", "font/collection", "application/font-sfnt", "application/x-font-ttf"],
        &[&[(0, b"\0\x01\0\0")], &[(0, b"OTTO")], &[(0, b"true")], &[(0, b"ttcf")]],
    ),
    format(&["application/rtf"], &[&[(0, b"{\\rtf")]]),
];

const fn format(types: &'static [&'static str], signatures: &'static [&'static [(usize, &'static [u8])]]) -> Format {
    Format { types, signatures, preamble: 0 }
}

/// HTML, SVG or other XML, if the file begins with that.
fn markup(beginning: &[u8]) -> Option<&'static str> {
    let text = ascii(beginning);
    let mut rest = trim(&text);
    let mut found = None;
    // What may stand in front of the first tag.
    loop {
        if let Some(instruction) = rest.strip_prefix("<?") {
            if found.is_none() && !instruction.starts_with("xml") {
                return None;
            }
            found = Some(XML);
            rest = after(instruction, "?>");
        } else if let Some(comment) = rest.strip_prefix("<!--") {
            // A browser that guesses takes whatever begins with a comment for HTML.
            found = found.or(Some(HTML));
            rest = after(comment, "-->");
        } else if let Some(kind) = rest.strip_prefix("<!doctype") {
            let name = trim(kind);
            if name.starts_with("html") {
                return Some(HTML);
            }
            if name.starts_with("svg") {
                return Some(SVG);
            }
            found = Some(XML);
            // An internal subset has declarations of its own between its brackets.
            let (end, subset) = (name.find('>'), name.find('['));
            rest = match (end, subset) {
                (Some(end), Some(subset)) if subset < end => after(after(name, "]"), ">"),
                _ => after(name, ">"),
            };
        } else {
            break;
        }
        rest = trim(rest);
    }
    let Some(tag) = rest.strip_prefix('<') else { return found };
    let name: &str = tag.split(|c: char| c.is_ascii_whitespace() || c == '>' || c == '/').next().unwrap_or_default();
    match name.rsplit(':').next() {
        Some("svg") => Some(SVG),
        Some(name) if HTML_TAGS.contains(&name) => Some(HTML),
        _ => found,
    }
}

/// The tags of the standard's table, and others that run or load something.
const HTML_TAGS: [&str; 29] = [
    "html", "head", "script", "iframe", "h1", "div", "font", "table", "a", "style", "title", "b", "body", "br", "p",
    "img", "link", "meta", "base", "form", "object", "embed", "video", "audio", "frameset", "input", "button", "math",
    "template",
];

/// The characters in lower case, with one replacement for all that are not ASCII, and without byte order mark. UTF-16
/// is told by that mark, or as XML's own rules do, by the zero beside the first character.
fn ascii(beginning: &[u8]) -> String {
    let character = |unit: u16| u8::try_from(unit).ok().filter(u8::is_ascii).map_or('\u{FFFD}', char::from);
    let utf_16 = |bytes: &[u8], read: fn([u8; 2]) -> u16| -> String {
        bytes.as_chunks().0.iter().map(|unit| character(read(*unit))).collect()
    };
    let text = match beginning {
        [0xFF, 0xFE, text @ ..] | text @ [b'<', 0, ..] => utf_16(text, u16::from_le_bytes),
        [0xFE, 0xFF, text @ ..] | text @ [0, b'<', ..] => utf_16(text, u16::from_be_bytes),
        [0xEF, 0xBB, 0xBF, text @ ..] | text => text.iter().map(|byte| character(u16::from(*byte))).collect(),
    };
    text.to_ascii_lowercase()
}

/// Without the white space in front.
fn trim(text: &str) -> &str {
    // The vertical tab is none by the standard, and passes for some in Chromium.
    text.trim_start_matches(['\t', '\n', '\u{B}', '\u{C}', '\r', ' '])
}

fn after<'t>(text: &'t str, end: &str) -> &'t str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
    const JPEG: &[u8] = b"\xFF\xD8\xFF\xE0\0\x10JFIF\0\x01";
    const GIF: &[u8] = b"GIF89a\x01\0\x01\0<script>alert(1)</script>";
    const PDF: &[u8] = b"%PDF-1.7\n%\xE2\xE3\xCF\xD3\n";
    const EXE: &[u8] = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xFF\xFF\0\0";
    const DOCX: &[u8] = b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0[Content_Types].xml";
    const OLE_FILE: &[u8] = b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1\0\0\0\0";
    const OGG: &[u8] = b"OggS\0\x02\0\0\0\0\0\0\0\0";
    const MP4: &[u8] = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41";
    const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    const MP3: &[u8] = b"ID3\x04\0\0\0\0\0\x23";
    const TIFF: &[u8] = b"II*\0\x08\0\0\0";
    const SVG_FILE: &[u8] = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>";

    const DOCX_TYPE: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

    fn judged(declared: &str, beginning: &[u8]) -> Option<&'static str> {
        contradiction(&declared.parse().unwrap(), beginning)
    }

    fn utf_16(text: &str, unit: fn(u16) -> [u8; 2], mark: &[u8]) -> Vec<u8> {
        mark.iter().copied().chain(text.encode_utf16().flat_map(unit)).collect()
    }

    #[test]
    fn honest_files_pass() {
        for (declared, beginning) in [
            ("image/png", PNG),
            ("IMAGE/PNG", PNG),
            ("image/jpeg", JPEG),
            ("image/jpg", JPEG),
            ("image/gif", GIF),
            ("image/heic", HEIC),
            ("image/tiff", TIFF),
            // Raw photographs are TIFF inside.
            ("image/x-nikon-nef", TIFF),
            ("image/svg+xml", SVG_FILE),
            ("image/svg+xml", b"<?xml version=\"1.0\"?>\n<!-- a tool --><!DOCTYPE svg [<!ENTITY a \"b\">]><svg>"),
            ("image/svg+xml", b"<!-- a tool --><svg>"),
            ("application/pdf", PDF),
            ("application/pdf", b"\r\n\r\n%PDF-1.4\n"),
            (DOCX_TYPE, DOCX),
            (DOCX_TYPE, OLE_FILE),
            ("application/zip", DOCX),
            ("application/x-zip-compressed", DOCX),
            ("application/epub+zip", DOCX),
            ("application/java-archive", DOCX),
            ("application/vnd.oasis.opendocument.text", DOCX),
            ("application/msword", OLE_FILE),
            ("application/msword", DOCX),
            ("audio/ogg", OGG),
            ("video/ogg", OGG),
            ("video/mp4", MP4),
            ("audio/mp4", MP4),
            ("audio/x-m4a", MP4),
            ("video/quicktime", b"\0\0\0\x08wide\0\0\0\0mdat"),
            ("audio/mpeg", MP3),
            ("audio/mpeg", b"\xFF\xFB\x90\x64\0\0"),
            ("audio/mpeg", b"neither here nor there"),
            ("text/plain", b"12345"),
            ("text/plain; charset=utf-8", b"<!DOCTYPE html><p>how to write HTML</p>"),
            ("text/csv", b"BMW,Audi\n1,2\n"),
            ("text/csv", b"MZ;1\n"),
            ("text/html", b"<!DOCTYPE html><html>"),
            ("application/xhtml+xml", b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'>"),
            ("application/json", b"{\"a\": 1}"),
            ("application/gpx", b"<?xml version='1.0'?><gpx>"),
            ("text/javascript", b"<!-- hidden from old browsers\nalert(1)"),
            ("application/octet-stream", EXE),
            ("application/octet-stream", b"<html>"),
            ("application/x-own", b"\x01\x02\x03"),
            ("application/x-own", DOCX),
            ("image/x-own", b"whatever"),
        ] {
            assert_eq!(judged(declared, beginning), None, "{declared}: {}", beginning.escape_ascii());
        }
    }

    #[test]
    fn disguises_are_seen() {
        for (declared, beginning, found) in [
            ("image/png", &b"<html><script>alert(1)</script>"[..], HTML),
            ("image/png", b"\xEF\xBB\xBF \t\r\n<!DoCtYpE HtMl>", HTML),
            ("image/png", b"<ScRiPt>alert(1)</sCrIpT>", HTML),
            ("image/jpeg", SVG_FILE, SVG),
            ("image/jpeg", b"<?xml version='1.0'?><x:svg xmlns:x='http://www.w3.org/2000/svg'>", SVG),
            ("image/gif", b"<?xml version='1.0'?><feed>", XML),
            ("image/svg+xml", b"<!DOCTYPE html><html>", HTML),
            ("application/pdf", b"<html>%PDF-1.7", HTML),
            ("application/json", b"<html>", HTML),
            ("application/x-own", b"<html>", HTML),
            ("application/x-own", SVG_FILE, SVG),
            ("application/msword", b"<html>", HTML),
            ("audio/mpeg", b"<html>", HTML),
            ("application/pdf", PNG, "image/png"),
            ("image/png", PDF, "application/pdf"),
            ("image/jpeg", EXE, "application/vnd.microsoft.portable-executable"),
            ("text/csv", EXE, "application/vnd.microsoft.portable-executable"),
            ("application/json", PNG, "image/png"),
            ("application/pdf", b"MZ\x90\0\x03\0\0\0 %PDF-1.7", "application/vnd.microsoft.portable-executable"),
            ("image/png", JPEG, "image/jpeg"),
            ("image/heic", MP4, "video/mp4"),
            ("application/zip", PDF, "application/pdf"),
            (DOCX_TYPE, PNG, "image/png"),
            ("audio/mpeg", PNG, "image/png"),
            ("image/x-own", PDF, "application/pdf"),
            ("image/png", b"12345", PLAIN),
            ("image/png", b"\x89", PLAIN),
            ("image/png", b"\x01", UNKNOWN),
            ("application/pdf", b"12345", PLAIN),
        ] {
            assert_eq!(judged(declared, beginning), Some(found), "{declared}: {}", beginning.escape_ascii());
        }
    }

    #[test]
    fn utf_16_hides_nothing() {
        for text in ["<html>", " \n<script>alert(1)</script>", "<?xml version='1.0'?><html>"] {
            for bytes in [
                utf_16(text, u16::to_le_bytes, b"\xFF\xFE"),
                utf_16(text, u16::to_be_bytes, b"\xFE\xFF"),
                utf_16(text.trim_start(), u16::to_le_bytes, b""),
                utf_16(text.trim_start(), u16::to_be_bytes, b""),
            ] {
                assert_eq!(judged("image/png", &bytes), Some(HTML), "{text:?}");
                assert_eq!(judged("text/plain", &bytes), None, "{text:?}");
            }
        }
    }

    #[test]
    fn every_type_of_a_format_is_named_by_that_alone() {
        for (at, format) in FORMATS.iter().enumerate() {
            for name in format.types {
                let first = FORMATS.iter().position(|other| other.names(&name.replace('*', "x")));
                assert_eq!(first, Some(at), "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn empty_files_pass_and_no_bytes_are_too_strange(
            declared in "(image/(png|svg\\+xml)|text/plain|application/(pdf|json|zip|x-y)|audio/mpeg)",
            start in prop::sample::select(vec![&b""[..], b"<", b"<?xml", b"<!--", b"<!doctype x [", b"\xFF\xFE", PNG]),
            more in vec(any::<u8>(), 0..64),
        ) {
            prop_assert_eq!(judged(&declared, b""), None);
            let _ = judged(&declared, &[start, &more].concat());
        }
    }
}

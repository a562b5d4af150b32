//! Files of any name and size come back as they were sent.

use serde_json::{Value, json};

use crate::support::{AppOptions, Backend, Suite, TestApp};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_put_file_of_any_name_and_size_comes_back", |backend| round_trips(backend, "put"));
    suite.everywhere("a_form_file_of_any_name_and_size_comes_back", |backend| round_trips(backend, "post"));
}

fn names() -> Vec<String> {
    let scripts = [
        "Übergröße naïve façade.txt", // Latin
        "отчёт за год.docx",          // Cyrillic
        "αναφορά έτους.pdf",          // Greek
        "דוח שנתי.pdf",               // Hebrew
        "تقرير سنوي.pdf",             // Arabic
        "वार्षिक रिपोर्ट.pdf",          // Devanagari
        "รายงานประจำปี.pdf",           // Thai
        "年度报告.pdf",               // Han
        "ねんじ レポート.pdf",        // Hiragana and Katakana
        "연간 보고서.pdf",            // Hangul
        "წლიური ანგარიში.pdf",        // Georgian
        "ዓመታዊ ሪፖርት.pdf",              // Ethiopic
    ];
    let awkward = [
        "two  spaces and one at the end ",
        "\"quoted\" 'twice'.txt",
        "semi;colon, comma=equals.txt",
        "100%25 a+b&c?d#e.txt",
        "${filename}.txt",
        "🦀👩‍👩‍👧🏳️‍🌈.png",
        "no extension",
        "README",
        ".hidden",
        "..two dots..",
        "a",
    ];
    let long = [format!("{}.txt", "x".repeat(251)), "報".repeat(255), "🦀".repeat(255)];
    scripts.into_iter().chain(awkward).map(str::to_owned).chain(long).collect()
}

async fn round_trips(backend: Backend, method: &str) {
    // A form that is signed by a session has no judge among the real stores.
    let options = if method == "post" { AppOptions::unscoped() } else { AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let kind = backend.kind.as_str();
    let mut failures = Vec::new();
    for name in names() {
        let bytes = format!("the bytes of {name}").into_bytes();
        if let Err(what) = round_trip(&app, method, &name, &bytes).await {
            failures.push(format!("{kind}: {name:?}: {what}"));
        }
    }
    for size in [0, 1, 5 << 20] {
        // No byte repeats at a distance of a power of two, so no block can be lost or swapped unseen.
        let bytes: Vec<u8> = (0..size).map(|at: u32| u8::try_from(at % 251).unwrap()).collect();
        if let Err(what) = round_trip(&app, method, "bytes.bin", &bytes).await {
            failures.push(format!("{kind}: {size} bytes: {what}"));
        }
    }
    app.end().await;
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

async fn round_trip(app: &TestApp, method: &str, name: &str, bytes: &[u8]) -> Result<(), String> {
    let alice = app.user("alice");
    let issued: Value = alice.issue(name, bytes, &json!({ "method": method })).await;
    let sent = alice.send(&issued, bytes).await;
    if !sent.status.is_success() {
        return Err(format!("sending: {} {}", sent.status, sent.text()));
    }
    let confirmed = alice.complete(&issued).await;
    if confirmed.status != 200 || confirmed.json()["original_file_name"] != name {
        return Err(format!("confirming: {} {}", confirmed.status, confirmed.text()));
    }
    let downloaded = alice.download(&issued).await;
    if downloaded.status != 200 || downloaded.bytes != bytes {
        return Err(format!("downloading: {}, {} bytes", downloaded.status, downloaded.bytes.len()));
    }
    if downloaded.headers["content-type"].to_str().ok() != issued["file_type"].as_str() {
        return Err(format!("content type: {:?}", downloaded.headers["content-type"]));
    }
    let disposition = downloaded.headers["content-disposition"].to_str().map_err(|error| error.to_string())?;
    match file_name(disposition) {
        Some(said) if said == name => Ok(()),
        said => Err(format!("{disposition}: {said:?}")),
    }
}

/// The name as a browser reads it by RFC 6266: `filename*` before `filename`.
fn file_name(disposition: &str) -> Option<String> {
    let parameters = disposition.strip_prefix("attachment; ")?;
    let (plain, extended) = match parameters.split_once("; filename*=UTF-8''") {
        Some((plain, extended)) => (plain, Some(extended)),
        None => (parameters, None),
    };
    let plain = plain.strip_prefix("filename=\"")?.strip_suffix('"')?;
    extended.map_or_else(|| Some(plain.to_owned()), percent_decoded)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        bytes.extend(hex::decode(piece.get(..2)?).ok()?);
        bytes.extend(piece.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

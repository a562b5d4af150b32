//! Every way of handing out a file: one permission, one row, the same bytes.

mod accel;
mod pages;
mod stream;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, Reply, Suite, TestApp, app::POLICIES, backend::BackendKind, caller::id,
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("the_policy_says_how_files_are_delivered", chosen);
    suite.everywhere("a_redirect_leads_to_the_file", redirected);
    // The embedded PostgreSQL has no connection to spare for looking.
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "every_delivery_is_one_row", recorded);
    stream::register(suite);
    suite.needing("nginx", |suite| {
        suite.needing("curl", accel::register);
        pages::register(suite);
    });
}

/// The policies of the tests, with `delivery` in the one that is called `delivered`.
fn policies(delivery: &str) -> String {
    format!("{POLICIES}\n[policy.delivered]\nmethods = [\"put\"]\nreaders = \"authenticated\"\ndelivery = {delivery}\n")
}

pub(crate) async fn start(backend: &Backend, delivery: &str) -> TestApp {
    TestApp::start_with(backend, AppOptions { policies: Some(policies(delivery)), ..AppOptions::default() }).await
}

async fn upload(caller: &Caller, name: &str, bytes: &[u8]) -> Value {
    caller.upload(name, bytes, &json!({ "method": "put", "policy": "delivered" })).await
}

fn path(upload: &Value, query: &str) -> String {
    format!("/api/v1/files/{}{query}", id(upload))
}

async fn chosen(backend: Backend) {
    let app = start(&backend, "[\"redirect\", \"url\"]").await;
    let alice = app.user("alice");
    let upload = upload(&alice, "a.txt", b"12345").await;
    alice.get(&path(&upload, "")).await.expect_status(StatusCode::FOUND);
    alice.get(&path(&upload, "/?delivery=redirect")).await.expect_status(StatusCode::FOUND);
    let reply = alice.get(&path(&upload, "?delivery=url")).await;
    let told = reply.expect(StatusCode::OK);
    assert_eq!(reply.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!((&told["upload_id"], &told["delivery"]), (&upload["id"], &json!("url")));
    assert_eq!(Reply::of(alice.http.get(told["url"].as_str().unwrap())).await.bytes, b"12345");

    // What only a request for the file can be answered with is found where it is delivered.
    let body = json!({ "upload_id": upload["id"], "file_name": "b&c=ö.txt" });
    let issued = alice.post("/api/v1/downloads", &body).await.expect(StatusCode::CREATED);
    assert_eq!(issued["delivery"], "redirect");
    let query = issued["url"].as_str().unwrap().strip_prefix(&app.base()).expect("a URL of the service");
    let file = follow(&alice, &alice.get(query).await).await;
    assert_eq!(file.bytes, b"12345");
    let name = "attachment; filename=\"b&c=_.txt\"; filename*=UTF-8''b&c%3D%C3%B6.txt";
    assert_eq!(file.headers[header::CONTENT_DISPOSITION], name);
    let by_url = json!({ "upload_id": upload["id"], "delivery": "url" });
    let issued = alice.post("/api/v1/downloads", &by_url).await.expect(StatusCode::CREATED);
    assert_eq!(Reply::of(alice.http.get(issued["url"].as_str().unwrap())).await.bytes, b"12345");

    for (query, field) in [
        ("?delivery=post", "delivery"),
        ("?delivery=", "delivery"),
        ("?disposition=open", "disposition"),
        ("?expires_in=0", "expires_in"),
        ("?expires_in=soon", "expires_in"),
        ("?file_name=a%2Fb", "file_name"),
        ("?file_name=a%0d%0aSet-Cookie:%20x", "file_name"),
        ("?key=uploads/other", "key"),
    ] {
        let problem = alice.get(&path(&upload, query)).await.expect_problem(422, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], field, "{query}: {problem}");
    }
    let default = alice.upload("a.txt", b"12345", &json!({ "method": "put" })).await;
    let problem = alice.get(&path(&default, "?delivery=redirect")).await.expect_problem(422, "policy_refused");
    assert_eq!(problem["errors"][0]["field"], "delivery", "{problem}");
    app.end().await;
}

async fn follow(caller: &Caller, redirect: &Reply) -> Reply {
    assert_eq!(redirect.status, StatusCode::FOUND, "{}", redirect.text());
    Reply::of(caller.http.get(redirect.headers[header::LOCATION].to_str().unwrap())).await
}

async fn redirected(backend: Backend) {
    let app = start(&backend, "\"redirect\"").await;
    let alice = app.user("alice").at("127.0.0.11");
    let uploaded = upload(&alice, "отчёт.pdf", b"%PDF-1.7").await;
    let redirect = alice.get(&path(&uploaded, "")).await;
    assert_eq!(redirect.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(redirect.bytes, b"");
    let file = follow(&alice, &redirect).await;
    assert_eq!(file.bytes, b"%PDF-1.7");
    assert_eq!(file.headers[header::CONTENT_TYPE], "application/pdf");
    assert_eq!(file.headers[header::CACHE_CONTROL], "private");
    let name = "attachment; filename=\"_____.pdf\"; filename*=UTF-8''%D0%BE%D1%82%D1%87%D1%91%D1%82.pdf";
    assert_eq!(file.headers[header::CONTENT_DISPOSITION], name);
    let inline = alice.get(&path(&uploaded, "?disposition=inline&file_name=a.pdf")).await;
    let file = follow(&alice, &inline).await;
    assert_eq!(file.headers[header::CONTENT_DISPOSITION], "inline; filename=\"a.pdf\"");

    // A URL that was asked for in JSON is good for as long as was asked for, also behind the redirect.
    let brief = json!({ "upload_id": uploaded["id"], "expires_in": 7 });
    let brief = alice.post("/api/v1/downloads", &brief).await.expect(StatusCode::CREATED);
    let led = alice.get(brief["url"].as_str().unwrap().strip_prefix(&app.base()).unwrap()).await;
    assert!(led.headers[header::LOCATION].to_str().unwrap().contains("X-Amz-Expires=7&"));

    // The network is the reader's.
    let elsewhere = follow(&app.user("alice").at("127.0.0.12"), &redirect).await;
    assert!(elsewhere.status.is_client_error(), "{elsewhere:?}");

    // A store answers a HEAD only with a URL that was signed for one.
    let head = Reply::of(alice.request(Method::HEAD, &path(&uploaded, ""))).await;
    assert_eq!(head.status, StatusCode::FOUND);
    let location = head.headers[header::LOCATION].to_str().unwrap();
    let file = Reply::of(alice.http.head(location)).await;
    assert_eq!((file.status, &file.headers[header::CONTENT_LENGTH]), (StatusCode::OK, &"8".parse().unwrap()));
    assert!(Reply::of(alice.http.get(location)).await.status.is_client_error());

    let page = upload(&alice, "a.html", b"<p>").await;
    let problem = alice.get(&path(&page, "?disposition=inline")).await.expect_problem(422, "invalid_request");
    assert_eq!(problem["errors"][0]["field"], "disposition");
    app.end().await;
}

async fn recorded(backend: Backend) {
    let app = start(&backend, "[\"redirect\", \"url\"]").await;
    let (alice, bob) = (app.user("alice"), app.user("bob").at("127.0.0.11"));
    let upload = upload(&alice, "a.txt", b"12345").await;
    bob.get(&path(&upload, "")).await.expect_status(StatusCode::FOUND);
    bob.get(&path(&upload, "?delivery=url&expires_in=5")).await.expect_status(StatusCode::OK);
    Reply::of(bob.request(Method::HEAD, &path(&upload, ""))).await.expect_status(StatusCode::FOUND);
    bob.get(&path(&upload, "?delivery=post")).await.expect_problem(422, "invalid_request");
    let rows = "SELECT subject, delivery, client_network, round(extract(epoch FROM expires_at - created_at)) \
                FROM download_intents ORDER BY id";
    let expected = ["bob|redirect|127.0.0.11/32|60", "bob|url|127.0.0.11/32|5", "bob|redirect|127.0.0.11/32|60"];
    let found = app.database.psql(rows);
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        let (facts, life) = found.rsplit_once('|').unwrap();
        let (expected_facts, expected_life) = expected.rsplit_once('|').unwrap();
        assert_eq!(facts, expected_facts);
        // The end is cut to a whole second.
        let difference = life.parse::<i64>().unwrap() - expected_life.parse::<i64>().unwrap();
        assert!((-1..=0).contains(&difference), "{found}");
    }
    app.end().await;
}

/// No byte repeats at a distance of a power of two, so none can be lost or swapped unseen.
fn bytes_of(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at + at / 251) % 251).unwrap()).collect()
}

fn get(caller: &Caller, path: &str, headers: &[(&str, &str)]) -> reqwest::RequestBuilder {
    headers.iter().fold(caller.request(Method::GET, path), |request, (name, value)| request.header(*name, *value))
}

/// "Report" in ten scripts and what else a name can hold.
const NAMES: [&str; 12] = [
    "Zürich café.txt",
    "отчёт.txt",
    "αναφορά.txt",
    "تقرير.txt",
    "דוח.txt",
    "प्रतिवेदन.txt",
    "报告.txt",
    "レポート.txt",
    "보고서.txt",
    "รายงาน.txt",
    "a\"b;c%20d&e=f.txt",
    "🦀.txt",
];

/// Every file arrives as it was sent, with its name, and with what is to be said of it.
async fn arrive_with_their_names(owner: &Caller, reader: &Caller, delivery: &str) {
    for name in NAMES {
        let bytes = format!("the bytes of {name}").into_bytes();
        let uploaded = upload(owner, name, &bytes).await;
        let file = reader.get(&path(&uploaded, &format!("?delivery={delivery}"))).await;
        file.expect_status(StatusCode::OK);
        assert_eq!(file.bytes, bytes, "{name}");
        let said = file.headers[header::CONTENT_DISPOSITION].to_str().unwrap();
        let encoded = said.split_once("filename*=UTF-8''").map(|(_, encoded)| encoded.to_owned());
        let encoded = encoded.unwrap_or_else(|| panic!("{name}: {said}"));
        let decoded: String =
            form_urlencoded::parse(format!("n={}", encoded.replace('+', "%2B").replace('&', "%26")).as_bytes())
                .map(|(_, value)| value.into_owned())
                .collect();
        assert_eq!(decoded, name, "{said}");
        assert_eq!(file.headers.get_all(header::CONTENT_DISPOSITION).iter().count(), 1);
        described(&file, "text/plain", bytes.len());
        assert_eq!(file.headers[header::ETAG].to_str().unwrap(), format!("\"{}\"", uploaded["etag"].as_str().unwrap()));
        assert!(!file.headers.contains_key(header::CONTENT_SECURITY_POLICY));
    }
    let page = upload(owner, "page.html", b"<script>alert(1)</script>").await;
    let file = reader.get(&path(&page, &format!("?delivery={delivery}"))).await;
    described(&file, "text/html", 25);
    assert_eq!(file.headers[header::CONTENT_DISPOSITION], "attachment; filename=\"page.html\"");
    assert_eq!(file.headers[header::CONTENT_SECURITY_POLICY], "sandbox; default-src 'none'");
    let empty = upload(owner, "empty.txt", b"").await;
    let file = reader.get(&path(&empty, &format!("?delivery={delivery}"))).await;
    file.expect_status(StatusCode::OK);
    described(&file, "text/plain", 0);
}

fn described(file: &Reply, content_type: &str, length: usize) {
    for (name, value) in [
        ("content-type", content_type),
        ("content-length", length.to_string().as_str()),
        ("cache-control", "private, no-cache"),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
    ] {
        let found: Vec<_> = file.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(found, [value], "{name}: {:?}", file.headers);
    }
    assert!(file.headers.contains_key(header::LAST_MODIFIED));
    // The store is nobody's business.
    for name in file.headers.keys() {
        assert!(!name.as_str().starts_with("x-amz") && !name.as_str().starts_with("x-presignd"), "{name}");
    }
}

/// Who sends the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Service,
    /// nginx, which sends what the store sends: one range, or everything.
    Nginx,
    /// nginx from its disk, where it reads `Range` itself, and refuses what it cannot read.
    NginxCache,
}

/// All that a client can ask for of a file of `bytes` at `path`.
async fn ranges_and_conditions(reader: &Caller, path: &str, bytes: &[u8], sender: Sender) {
    let whole = reader.get(path).await;
    whole.expect_status(StatusCode::OK);
    assert!(whole.bytes == bytes, "{} of {} bytes", whole.bytes.len(), bytes.len());
    let (etag, modified) = (&whole.headers[header::ETAG], &whole.headers[header::LAST_MODIFIED]);
    let (etag, modified) = (etag.to_str().unwrap(), modified.to_str().unwrap());

    let size = bytes.len();
    for (range, first, end) in [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=1-1000".to_owned(), 1, 1001),
        (format!("bytes={}-", size - 10), size - 10, size),
        ("bytes=-5".to_owned(), size - 5, size),
        (format!("bytes=-{}", size + 10), 0, size),
        (format!("bytes=100-{}", size + 10), 100, size),
        (format!("bytes=5-6,{}-", size + 10), 5, 7),
    ] {
        let part = Reply::of(get(reader, path, &[("range", &range)])).await;
        part.expect_status(StatusCode::PARTIAL_CONTENT);
        let content_range = format!("bytes {first}-{}/{size}", end - 1);
        assert_eq!(part.headers[header::CONTENT_RANGE].to_str().unwrap(), content_range, "{range}");
        assert!(part.bytes == bytes[first..end], "{range}");
        assert_eq!(part.headers[header::ETAG].to_str().unwrap(), etag);
    }
    let parts = Reply::of(get(reader, path, &[("range", "bytes=0-4, 10-14, -3")])).await;
    if sender == Sender::Nginx {
        assert!(parts.status == StatusCode::OK && parts.bytes == bytes, "{:?}", parts.headers);
    } else {
        parts.expect_status(StatusCode::PARTIAL_CONTENT);
        byte_ranges(&parts, bytes, &[(0, 4), (10, 14), (size - 3, size - 1)]);
    }
    let nothing = Reply::of(get(reader, path, &[("range", &format!("bytes={size}-"))])).await;
    nothing.expect_problem(416, "range_not_satisfiable");
    assert_eq!(nothing.headers[header::CONTENT_RANGE].to_str().unwrap(), format!("bytes */{size}"));
    let many = (0..100).map(|at| format!("{}-{}", at * 2, at * 2)).collect::<Vec<_>>().join(",");
    for ignored in ["lines=0-1", "bytes=5-2", "bytes=a-b"] {
        let reply = Reply::of(get(reader, path, &[("range", ignored)])).await;
        if sender == Sender::NginxCache && reply.status == StatusCode::RANGE_NOT_SATISFIABLE {
            continue;
        }
        assert_eq!((reply.status, reply.bytes.len()), (StatusCode::OK, size), "{ignored}");
    }
    let reply = Reply::of(get(reader, path, &[("range", &format!("bytes={many}"))])).await;
    assert!(reply.status.is_success() && reply.bytes.len() <= size + 100 * 200, "{:?}", reply.headers);

    let (before, other) = ("Sun, 06 Nov 1994 08:49:37 GMT", "\"other\"");
    for (headers, status) in [
        (&[("if-none-match", etag)][..], 304),
        (&[("if-modified-since", modified)], 304),
        (&[("if-none-match", other), ("if-modified-since", modified)], 200),
        (&[("if-modified-since", before)], 200),
        (&[("if-match", etag)], 200),
        (&[("if-match", other)], 412),
        (&[("if-unmodified-since", before)], 412),
        (&[("if-unmodified-since", modified)], 200),
        (&[("if-range", etag), ("range", "bytes=0-9")], 206),
        (&[("if-range", modified), ("range", "bytes=0-9")], 206),
        (&[("if-range", other), ("range", "bytes=0-9")], 200),
        (&[("if-range", before), ("range", "bytes=0-9")], 200),
        (&[("if-none-match", etag), ("range", "bytes=0-9")], 304),
    ] {
        let reply = Reply::of(get(reader, path, headers)).await;
        assert_eq!(reply.status, status, "{headers:?}");
        match status {
            304 => {
                assert_eq!(reply.bytes, b"");
                assert_eq!(reply.headers[header::ETAG].to_str().unwrap(), etag);
            }
            206 => assert!(reply.bytes == bytes[..10], "{headers:?}"),
            200 => assert!(reply.bytes == bytes, "{headers:?}"),
            _ => {
                reply.expect_problem(412, "precondition_failed");
            }
        }
    }
    let head = reader.request(Method::HEAD, path);
    // Ranges are for GET. nginx takes them for both.
    let head = if sender == Sender::NginxCache { head } else { head.header("range", "bytes=0-9") };
    let head = Reply::of(head).await;
    head.expect_status(StatusCode::OK);
    assert_eq!(head.bytes, b"");
    for name in
        [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES]
    {
        assert_eq!(head.headers.get(&name), whole.headers.get(&name), "{name}");
    }
}

/// `reply` is `multipart/byteranges` with exactly these positions of `bytes`, first and last.
fn byte_ranges(reply: &Reply, bytes: &[u8], ranges: &[(usize, usize)]) {
    let content_type = reply.headers[header::CONTENT_TYPE].to_str().unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("a boundary");
    assert_eq!(reply.headers[header::CONTENT_LENGTH].to_str().unwrap(), reply.bytes.len().to_string());
    let mut rest = reply.bytes.as_slice();
    let mut take = |expected: &[u8]| {
        let taken = rest.get(..expected.len());
        assert!(taken == Some(expected), "{:?} is not {:?}", taken, String::from_utf8_lossy(expected));
        rest = &rest[expected.len()..];
    };
    for (first, last) in ranges {
        take(format!("\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n").as_bytes());
        take(format!("Content-Range: bytes {first}-{last}/{}\r\n\r\n", bytes.len()).as_bytes());
        take(&bytes[*first..=*last]);
    }
    take(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert_eq!(rest, b"");
}

/// `curl -C -` goes on where a file ends that it has a part of.
async fn curl_resumes(base: &str, token: &str, path: &str, bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, &bytes[..bytes.len() / 3]).unwrap();
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--continue-at", "-", "--header"]);
    curl.arg(format!("Authorization: Bearer {token}")).arg("--output").arg(&file).arg(format!("{base}{path}"));
    let status = tokio::task::spawn_blocking(move || curl.status()).await.unwrap().expect("curl is installed");
    assert!(status.success(), "{status}");
    assert!(std::fs::read(&file).unwrap() == bytes);
}

/// The origin of a page that is not the service's.
const OTHER_ORIGIN: &str = "https://app.example.com";

/// What a browser does for a page of that origin, which it then lets see the file and what is said of it.
async fn a_page_of_another_origin_fetches(reader: &Caller, path: &str) {
    let preflight = reader.anonymous().request(Method::OPTIONS, path).header("origin", OTHER_ORIGIN);
    let preflight = preflight.header("access-control-request-method", "GET");
    let preflight = preflight.header("access-control-request-headers", "authorization,range,if-range");
    Reply::of(preflight).await.expect_status(StatusCode::OK);
    let headers = [("origin", OTHER_ORIGIN), ("range", "bytes=1-2"), ("if-range", "\"other\"")];
    let file = Reply::of(get(reader, path, &headers)).await;
    assert_eq!(file.bytes, b"12345");
    assert_eq!(file.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], OTHER_ORIGIN);
    assert!(file.headers[header::VARY].to_str().unwrap().contains("Origin"));
    let exposed = file.headers["access-control-expose-headers"].to_str().unwrap().to_ascii_lowercase();
    for name in ["content-disposition", "content-range", "accept-ranges", "etag"] {
        assert!(exposed.split(',').any(|found| found.trim() == name), "{name}: {exposed}");
    }
}

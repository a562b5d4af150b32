//! Thousands of random URLs and forms, signed by boto3's core for the same instant and compared byte for byte.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says with which seed"
)]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use chrono::{DateTime, Utc};
use presignd::{
    model::{ByteSize, Metadata, ObjectKey, PartNumber, PartPlan, Sha256Digest},
    signing::{Addressing, Credentials, Endpoint, Method, PostForm, PresignRequest, Signer, SuccessAction},
};
use proptest::{
    prelude::*,
    sample::{select, subsequence},
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boto3/signatures.py");
const CASES: usize = 3_000;
const SEED: [u8; 32] = *b"presignd signs just as boto3 do.";

#[derive(Debug)]
struct Case {
    signer: SignerCase,
    key: String,
    now: DateTime<Utc>,
    expires_in: u64,
    request: RequestCase,
}

#[derive(Debug)]
struct SignerCase {
    endpoint: &'static str,
    addressing: Addressing,
    bucket: &'static str,
    region: &'static str,
    secret_access_key: String,
    session_token: Option<String>,
}

#[derive(Debug)]
enum RequestCase {
    Url { method: Method, query: BTreeMap<String, String>, headers: BTreeMap<String, String> },
    Part { upload_id: String, number: u64, file_size: u64, checksum: Option<[u8; 32]> },
    Form { content_length: u64, content_type: String, checksum: Option<[u8; 32]>, metadata: BTreeMap<String, String> },
}

/// Panics at the first URL or form that differs. Needs `python3` with boto3.
pub(crate) fn boto3_signs_the_same() {
    println!("{CASES} cases, seed {:?}", String::from_utf8_lossy(&SEED));
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = case();
    let cases: Vec<Case> = (0..CASES).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();

    let mut answered = 0;
    for (case, expected) in cases.iter().zip(sign_with_boto3(&cases)) {
        assert_eq!(case.sign(), expected, "{case:?}");
        answered += 1;
    }
    assert_eq!(answered, CASES, "python3 has stopped early: is boto3 installed?");
}

fn sign_with_boto3(cases: &[Case]) -> Vec<Value> {
    let mut python = Command::new("python3")
        .arg(SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 must be installed");
    let mut input = BufWriter::new(python.stdin.take().unwrap());
    let output = BufReader::new(python.stdout.take().unwrap());
    let answers = thread::scope(|scope| {
        // Written from a thread of its own: with both pipes full, neither side could go on. When Python has failed,
        // its own message on standard error says more than the broken pipe here.
        scope.spawn(move || cases.iter().try_for_each(|case| writeln!(input, "{}", case.to_json())));
        output.lines().map(|line| with_sorted_query(serde_json::from_str(&line.unwrap()).unwrap())).collect()
    });
    assert!(python.wait().unwrap().success(), "{SCRIPT} has failed");
    answers
}

/// botocore signs the sorted query, but sends it in another order. The signature comes last in both.
fn with_sorted_query(mut answer: Value) -> Value {
    let url = answer["url"].as_str().unwrap();
    if let Some((target, query)) = url.split_once('?') {
        let (query, signature) = query.rsplit_once('&').unwrap();
        let mut pairs: Vec<(&str, &str)> = query.split('&').map(|pair| pair.split_once('=').unwrap()).collect();
        pairs.sort_unstable();
        let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        answer["url"] = format!("{target}?{}&{signature}", pairs.join("&")).into();
    }
    answer
}

impl Case {
    fn sign(&self) -> Value {
        let token = self.signer.session_token.clone().map(Into::into);
        let secret = self.signer.secret_access_key.clone().into();
        let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", secret, token, None);
        let endpoint = Endpoint::new(self.signer.endpoint, self.signer.bucket, self.signer.addressing).unwrap();
        let signer = Signer::new(credentials, self.signer.region, Arc::new(endpoint));
        let key = ObjectKey::parse(&*self.key).unwrap();
        let expires_in = Duration::from_secs(self.expires_in);
        match &self.request {
            RequestCase::Url { method, query, headers } => {
                let request = PresignRequest { method: *method, key: &key, query: cows(query), headers: cows(headers) };
                json!({"url": signer.presign(&request, self.now, expires_in).unwrap().url()})
            }
            RequestCase::Part { upload_id, number, checksum, .. } => {
                let part = self.request.plan().part(PartNumber::new(*number).unwrap()).unwrap();
                let parts = signer.part_signer(&key, upload_id, self.now, expires_in).unwrap();
                json!({"url": parts.presign(part, checksum.map(Sha256Digest::from_bytes).as_ref()).url()})
            }
            RequestCase::Form { content_length, content_type, checksum, metadata } => {
                let checksum = checksum.map(Sha256Digest::from_bytes);
                let form = PostForm {
                    key: &key,
                    content_length: *content_length..=*content_length,
                    content_type,
                    checksum_sha256: checksum.as_ref(),
                    metadata: &Metadata::parse(metadata.clone()).unwrap(),
                    success_action: SuccessAction::Status(201),
                };
                let post = signer.presign_post(&form, self.now, expires_in).unwrap();
                json!({"url": post.url, "fields": post.fields})
            }
        }
    }

    fn to_json(&self) -> Value {
        let mut case = json!({
            "endpoint": self.signer.endpoint,
            "addressing": if self.signer.addressing == Addressing::Path { "path" } else { "virtual" },
            "bucket": self.signer.bucket,
            "region": self.signer.region,
            "access_key_id": "AKIAIOSFODNN7EXAMPLE",
            "secret_access_key": self.signer.secret_access_key,
            "session_token": self.signer.session_token,
            "key": self.key,
            "now": self.now.to_rfc3339(),
            "expires_in": self.expires_in,
        });
        let (kind, request) = match &self.request {
            RequestCase::Url { method, query, headers } => {
                ("url", json!({"method": method.as_str(), "query": query, "headers": headers}))
            }
            RequestCase::Part { upload_id, number, checksum, .. } => {
                let part = self.request.plan().part(PartNumber::new(*number).unwrap()).unwrap();
                let mut headers = json!({"content-length": part.length().to_string()});
                if let Some(checksum) = checksum {
                    headers["x-amz-checksum-sha256"] = Sha256Digest::from_bytes(*checksum).to_base64().into();
                }
                let query = json!({"partNumber": number.to_string(), "uploadId": upload_id});
                ("url", json!({"method": "PUT", "query": query, "headers": headers}))
            }
            RequestCase::Form { content_length, content_type, checksum, metadata } => {
                let request = json!({
                    "content_length": content_length,
                    "content_type": content_type,
                    "checksum_sha256": checksum.map(|digest| Sha256Digest::from_bytes(digest).to_base64()),
                    "metadata": metadata,
                    "success_action_status": 201,
                });
                ("form", request)
            }
        };
        case.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        json!({kind: case})
    }
}

impl RequestCase {
    /// Of a part, the parts that it is one of.
    fn plan(&self) -> PartPlan {
        let Self::Part { file_size, .. } = self else { panic!("{self:?} is no part") };
        PartPlan::new(*file_size, ByteSize::from_bytes(5 << 20)).unwrap()
    }
}

fn cows(pairs: &BTreeMap<String, String>) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Text with every character that some encoder or JSON writer treats differently.
fn text() -> impl Strategy<Value = String> {
    let alphabet = " +%&=~#?;,:@!$'()*[]{}<>|^`\"-_.aZ09éß日🦀\u{a0}\u{2028}\u{feff}";
    prop::collection::vec(select(alphabet.chars().collect::<Vec<_>>()), 1..20)
        .prop_map(|chars| chars.into_iter().collect())
}

fn key() -> impl Strategy<Value = String> {
    let segment = text().prop_map(|text| format!("{text}k"));
    prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("/"))
}

/// Values as headers carry them. At least one character: botocore leaves headers without a value unsigned.
fn header_value() -> impl Strategy<Value = String> {
    "[!-~]([ -~]{0,20}[!-~])?"
}

fn named(
    names: &'static [&'static str],
    values: impl Strategy<Value = String>,
) -> impl Strategy<Value = BTreeMap<String, String>> {
    (subsequence(names, 0..=names.len()), prop::collection::vec(values, names.len()))
        .prop_map(|(names, values)| names.into_iter().map(str::to_owned).zip(values).collect())
}

fn signer() -> impl Strategy<Value = SignerCase> {
    let place = select(vec![
        ("https://s3.amazonaws.com", Addressing::Path),
        ("https://s3.amazonaws.com", Addressing::VirtualHosted),
        ("http://127.0.0.1:9000", Addressing::Path),
        ("http://[::1]:9000", Addressing::Path),
        ("http://localhost:9000", Addressing::VirtualHosted),
    ]);
    let bucket = select(vec!["examplebucket", "a.b-c.1"]);
    let region = select(vec!["us-east-1", "eu-central-1", "garage"]);
    let token = prop::option::of("[A-Za-z0-9+/=]{1,200}");
    (place, bucket, region, "[A-Za-z0-9+/]{40}", token).prop_map(
        |((endpoint, addressing), bucket, region, secret_access_key, session_token)| SignerCase {
            endpoint,
            addressing,
            bucket,
            region,
            secret_access_key,
            session_token,
        },
    )
}

fn url() -> impl Strategy<Value = RequestCase> {
    const HEADERS: &[&str] = &[
        "content-length",
        "content-md5",
        "content-type",
        "if-none-match",
        "x-amz-checksum-sha256",
        "x-amz-meta-a",
        "x-amz-meta-a-b",
        "x-amz-meta-a_b",
    ];
    let method = select(vec![Method::Get, Method::Head, Method::Put, Method::Post, Method::Delete]);
    let query = prop::collection::btree_map(text(), prop_oneof![text(), Just(String::new())], 0..4);
    (method, query, named(HEADERS, header_value())).prop_map(|(method, query, headers)| RequestCase::Url {
        method,
        query,
        headers,
    })
}

/// One of at least 9,000 parts.
fn part() -> impl Strategy<Value = RequestCase> {
    let sizes = 9_000 * (5 << 20)..=10_000_u64 * (5 << 20);
    (text(), 1_u64..=9_000, sizes, prop::option::of(any::<[u8; 32]>())).prop_map(
        |(upload_id, number, file_size, checksum)| RequestCase::Part { upload_id, number, file_size, checksum },
    )
}

fn form() -> impl Strategy<Value = RequestCase> {
    const METADATA: &[&str] = &["a", "a-b", "a_b", "case"];
    let single_spaced = header_value().prop_map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "));
    let content_type = header_value().prop_map(|parameter| format!("text/plain; charset={parameter}"));
    (any::<u64>(), content_type, prop::option::of(any::<[u8; 32]>()), named(METADATA, single_spaced)).prop_map(
        |(content_length, content_type, checksum, metadata)| RequestCase::Form {
            content_length,
            content_type,
            checksum,
            metadata,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let instant = (0_i64..4_102_444_800).prop_map(|seconds| DateTime::from_timestamp(seconds, 0).unwrap());
    (signer(), key(), instant, 1_u64..=604_800, prop_oneof![url(), part(), form()])
        .prop_map(|(signer, key, now, expires_in, request)| Case { signer, key, now, expires_in, request })
}

//! URLs for CloudFront, judged by botocore and by an implementation of RSA and ECDSA that is not this project's.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use chrono::{DateTime, Utc};
use presignd::{
    config::secret,
    model::{ClientNetwork, ObjectKey},
    signing::cloudfront::{CloudFront, KeyPair},
};
use proptest::{
    prelude::*,
    sample::select,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use crate::support::Suite;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boto3/cloudfront.py");
const CASES: usize = 400;
const SEED: [u8; 32] = *b"presignd signs for CloudFront so";
const DOMAIN: &str = "d111111abcdef8.cloudfront.net";

#[derive(Debug)]
struct Case {
    key_file: &'static str,
    origin_path: &'static str,
    path: String,
    query: BTreeMap<String, String>,
    network: Option<&'static str>,
    now: DateTime<Utc>,
    expires_in: u64,
}

pub(crate) fn register(suite: &mut Suite<'_>) {
    // Needs `python3` with botocore and `cryptography`.
    suite.alone_in_full_run("botocore_and_cryptography_agree_on_cloudfront", botocore_and_cryptography_agree);
}

fn botocore_and_cryptography_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new("python3").args([SCRIPT, "keys"]).arg(folder.path()).status();
    assert!(made.expect("python3 must be installed").success(), "{SCRIPT} has failed");

    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = case();
    let cases: Vec<Case> = (0..CASES).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let lines: Vec<Value> = cases.iter().map(|case| case.signed(folder.path())).collect();
    let verdicts = judged(folder.path(), &lines);
    assert_eq!(verdicts.len(), CASES, "python3 has stopped early");
    for (verdict, case) in verdicts.iter().zip(&cases) {
        assert_eq!(verdict, "ok", "{case:?}");
    }

    // A judge that finds nothing wrong with anything would be none.
    let mut tampered = lines[0].clone();
    tampered["ends_at"] = (tampered["ends_at"].as_i64().unwrap() + 1).into();
    assert_ne!(judged(folder.path(), &[tampered]), ["ok"]);
}

fn judged(folder: &Path, lines: &[Value]) -> Vec<String> {
    let mut python = Command::new("python3")
        .args([SCRIPT, "judge"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 must be installed");
    let mut input = python.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        // From a thread of its own: with both pipes full, neither side could go on.
        scope.spawn(move || lines.iter().try_for_each(|line| writeln!(input, "{line}")));
        python.wait_with_output().unwrap()
    });
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

impl Case {
    fn signed(&self, folder: &Path) -> Value {
        let pem = secret::read_file(&folder.join(self.key_file)).unwrap();
        let pair = KeyPair::from_pem("K2JCJMDEHXQW5F", None, &pem).unwrap();
        let cloudfront = CloudFront::new(DOMAIN, self.origin_path, vec![pair]).unwrap();
        let key = match self.origin_path {
            "" => self.path.clone(),
            folder => format!("{folder}/{}", self.path),
        };
        let query: Vec<(&str, &str)> = self.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let network = self.network.map(|network| network.parse::<ClientNetwork>().unwrap());
        let life = Duration::from_secs(self.expires_in);
        let signed =
            cloudfront.presign(&ObjectKey::parse(key).unwrap(), &query, network, self.now, life).expect("it is signed");
        json!({
            "key_file": self.key_file,
            "key_id": "K2JCJMDEHXQW5F",
            "origin": format!("https://{DOMAIN}"),
            "path": self.path,
            // In the order of the URL.
            "query": query,
            "network": self.network,
            "ends_at": signed.expires_at.timestamp(),
            "url": signed.url(),
        })
    }
}

/// Text with every character that some encoder or JSON writer treats differently.
fn text() -> impl Strategy<Value = String> {
    let alphabet = " +%&=~#?;,:@!$'()*[]{}<>|^`\"-_.aZ09éß日🦀\u{a0}\u{2028}\u{feff}";
    prop::collection::vec(select(alphabet.chars().collect::<Vec<_>>()), 1..20)
        .prop_map(|chars| chars.into_iter().collect())
}

fn case() -> impl Strategy<Value = Case> {
    let key_file = select(vec!["rsa-pkcs8.pem", "rsa-traditional.pem", "ecdsa-pkcs8.pem", "ecdsa-traditional.pem"]);
    let origin_path = select(vec!["", "uploads", "uploads/a b"]);
    let path =
        prop::collection::vec(text().prop_map(|text| format!("{text}k")), 1..4).prop_map(|segments| segments.join("/"));
    let query = prop::collection::btree_map(text(), text(), 0..3);
    let network = select(vec![None, Some("192.0.2.7/32"), Some("192.0.2.0/24"), Some("10.0.0.0/8")]);
    let now = (0_i64..4_102_444_800).prop_map(|seconds| DateTime::from_timestamp(seconds, 0).unwrap());
    (key_file, origin_path, path, query, network, now, 1_u64..=604_800).prop_map(
        |(key_file, origin_path, path, query, network, now, expires_in)| Case {
            key_file,
            origin_path,
            path,
            query,
            network,
            now,
            expires_in,
        },
    )
}

//! Virtual-hosted addressing, the default and what AWS asks for: the bucket is a part of the host, for the service's own
//! requests as for those of its clients.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
};

use presignd::clock::Clock;
use reqwest::{Client, StatusCode};
use serde_json::json;

use crate::{
    command_line::{PROGRAM, Serving, command, ended, installed},
    live_check::{EVERY_METHOD, expect_lacking, write_policies},
    support::{
        AppOptions, Backend, Caller, Reply, Suite,
        app::{TokenOptions, token},
        backend::BackendKind,
        services::STORE_DOMAIN,
    },
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    // The embedded store knows paths only.
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "a_bucket_may_be_a_part_of_the_host", virtual_hosted);
}

/// The program where `hosts` stands for `/etc/hosts`, in a mount namespace of its own: no name below a domain of a test
/// leads anywhere otherwise.
fn command_with_hosts(hosts: &Path, arguments: &[&str], folder: &Path) -> Command {
    let bind = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;
    let namespace = ["--map-root-user", "--mount", "sh", "-c", bind, "sh", hosts.to_str().unwrap(), PROGRAM];
    command("unshare", &[&namespace, arguments].concat(), folder, &[])
}

/// The store as its clients name it.
struct Names {
    address: SocketAddr,
    bucket: String,
}

impl Names {
    /// The host of a bucket.
    fn host(bucket: &str) -> String {
        format!("{bucket}.{STORE_DOMAIN}")
    }

    fn origin(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.address.port())
    }

    /// Goes with `url` to another bucket, and to the same one by its path.
    fn elsewhere(&self, url: &str) -> [String; 2] {
        let origin = self.origin(&Self::host(&self.bucket));
        assert!(url.starts_with(&origin), "the bucket is not in the host");
        let by_path = format!("{}{}/", self.origin(STORE_DOMAIN), self.bucket);
        [self.origin(&Self::host("another-bucket")), by_path].map(|other| url.replacen(&origin, &other, 1))
    }

    fn client(&self) -> Client {
        let names = [STORE_DOMAIN.to_owned(), Self::host(&self.bucket), Self::host("another-bucket")];
        let client = Client::builder().no_proxy().local_address(IpAddr::from([127, 0, 0, 1]));
        names.iter().fold(client, |client, name| client.resolve(name, self.address)).build().expect("a client")
    }
}

async fn virtual_hosted(backend: Backend) {
    let store = tempfile::tempdir().unwrap();
    let (database, bucket) = (backend.database().await, backend.bucket(store.path()).await);
    let address = bucket.service.endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let names = Names { address, bucket: bucket.bucket.clone() };
    let overlay = format!(
        "log.filter = \"info\"\n[s3]\naddressing = \"virtual_hosted\"\nendpoint = \"{}\"\n[s3.sts]\nendpoint = \"{}\"",
        names.origin(STORE_DOMAIN),
        bucket.service.endpoint,
    );
    let folder = installed(&database, &bucket, &overlay);
    let hosts = folder.path().join("hosts");
    // The bucket's host and no other: a request that names the bucket in its path gets nowhere.
    fs::write(&hosts, format!("127.0.0.1 localhost {}\n", Names::host(&bucket.bucket))).unwrap();
    let with_hosts = |arguments: &[&str]| command_with_hosts(&hosts, arguments, folder.path());
    ended(&mut with_hosts(&["migrate"])).expect(0);

    // What a store can do does not depend on where the bucket is named.
    write_policies(&folder, EVERY_METHOD);
    expect_lacking(backend.kind, &ended(&mut with_hosts(&["check", "--live", "--format", "json"])));

    round_trip(with_hosts(&["serve"]), &names, "put").await;
    // Neither store takes forms of sessions.
    let file = folder.path().join("presignd.toml");
    let mut settings: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
    settings["s3"].as_table_mut().unwrap().remove("sts");
    fs::write(&file, settings.to_string()).unwrap();
    write_policies(&folder, AppOptions::unscoped().policies.as_deref().unwrap());
    round_trip(with_hosts(&["serve"]), &names, "post").await;
    bucket.end().await;
    database.end().await;
}

/// From the request for an upload to the download, at a service that is started and stopped for it.
async fn round_trip(serve: Command, names: &Names, method: &str) {
    let serving = Serving::of(serve);
    let token = token(&TokenOptions { subject: "alice", ..TokenOptions::default() }, Clock::System.now());
    let mut alice = Caller::new(serving.base(), Some(token), [127, 0, 0, 1].into());
    alice.http = names.client();
    let bytes = b"%PDF-1.7 lorem ipsum";

    let issued = alice.issue("lorem ipsum.pdf", bytes, &json!({ "method": method })).await;
    let elsewhere = names.elsewhere(issued["upload"]["url"].as_str().unwrap());
    if method == "put" {
        for elsewhere in elsewhere {
            let mut changed = issued.clone();
            changed["upload"]["url"] = elsewhere.into();
            assert_eq!(alice.send(&changed, bytes).await.status, StatusCode::FORBIDDEN, "the host is signed");
        }
    }
    assert!(alice.send(&issued, bytes).await.status.is_success());
    let confirmed = alice.complete(&issued).await.expect(StatusCode::OK);

    let body = json!({ "upload_id": confirmed["id"] });
    let issued = alice.post("/api/v1/downloads", &body).await.expect(StatusCode::CREATED);
    let url = issued["url"].as_str().unwrap();
    for elsewhere in names.elsewhere(url) {
        Reply::of(alice.http.get(elsewhere)).await.expect_status(StatusCode::FORBIDDEN);
    }
    assert_eq!(Reply::of(alice.http.get(url)).await.expect_status(StatusCode::OK).bytes, bytes);
    assert_eq!(serving.interrupt(), Some(0));
}

//! `presignd dev`

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use clap::Args;
use jsonwebtoken::Algorithm;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use toml::toml;

use super::{Failure, print, serve::StopSignals, start_logging};
use crate::{
    app::{self, Running, StartError},
    auth::{DevelopmentToken, mint_development_token},
    clock::Clock,
    config::{Config, environment, server::url_of},
    dev::{DevError, EmbeddedPostgres, EmbeddedStore, StoreOptions},
};

const ISSUER: &str = "presignd-dev";
const AUDIENCE: &str = "presignd";
const BUCKET: &str = "presignd-dev";
const REGION: &str = "us-east-1";
const ROLE_ARN: &str = "arn:aws:iam::000000000000:role/presignd-dev";
/// Under the data folder: what `presignd token` takes for `--config`. Not the name of anybody's own configuration.
const SETTINGS: &str = "dev.toml";
const STORE_ACCESS_KEY_ID: &str = "PRESIGNDDEV000000001";

/// How long the printed token is good for: a working day.
const TOKEN_LIFETIME: std::time::Duration = std::time::Duration::from_hours(12);

/// What a new data folder starts with. Meant to be edited while the service runs.
const POLICIES: &str = "\
# Edit and save: the next request follows the new rules, and GET /api/v1/policies shows them.
[policy.default]
methods = [\"post\", \"put\", \"multipart\"]
upload.expires_in = \"5m\"
download.expires_in = \"60s\"
max_size = \"5GiB\"
content_types = [\"*/*\"]
key = \"uploads/{yyyy}/{mm}/{id}-{name}\"
readers = \"owner\"
";

/// The scope to start with towards the embedded store.
const SCOPED: &str = "ip_scope = { v4 = 32, v6 = 64 }\n";

/// The scope to start with towards any other store: it may have no STS, and this service, asked from the machine
/// itself, sees a loopback address where a store elsewhere sees a public one.
const UNSCOPED: &str = "\
# Towards a store on this machine, with PRESIGND_S3__STS__ROLE_ARN, { v4 = 32, v6 = 64 } works too.
ip_scope = \"off\"
";

/// Where to run and where to keep things.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Forget everything at the end, and take free ports unless told otherwise.
    #[arg(long)]
    ephemeral: bool,
    /// Where data lives.
    #[arg(long, default_value = ".presignd", value_name = "FOLDER", conflicts_with = "ephemeral")]
    data_dir: PathBuf,
    /// Address of the service [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Address of the embedded store [default: 127.0.0.1:9000].
    #[arg(long, value_name = "ADDRESS")]
    store_listen: Option<SocketAddr>,
}

/// Secrets made up at the first start, kept beside the data so that tokens outlive a restart.
#[derive(Serialize, Deserialize)]
struct Keys {
    jwt: String,
    callback: String,
    store: String,
}

/// Everything that stands in for installed servers; what is absent is installed.
#[derive(Default)]
struct StandIns {
    postgres: Option<EmbeddedPostgres>,
    store: Option<EmbeddedStore>,
}

impl StandIns {
    async fn shutdown(self) {
        if let Some(store) = self.store {
            store.shutdown().await;
        }
        if let Some(postgres) = self.postgres {
            postgres.shutdown().await;
        }
    }
}

pub(super) async fn run(args: &DevArgs, runtime: &Handle) -> Result<(), Failure> {
    let stop = StopSignals::listen()?;
    let ephemeral = if args.ephemeral { Some(tempfile::tempdir()?) } else { None };
    let folder = ephemeral.as_ref().map_or_else(|| args.data_dir.clone(), |folder| folder.path().to_owned());
    let mut stand_ins = StandIns::default();
    let served = match Box::pin(start(args, &folder, &mut stand_ins, runtime)).await {
        Ok(running) => stop.serve(running).await,
        Err(failure) => Err(failure),
    };
    // Also when the service did not start: PostgreSQL has to write what it holds before its folder goes.
    stand_ins.shutdown().await;
    served
}

/// Starts `stand_ins` and the service, and prints how to use them.
async fn start(args: &DevArgs, folder: &Path, stand_ins: &mut StandIns, runtime: &Handle) -> Result<Running, Failure> {
    let mut variables = environment::variables();
    if args.listen.is_some() {
        // What is typed now wins over what was exported earlier.
        variables.remove("PRESIGND_SERVER__LISTEN");
    }
    let embedded_database =
        !["DATABASE_URL", "PRESIGND_DATABASE__URL"].iter().any(|name| variables.contains_key(*name));
    let embedded_store = !variables.contains_key("PRESIGND_S3__ENDPOINT");
    if let (true, Some(name)) = (embedded_store, variables.keys().find(|name| name.starts_with("PRESIGND_S3__"))) {
        let rule = "is set without PRESIGND_S3__ENDPOINT: set that too to use your own store, or unset both";
        return Err(Failure(format!("{name} {rule}")));
    }

    fs::create_dir_all(folder).map_err(|error| Failure(format!("{}: {error}", folder.display())))?;
    let policies = folder.join("policies.toml");
    if !policies.exists() {
        fs::write(&policies, format!("{POLICIES}{}", if embedded_store { SCOPED } else { UNSCOPED }))?;
    }
    let keys = keys(&folder.join("keys.json"))?;
    let mut settings = settings(args, &keys, &policies);
    if embedded_database {
        let postgres = EmbeddedPostgres::start(Some(&folder.join("postgres"))).await?;
        // PostgreSQL inside the process serves one connection, which everybody shares.
        set(&mut settings, "database", toml! { max_connections = 1 });
        set(&mut settings, "database", toml::Table::from_iter([("url".to_owned(), postgres.database_url().into())]));
        stand_ins.postgres = Some(postgres);
    }
    if embedded_store {
        let store = store(args, &folder.join("store"), &keys, runtime).await?;
        for (key, value) in [
            ("bucket", BUCKET),
            ("endpoint", store.endpoint().as_str()),
            ("access_key_id", STORE_ACCESS_KEY_ID),
            ("secret_access_key", keys.store.as_str()),
        ] {
            set(&mut settings, "s3", toml::Table::from_iter([(key.to_owned(), value.into())]));
        }
        let sts = toml::Table::from_iter([("role_arn".to_owned(), ROLE_ARN.into())]);
        set(&mut settings, "s3", toml::Table::from_iter([("sts".to_owned(), sts.into())]));
        stand_ins.store = Some(store);
    }

    let config = Config::parse(&settings.to_string(), "the settings of dev", &variables)?;
    set(&mut settings, "policies", toml! { file = "policies.toml" });
    write_private(
        &folder.join(SETTINGS),
        &format!("# Written by every start of `presignd dev`; its environment holds the rest.\n{settings}"),
    )?;
    start_logging(&config);
    let token = token(&keys)?;
    let running = app::start(&config, Clock::System, runtime.clone()).await.map_err(|error| {
        let hint = if matches!(error, StartError::Listen { .. }) { "\n  --listen chooses another address" } else { "" };
        error_with(error, hint)
    })?;
    print(banner(&url_of(running.address), &token, &config, stand_ins, args, folder));
    Ok(running)
}

async fn store(args: &DevArgs, folder: &Path, keys: &Keys, runtime: &Handle) -> Result<EmbeddedStore, Failure> {
    let port = if args.ephemeral { 0 } else { 9000 };
    let options = StoreOptions {
        listen: args.store_listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port))),
        data_dir: Some(folder.to_owned()),
        access_key_id: STORE_ACCESS_KEY_ID.to_owned(),
        secret_access_key: SecretString::from(keys.store.as_str()),
        region: REGION.to_owned(),
        buckets: vec![BUCKET.to_owned()],
        cors_allowed_origins: vec!["*".to_owned()],
        role_arn: ROLE_ARN.to_owned(),
    };
    EmbeddedStore::start(options, Clock::System, runtime.clone()).await.map_err(|error| {
        let hint =
            if matches!(error, DevError::Listen { .. }) { "\n  --store-listen chooses another address" } else { "" };
        error_with(error, hint)
    })
}

fn error_with(error: impl std::error::Error, hint: &str) -> Failure {
    let Failure(text) = Failure::from(error);
    Failure(text + hint)
}

/// A configuration for this machine, to be overlaid by the environment like any other.
fn settings(args: &DevArgs, keys: &Keys, policies: &Path) -> toml::Table {
    let port = if args.ephemeral { 0 } else { 8080 };
    let listen = args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut settings = toml! {
        [log]
        filter = "info"
        access = true
        [database]
        migrate_on_start = true
        [server]
        cors_allowed_origins = ["*"]
        [auth]
        [callback]
        [policies]
        [web]
        enabled = true
        [s3]
        addressing = "path"
    };
    set(&mut settings, "s3", toml::Table::from_iter([("region".to_owned(), REGION.into())]));
    let key = |id: &str, secret: &str| {
        toml::Table::from_iter([("id".to_owned(), id.into()), ("secret".to_owned(), toml::Value::from(secret))])
    };
    let issuer = toml::Table::from_iter([
        ("issuer".to_owned(), toml::Value::from(ISSUER)),
        ("audience".to_owned(), vec![AUDIENCE].into()),
        ("algorithms".to_owned(), vec!["HS256"].into()),
        ("secret".to_owned(), keys.jwt.as_str().into()),
    ]);
    for (section, name, value) in [
        ("server", "listen", toml::Value::from(listen.to_string())),
        ("auth", "issuers", vec![issuer].into()),
        ("callback", "keys", vec![key("dev", &keys.callback)].into()),
        ("policies", "file", policies.display().to_string().into()),
    ] {
        set(&mut settings, section, toml::Table::from_iter([(name.to_owned(), value)]));
    }
    settings
}

fn set(settings: &mut toml::Table, section: &str, values: toml::Table) {
    if let Some(section) = settings.get_mut(section).and_then(toml::Value::as_table_mut) {
        section.extend(values);
    }
}

fn keys(path: &Path) -> Result<Keys, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| Failure(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keys = Keys { jwt: secret()?, callback: secret()?, store: secret()? };
            write_private(path, &serde_json::to_string_pretty(&keys)?)?;
            Ok(keys)
        }
        Err(error) => Err(Failure(format!("{}: {error}", path.display()))),
    }
}

fn secret() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| Failure("the machine gives no random numbers".to_owned()))?;
    Ok(hex::encode(bytes))
}

/// Writes a file that nobody else may read. It has its name only once it is whole: half of one would be in the way of
/// every later start.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};

    let new = path.with_added_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?.write_all(text.as_bytes())?;
    fs::rename(new, path)
}

fn token(keys: &Keys) -> Result<String, Failure> {
    let token = DevelopmentToken {
        issuer: ISSUER,
        audience: AUDIENCE,
        subject: "alice",
        tenant: None,
        scope_claim: "scope",
        scopes: &[],
        lifetime: TOKEN_LIFETIME,
        algorithm: Algorithm::HS256,
    };
    let secret = SecretString::from(keys.jwt.as_str());
    Ok(mint_development_token(&secret, &token, Clock::System.now())?.expose_secret().to_owned())
}

/// How to upload with nothing but curl and awk. `{` is bracketed because not every awk takes it as itself.
struct Lines {
    method: &'static str,
    issue: &'static str,
    upload: &'static str,
}

/// What browsers do, and what the embedded store takes.
const FORM: Lines = Lines {
    method: "post",
    issue: "a form for exactly these 17 bytes, from this machine, for 5 minutes.",
    upload: r#"awk turns the fields of the form into a curl configuration.
awk '{ sub(/.*"presigned_post_data":/, ""); match($0, /"url":"[^"]*"/); print "url = " substr($0, RSTART + 6, RLENGTH - 6); sub(/.*"fields":[{]"/, ""); sub(/"[}].*/, ""); gsub(/":"/, "="); gsub(/","/, "\"\nform-string = \""); print "form-string = \"" $0 "\"" }' issued.json > upload.curl
curl -sS -K upload.curl --form file=@hello.txt -o uploaded.xml"#,
};

/// What every store takes, also those that take no form from a session with a policy.
const PUT: Lines = Lines {
    method: "put",
    issue: "a URL for exactly these 17 bytes, for 5 minutes.",
    upload: r#"awk turns the URL and its headers into a curl configuration.
awk '{ sub(/.*"upload":[{]/, ""); match($0, /"url":"[^"]*"/); print "url = " substr($0, RSTART + 6, RLENGTH - 6); sub(/.*"headers":[{]"/, ""); sub(/"[}].*/, ""); gsub(/":"/, ": "); gsub(/","/, "\"\nheader = \""); print "header = \"" $0 "\"" }' issued.json > upload.curl
curl -sS -K upload.curl -T hello.txt -o uploaded.xml"#,
};

/// No comment in it may hold a quote: zsh, unless told otherwise, takes pasted comments for commands, and would wait for
/// the second one.
fn banner(base: &str, token: &str, config: &Config, stand_ins: &StandIns, args: &DevArgs, folder: &Path) -> String {
    let database = if stand_ins.postgres.is_some() { "PostgreSQL inside this process" } else { "as DATABASE_URL says" };
    let Lines { method, issue, upload } = if stand_ins.store.is_some() { FORM } else { PUT };
    let store = match &stand_ins.store {
        Some(store) => format!("{} inside this process, bucket {BUCKET}", store.endpoint()),
        None => format!("{}, bucket {}", config.s3.client_endpoint(), config.s3.bucket),
    };
    let data =
        if args.ephemeral { format!("{}, removed at the end", folder.display()) } else { folder.display().to_string() };
    let (policies, settings) = (config.policies.file.display(), folder.join(SETTINGS));
    let settings = settings.display();
    format!(
        r#"
  presignd dev
  page      {base}/#token={token}
  service   {base}  (/docs and /openapi.yaml say more)
  database  {database}
  store     {store}
  data      {data}
  policies  {policies}  (edit and save)
  settings  {settings}  (presignd token --config {settings} --subject bob: a token of somebody else)
  Ctrl-C stops it. Paste these lines into another terminal:

BASE={base}
TOKEN={token}
printf 'Hello, presignd!\n' > hello.txt

# 1. Issue: {issue}
curl -sS -X POST $BASE/api/v1/uploads -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"original_file_name":"hello.txt","file_size":17,"method":"{method}"}}' -o issued.json
ID=$(sed 's/^{{"id":"\([^"]*\)".*/\1/' issued.json)

# 2. Upload straight to the store: {upload}

# 3. Confirm: the service looks for itself.
curl -sS -X POST $BASE/api/v1/uploads/$ID/complete -H "Authorization: Bearer $TOKEN"; echo

# 4. Download, and compare.
URL=$(curl -sS -X POST $BASE/api/v1/downloads -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"upload_id":"'$ID'"}}' | sed 's/.*"url":"\([^"]*\)".*/\1/')
curl -sS "$URL" -o downloaded.txt && cmp hello.txt downloaded.txt && echo 'downloaded.txt is identical'
"#
    )
}

//! `presignd dev`

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use toml::toml;

use super::{Failure, print, serve::until_stopped, start_logging};
use crate::{
    app,
    auth::{DevelopmentToken, mint_development_token},
    clock::Clock,
    config::{Config, environment},
    dev::{EmbeddedPostgres, EmbeddedStore, StoreOptions},
};

const ISSUER: &str = "presignd-dev";
const AUDIENCE: &str = "presignd";
const BUCKET: &str = "presignd-dev";
const REGION: &str = "us-east-1";
const ROLE_ARN: &str = "arn:aws:iam::000000000000:role/presignd-dev";
const STORE_ACCESS_KEY_ID: &str = "PRESIGNDDEV000000001";

/// How long the printed token is good for: a working day.
const TOKEN_LIFETIME: std::time::Duration = std::time::Duration::from_hours(12);

/// What a new data folder starts with. Meant to be edited while the service runs.
const POLICIES: &str = "\
# Edit and save: the next request follows the new rules, and GET /api/v1/policies shows them.
[policy.default]
methods = [\"post\", \"put\"]
upload.expires_in = \"5m\"
download.expires_in = \"60s\"
max_size = \"100MiB\"
content_types = [\"*/*\"]
key = \"uploads/{yyyy}/{mm}/{id}-{name}\"
readers = \"owner\"
ip_scope = { v4 = 32, v6 = 64 }
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
struct StandIns {
    postgres: Option<EmbeddedPostgres>,
    store: Option<EmbeddedStore>,
    /// Removed when it is dropped.
    _ephemeral: Option<tempfile::TempDir>,
}

pub(super) async fn run(args: &DevArgs, runtime: &Handle) -> Result<(), Failure> {
    let mut variables = environment::variables();
    let ephemeral = if args.ephemeral { Some(tempfile::tempdir()?) } else { None };
    let folder = ephemeral.as_ref().map_or_else(|| args.data_dir.clone(), |folder| folder.path().to_owned());
    fs::create_dir_all(&folder).map_err(|error| Failure(format!("{}: {error}", folder.display())))?;
    let policies = folder.join("policies.toml");
    if !policies.exists() {
        fs::write(&policies, POLICIES)?;
    }
    let keys = keys(&folder.join("keys.json"))?;

    let mut settings = settings(args, &keys, &policies);
    let embedded_database =
        !["DATABASE_URL", "PRESIGND_DATABASE__URL"].iter().any(|name| variables.contains_key(*name));
    let embedded_store = !variables.contains_key("PRESIGND_S3__ENDPOINT");
    let mut stand_ins = StandIns { postgres: None, store: None, _ephemeral: ephemeral };
    if embedded_database {
        let postgres = EmbeddedPostgres::start(Some(&folder.join("postgres"))).await?;
        // PostgreSQL inside the process serves one connection, which everybody shares.
        set(&mut settings, "database", toml! { max_connections = 1 });
        variables.insert("DATABASE_URL".to_owned(), postgres.database_url().to_owned());
        stand_ins.postgres = Some(postgres);
    }
    if embedded_store {
        let free_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let usual_port = SocketAddr::from(([127, 0, 0, 1], 9000));
        let options = StoreOptions {
            listen: args.store_listen.unwrap_or(if args.ephemeral { free_port } else { usual_port }),
            data_dir: Some(folder.join("store")),
            access_key_id: STORE_ACCESS_KEY_ID.to_owned(),
            secret_access_key: SecretString::from(keys.store.as_str()),
            region: REGION.to_owned(),
            buckets: vec![BUCKET.to_owned()],
            cors_allowed_origins: vec!["*".to_owned()],
            role_arn: ROLE_ARN.to_owned(),
        };
        let store = EmbeddedStore::start(options, Clock::System, runtime.clone()).await?;
        let endpoint = store.endpoint();
        let secret = keys.store.clone();
        let mut s3 = toml! {
            addressing = "path"
        };
        for (key, value) in [
            ("region", REGION),
            ("bucket", BUCKET),
            ("endpoint", endpoint.as_str()),
            ("access_key_id", STORE_ACCESS_KEY_ID),
            ("secret_access_key", secret.as_str()),
        ] {
            s3.insert(key.to_owned(), value.into());
        }
        let mut sts = toml::Table::new();
        sts.insert("role_arn".to_owned(), ROLE_ARN.into());
        s3.insert("sts".to_owned(), sts.into());
        set(&mut settings, "s3", s3);
        stand_ins.store = Some(store);
    }

    let config = Config::parse(&settings.to_string(), "the settings of dev", &variables)?;
    start_logging(&config);
    let running = app::start(&config, Clock::System, runtime.clone()).await?;
    let token = token(&keys)?;
    print(banner(&format!("http://{}", running.address), &token, &config, &stand_ins, args, &folder));
    let served = until_stopped(running).await;
    if let Some(store) = stand_ins.store {
        store.shutdown().await;
    }
    if let Some(postgres) = stand_ins.postgres {
        postgres.shutdown().await;
    }
    served
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
        [s3]
    };
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
        Ok(text) => Ok(serde_json::from_str(&text)?),
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

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};

    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
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
    };
    let secret = SecretString::from(keys.jwt.as_str());
    Ok(mint_development_token(&secret, &token, Clock::System.now())?.expose_secret().to_owned())
}

fn banner(base: &str, token: &str, config: &Config, stand_ins: &StandIns, args: &DevArgs, folder: &Path) -> String {
    let database = if stand_ins.postgres.is_some() { "PostgreSQL inside this process" } else { "DATABASE_URL" };
    let store = match &stand_ins.store {
        Some(store) => format!("{} inside this process, bucket {BUCKET}", store.endpoint()),
        None => format!("{}, bucket {}", config.s3.client_endpoint(), config.s3.bucket),
    };
    let data = if args.ephemeral {
        "forgotten at the end".to_owned()
    } else {
        format!("{}, and the policies in {}", folder.display(), config.policies.file.display())
    };
    format!(
        r#"
  presignd dev
  service   {base}   ({base}/docs, {base}/openapi.yaml)
  database  {database}
  store     {store}
  data      {data}
  Ctrl-C stops it. Paste these lines into another terminal:

BASE={base}
TOKEN={token}
printf 'Hello, presignd!\n' > hello.txt

# 1. Issue: a form for exactly these 17 bytes, from this machine, for 5 minutes.
curl -sS -X POST $BASE/api/v1/uploads -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"original_file_name":"hello.txt","file_size":17}}' -o issued.json
ID=$(sed 's/^{{"id":"\([^"]*\)".*/\1/' issued.json)

# 2. Upload straight to the store: awk turns the form's fields into a curl configuration.
awk '{{ sub(/.*"presigned_post_data":/, ""); match($0, /"url":"[^"]*"/); print "url = " substr($0, RSTART + 6, RLENGTH - 6); sub(/.*"fields":{{"/, ""); sub(/"}}.*/, ""); gsub(/":"/, "="); gsub(/","/, "\"\nform-string = \""); print "form-string = \"" $0 "\"" }}' issued.json > form.curl
curl -sS -K form.curl --form file=@hello.txt -o uploaded.xml

# 3. Confirm: the service looks for itself.
curl -sS -X POST $BASE/api/v1/uploads/$ID/complete -H "Authorization: Bearer $TOKEN"; echo

# 4. Download, and compare.
URL=$(curl -sS -X POST $BASE/api/v1/downloads -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"upload_id":"'$ID'"}}' | sed 's/.*"url":"\([^"]*\)".*/\1/')
curl -sS "$URL" -o downloaded.txt && cmp hello.txt downloaded.txt && echo 'downloaded.txt is identical'
"#
    )
}

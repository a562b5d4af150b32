//! The program as a person at a shell meets it: arguments in, exit code and two streams out.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use crate::support::{
    Backend, Caller, Suite,
    app::{POLICIES, settings},
    backend::{BackendKind, TestBucket, TestDatabase},
    services::process::send_signal,
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.alone("every_help_teaches", every_help_teaches);
    suite.alone("what_is_not_a_command_exits_2", not_a_command);
    suite.alone("check_accepts_good_files", check_accepts);
    suite.alone("check_accepts_the_examples", check_accepts_the_examples);
    suite.alone("check_remarks_on_sessions_that_are_too_short", check_remarks);
    suite.alone("check_remarks_on_addresses_that_nobody_can_reach", check_remarks_on_addresses);
    suite.alone("check_names_file_line_key_and_rule", check_refuses);
    suite.alone("output_that_is_lost_is_no_success", lost_output);
    suite.alone("policy_check_and_diff_say_what_they_found", policy_files);
    suite.alone("cors_print_follows_policies_and_origins", cors_print);
    suite.alone("token_refuses_what_would_make_no_token", token_refusals);
    suite.needing("curl", |suite| {
        suite.alone("dev_prints_lines_that_work_and_leaves_nothing_behind", dev_ephemeral);
        suite.alone("dev_keeps_its_data_and_follows_its_policies", dev_kept);
    });
    suite.alone("dev_names_the_port_that_is_taken", dev_port_in_use);
    suite.alone("dev_refuses_half_a_store", dev_half_a_store);
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "dev_works_on_installed_servers", dev_installed);
    suite.everywhere("a_minted_token_is_accepted_and_probe_follows_the_service", serve_token_probe);
    // PostgreSQL inside the process serves one connection, and these have several processes at it.
    suite.on(&[BackendKind::Rgw], "migrate_applies_tells_and_takes_back", migrate);
    suite.on(&[BackendKind::Rgw], "serve_refuses_a_schema_that_does_not_fit", schema_does_not_fit);
}

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_presignd");

/// Longer than anything here takes on a loaded machine. What hangs is killed then, and fails its test.
const PATIENCE: &str = "120";

/// `program` in `folder`, in an environment of nothing but what `variables` say.
pub(crate) fn command(program: &str, arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", PATIENCE, program]).args(arguments).current_dir(folder).env_clear();
    for name in ["PATH", "HOME", "XDG_CACHE_HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a program that has ended left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

pub(crate) fn run(arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Ended {
    ended(&mut command(PROGRAM, arguments, folder, variables))
}

pub(crate) fn ended(command: &mut Command) -> Ended {
    let output = command.output().expect("timeout is installed");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A program that serves until it is told to stop.
pub(crate) struct Serving {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Serving {
    fn start(arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Self {
        Self::of(command(PROGRAM, arguments, folder, variables))
    }

    /// The same of a [`command`].
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.spawn().expect("timeout is installed");
        let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, stdout, stderr }
    }

    fn signal(&self, name: &str) {
        // timeout passes it on.
        send_signal(name, &[self.child.id()]).expect("it runs");
    }

    /// Waits until a service listens, and gives its URL.
    pub(crate) fn base(&self) -> String {
        let log = Self::until(&self.stderr, "listening on ");
        let (_, address) = log.rsplit_once("listening on ").expect("its last line");
        format!("http://{}", address.split(',').next().expect("an address"))
    }

    pub(crate) fn interrupt(mut self) -> Option<i32> {
        self.signal("INT");
        self.child.wait().unwrap().code()
    }

    /// The text up to and with the line that holds `end`.
    fn until(from: &Receiver<String>, end: &str) -> String {
        let mut text = String::new();
        // Ends with the program, which `timeout` sees to.
        for line in from {
            text.push_str(&line);
            text.push('\n');
            if line.contains(end) {
                return text;
            }
        }
        panic!("{end:?} is not in\n{text}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal("TERM");
            let _ = self.child.wait();
        }
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        // Read to the end even when nobody listens: a full pipe would stop the program.
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn every_help_teaches() {
    let folder = folder();
    let help = run(&["--help"], folder.path(), &[]).expect(0).stdout;
    assert!(help.contains("Exit codes: 0") && help.contains("presignd dev"), "{help}");
    let commands = help.split_once("Commands:").unwrap().1.split_once("Options:").unwrap().0;
    let commands = commands.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let mut commands: Vec<Vec<&str>> = commands.map(|name| vec![name]).collect();
    assert_eq!(commands.len(), 12, "{commands:?}");
    commands.extend([vec!["policy", "check"], vec!["policy", "diff"], vec!["cors", "print"], vec!["audit", "export"]]);
    commands.extend([vec!["webhooks", "list"], vec!["webhooks", "retry"]]);
    for mut command in commands {
        command.push("--help");
        let help = run(&command, folder.path(), &[]).expect(0).stdout;
        let example = format!("  presignd {}", command[..command.len() - 1].join(" "));
        assert!(help.contains(&example) && help.contains("Exit codes: 0"), "{command:?}: {help}");
    }
    let version = run(&["--version"], folder.path(), &[]).expect(0).stdout;
    assert_eq!(version, format!("presignd {}\n", env!("CARGO_PKG_VERSION")));
}

fn not_a_command() {
    let folder = folder();
    for arguments in [
        &["serv"][..],
        &[],
        &["serve", "--confg", "x"],
        &["migrate", "--revert", "0"],
        &["policy", "diff"],
        &["cors", "print", "--origin", "app.example.com"],
        &["cors", "print", "--origin", "https://app.example.com/"],
        &["cors", "print", "--format", "yaml"],
        &["webhooks", "retry"],
        &["webhooks", "retry", "x"],
        &["webhooks", "list", "--state", "lost"],
    ] {
        let ended = run(arguments, folder.path(), &[]).expect(2);
        assert!(ended.stderr.contains("Usage: presignd") || ended.stderr.contains("--help"), "{ended:?}");
    }
}

const CONFIG: &str = r#"[database]
url = "postgres://localhost/presignd"
[s3]
region = "eu-central-1"
bucket = "files"
[s3.sts]
role_arn = "arn:aws:iam::111122223333:role/presignd"
[callback]
keys = [{ id = "k1", secret = "0123456789abcdef0123456789abcdef" }]
[server]
request_timeout = "30s"
[[auth.issuers]]
issuer = "https://id.example.com/"
audience = ["presignd"]
algorithms = ["HS256"]
secret = "fedcba9876543210fedcba9876543210"
tenant_claim = "tenant"
"#;

/// A folder with both files under the names that are looked for.
fn files(config: &str, policies: &str) -> TempDir {
    let folder = folder();
    fs::write(folder.path().join("presignd.toml"), config).unwrap();
    fs::write(folder.path().join("policies.toml"), policies).unwrap();
    folder
}

fn check_accepts() {
    let folder = files(CONFIG, POLICIES);
    let ended = run(&["check"], folder.path(), &[]).expect(0);
    let lines = ended.lines();
    assert_eq!((lines.len(), lines[0]), (2, "presignd.toml: ok"));
    assert!(lines[1].starts_with("policies.toml: ok, version "), "{ended:?}");
    // From anywhere else, the policies are still looked for beside the configuration.
    let path = folder.path().join("presignd.toml");
    run(&["check", "--config", path.to_str().unwrap()], Path::new("/"), &[]).expect(0);
    run(&["check"], Path::new("/"), &[("PRESIGND_CONFIG", path.to_str().unwrap())]).expect(0);
}

fn check_accepts_the_examples() {
    let folder = folder();
    // What the example leaves to the place that it is copied to.
    let mut settings = include_str!("../../presignd.example.toml").to_owned();
    for (place, text) in [
        ("/run/secrets/presignd-callback-k202611", "0123456789abcdef0123456789abcdef\n"),
        ("/run/secrets/presignd-webhook-app", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"),
    ] {
        let file = folder.path().join(place.rsplit('/').next().unwrap());
        fs::write(&file, text).unwrap();
        assert!(settings.contains(place), "{place}");
        settings = settings.replace(place, file.to_str().unwrap());
    }
    let authority = "tls_ca_file = \"/etc/presignd/database-ca.pem\"\n";
    assert!(settings.contains(authority));
    fs::write(folder.path().join("presignd.toml"), settings.replace(authority, "")).unwrap();
    fs::write(folder.path().join("policies.toml"), include_str!("../../policies.example.toml")).unwrap();
    let ended = run(&["check"], folder.path(), &[]).expect(0);
    // As the comment in the example says.
    let notes: Vec<&str> = ended.lines().into_iter().filter(|line| line.starts_with("note: ")).collect();
    assert!(notes.len() == 1 && notes[0].starts_with("note: policy.video.upload: "), "{ended:?}");
}

fn check_remarks() {
    let sessions = [("PRESIGND_S3__STS__SESSION_DURATION", "2h")];
    let notes = |policies: &str| -> Vec<String> {
        let ended = run(&["check"], files(CONFIG, policies).path(), &sessions).expect(0);
        ended.lines().iter().filter(|line| line.starts_with("note: ")).map(|line| (*line).to_owned()).collect()
    };
    let slow = |rate: &str| format!("[policy.default]\nmax_size = \"1GiB\"\nupload.min_rate = \"{rate}\"\n");
    // 18 minutes at the first speed, and five hours at the second.
    assert_eq!(notes(&slow("1MiB/s")), Vec::<String>::new());
    let found = notes(&slow("64KiB/s"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("note: policy.default.upload: gives some URLs longer than 1h, "), "{found:?}");
    let found = notes("[policy.default]\ndownload.expires_in = \"2h\"\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("note: policy.default.download: gives some URLs longer than 1h, "), "{found:?}");
    assert_eq!(notes("[policy.default]\ndownload.expires_in = \"2h\"\ndelivery = \"stream\"\n"), Vec::<String>::new());
    let without_tenants = CONFIG.replace("tenant_claim = \"tenant\"\n", "");
    let ended =
        run(&["check"], files(&without_tenants, "[policy.default]\nreaders = \"tenant\"\n").path(), &[]).expect(0);
    assert!(ended.stdout.contains("note: policy.default.readers: is \"tenant\", and no issuer"), "{ended:?}");
}

fn lost_output() {
    let folder = files(CONFIG, POLICIES);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let lost = ended(command(PROGRAM, &["check"], folder.path(), &[]).stdout(full)).expect(1);
    assert!(lost.stderr.starts_with("presignd: standard output: "), "{lost:?}");
    // Who closes it has read enough.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = ended(command(PROGRAM, &["check"], folder.path(), &[]).stdout(writer)).expect(0);
    assert_eq!(closed.stderr, "");
}

/// As in the container image.
fn check_remarks_on_addresses() {
    let folder = files(CONFIG, POLICIES);
    let notes = |variables: &[(&str, &str)]| -> Vec<String> {
        let ended = run(&["check"], folder.path(), variables).expect(0);
        ended.lines().iter().filter(|line| line.starts_with("note: ")).map(|line| (*line).to_owned()).collect()
    };
    let everywhere = ("PRESIGND_SERVER__LISTEN", "0.0.0.0:8081");
    let found = notes(&[everywhere]);
    assert!(found.len() == 1 && found[0].starts_with("note: server.public_url: is not set"), "{found:?}");
    assert!(found[0].contains("http://127.0.0.1:8081"), "{found:?}");
    assert_eq!(notes(&[everywhere, ("PRESIGND_SERVER__PUBLIC_URL", "https://files.example")]), Vec::<String>::new());
    assert_eq!(notes(&[("PRESIGND_SERVER__LISTEN", "192.0.2.7:8080")]), Vec::<String>::new());
    let found = notes(&[("PRESIGND_SERVER__TRUSTED_PROXIES", "[\"10.0.0.0/8\", \"::/0\"]")]);
    assert!(found.len() == 1 && found[0].starts_with("note: server.trusted_proxies: trusts every"), "{found:?}");
    for (url, is_told) in [
        ("postgres://db.example.com/x", true),
        ("postgres://db.example.com/x?sslmode=require", false),
        ("postgres://[::1]/x", false),
        ("postgres://%2Frun%2Fpostgresql/x", false),
    ] {
        let found = notes(&[("DATABASE_URL", url)]);
        assert_eq!(
            found.iter().any(|note| note.starts_with("note: database.url: has sslmode=prefer")),
            is_told,
            "{url}"
        );
    }
    let endpoint = "[{ name = \"app\", url = \"http://10.0.0.1/\", policies = [\"gone\"], \
                    keys = [{ secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\" }] }]";
    let found = notes(&[("PRESIGND_WEBHOOKS__ENDPOINTS", endpoint)]);
    assert!(found[0].starts_with("note: webhooks.endpoints[0].url: is never sent anything: 10.0.0.1"), "{found:?}");
    assert!(found[1].starts_with("note: webhooks.endpoints[0].policies: has \"gone\""), "{found:?}");
    let dotted = ("PRESIGND_S3__BUCKET", "files.example.com");
    let https = ("PRESIGND_S3__PUBLIC_ENDPOINT", "https://s3.example");
    let found = notes(&[dotted, https]);
    assert!(found.len() == 1 && found[0].starts_with("note: s3.bucket: has a dot"), "{found:?}");
    assert_eq!(notes(&[dotted, https, ("PRESIGND_S3__ADDRESSING", "path")]), Vec::<String>::new());
}

/// What in [`CONFIG`] is replaced by what, and what is said of that.
const REFUSED: &[(&str, &str, &str)] = &[
    ("bucket = \"files\"", "bukket = \"files\"", "presignd.toml:5: s3.bukket: unknown field"),
    ("\"30s\"", "\"30 parsecs\"", "presignd.toml:11: server.request_timeout: must be a duration"),
    ("secret = \"fedcba9876543210fedcba9876543210\"\n", "", "presignd.toml:12: auth.issuers[0]: must have exactly one"),
    (
        "secret = \"fedcba9876543210fedcba9876543210\"",
        "secret = \"fedcba9876543210\"",
        "presignd.toml:16: auth.issuers[0].secret: must be at least 32",
    ),
    (
        "secret = \"fedcba9876543210fedcba9876543210\"",
        "secret_file = \"/nonexistent/secret\"",
        "presignd.toml:16: auth.issuers[0].secret_file: cannot read /nonexistent/secret: ",
    ),
    (
        "algorithms = [\"HS256\"]\nsecret = \"fedcba9876543210fedcba9876543210\"",
        "algorithms = [\"RS256\"]\npublic_key_file = \"/dev/null\"",
        "presignd.toml:16: auth.issuers[0].public_key_file: /dev/null must hold a PEM public key",
    ),
    ("postgres://localhost", "postgres://", "presignd.toml:2: database.url: must name a host"),
    (
        "/presignd\"",
        "/presignd?sslmode=verify-full\"",
        "presignd.toml:2: database.url: knows sslmode=disable, prefer and",
    ),
    ("\"files\"", "\"Files\"", "presignd.toml:5: s3.bucket: must be a bucket name"),
    (
        "\"arn:aws:iam::111122223333:role/presignd\"",
        "\"arn:role\"",
        "presignd.toml:7: s3.sts.role_arn: must be the ARN",
    ),
    (
        "bucket = \"files\"",
        "bucket = \"files\"\naccess_key_id = \"\"\nsecret_access_key = \"\"",
        "presignd.toml:6: s3.access_key_id: must not be empty",
    ),
    (
        "\"30s\"",
        "\"30s\"\nshutdown_timeout = \"1500ms\"",
        "presignd.toml:12: server.shutdown_timeout: must be at least 1s, in whole",
    ),
    (
        "[callback]\nkeys = [{ id = \"k1\", secret = \"0123456789abcdef0123456789abcdef\" }]\n",
        "",
        "callback: must be given",
    ),
    ("region = \"eu-central-1\"\n", "", "presignd.toml:3: s3.region: must be given"),
    (
        "[server]\n",
        "[cdn]\ndomain = \"d.example.com\"\nipv6 = false\nkeys = [{ id = \"K1\", private_key_file = \"/nonexistent/key\" }]\n[server]\n",
        "presignd.toml:13: cdn.keys[0].private_key_file: cannot read the secret in /nonexistent/key",
    ),
    (
        "[server]\n",
        "[[webhooks.endpoints]]\nname = \"app\"\nurl = \"https://app.example.com/\"\nissuers = [\"https://id.example.com\"]\n\
         keys = [{ secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\" }]\n[server]\n",
        "presignd.toml:13: webhooks.endpoints[0].issuers: must be issuers of [auth]",
    ),
    (
        "[s3]\n",
        "tls_ca_file = \"/nonexistent/ca.pem\"\n[s3]\n",
        "presignd.toml:3: database.tls_ca_file: /nonexistent/ca.pem must hold certificates in PEM: ",
    ),
    ("[s3]\n", "tls_ca_file = \"/dev/null\"\n[s3]\n", "database.tls_ca_file: /dev/null must hold certificates"),
    (
        "secret = \"0123456789abcdef0123456789abcdef\"",
        "secret = \"hunter2\"",
        "presignd.toml:9: callback.keys[0].secret: must be at least 32",
    ),
    (
        "[s3.sts]\nrole_arn = \"arn:aws:iam::111122223333:role/presignd\"\n",
        "",
        "policies.toml:2: policy.default.ip_scope: needs the [s3.sts] settings",
    ),
    ("[callback]", "[callback", "presignd.toml:8: syntax: "),
    (
        "request_timeout = \"30s\"",
        "request_timeout = \"30s\"\ntrusted_proxies = [\"10.0.0.0/8\", \"::ffff:192.0.2.0/120\"]",
        "presignd.toml:12: server.trusted_proxies[1]: must be written as the IPv4 network",
    ),
    (
        "[s3.sts]\n",
        "[s3.sts]\nkms_key_arn = \"arn:aws:kms:eu-central-1:111122223333:alias/files\"\n",
        "presignd.toml:7: s3.sts.kms_key_arn: must be the ARN of a key",
    ),
    (
        "[s3.sts]\n",
        "[s3.sts]\nendpoint = \"sts.local:9000\"\n",
        "presignd.toml:7: s3.sts.endpoint: must be an http or https URL",
    ),
    (
        "bucket = \"files\"",
        "bucket = \"files\"\nendpoint = \"minio:9000\"\npublic_endpoint = \"https://files.example.com\"",
        "presignd.toml:6: s3.endpoint: must be an http or https URL",
    ),
    ("[server]\n", "[server]\npublic_url = \"https://[::1\"\n", "server.public_url: must be an http or https URL"),
];

fn check_refuses() {
    // Not Unicode, where a setting is meant to be, and where it is nobody's.
    let folder = files(CONFIG, POLICIES);
    let text = OsStr::from_bytes(b"\xff");
    for (name, code, expected) in
        [("PRESIGND_LOG__FORMAT", 1, "PRESIGND_LOG__FORMAT: log.format: "), ("PRESIGND_SERVICE_HOST", 0, "")]
    {
        let ended = ended(command(PROGRAM, &["check"], folder.path(), &[]).env(name, text)).expect(code);
        assert!(ended.stderr.contains(expected), "{ended:?}");
    }
    for (from, to, expected) in REFUSED {
        assert!(CONFIG.contains(from), "{from}");
        let folder = files(&CONFIG.replacen(from, to, 1), POLICIES);
        let ended = run(&["check"], folder.path(), &[]).expect(1);
        assert!(ended.stderr.contains(expected) && ended.stdout.is_empty(), "expected {expected:?}: {ended:?}");
        assert!(!ended.stderr.contains("hunter2") && !ended.stderr.contains("fedcba"), "{ended:?}");
    }

    // What can be known without talking to anybody is told at once.
    let sns = "[events.sns]\ntopics = [\"arn:aws:sns:eu-central-1:111122223333:uploads\"]\ncertificate_file = \"/nonexistent/sns\"\n";
    let broken = CONFIG.replace("\"files\"", "\"Files\"").replace("/presignd\"", "/presignd?sslmode=x\"") + sns;
    let ended = run(&["check"], files(&broken, POLICIES).path(), &[]).expect(1);
    assert_eq!(ended.stderr.lines().count(), 3, "{ended:?}");
    assert!(ended.stderr.contains("presignd.toml:20: events.sns.certificate_file: "), "{ended:?}");
    let without_tenants = CONFIG.replace("tenant_claim = \"tenant\"\n", "");
    let of_tenants = files(&without_tenants, "[policy.default]\nkey = \"a/{tenant}/{id}-{name}\"\n");
    let ended = run(&["check"], of_tenants.path(), &[]).expect(1);
    assert!(
        ended.stderr.contains("policies.toml:2: policy.default.key: needs an issuer with tenant_claim"),
        "{ended:?}"
    );

    let folder = files(CONFIG, POLICIES);
    for (name, value, expected) in [
        ("PRESIGND_SERVER__PORT", "1", "PRESIGND_SERVER__PORT: server.port: unknown field"),
        ("PRESIGND_LOG__ACCESS", "maybe", "PRESIGND_LOG__ACCESS: log.access: must be true or false"),
        ("DATABASE_URL", "mysql://x", "DATABASE_URL: database.url: must be set"),
        ("DATABASE_URL", "postgres:///x", "DATABASE_URL: database.url: must name a host"),
        (
            "PRESIGND_SERVER__CORS_ALLOWED_ORIGINS",
            "[\"https://App.example\"]",
            "server.cors_allowed_origins[0]: must be \"*\" or an origin such as \"https://app.example.com\", in lower case",
        ),
        (
            "PRESIGND_SERVER__CORS_ALLOWED_ORIGINS",
            "[\"https://app.example:443\"]",
            "server.cors_allowed_origins[0]: must be \"*\" or an origin",
        ),
        (
            "PRESIGND_CALLBACK__KEYS",
            r#"[{"id": "k1", "secret": "hunter2"}]"#,
            "PRESIGND_CALLBACK__KEYS: callback.keys: must be TOML: ",
        ),
    ] {
        let ended = run(&["check"], folder.path(), &[(name, value)]).expect(1);
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
        assert!(ended.stderr.contains(expected), "expected {expected:?}: {ended:?}");
    }

    // All that is wrong with the policies at once, each on a line of its own.
    let folder = files(CONFIG, "[policy.default]\nupload.expires_in = \"8d\"\ncolour = 1\n");
    let ended = run(&["check"], folder.path(), &[]).expect(1);
    for expected in [
        "presignd: policies.toml:2: policy.default.upload.expires_in: ",
        "presignd: policies.toml:3: policy.default.colour: ",
    ] {
        assert!(ended.stderr.lines().any(|line| line.starts_with(expected)), "expected {expected:?}: {ended:?}");
    }
    assert_eq!(ended.stderr.lines().count(), 2, "{ended:?}");

    let ended = run(&["check", "--config", "absent.toml"], folder.path(), &[]).expect(1);
    assert!(ended.stderr.starts_with("presignd: absent.toml: file: cannot be read"), "{ended:?}");
}

fn policy_files() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("old.toml", "[policy.default]\n");
    write("same.toml", "# said otherwise\n[policy.default]\nupload.expires_in = \"300s\"\n");
    write("new.toml", "[policy.default]\nupload.expires_in = \"2m\"\n[policy.extra]\n");
    write("bad.toml", "[policy.default]\nip_scope = 5\n");
    let run = |arguments: &[&str]| run(arguments, folder.path(), &[]);

    let ended = run(&["policy", "check", "new.toml"]).expect(0);
    assert!(ended.stdout.starts_with("new.toml: ok, version "), "{ended:?}");
    assert_eq!(ended.lines()[1..], ["  default", "  extra"]);
    let ended = run(&["policy", "check", "bad.toml"]).expect(1);
    assert!(ended.stderr.starts_with("presignd: bad.toml:2: policy.default.ip_scope: "), "{ended:?}");
    let ended = run(&["policy", "check", "absent.toml"]).expect(1);
    assert!(ended.stderr.starts_with("presignd: absent.toml: cannot be read: "), "{ended:?}");

    assert_eq!(run(&["policy", "diff", "old.toml", "same.toml"]).expect(0).stdout, "");
    let ended = run(&["policy", "diff", "old.toml", "new.toml"]).expect(1);
    assert_eq!(ended.lines(), ["policy.default upload.expires_in: 5m -> 2m", "policy.extra added"]);
    assert_eq!(ended.stderr, "");
    let ended = run(&["policy", "diff", "old.toml", "bad.toml"]).expect(1);
    assert!(ended.stderr.contains("bad.toml:2: ") && ended.stdout.is_empty(), "{ended:?}");
}

fn cors_print() {
    let folder = files(CONFIG, "[policy.default]\nmethods = [\"put\"]\n");
    let run = |arguments: &[&str], variables: &[(&str, &str)]| run(arguments, folder.path(), variables);
    let json = |ended: Ended| serde_json::from_str::<serde_json::Value>(&ended.expect(0).stdout).unwrap();
    let ended = run(&["cors", "print"], &[]).expect(1);
    assert!(ended.stderr.contains("name the origins with --origin") && ended.stdout.is_empty(), "{ended:?}");

    let two = ["cors", "print", "--origin", "https://a.example", "--origin", "http://localhost:5173"];
    let printed = json(run(&two, &[]));
    let rule = &printed["CORSRules"][0];
    assert_eq!(rule["AllowedMethods"], serde_json::json!(["PUT", "GET"]));
    assert_eq!(rule["AllowedOrigins"], serde_json::json!(["https://a.example", "http://localhost:5173"]));
    let list = json(run(&[&two[..], &["--format", "list"]].concat(), &[]));
    assert_eq!(list, printed["CORSRules"]);
    // By default those that may call the service itself.
    let configured = [("PRESIGND_SERVER__CORS_ALLOWED_ORIGINS", "[\"https://b.example\"]")];
    let printed = json(run(&["cors", "print"], &configured));
    assert_eq!(printed["CORSRules"][0]["AllowedOrigins"], serde_json::json!(["https://b.example"]));
    // And the service's own page.
    let page = [("PRESIGND_WEB__ENABLED", "true"), ("PRESIGND_SERVER__PUBLIC_URL", "https://files.example:8443/up")];
    let origins =
        |variables: &[(&str, &str)]| json(run(&["cors", "print"], variables))["CORSRules"][0]["AllowedOrigins"].clone();
    assert_eq!(origins(&page), serde_json::json!(["https://files.example:8443"]));
    let both = serde_json::json!(["https://b.example", "https://files.example:8443"]);
    assert_eq!(origins(&[&page[..], &configured].concat()), both);
    let all = [("PRESIGND_SERVER__CORS_ALLOWED_ORIGINS", "[\"*\"]")];
    assert_eq!(origins(&[&page[..], &all].concat()), serde_json::json!(["*"]));
}

fn token_refusals() {
    let without_tenants = CONFIG.replace("tenant_claim = \"tenant\"\n", "");
    let (shared, tenants) = (files(&without_tenants, "[policy.default]\n"), files(CONFIG, POLICIES));
    let published = CONFIG.replace("HS256", "RS256");
    let published = published.replace("secret = \"fedc", "jwks_url = \"https://id.example.com/jwks.json\"\n#");
    let published = files(&published, POLICIES);
    for (folder, arguments, expected) in [
        (&tenants, &["token"][..], "name one with --tenant"),
        (&shared, &["token", "--tenant", "acme"], "leave out --tenant"),
        (&shared, &["token", "--issuer", "https://other/"], "no issuer \"https://other/\""),
        (&published, &["token"], "no issuer in the configuration has a shared secret"),
    ] {
        let ended = run(arguments, folder.path(), &[]).expect(1);
        assert!(ended.stderr.contains(expected) && ended.stdout.is_empty(), "expected {expected:?}: {ended:?}");
    }
    run(&["token", "--tenant", "acme"], tenants.path(), &[]).expect(0);
    let longer = "secret = \"fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210\"";
    let stronger =
        without_tenants.replace("HS256", "HS512").replace("secret = \"fedcba9876543210fedcba9876543210\"", longer);
    let minted = run(&["token"], files(&stronger, POLICIES).path(), &[]).expect(0).stdout;
    let header = URL_SAFE_NO_PAD.decode(minted.split('.').next().unwrap()).expect("base64");
    assert!(String::from_utf8_lossy(&header).contains("\"HS512\""), "what the issuer's tokens must be signed with");
}

/// What `dev` printed.
struct Banner {
    text: String,
    /// The lines to paste.
    lines: String,
}

impl Banner {
    fn read(dev: &Serving) -> Self {
        let text = Serving::until(&dev.stdout, "echo 'downloaded.txt is identical'");
        let lines = text[text.find("\nBASE=").expect("lines to paste") + 1..].to_owned();
        for comment in lines.lines().filter(|line| line.starts_with('#')) {
            assert!(!comment.contains(['\'', '"', '`']), "zsh would wait for another quote: {comment}");
        }
        Self { text, lines }
    }

    /// The first word after a heading.
    fn word(&self, heading: &str) -> &str {
        let line = self.text.lines().find_map(|line| line.trim_start().strip_prefix(heading)).expect(heading);
        line.split_whitespace().next().unwrap().trim_end_matches(',')
    }

    fn address(&self, heading: &str) -> SocketAddr {
        self.word(heading).strip_prefix("http://").unwrap().parse().unwrap()
    }

    fn caller(&self) -> Caller {
        Caller::new(self.word("BASE=").to_owned(), Some(self.word("TOKEN=").to_owned()), [127, 0, 0, 1].into())
    }

    /// Pastes the lines.
    fn paste(&self) {
        let folder = folder();
        fs::write(folder.path().join("lines"), &self.lines).unwrap();
        let ended = ended(&mut command("sh", &["lines"], folder.path(), &[]));
        assert!(ended.stdout.contains("\"state\":\"confirmed\""), "{ended:?}");
        assert!(ended.stdout.ends_with("downloaded.txt is identical\n"), "{ended:?}");
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    }
}

fn dev_ephemeral() {
    let folder = folder();
    let dev = Serving::start(&["dev", "--ephemeral"], folder.path(), &[]);
    let banner = Banner::read(&dev);
    banner.paste();
    let (service, store) = (banner.address("service"), banner.address("store"));
    assert!(TcpStream::connect(service).is_ok() && TcpStream::connect(store).is_ok());
    let page = format!("http://{service}/#token={}", banner.word("TOKEN="));
    assert_eq!(banner.word("page "), page, "a link that brings its token along");
    let data = PathBuf::from(banner.word("data "));
    assert!(data.is_dir());
    assert_eq!(dev.interrupt(), Some(0));
    assert!(TcpStream::connect(service).is_err() && TcpStream::connect(store).is_err());
    assert!(!data.exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left where it was started");
}

fn dev_kept() {
    let folder = folder();
    let arguments = ["dev", "--data-dir", "data", "--listen", "127.0.0.1:0", "--store-listen", "127.0.0.1:0"];
    let dev = Serving::start(&arguments, folder.path(), &[]);
    let first = Banner::read(&dev);
    first.paste();
    assert_eq!(dev.interrupt(), Some(0));

    let dev = Serving::start(&arguments, folder.path(), &[]);
    let second = Banner::read(&dev);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // The token of the first start, at the address of the second.
    let alice = second.caller().with_token(first.word("TOKEN="));
    runtime.block_on(async {
        let list = alice.get("/api/v1/uploads").await.expect(StatusCode::OK);
        let uploads = list["uploads"].as_array().expect("uploads");
        assert_eq!((uploads.len(), &uploads[0]["original_file_name"]), (1, &"hello.txt".into()), "{list}");
        assert_eq!(alice.download(&uploads[0]).await.bytes, b"Hello, presignd!\n");
    });

    let settings = second.word("settings");
    let token = run(&["token", "--config", settings, "--subject", "bob"], folder.path(), &[]).expect(0).stdout;
    let bob = second.caller().with_token(token.trim());
    runtime.block_on(async {
        let list = bob.get("/api/v1/uploads").await.expect(StatusCode::OK);
        assert_eq!(list["uploads"], serde_json::json!([]));
    });

    let policies = folder.path().join(second.word("policies"));
    let text = fs::read_to_string(&policies).unwrap();
    fs::write(&policies, text.replace("max_size = \"5GiB\"", "max_size = \"4B\"")).unwrap();
    Serving::until(&dev.stderr, "policies reloaded");
    runtime.block_on(async {
        let request = serde_json::json!({ "original_file_name": "hello.txt", "file_size": 17 });
        let refused = alice.post("/api/v1/uploads", &request).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
    });
    assert_eq!(dev.interrupt(), Some(0));
}

fn dev_port_in_use() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for option in ["--listen", "--store-listen"] {
        let ended = run(&["dev", "--ephemeral", option, &address], folder.path(), &[]).expect(1);
        assert!(ended.stderr.contains(&format!("presignd: cannot listen on {address}")), "{ended:?}");
        assert!(ended.stderr.contains("Address already in use"), "{ended:?}");
        assert!(ended.stderr.contains(option), "it says what to do: {ended:?}");
        assert_eq!(ended.stdout, "");
    }
}

fn dev_half_a_store() {
    let folder = folder();
    let ended = run(&["dev", "--ephemeral"], folder.path(), &[("PRESIGND_S3__BUCKET", "mine")]).expect(1);
    assert!(ended.stderr.contains("PRESIGND_S3__BUCKET is set without PRESIGND_S3__ENDPOINT"), "{ended:?}");
}

async fn dev_installed(backend: Backend) {
    let folder = folder();
    let database = backend.database().await;
    let bucket = backend.bucket(folder.path()).await;
    let mut variables = vec![
        ("DATABASE_URL", database.url()),
        ("PRESIGND_S3__ENDPOINT", &bucket.service.endpoint),
        ("PRESIGND_S3__REGION", &bucket.service.region),
        ("PRESIGND_S3__BUCKET", &bucket.bucket),
        ("PRESIGND_S3__ACCESS_KEY_ID", &bucket.service.access_key_id),
        ("PRESIGND_S3__SECRET_ACCESS_KEY", bucket.service.secret_access_key.expose_secret()),
    ];
    let arguments = ["dev", "--data-dir", "data", "--listen", "127.0.0.1:0"];
    let dev = Serving::start(&arguments, folder.path(), &variables);
    Banner::read(&dev).paste();
    assert_eq!(dev.interrupt(), Some(0));

    // Once a role is there, the policies may bind URLs to networks, and the lines still work.
    let policies = folder.path().join("data/policies.toml");
    let text = fs::read_to_string(&policies).unwrap();
    assert!(text.contains("ip_scope = \"off\""));
    fs::write(&policies, text.replace("ip_scope = \"off\"", "ip_scope = { v4 = 32, v6 = 64 }")).unwrap();
    variables.push(("PRESIGND_S3__STS__ROLE_ARN", &bucket.service.role_arn));
    let dev = Serving::start(&arguments, folder.path(), &variables);
    Banner::read(&dev).paste();
    assert_eq!(dev.interrupt(), Some(0));
    bucket.end().await;
    database.end().await;
}

/// Files for a service on these parts.
pub(crate) fn installed(database: &TestDatabase, bucket: &TestBucket, overlay: &str) -> TempDir {
    let folder = files("", POLICIES);
    let settings = settings(database, bucket, &folder.path().join("policies.toml"), overlay);
    fs::write(folder.path().join("presignd.toml"), settings.to_string()).unwrap();
    folder
}

async fn serve_token_probe(backend: Backend) {
    let store = folder();
    let database = backend.database().await;
    let bucket = backend.bucket(store.path()).await;
    let folder = installed(&database, &bucket, "log.filter = \"info\"");
    let serving = Serving::start(&["serve"], folder.path(), &[]);
    let base = serving.base();

    let anonymous = Caller::new(base.clone(), None, [127, 0, 0, 1].into());
    let token = run(&["token", "--subject", "bob"], folder.path(), &[]).expect(0).stdout;
    let bob = anonymous.with_token(token.trim_end());
    let confirmed = bob.upload("a.txt", b"bytes", &serde_json::json!({ "method": "put" })).await;
    assert_eq!(confirmed["created_by"], "bob");
    let issuer = crate::support::app::OTHER_ISSUER;
    let token = run(&["token", "--issuer", issuer, "--tenant", "acme"], folder.path(), &[]).expect(0).stdout;
    anonymous.with_token(token.trim_end()).get("/api/v1/uploads").await.expect(StatusCode::OK);

    let url = format!("{base}/readyz");
    let ended = run(&["probe", "--url", &url], folder.path(), &[]).expect(0);
    assert!(ended.stdout.contains("\"ready\":true"), "{ended:?}");
    // Answered, but not with what says "ready".
    run(&["probe", "--url", &format!("{base}/nowhere")], folder.path(), &[]).expect(1);
    assert_eq!(serving.interrupt(), Some(0));
    let ended = run(&["probe", "--url", &url], folder.path(), &[]).expect(1);
    assert!(ended.stderr.contains(base.trim_start_matches("http://")), "{ended:?}");
    bucket.end().await;
    database.end().await;
}

/// How many migrations there are.
fn migrations() -> usize {
    let entries = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
    entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir())).count()
}

async fn migrate(backend: Backend) {
    let store = folder();
    let database = backend.database().await;
    let bucket = backend.bucket(store.path()).await;
    let folder = installed(&database, &bucket, "");
    let migrate = |arguments: &[&str]| run(&[&["migrate"], arguments].concat(), folder.path(), &[]);
    let starting_with = |lines: &[&str], word: &str| lines.iter().filter(|line| line.starts_with(word)).count();

    assert_eq!(starting_with(&migrate(&["--status"]).expect(0).lines(), "pending "), migrations());
    let both = std::thread::scope(|scope| {
        let both = [scope.spawn(|| migrate(&[])), scope.spawn(|| migrate(&[]))];
        both.map(|one| one.join().unwrap().expect(0))
    });
    let said: Vec<&str> = both.iter().flat_map(Ended::lines).collect();
    assert_eq!(starting_with(&said, "applied "), migrations(), "{said:?}");
    assert_eq!(said.iter().collect::<BTreeSet<_>>().len(), migrations() + usize::from(said.contains(&"up to date")));
    assert_eq!(migrate(&["--status"]).expect(0).lines(), ["up to date"]);
    assert_eq!(migrate(&[]).expect(0).lines(), ["up to date"]);

    let TestDatabase::Real { name, services, .. } = &database else { panic!("an installed PostgreSQL") };
    let psql = |statement: &str| services.lock().unwrap().postgres.as_ref().unwrap().psql(name, statement).unwrap();
    for id in ["00dc6acf-ac00-7000-8000-000000000001", "00dc6acf-ac00-7000-8000-000000000002"] {
        psql(&format!("INSERT INTO access_events (id, kind) VALUES ('{id}', 'refused')"));
    }
    let moved = migrate(&["--repartition"]).expect(0);
    assert_eq!(moved.lines(), ["moved 2 of access_events_default to access_events_2000_01"]);
    assert_eq!(psql("SELECT count(*) FROM access_events_2000_01"), "2");
    assert_eq!(migrate(&["--repartition"]).expect(0).lines(), ["up to date"]);

    let reverted = migrate(&["--revert", "1"]).expect(0);
    let version = reverted.stdout.trim_end().strip_prefix("reverted ").expect("a version");
    assert_eq!(migrate(&["--status"]).expect(0).lines(), [format!("pending {version}")]);
    assert_eq!(migrate(&["--revert", "99"]).expect(0).lines().len(), migrations() - 1);
    assert_eq!(migrate(&["--revert", "1"]).expect(0).lines(), ["nothing to revert"]);
    assert_eq!(starting_with(&migrate(&[]).expect(0).lines(), "applied "), migrations());
    bucket.end().await;
    database.end().await;
}

async fn schema_does_not_fit(backend: Backend) {
    let store = folder();
    let database = backend.database().await;
    let bucket = backend.bucket(store.path()).await;
    let folder = installed(&database, &bucket, "database.migrate_on_start = false");
    let run = |arguments: &[&str]| run(arguments, folder.path(), &[]);

    let ended = run(&["serve"]).expect(1);
    assert!(
        ended.stderr.contains("lacks migrations (") && ended.stderr.contains("run \"presignd migrate\""),
        "{ended:?}"
    );
    run(&["migrate"]).expect(0);
    let TestDatabase::Real { name, services, .. } = &database else { panic!("an installed PostgreSQL") };
    let statement = "INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')";
    services.lock().unwrap().postgres.as_ref().unwrap().psql(name, statement).unwrap();
    for command in ["serve", "migrate"] {
        let ended = run(&[command]).expect(1);
        let expected = "migrations that this binary does not know (29991231000000)";
        assert!(ended.stderr.contains(expected), "{ended:?}");
    }
    assert_eq!(run(&["migrate", "--status"]).expect(0).lines(), ["unknown 29991231000000"]);
    bucket.end().await;
    database.end().await;
}

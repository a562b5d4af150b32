//! Ceph's S3 gateway on the smallest cluster there is: one monitor, one OSD in memory, one `radosgw`.

use std::path::{Path, PathBuf};
use std::process::Command;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::process::{Process, find_program, free_port, get, random_secret, run};
use super::{STORE_DOMAIN, StoreService};

const INSTALL: &str = "apt-get install --no-install-recommends ceph-mon ceph-osd radosgw ceph-common";

/// Checks that the programs are there, or says which one is not.
pub(crate) fn find_programs() -> Result<(), String> {
    let programs = ["ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin"];
    match programs.iter().find(|program| find_program(program, &[]).is_none()) {
        None => Ok(()),
        Some(missing) => Err(format!("Ceph RGW: no `{missing}`; {INSTALL}")),
    }
}

/// A running gateway. Its objects are in the OSD's memory and gone with it.
#[derive(Debug)]
pub(crate) struct Rgw {
    store: StoreService,
    // Killed in this order: a gateway that is asked to stop without its OSD hangs.
    _radosgw: Process,
    _osd: Process,
    _mon: Process,
}

impl Rgw {
    /// Starts a new cluster under `dir`, with a user that may assume a role with all of `s3:*`.
    pub(crate) fn start(dir: &Path) -> Result<Self, String> {
        let cluster = Cluster::create(dir)?;

        let mut mon = cluster.daemon("mon", Command::new("ceph-mon").args(["-f", "-i", "a"]))?;
        mon.wait_ready(|| cluster.ceph(&["--connect-timeout", "5", "mon", "stat"]))?;

        // The in-memory store gives itself an id when it is made, so the monitor learns the id from the store.
        run(None, cluster.command("ceph-osd").args(["-i", "0", "--mkfs"]))?;
        let fsid = ["fsid", "fs_fsid"].iter().find_map(|file| std::fs::read_to_string(dir.join("osd").join(file)).ok());
        let fsid = fsid.ok_or("ceph-osd --mkfs left no fsid")?;
        // On a loaded machine the monitor elects itself again at times, and refuses commands meanwhile. Both may be repeated.
        mon.wait_ready(|| cluster.ceph(&["osd", "new", fsid.trim(), "0"]))?;
        // Placed by hand: an OSD that does it itself races with its monitor map when authentication is off.
        mon.wait_ready(|| cluster.ceph(&["osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost"]))?;
        let osd = cluster.daemon("osd", Command::new("ceph-osd").args(["-f", "-i", "0"]))?;

        let mut radosgw = cluster.daemon("radosgw", Command::new("radosgw").args(["-f", "-n", "client.rgw"]))?;
        radosgw.wait_ready(|| match get(cluster.port, "/")? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{status}: {body}")),
        })?;

        let access_key_id = "PRESIGNDISSUER000001".to_owned();
        let secret_access_key = random_secret()?;
        cluster.create_user(&access_key_id, &secret_access_key)?;
        let role_arn = cluster.create_role()?;
        let store = StoreService {
            name: "rgw",
            endpoint: format!("http://127.0.0.1:{}", cluster.port),
            region: "us-east-1".to_owned(),
            access_key_id,
            secret_access_key: SecretString::from(secret_access_key),
            role_arn,
        };
        Ok(Self { store, _radosgw: radosgw, _osd: osd, _mon: mon })
    }

    pub(crate) fn store(&self) -> &StoreService {
        &self.store
    }
}

struct Cluster {
    dir: PathBuf,
    conf: PathBuf,
    port: u16,
}

impl Cluster {
    fn create(dir: &Path) -> Result<Self, String> {
        let (port, mon_port) = (free_port()?, free_port()?);
        let fsid = uuid::Uuid::now_v7().to_string();
        let cluster = Self { dir: dir.to_owned(), conf: dir.join("ceph.conf"), port };
        let write = || -> Result<(), std::io::Error> {
            for part in ["mon", "osd", "rgw", "run"] {
                std::fs::create_dir_all(dir.join(part))?;
            }
            std::fs::write(&cluster.conf, configuration(dir, &fsid, port, mon_port))
        };
        write().map_err(|e| format!("{}: {e}", dir.display()))?;

        let monmap = dir.join("monmap");
        let mut monmaptool = Command::new("monmaptool");
        monmaptool.args(["--create", "--fsid", &fsid, "--addv", "a", &format!("[v1:127.0.0.1:{mon_port}]")]);
        run(None, monmaptool.arg(&monmap))?;
        run(None, cluster.command("ceph-mon").args(["-i", "a", "--mkfs", "--monmap"]).arg(&monmap))?;
        Ok(cluster)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.conf);
        command
    }

    fn daemon(&self, name: &str, command: &mut Command) -> Result<Process, String> {
        Process::spawn(name, &self.dir, None, command.arg("-c").arg(&self.conf))
    }

    fn ceph(&self, arguments: &[&str]) -> Result<String, String> {
        run(None, self.command("ceph").args(arguments))
    }

    fn radosgw_admin(&self, arguments: &[&str]) -> Result<String, String> {
        run(None, self.command("radosgw-admin").args(["-n", "client.rgw"]).args(arguments))
    }

    fn create_user(&self, access_key_id: &str, secret_access_key: &str) -> Result<(), String> {
        let (access_key, secret_key) =
            (format!("--access-key={access_key_id}"), format!("--secret-key={secret_access_key}"));
        self.radosgw_admin(&["user", "create", "--uid=issuer", "--display-name=issuer", &access_key, &secret_key])
            .map(drop)
    }

    /// A role that the user may assume, for everything in S3; the session policy narrows it. Returns its ARN.
    fn create_role(&self) -> Result<String, String> {
        let trust = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": {"AWS": ["arn:aws:iam:::user/issuer"]},
            "Action": ["sts:AssumeRole"],
        }]});
        let everything = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Action": ["s3:*"],
            "Resource": ["arn:aws:s3:::*"],
        }]});
        let (trust, everything) = (format!("--assume-role-policy-doc={trust}"), format!("--policy-doc={everything}"));
        let name = "--role-name=Uploader";
        let role = self.radosgw_admin(&["role", "create", name, "--path=/", &trust])?;
        let role: Value = serde_json::from_str(&role).map_err(|e| format!("radosgw-admin role create: {e}"))?;
        self.radosgw_admin(&["role-policy", "put", name, "--policy-name=S3All", &everything])?;
        let arn = role.get("Arn").and_then(Value::as_str).ok_or("radosgw-admin role create: no Arn")?;
        Ok(arn.to_owned())
    }
}

/// The cluster's configuration. No manager and no authentication between the daemons; one copy of everything, one
/// placement group per pool and quick elections bring the start from 12 s to about one.
fn configuration(dir: &Path, fsid: &str, port: u16, mon_port: u16) -> String {
    let dir = dir.display();
    format!(
        "[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{mon_port}]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
auth cluster required = none
auth service required = none
auth client required = none
run dir = {dir}/run
# A socket's path may have 107 bytes at most, a temporary directory's may have more.
admin socket =
pid file = {dir}/run/$name.pid
crash dir = {dir}/run
log to file = false
log to stderr = true
mon cluster log to file = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
paxos propose interval = 0.05
paxos min wait = 0.01
mon client hunt interval = 0.5
osd class load list = *
osd class default list = *
[mon]
mon data = {dir}/mon
# A nearly full disk is no reason for a monitor of a few megabytes to give up.
mon data avail crit = 1
mon data avail warn = 1
[osd]
osd data = {dir}/osd
osd objectstore = memstore
# Used as it is written. A full store does not refuse a write but lets it hang.
memstore device bytes = 4294967296
osd crush update on start = false
osd class update on start = false
[client.rgw]
rgw data = {dir}/rgw
rgw dns name = {STORE_DOMAIN}
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 64
rgw enable usage log = false
rgw enable ops log = false
rgw gc max objs = 1
# What a test deletes goes at once, and not after hours: the memory is for the next test.
rgw gc obj min wait = 5
rgw gc processor period = 5
rgw usage max shards = 1
rgw lc max objs = 1
rgw objexp hints num shards = 1
rgw md log max shards = 1
rgw data log num shards = 1
rgw reshard num logs = 1
rgw dynamic resharding = false
rgw s3 auth use sts = true
# 16 characters: an AES-128 key for the session tokens.
rgw sts key = abcdefghijklmnop
# Lets a test see a session end.
rgw sts min session duration = 1
debug rgw = 1
"
    )
}

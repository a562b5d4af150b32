//! `[delivery]`: how files are handed out by this process and by the web server in front of it.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{Problem, duration, number};
use crate::model::ClientNetwork;

/// Settings of delivery.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryConfig {
    /// Downloads that one process streams at once.
    #[serde(deserialize_with = "number::deserialize")]
    pub streams: usize,
    /// How long a stream may go without a byte, from the store or to the client, before it is broken off.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stall_timeout: Duration,
    /// The web server in front of this service that hands out files for the delivery `accel`.
    pub accel: Option<AccelServer>,
    /// Where nginx serves what only this service may name: the path of its internal location.
    pub accel_prefix: String,
    /// The network that nginx reaches the store from. Without it, its URLs work from everywhere, and are shown to nobody.
    pub accel_network: Option<String>,
    /// Where Apache or lighttpd sees the bucket as a folder.
    pub accel_root: Option<PathBuf>,
}

/// A web server that can be told which file to hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelServer {
    /// By `X-Accel-Redirect`, and a URL that it reads from the store.
    Nginx,
    /// By `X-Sendfile`, from a folder.
    Apache,
    /// By `X-LIGHTTPD-send-file`, from a folder.
    Lighttpd,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            streams: 500,
            stall_timeout: Duration::from_secs(30),
            accel: None,
            accel_prefix: "/_presignd/".to_owned(),
            accel_network: None,
            accel_root: None,
        }
    }
}

impl DeliveryConfig {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(1..=100_000).contains(&self.streams) {
            problems.push(Problem::new("delivery.streams", "must be 1 to 100000"));
        }
        if !(Duration::from_secs(1)..=Duration::from_hours(1)).contains(&self.stall_timeout) {
            problems.push(Problem::new("delivery.stall_timeout", "must be 1s to 1h"));
        }
        let prefix = &self.accel_prefix;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/_-.".contains(&b);
        if !(prefix.len() > 2 && prefix.starts_with('/') && prefix.ends_with('/') && prefix.bytes().all(allowed))
            || prefix.contains("..")
            || prefix.contains("//")
        {
            let rule = "must be a path such as \"/_presignd/\": letters, digits and / _ - . with \"/\" at both ends";
            problems.push(Problem::new("delivery.accel_prefix", rule));
        }
        if self.accel_network.as_ref().is_some_and(|network| network.parse::<ClientNetwork>().is_err()) {
            let rule = "must be a network with its mask, such as \"10.0.0.0/24\"";
            problems.push(Problem::new("delivery.accel_network", rule));
        }
        let has_root = self.accel_root.as_ref().is_some_and(|root| root.is_absolute());
        if matches!(self.accel, Some(AccelServer::Apache | AccelServer::Lighttpd)) && !has_root {
            let rule = "must be the absolute path of the folder where the web server sees the bucket";
            problems.push(Problem::new("delivery.accel_root", rule));
        }
        problems
    }
}

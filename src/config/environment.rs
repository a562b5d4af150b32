//! The process environment, the only place that reads it.

use std::collections::BTreeMap;

/// Prefix of every variable that sets something.
pub const PREFIX: &str = "PRESIGND_";

/// Variables with the prefix that are not settings of the file.
const NOT_SETTINGS: [&str; 2] = ["PRESIGND_CONFIG", "PRESIGND_TEST_REAL"];

/// What Kubernetes gives every container when there is a Service named presignd.
const SERVICE_LINKS: [&str; 2] = ["PRESIGND_SERVICE_", "PRESIGND_PORT"];

/// Variables of the process that set something, by name.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn variables() -> BTreeMap<String, String> {
    std::env::vars().filter(|(name, _)| is_setting(name) || name == "DATABASE_URL" || name == "RUST_LOG").collect()
}

/// `variables`, those that win over others last: `PRESIGND_LOG__FILTER` over `RUST_LOG`.
pub(super) fn by_precedence(
    variables: &BTreeMap<String, String>,
) -> impl DoubleEndedIterator<Item = (&String, &String)> {
    let of = |prefixed: bool| variables.iter().filter(move |(name, _)| name.starts_with(PREFIX) == prefixed);
    of(false).chain(of(true))
}

/// The dotted key that `name` sets: `PRESIGND_S3__STS__ROLE_ARN` sets `s3.sts.role_arn`.
pub fn key_of(name: &str) -> Option<Vec<String>> {
    match name {
        "DATABASE_URL" => Some(vec!["database".to_owned(), "url".to_owned()]),
        "RUST_LOG" => Some(vec!["log".to_owned(), "filter".to_owned()]),
        _ if is_setting(name) => {
            name.strip_prefix(PREFIX).map(|rest| rest.split("__").map(str::to_ascii_lowercase).collect())
        }
        _ => None,
    }
}

fn is_setting(name: &str) -> bool {
    let linked = SERVICE_LINKS.iter().any(|link| name.starts_with(link));
    name.starts_with(PREFIX) && !linked && !NOT_SETTINGS.contains(&name)
}

//! The process environment, the only place that reads it.

use std::collections::BTreeMap;

/// Prefix of every variable that sets something.
pub const PREFIX: &str = "PRESIGND_";

/// Variables with the prefix that are not settings of the file.
const NOT_SETTINGS: [&str; 2] = ["PRESIGND_CONFIG", "PRESIGND_TEST_REAL"];

/// Variables of the process that set something, by name.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn variables() -> BTreeMap<String, String> {
    let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours = named.filter(|(name, _)| is_setting(name) || name == "DATABASE_URL" || name == "RUST_LOG");
    // What is not Unicode becomes something that no setting is, and is refused as such.
    ours.map(|(name, value)| (name, value.to_string_lossy().into_owned())).collect()
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
    name.strip_prefix(PREFIX).is_some_and(|rest| !is_service_link(rest)) && !NOT_SETTINGS.contains(&name)
}

/// Whether Kubernetes gives every container of a namespace the variable, because there is a Service whose name begins
/// with presignd, such as `presignd` or `presignd-postgresql`
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>). `rest` follows the prefix.
fn is_service_link(rest: &str) -> bool {
    // Settings of sections have it, and no section is called like a port.
    if rest.contains("__") {
        return false;
    }
    // PORT, PORT_80_TCP, PORT_80_TCP_ADDR …
    let of_port = |rest: &str| {
        rest == "PORT"
            || rest.strip_prefix("PORT_").is_some_and(|rest| {
                let mut parts = rest.split('_');
                let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
                number && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
            })
    };
    let of_service = |rest: &str| rest == "SERVICE_HOST" || rest == "SERVICE_PORT" || rest.starts_with("SERVICE_PORT_");
    let ends = rest.match_indices('_').map(|(at, _)| &rest[at + 1..]);
    std::iter::once(rest).chain(ends).any(|end| of_port(end) || of_service(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_adds_is_no_setting() {
        for name in [
            "PRESIGND_SERVICE_HOST",
            "PRESIGND_SERVICE_PORT",
            "PRESIGND_SERVICE_PORT_HTTP",
            "PRESIGND_PORT",
            "PRESIGND_PORT_8080_TCP",
            "PRESIGND_PORT_8080_TCP_ADDR",
            "PRESIGND_POSTGRESQL_SERVICE_HOST",
            "PRESIGND_POSTGRESQL_HL_SERVICE_PORT_TCP_POSTGRESQL",
            "PRESIGND_POSTGRESQL_PORT",
            "PRESIGND_POSTGRESQL_PORT_5432_TCP_PROTO",
            "PRESIGND_CONFIG",
            "PRESIGNED_URL",
        ] {
            assert_eq!(key_of(name), None, "{name}");
        }
        for name in [
            "PRESIGND_SERVER__LISTEN",
            "PRESIGND_SERVER__PORT",
            "PRESIGND_SERVER",
            "PRESIGND_EXPORT",
            "PRESIGND_PORTS",
            "PRESIGND_SERVICES__HOST",
        ] {
            assert!(key_of(name).is_some(), "{name}");
        }
    }
}

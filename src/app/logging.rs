//! What a log line looks like.

use std::io::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};
use env_logger::{Builder, Target};
use log::{
    LevelFilter,
    kv::{Error as KvError, Key, Value, VisitSource},
};
use serde_json::Map;

use crate::{
    clock::Clock,
    config::{LogConfig, LogFormat},
};

/// Libraries that write whole requests or the values of a row, secrets included, at their lower levels. Nobody who asks
/// for `RUST_LOG=debug` expects that in a file.
const WRITES_SIGNATURES: [&str; 8] = [
    "tracing",
    "tokio_postgres",
    "s3s",
    "aws_sigv4",
    "aws_runtime",
    "aws_smithy_runtime",
    "aws_smithy_http_client",
    "hyper",
];

/// Sends log lines to standard error as `config` says. Only the first call of a process counts.
pub fn init(config: &LogConfig) {
    let mut builder = Builder::new();
    builder.parse_filters(&config.filter).target(Target::Stderr);
    for module in WRITES_SIGNATURES {
        builder.filter_module(module, LevelFilter::Off);
    }
    // It announces what "listening on" says already.
    builder.filter_module("actix_server", LevelFilter::Warn);
    // It calls it an error that somebody sent what is not HTTP, which anybody can do at any time.
    builder.filter_module("actix_http::h1::dispatcher", LevelFilter::Off);
    // It writes the path of a request that it cannot read, in which there may be a capability.
    builder.filter_module("actix_web", LevelFilter::Warn);
    if config.format == LogFormat::Json {
        builder.format(|out, record| writeln!(out, "{}", json_line(record, Clock::System.now())));
    }
    // A second logger in one process, as tests would have it, changes nothing.
    let _ = builder.try_init();
}

/// One object: `time`, `level`, `target`, `message`, then the fields of the record.
fn json_line(record: &log::Record<'_>, now: DateTime<Utc>) -> serde_json::Value {
    struct Fields<'a>(&'a mut Map<String, serde_json::Value>);

    impl<'kvs> VisitSource<'kvs> for Fields<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
            let value = value.to_u64().map_or_else(|| value.to_string().into(), serde_json::Value::from);
            // A field cannot take the place of what every line has.
            self.0.entry(key.as_str()).or_insert(value);
            Ok(())
        }
    }

    let mut line = Map::new();
    line.insert("time".to_owned(), now.to_rfc3339_opts(SecondsFormat::Millis, true).into());
    line.insert("level".to_owned(), record.level().as_str().to_lowercase().into());
    line.insert("target".to_owned(), record.target().into());
    line.insert("message".to_owned(), record.args().to_string().into());
    let _ = record.key_values().visit(&mut Fields(&mut line));
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_hold_the_record_and_its_fields() {
        let fields = [("status", 200), ("time", 7)];
        let line = json_line(
            &log::Record::builder()
                .level(log::Level::Info)
                .target("presignd::access")
                .args(format_args!("two\n\"lines\""))
                .key_values(&fields)
                .build(),
            "2026-11-21T10:00:00Z".parse().unwrap(),
        );
        assert_eq!(
            line.to_string(),
            r#"{"level":"info","message":"two\n\"lines\"","status":200,"target":"presignd::access","time":"2026-11-21T10:00:00.000Z"}"#
        );
    }
}

//! `presignd audit`

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde::Serialize;
use tokio::runtime::Handle;

use super::{ConfigArgs, Failure, bar, start_logging};
use crate::{
    db::{AuditFilter, AuditRecord, Database},
    model::{AuditKind, IntentId},
};

/// Records that are in memory at once.
const PAGE: usize = 1000;

/// What to do with the audit.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Write the audit to standard output, newest first.
    ///
    /// Takes as much memory for years as for a day. A progress bar goes to standard error when that is a terminal. In
    /// CSV, a cell that a spreadsheet would take for a formula is led by an apostrophe.
    #[command(after_help = "\
Examples:
  presignd audit export --format csv --since 2026-11-01T00:00:00Z > all.csv
  presignd audit export --format jsonl --issuer https://id.example.com/ \\
      --user alice --until 2026-12-01T00:00:00Z
  presignd audit export --format jsonl --kind refused | jq .reason

Exit codes: 0 done; 1 it did not work; 2 the command line cannot be understood.")]
    Export(ExportArgs),
}

/// Which records to write, and how.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How to write them.
    #[arg(long)]
    format: Format,
    /// From this instant on (RFC 3339).
    #[arg(long, value_name = "INSTANT")]
    since: Option<DateTime<Utc>>,
    /// Before this instant.
    #[arg(long, value_name = "INSTANT")]
    until: Option<DateTime<Utc>>,
    /// About this user (sub), whom --issuer makes one of many with that name.
    #[arg(long, value_name = "SUBJECT", requires = "issuer")]
    user: Option<String>,
    /// The user's issuer (iss).
    #[arg(long, value_name = "ISSUER", requires = "user")]
    issuer: Option<String>,
    /// About this upload.
    #[arg(long, value_name = "UPLOAD_ID")]
    upload: Option<IntentId>,
    /// To do with addresses of this network.
    #[arg(long, value_name = "CIDR")]
    network: Option<IpNet>,
    /// Of this kind: upload_issued, download_issued, cookies_issued, redeemed, refused or revoked.
    #[expect(clippy::doc_markdown, reason = "clap shows it in a terminal, where backticks are noise")]
    #[arg(long)]
    kind: Option<AuditKind>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Comma-separated values with a line of headings (RFC 4180).
    Csv,
    /// One JSON object a line.
    Jsonl,
}

pub(super) async fn run(command: &AuditCommand, runtime: &Handle) -> Result<ExitCode, Failure> {
    let AuditCommand::Export(args) = command;
    let config = args.config.load()?;
    start_logging(&config);
    let database = Database::new(&config.database, runtime)?;
    let exported = export(args, &database, io::stdout().lock()).await;
    database.close();
    exported.map(|()| ExitCode::SUCCESS)
}

async fn export(args: &ExportArgs, database: &Database, output: impl Write) -> Result<(), Failure> {
    let mut filter = args.filter();
    let mut lines = Lines::new(args.format, output);
    let bar = bar::counting("records");
    loop {
        let page = database.audit(&filter).await?;
        for record in &page.records {
            match lines.write(&Line::from(record)) {
                Ok(()) => bar.inc(1),
                // Whoever closed it, such as `head`, has read enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        match page.next {
            Some(next) => filter.before = Some(next),
            None => break,
        }
    }
    bar.finish_and_clear();
    lines.end().or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) })
}

impl ExportArgs {
    fn filter(&self) -> AuditFilter {
        AuditFilter {
            user: self.issuer.clone().zip(self.user.clone()),
            tenant: None,
            upload_id: self.upload,
            network: self.network,
            kind: self.kind,
            since: self.since.map(IntentId::lowest_at),
            before: self.until.map(IntentId::lowest_at),
            limit: PAGE,
        }
    }
}

/// A record as it is written.
#[derive(Debug, Serialize)]
struct Line<'a> {
    at: Option<String>,
    #[serde(flatten)]
    record: &'a AuditRecord,
}

impl<'a> From<&'a AuditRecord> for Line<'a> {
    fn from(record: &'a AuditRecord) -> Self {
        Self { at: record.id.issued_at().map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)), record }
    }
}

/// The names of the cells, in the order of [`Line::cells`].
const HEADINGS: [&str; 14] = [
    "at",
    "kind",
    "id",
    "issuer",
    "subject",
    "tenant",
    "upload_id",
    "download_id",
    "policy",
    "client_network",
    "reason",
    "actor_issuer",
    "actor_subject",
    "prefix",
];

impl Line<'_> {
    fn cells(&self) -> [String; 14] {
        let text = |text: &Option<String>| text.as_deref().map(harmless).unwrap_or_default();
        let id = |id: Option<IntentId>| id.map(|id| id.to_string()).unwrap_or_default();
        // Taken apart in full, so that no column of the other format is missing in this one.
        let AuditRecord {
            id: record_id,
            kind,
            issuer,
            subject,
            tenant,
            upload_id,
            download_id,
            policy,
            client_network,
            reason,
            actor_issuer,
            actor_subject,
            prefix,
        } = self.record;
        [
            self.at.clone().unwrap_or_default(),
            kind.to_string(),
            record_id.to_string(),
            text(issuer),
            text(subject),
            text(tenant),
            id(*upload_id),
            id(*download_id),
            text(policy),
            client_network.map(|network| network.to_string()).unwrap_or_default(),
            text(reason),
            text(actor_issuer),
            text(actor_subject),
            text(prefix),
        ]
    }
}

/// The text, led by an apostrophe where a spreadsheet would run it
/// (<https://owasp.org/www-community/attacks/CSV_Injection>): names come from tokens, and whoever opens the file trusts it.
fn harmless(text: &str) -> String {
    let runs = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    if runs { format!("'{text}") } else { text.to_owned() }
}

/// Where lines go.
enum Lines<W: Write> {
    Csv { writer: Box<csv::Writer<W>>, has_headings: bool },
    Jsonl(BufWriter<W>),
}

/// Its own conversion hides of which kind it was.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        kind => io::Error::other(format!("{kind:?}")),
    }
}

impl<W: Write> Lines<W> {
    fn new(format: Format, output: W) -> Self {
        match format {
            Format::Csv => {
                let writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(output);
                Self::Csv { writer: Box::new(writer), has_headings: false }
            }
            Format::Jsonl => Self::Jsonl(BufWriter::new(output)),
        }
    }

    fn write(&mut self, line: &Line<'_>) -> io::Result<()> {
        self.begin()?;
        match self {
            Self::Csv { writer, .. } => writer.write_record(line.cells()).map_err(io_error),
            Self::Jsonl(writer) => {
                serde_json::to_writer(&mut *writer, line)?;
                writer.write_all(b"\n")
            }
        }
    }

    /// The headings, also where no line follows.
    fn begin(&mut self) -> io::Result<()> {
        match self {
            Self::Csv { writer, has_headings } if !*has_headings => {
                *has_headings = true;
                writer.write_record(HEADINGS).map_err(io_error)
            }
            _ => Ok(()),
        }
    }

    fn end(mut self) -> io::Result<()> {
        self.begin()?;
        match &mut self {
            Self::Csv { writer, .. } => writer.flush(),
            Self::Jsonl(writer) => writer.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(subject: &str, reason: &str) -> AuditRecord {
        AuditRecord {
            id: IntentId::at("2026-11-21T12:00:00.5Z".parse().unwrap()),
            kind: AuditKind::Refused,
            issuer: Some("https://id.example.com/".to_owned()),
            subject: Some(subject.to_owned()),
            tenant: None,
            upload_id: None,
            download_id: None,
            policy: Some("default".to_owned()),
            client_network: Some("203.0.113.7/32".parse().unwrap()),
            reason: Some(reason.to_owned()),
            actor_issuer: None,
            actor_subject: None,
            prefix: None,
        }
    }

    fn written(format: Format, given: &[AuditRecord]) -> String {
        let mut bytes = Vec::new();
        let mut lines = Lines::new(format, &mut bytes);
        for record in given {
            lines.write(&Line::from(record)).unwrap();
        }
        lines.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_cell_runs_in_a_spreadsheet() {
        let record = record("=cmd|' /C calc'!A1", "a,\"b\"\n");
        let text = written(Format::Csv, std::slice::from_ref(&record));
        let (headings, row) = text.split_once("\r\n").unwrap();
        assert_eq!(headings, HEADINGS.join(","));
        let expected = format!(
            "2026-11-21T12:00:00.500Z,refused,{},https://id.example.com/,\
             '=cmd|' /C calc'!A1,,,,default,203.0.113.7/32,\"a,\"\"b\"\"\n\",,,\r\n",
            record.id
        );
        assert_eq!(row, expected);
        for text in ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "＝1"] {
            assert!(harmless(text).starts_with('\''), "{text:?}");
        }
        assert_eq!(harmless("alice=1"), "alice=1");
    }

    #[test]
    fn json_says_what_is_there() {
        let text = written(Format::Jsonl, &[record("=1", "a\nb"), record("b", "c")]);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["subject"], "=1");
        assert_eq!(lines[0]["reason"], "a\nb");
        assert_eq!(lines[0]["tenant"], serde_json::Value::Null);
    }

    #[test]
    fn nothing_is_headings_alone() {
        assert_eq!(written(Format::Csv, &[]), format!("{}\r\n", HEADINGS.join(",")));
        assert_eq!(written(Format::Jsonl, &[]), "");
    }
}

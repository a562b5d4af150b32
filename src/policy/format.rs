//! The file format: TOML to timelines of rules, reporting every problem with its line.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    ops::{Range, RangeInclusive},
    str::FromStr,
    time::Duration,
};

use chrono::{DateTime, Utc};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Rules, document::Timeline};
use crate::{
    config::{Problem, duration},
    model::{ByteRate, ByteSize, Invalid, IpScope, PartPlan, UploadMethod},
};

/// The policy that decides requests which name none.
const DEFAULT: &str = "policy.default";

/// What is wrong at one place of a policies file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct PolicyProblem {
    /// The line, counted from 1. What the file lacks altogether is reported at line 1.
    pub line: usize,
    /// The key and the rule. Where TOML itself is broken the key is `toml`.
    pub problem: Problem,
}

/// Everything that is wrong with a policies file, in the order of its lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    /// Each problem.
    pub problems: Vec<PolicyProblem>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems.iter().enumerate().try_for_each(|(at, problem)| {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")
        })
    }
}

/// A parsed file.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) policies: BTreeMap<String, Timeline>,
    /// The line of every table and setting, by its dotted key.
    pub(super) lines: BTreeMap<String, usize>,
}

pub(super) fn parse(text: &str) -> Result<Parsed, PolicyError> {
    let mut reader = Reader { text, lines: BTreeMap::new(), problems: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        reader.refuse(error.span().unwrap_or_default(), "toml", error.message());
    }
    // What a recovering parser makes of broken TOML would only raise problems that nobody wrote.
    let policies = if errors.is_empty() { reader.document(document.get_ref()) } else { BTreeMap::new() };
    let Reader { lines, mut problems, .. } = reader;
    if problems.is_empty() {
        return Ok(Parsed { policies, lines });
    }
    problems.sort_by_key(|problem| problem.line);
    Err(PolicyError { problems })
}

/// The line, counted from 1, of what follows `before`.
pub(super) fn line_after(before: &[u8]) -> usize {
    before.split(|byte| *byte == b'\n').count()
}

/// Reads settings and collects what is wrong with them.
struct Reader<'t> {
    text: &'t str,
    lines: BTreeMap<String, usize>,
    problems: Vec<PolicyProblem>,
}

impl Reader<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        line_after(self.text.as_bytes().get(..span.start).unwrap_or_default())
    }

    fn refuse(&mut self, span: Range<usize>, key: impl Into<String>, rule: impl Into<String>) {
        let line = self.line(&span);
        self.problems.push(PolicyProblem { line, problem: Problem::new(key, rule) });
    }

    fn document(&mut self, document: &DeTable<'_>) -> BTreeMap<String, Timeline> {
        let mut policies = BTreeMap::new();
        for (key, value) in document {
            match value.get_ref() {
                DeValue::Table(tables) if key.get_ref() == "policy" => {
                    for (name, value) in tables {
                        if let Some(timeline) = self.policy(name, value) {
                            policies.insert(name.get_ref().to_string(), timeline);
                        }
                    }
                }
                _ if key.get_ref() == "policy" => {
                    self.refuse(key.span(), "policy", "must hold tables: [policy.NAME]");
                }
                _ => {
                    let key_path = key.get_ref().escape_debug().to_string();
                    self.refuse(key.span(), key_path, "is unknown: the file holds [policy.NAME] tables");
                }
            }
        }
        if !self.lines.contains_key(DEFAULT) {
            self.refuse(0..0, DEFAULT, "must exist: it decides requests that name no policy");
        }
        policies
    }

    fn policy(&mut self, name: &Spanned<Cow<'_, str>>, value: &Spanned<DeValue<'_>>) -> Option<Timeline> {
        let path = format!("policy.{}", name.get_ref().escape_debug());
        self.lines.insert(path.clone(), self.line(&name.span()));
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if !(1..=64).contains(&name.get_ref().len()) || !name.get_ref().bytes().all(allowed) {
            self.refuse(name.span(), path, "must be named by 1 to 64 of the characters a-z, 0-9, _ and -");
            return None;
        }
        let DeValue::Table(table) = value.get_ref() else {
            self.refuse(value.span(), path, "must be a table");
            return None;
        };
        let mut rules = Rules::default();
        self.table(&path, table, &mut rules, "schedule");
        let mut timeline = Timeline::new(rules);
        if let Some(schedule) = table.get("schedule") {
            self.schedule(&format!("{path}.schedule"), schedule, &mut timeline);
        }
        Some(timeline)
    }

    fn schedule(&mut self, path: &str, value: &Spanned<DeValue<'_>>, timeline: &mut Timeline) {
        let DeValue::Array(entries) = value.get_ref() else {
            self.refuse(value.span(), path, "must be written as [[…]], a table for each entry");
            return;
        };
        let mut latest = None;
        for (at, entry) in entries.iter().enumerate() {
            let path = format!("{path}[{at}]");
            self.lines.insert(path.clone(), self.line(&entry.span()));
            let DeValue::Table(table) = entry.get_ref() else {
                self.refuse(entry.span(), path, "must be a table");
                continue;
            };
            let mut rules = timeline.last().clone();
            self.table(&path, table, &mut rules, "from");
            if table.len() <= usize::from(table.contains_key("from")) {
                self.refuse(entry.span(), path.clone(), "must change at least one setting");
            }
            let key = format!("{path}.from");
            let Some(value) = table.get("from") else {
                self.refuse(entry.span(), key, "must say from when on the entry holds");
                continue;
            };
            match instant(value.get_ref()) {
                Err(rule) => self.refuse(value.span(), key, rule),
                Ok(from) if latest.is_some_and(|latest| from <= latest) => {
                    self.refuse(value.span(), key, "must be later than the entry before");
                }
                Ok(from) => {
                    latest = Some(from);
                    timeline.push(from, rules);
                }
            }
        }
    }

    /// Applies the settings of one table to `rules`, leaving out the key `besides`, which is not a setting.
    fn table(&mut self, path: &str, table: &DeTable<'_>, rules: &mut Rules, besides: &str) {
        let problems = self.problems.len();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match value.get_ref() {
                _ if name == besides => {}
                DeValue::Table(group) if matches!(name, "upload" | "download" | "confirm") => {
                    for (key, value) in group {
                        self.setting(path, &format!("{name}.{}", key.get_ref()), key.span(), value, rules);
                    }
                }
                // A quoted key is no path: `"upload.expires_in"` beside `upload.expires_in` would be two answers.
                _ if name.contains('.') => self.setting(path, &format!("<{name}>"), key.span(), value, rules),
                _ => self.setting(path, name, key.span(), value, rules),
            }
        }
        // Where a bound was refused, comparing its default would raise a problem that nobody wrote.
        if self.problems.len() != problems {
            return;
        }
        if rules.min_size > rules.max_size {
            let rule = format!("min_size ({}) must be at most max_size ({})", rules.min_size, rules.max_size);
            self.refuse_one_of(["min_size", "max_size"], path, table, &rule);
        }
        if rules.upload_expires_in > rules.upload_max_expires_in {
            let (life, most) = (rules.upload_expires_in, rules.upload_max_expires_in);
            let (life, most) = (humantime::format_duration(life), humantime::format_duration(most));
            let rule = format!("upload.expires_in ({life}) must be at most upload.max_expires_in ({most})");
            self.refuse_one_of(["upload.expires_in", "upload.max_expires_in"], path, table, &rule);
        }
        let takes = |method| rules.methods.contains(&method);
        if rules.max_size > Rules::MAX_SINGLE_SIZE
            && !takes(UploadMethod::Multipart)
            && !takes(UploadMethod::Credentials)
        {
            let (max_size, single) = (rules.max_size, Rules::MAX_SINGLE_SIZE);
            let rule = format!(
                "max_size ({max_size}) above {single}, what S3 takes in one request, needs \"multipart\" in methods"
            );
            self.refuse_one_of(["max_size", "methods"], path, table, &rule);
        }
        if takes(UploadMethod::Credentials) && rules.upload_expires_in < Rules::LEAST_CREDENTIALS_LIFE {
            let life = humantime::format_duration(rules.upload_expires_in);
            let least = humantime::format_duration(Rules::LEAST_CREDENTIALS_LIFE);
            let rule = format!(
                "upload.expires_in ({life}) must be at least {least} where methods has \"credentials\": no STS makes any that end sooner"
            );
            self.refuse_one_of(["upload.expires_in", "methods"], path, table, &rule);
        }
    }

    /// Reports a rule about two settings at the first that the table has. Where it has none, they come from another
    /// table, at which it was reported.
    fn refuse_one_of(&mut self, keys: [&str; 2], path: &str, table: &DeTable<'_>, rule: &str) {
        let written = |key: &str| match key.split_once('.') {
            None => table.get(key),
            Some((group, key)) => table.get(group)?.get_ref().as_table()?.get(key),
        };
        if let Some((key, value)) = keys.into_iter().find_map(|key| Some((key, written(key)?))) {
            self.refuse(value.span(), format!("{path}.{key}"), rule);
        }
    }

    fn setting(
        &mut self,
        path: &str,
        name: &str,
        key_span: Range<usize>,
        value: &Spanned<DeValue<'_>>,
        rules: &mut Rules,
    ) {
        let key = format!("{path}.{}", name.escape_debug());
        self.lines.insert(key.clone(), self.line(&key_span));
        match name {
            "methods" => self.set_list(&mut rules.methods, key, value),
            "upload.expires_in" => self.set(&mut rules.upload_expires_in, key, value, expires_in),
            "upload.min_rate" => self.set(&mut rules.upload_min_rate, key, value, min_rate),
            "upload.max_expires_in" => self.set(&mut rules.upload_max_expires_in, key, value, expires_in),
            "upload.renew_within" => self.set(&mut rules.upload_renew_within, key, value, renew_within),
            "upload.multipart_above" => {
                self.set(&mut rules.multipart_above, key, value, |value| size(value, 0, Rules::MAX_SINGLE_SIZE));
            }
            "upload.part_size" => {
                let smallest = PartPlan::SMALLEST_PART.bytes();
                self.set(&mut rules.part_size, key, value, |value| size(value, smallest, PartPlan::LARGEST_PART));
            }
            "download.expires_in" => self.set(&mut rules.download_expires_in, key, value, expires_in),
            "download.uses" => self.set(&mut rules.download_uses, key, value, uses),
            "download.ip_scope" => {
                self.set(&mut rules.download_ip_scope, key, value, |value| ip_scope(value).map(Some));
            }
            "min_size" => self.set(&mut rules.min_size, key, value, |value| size(value, 0, Rules::MAX_SIZE)),
            "max_size" => self.set(&mut rules.max_size, key, value, |value| size(value, 1, Rules::MAX_SIZE)),
            "content_types" => self.set_list(&mut rules.content_types, key, value),
            "key" => self.set(&mut rules.key, key, value, parsed),
            "readers" => self.set(&mut rules.readers, key, value, parsed),
            "ip_scope" => self.set(&mut rules.ip_scope, key, value, ip_scope),
            "checksum" => self.set(&mut rules.checksum, key, value, parsed),
            "delivery" if value.get_ref().is_str() => {
                self.set(&mut rules.delivery, key, value, |value| parsed(value).map(|only| vec![only]));
            }
            "delivery" => self.set_list(&mut rules.delivery, key, value),
            "confirm.grace" => self.set(&mut rules.confirm_grace, key, value, grace),
            "sniff" => self.set(&mut rules.sniff, key, value, parsed),
            "inspection" => self.set(&mut rules.inspection, key, value, parsed),
            _ => {
                let known = Rules::default().settings().map(|(name, _)| name).join(", ");
                self.refuse(key_span, key, format!("is unknown: the settings of a policy are {known}"));
            }
        }
    }

    fn set<T>(
        &mut self,
        target: &mut T,
        key: String,
        value: &Spanned<DeValue<'_>>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) {
        match read(value.get_ref()) {
            Ok(read) => *target = read,
            Err(rule) => self.refuse(value.span(), key, rule),
        }
    }

    fn set_list<T>(&mut self, target: &mut Vec<T>, key: String, value: &Spanned<DeValue<'_>>)
    where
        T: FromStr<Err = Invalid> + PartialEq,
    {
        let items = match value.get_ref() {
            DeValue::Array(items) if !items.is_empty() => items,
            _ => return self.refuse(value.span(), key, "must be a list in brackets with at least one item"),
        };
        let mut list = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            match parsed(item.get_ref()) {
                Ok(item) if !list.contains(&item) => list.push(item),
                Ok(_) => self.refuse(item.span(), format!("{key}[{at}]"), "must not be repeated"),
                Err(rule) => self.refuse(item.span(), format!("{key}[{at}]"), rule),
            }
        }
        *target = list;
    }
}

fn parsed<T: FromStr<Err = Invalid>>(value: &DeValue<'_>) -> Result<T, String> {
    let text = value.as_str().ok_or_else(|| format!("must be a string in quotes, not {}", described(value)))?;
    text.parse().map_err(|error| format!("{error}, not {text:?}"))
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Array(_) => "an array".to_owned(),
        _ => format!("a {}", value.type_str()),
    }
}

fn expires_in(value: &DeValue<'_>) -> Result<Duration, String> {
    seconds(value, Duration::from_secs(1)..=Rules::MAX_EXPIRES_IN)
}

fn renew_within(value: &DeValue<'_>) -> Result<Duration, String> {
    seconds(value, Duration::from_secs(1)..=Rules::MAX_RENEW_WITHIN)
}

fn min_rate(value: &DeValue<'_>) -> Result<Option<ByteRate>, String> {
    if value.as_str() == Some("off") { Ok(None) } else { parsed(value).map(Some) }
}

fn uses(value: &DeValue<'_>) -> Result<Option<u16>, String> {
    if value.as_str() == Some("off") {
        return Ok(None);
    }
    let number = value.as_integer().and_then(|number| number.as_str().parse::<u16>().ok());
    match number.filter(|uses| (1..=Rules::MAX_USES).contains(uses)) {
        Some(uses) => Ok(Some(uses)),
        None => Err(format!("must be \"off\", or a number from 1 to {}, not {}", Rules::MAX_USES, described(value))),
    }
}

fn grace(value: &DeValue<'_>) -> Result<Duration, String> {
    seconds(value, Duration::ZERO..=Rules::MAX_CONFIRM_GRACE)
}

fn seconds(value: &DeValue<'_>, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    let text = value.as_str().ok_or("must be a duration in quotes with a unit, such as \"5m\"")?;
    let duration = duration::parse(text)?;
    if !allowed.contains(&duration) || duration.subsec_nanos() != 0 {
        let (least, most) = (allowed.start(), allowed.end());
        let (least, most) = (humantime::format_duration(*least), humantime::format_duration(*most));
        return Err(format!("must be whole seconds from {least} to {most}, not {text:?}"));
    }
    Ok(duration)
}

fn size(value: &DeValue<'_>, least: u64, most: ByteSize) -> Result<ByteSize, String> {
    let size = match value {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .map(ByteSize::from_bytes)
            .map_err(|_| format!("must be a number of bytes that is not negative, not {number}"))?,
        _ => parsed(value)?,
    };
    if (least..=most.bytes()).contains(&size.bytes()) {
        Ok(size)
    } else {
        Err(format!("must be {} to {most}, not {size}", ByteSize::from_bytes(least)))
    }
}

fn ip_scope(value: &DeValue<'_>) -> Result<IpScope, String> {
    let rule = "must be \"off\" or { v4 = 32, v6 = 64 } with the prefix lengths of your choice";
    let table = match value {
        DeValue::String(text) if text == "off" => return Ok(IpScope::Off),
        DeValue::Table(table) if table.len() == 2 => table,
        _ => return Err(rule.to_owned()),
    };
    let prefix = |family| {
        let number = table.get(family)?.get_ref().as_integer()?;
        u8::from_str_radix(number.as_str(), number.radix()).ok()
    };
    let (Some(v4), Some(v6)) = (prefix("v4"), prefix("v6")) else { return Err(rule.to_owned()) };
    IpScope::prefix(v4, v6).map_err(|error| error.rule)
}

fn instant(value: &DeValue<'_>) -> Result<DateTime<Utc>, String> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        _ => described(value),
    };
    DateTime::parse_from_rfc3339(&text).map(|from| from.to_utc()).map_err(|_| {
        format!("must be a date and time with its offset (RFC 3339), such as \"2027-01-01T00:00:00Z\", not {text:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of `text` as `line key: rule`.
    fn problems(text: &str) -> Vec<String> {
        let error = parse(text).unwrap_err();
        error.problems.iter().map(|PolicyProblem { line, problem }| format!("{line} {problem}")).collect()
    }

    #[test]
    fn every_rule_reports_its_line_and_key() {
        let table = [
            ("methods = []", "methods: must be a list in brackets with at least one item"),
            ("methods = \"put\"", "methods: must be a list in brackets with at least one item"),
            (
                "methods = [\"patch\"]",
                "methods[0]: must be \"put\", \"post\", \"multipart\" or \"credentials\", not \"patch\"",
            ),
            ("methods = [\"put\", \"put\"]", "methods[1]: must not be repeated"),
            ("methods = [1]", "methods[0]: must be a string in quotes, not the number 1"),
            ("upload.expires_in = \"0s\"", "upload.expires_in: must be whole seconds from 1s to 7days, not \"0s\""),
            ("upload.expires_in = \"8d\"", "upload.expires_in: must be whole seconds from 1s to 7days, not \"8d\""),
            (
                "upload.expires_in = \"1500ms\"",
                "upload.expires_in: must be whole seconds from 1s to 7days, not \"1500ms\"",
            ),
            ("upload.expires_in = 300", "upload.expires_in: must be a duration in quotes with a unit, such as \"5m\""),
            (
                "upload.expires_in = \"soon\"",
                "upload.expires_in: must be a duration such as \"30s\", \"5m\" or \"1h\", not \"soon\"",
            ),
            (
                "download.expires_in = \"7d 1s\"",
                "download.expires_in: must be whole seconds from 1s to 7days, not \"7d 1s\"",
            ),
            (
                "upload.min_rate = \"64KiB\"",
                "upload.min_rate: must be a speed such as \"64KiB/s\" or \"1MB/s\", at least 1B/s, not \"64KiB\"",
            ),
            ("upload.min_rate = 65536", "upload.min_rate: must be a string in quotes, not the number 65536"),
            (
                "upload.max_expires_in = \"8d\"",
                "upload.max_expires_in: must be whole seconds from 1s to 7days, not \"8d\"",
            ),
            (
                "upload.max_expires_in = \"4m\"",
                "upload.max_expires_in: upload.expires_in (5m) must be at most upload.max_expires_in (4m)",
            ),
            (
                "upload.renew_within = \"0s\"",
                "upload.renew_within: must be whole seconds from 1s to 30days, not \"0s\"",
            ),
            (
                "methods = [\"put\", \"credentials\"]",
                "methods: upload.expires_in (5m) must be at least 15m where methods has \"credentials\": no STS makes any \
                 that end sooner",
            ),
            ("confirm.grace = \"31d\"", "confirm.grace: must be whole seconds from 0s to 30days, not \"31d\""),
            (
                "max_size = 5368709121",
                "max_size: max_size (5368709121B) above 5GiB, what S3 takes in one request, needs \"multipart\" in methods",
            ),
            ("max_size = \"6TiB\"", "max_size: must be 1B to 5TiB, not 6TiB"),
            ("max_size = 0", "max_size: must be 1B to 5TiB, not 0B"),
            ("upload.multipart_above = \"6GiB\"", "upload.multipart_above: must be 0B to 5GiB, not 6GiB"),
            ("upload.part_size = \"4MiB\"", "upload.part_size: must be 5MiB to 5GiB, not 4MiB"),
            ("upload.part_size = \"6GiB\"", "upload.part_size: must be 5MiB to 5GiB, not 6GiB"),
            ("max_size = -1", "max_size: must be a number of bytes that is not negative, not -1"),
            ("max_size = \"big\"", "max_size: must be a size such as \"512KiB\", \"100MiB\" or \"5GB\", not \"big\""),
            ("max_size = true", "max_size: must be a string in quotes, not a boolean"),
            ("min_size = \"101MiB\"", "min_size: min_size (101MiB) must be at most max_size (100MiB)"),
            ("content_types = []", "content_types: must be a list in brackets with at least one item"),
            (
                "content_types = [\"pdf\"]",
                "content_types[0]: must be a media range: \"*/*\", \"image/*\" or \"application/pdf\", not \"pdf\"",
            ),
            ("key = \"a/{name}\"", "key: must hold {id}, which makes every key unique, not \"a/{name}\""),
            (
                "key = \"../{id}\"",
                "key: makes keys that must not start or end with \"/\", nor have empty, \".\" or \"..\" segments, not \"../{id}\"",
            ),
            ("readers = \"all\"", "readers: must be \"owner\", \"tenant\" or \"authenticated\", not \"all\""),
            (
                "ip_scope = \"on\"",
                "ip_scope: must be \"off\" or { v4 = 32, v6 = 64 } with the prefix lengths of your choice",
            ),
            (
                "ip_scope = { v4 = 32 }",
                "ip_scope: must be \"off\" or { v4 = 32, v6 = 64 } with the prefix lengths of your choice",
            ),
            (
                "ip_scope = { v4 = 32, v6 = 64, v8 = 1 }",
                "ip_scope: must be \"off\" or { v4 = 32, v6 = 64 } with the prefix lengths of your choice",
            ),
            (
                "ip_scope = { v4 = 300, v6 = 64 }",
                "ip_scope: must be \"off\" or { v4 = 32, v6 = 64 } with the prefix lengths of your choice",
            ),
            ("ip_scope = { v4 = 0, v6 = 64 }", "ip_scope: v4 must be a prefix length of 8 to 32"),
            ("download.uses = 0", "download.uses: must be \"off\", or a number from 1 to 1000, not the number 0"),
            ("download.uses = 1001", "download.uses: must be \"off\", or a number from 1 to 1000, not the number 1001"),
            ("download.uses = \"1\"", "download.uses: must be \"off\", or a number from 1 to 1000, not a string"),
            (
                "download.ip_scope = 32",
                "download.ip_scope: must be \"off\" or { v4 = 32, v6 = 64 } with the prefix lengths of your choice",
            ),
            ("checksum = \"maybe\"", "checksum: must be \"optional\" or \"required\", not \"maybe\""),
            (
                "delivery = \"post\"",
                "delivery: must be \"url\", \"redirect\", \"stream\", \"accel\" or \"cdn\", not \"post\"",
            ),
            (
                "delivery = [\"url\", \"post\"]",
                "delivery[1]: must be \"url\", \"redirect\", \"stream\", \"accel\" or \"cdn\", not \"post\"",
            ),
            ("delivery = [\"url\", \"url\"]", "delivery[1]: must not be repeated"),
            ("delivery = []", "delivery: must be a list in brackets with at least one item"),
            ("sniff = \"on\"", "sniff: must be \"off\", \"warn\" or \"reject\", not \"on\""),
            ("inspection = true", "inspection: must be a string in quotes, not a boolean"),
            ("inspection = \"on\"", "inspection: must be \"off\" or \"required\", not \"on\""),
            ("schedule = \"later\"", "schedule: must be written as [[…]], a table for each entry"),
            ("schedule = [1]", "schedule[0]: must be a table"),
        ];
        for (setting, expected) in table {
            let found = problems(&format!("# comment\n\n[policy.default]\n\n{setting}\n"));
            assert_eq!(found, [format!("5 policy.default.{expected}")], "{setting}");
        }
    }

    #[test]
    fn all_problems_are_listed_in_the_order_of_their_lines() {
        let text = r#"
stray = 1

[policy.default]
max_size = "6TiB"
methods = [
    "post",
    "carrier pigeon",
    "patch",
]
upload.expires_in = "1m"
upload.expire_in = "1m"

[policy."no good"]

[[policy.default.schedule]]
from = "2027-01-01T00:00:00"
checksum = "maybe"

[[policy.default.schedule]]
from = "2027-01-01T00:00:00Z"

[[policy.default.schedule]]
from = 2027-01-01T01:00:00+01:00
checksum = "required"

[[policy.default.schedule]]
checksum = "required"
schedule = []
"#;
        let settings = "methods, upload.expires_in, upload.min_rate, upload.max_expires_in, upload.renew_within, \
                        upload.multipart_above, upload.part_size, download.expires_in, download.uses, download.ip_scope, min_size, max_size, content_types, key, readers, \
                        ip_scope, checksum, delivery, confirm.grace, sniff, inspection";
        assert_eq!(
            problems(text),
            [
                "2 stray: is unknown: the file holds [policy.NAME] tables",
                "5 policy.default.max_size: must be 1B to 5TiB, not 6TiB",
                "8 policy.default.methods[1]: must be \"put\", \"post\", \"multipart\" or \"credentials\", not \"carrier pigeon\"",
                "9 policy.default.methods[2]: must be \"put\", \"post\", \"multipart\" or \"credentials\", not \"patch\"",
                &format!("12 policy.default.upload.expire_in: is unknown: the settings of a policy are {settings}"),
                "14 policy.no good: must be named by 1 to 64 of the characters a-z, 0-9, _ and -",
                "17 policy.default.schedule[0].from: must be a date and time with its offset (RFC 3339), such as \
                 \"2027-01-01T00:00:00Z\", not \"2027-01-01T00:00:00\"",
                "18 policy.default.schedule[0].checksum: must be \"optional\" or \"required\", not \"maybe\"",
                "20 policy.default.schedule[1]: must change at least one setting",
                "24 policy.default.schedule[2].from: must be later than the entry before",
                "27 policy.default.schedule[3].from: must say from when on the entry holds",
                &format!("29 policy.default.schedule[3].schedule: is unknown: the settings of a policy are {settings}"),
            ]
        );
    }

    #[test]
    fn broken_toml_is_reported_with_its_line_and_nothing_that_follows_from_it() {
        let found = problems("[policy.default]\nmax_size = \"1MiB\nreaders = \"nobody\"\n");
        assert!(found[0].starts_with("2 toml: "), "{found:#?}");
        assert!(found.iter().all(|problem| problem.contains(" toml: ")), "{found:#?}");
        let found = problems("[policy.default]\nreaders = \"owner\"\nreaders = \"owner\"\n");
        assert_eq!(found, ["3 toml: duplicate key"]);
    }

    #[test]
    fn quoted_paths_are_unknown_keys() {
        let found = problems("[policy.default]\n\"upload.expires_in\" = \"1m\"\nupload.expires_in = \"2m\"\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("2 policy.default.<upload.expires_in>: is unknown"), "{found:?}");
    }

    #[test]
    fn default_policy_must_exist() {
        let missing = "1 policy.default: must exist: it decides requests that name no policy";
        assert_eq!(problems(""), [missing]);
        assert_eq!(problems("[policy.other]\n"), [missing]);
        assert_eq!(problems("policy = 1\n"), ["1 policy: must hold tables: [policy.NAME]", missing]);
        assert_eq!(problems("\n[policy]\ndefault = 1\n"), ["3 policy.default: must be a table"]);
    }

    #[test]
    fn names_are_bounded() {
        let policy = |name: &str| format!("[policy.default]\n[policy.{name}]\n");
        assert!(parse(&policy(&"a".repeat(64))).is_ok());
        assert!(parse(&policy("a-b_9")).is_ok());
        for bad in [&"a".repeat(65), "\"\"", "A", "\"a.b\"", "\"ä\""] {
            assert_eq!(problems(&policy(bad)).len(), 1, "{bad}");
        }
    }

    #[test]
    fn sizes_that_cross_are_refused_where_they_were_written() {
        let base = "[policy.default]\nmin_size = \"2MiB\"\nmax_size = \"1MiB\"\n";
        assert_eq!(problems(base), ["2 policy.default.min_size: min_size (2MiB) must be at most max_size (1MiB)"]);
        let planned = "[policy.default]\nmin_size = \"2MiB\"\n\
                       [[policy.default.schedule]]\nfrom = 2027-01-01T00:00:00Z\nmax_size = \"1MiB\"\n";
        assert_eq!(
            problems(planned),
            ["5 policy.default.schedule[0].max_size: min_size (2MiB) must be at most max_size (1MiB)"]
        );
    }

    #[test]
    fn a_speed_can_be_planned_and_taken_back() {
        let parsed = parse(
            "[policy.default]\nupload.min_rate = \"64KiB/s\"\n\
             [[policy.default.schedule]]\nfrom = 2027-01-01T00:00:00Z\nupload.min_rate = \"off\"\n",
        )
        .unwrap();
        let timeline = &parsed.policies["default"];
        let rates = [timeline.first(), timeline.last()].map(|rules| rules.upload_min_rate.map(|rate| rate.to_string()));
        assert_eq!(rates, [Some("64KiB/s".to_owned()), None]);
        let crossing = "[policy.default]\nupload.max_expires_in = \"10m\"\n\
                        [[policy.default.schedule]]\nfrom = 2027-01-01T00:00:00Z\nupload.expires_in = \"11m\"\n";
        assert_eq!(
            problems(crossing),
            ["5 policy.default.schedule[0].upload.expires_in: upload.expires_in (11m) must be at most \
              upload.max_expires_in (10m)"]
        );
    }

    #[test]
    fn every_setting_is_read() {
        let parsed = parse(
            r#"
[policy.default]
methods = ["put", "multipart"]
upload.expires_in = "6d"
upload.min_rate = "64KiB/s"
upload.max_expires_in = "7d"
upload.renew_within = "30d"
upload.multipart_above = "1GiB"
upload.part_size = "64MiB"
min_size = 1
max_size = "5TiB"
content_types = ["image/*", "application/pdf"]
key = "t/{tenant}/{id}"
readers = "tenant"
checksum = "required"
delivery = ["redirect", "url"]
confirm.grace = "0s"
sniff = "reject"
inspection = "required"
[policy.default.download]
expires_in = "1s"
uses = 1000
ip_scope = { v4 = 16, v6 = 32 }
[policy.default.ip_scope]
v4 = 0x18
v6 = 48
"#,
        )
        .unwrap();
        let settings = parsed.policies["default"].last().settings();
        assert_eq!(
            settings.map(|(name, value)| format!("{name} = {value}")),
            [
                "methods = put, multipart",
                "upload.expires_in = 6days",
                "upload.min_rate = 64KiB/s",
                "upload.max_expires_in = 7days",
                "upload.renew_within = 30days",
                "upload.multipart_above = 1GiB",
                "upload.part_size = 64MiB",
                "download.expires_in = 1s",
                "download.uses = 1000",
                "download.ip_scope = v4 /16, v6 /32",
                "min_size = 1B",
                "max_size = 5TiB",
                "content_types = image/*, application/pdf",
                "key = t/{tenant}/{id}",
                "readers = tenant",
                "ip_scope = v4 /24, v6 /48",
                "checksum = required",
                "delivery = redirect, url",
                "confirm.grace = 0s",
                "sniff = reject",
                "inspection = required",
            ]
        );
    }
}

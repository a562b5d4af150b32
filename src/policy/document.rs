//! A whole policies file: what is in force when, and under which version.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, SecondsFormat, Utc};

use super::{PolicyError, PolicyProblem, Rules, format};
use crate::config::Problem;

/// The policies of one file, each with its planned changes.
#[derive(Debug)]
pub struct PolicyDocument {
    policies: BTreeMap<String, Timeline>,
    lines: BTreeMap<String, usize>,
    version: String,
    longest_expiry: Duration,
}

impl PolicyDocument {
    /// Parses and validates the text of a policies file.
    ///
    /// # Errors
    /// Lists everything that is wrong, each with its line, its key and the rule.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let format::Parsed { policies, lines } = format::parse(text)?;
        let version = version(&policies);
        let rules = policies.values().flat_map(Timeline::all);
        let longest_expiry = rules.flat_map(|rules| [rules.longest_upload_life(), rules.download_expires_in]).max();
        Ok(Self { policies, lines, version, longest_expiry: longest_expiry.unwrap_or_default() })
    }

    /// Names what this document means: 12 hexadecimal digits of a SHA-256. Comments, layout, the order of tables,
    /// defaults spelt out and schedule entries without effect do not change it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The rules of the policy `name` that are in force at `now`. A schedule entry holds from its very instant on.
    pub fn policy(&self, name: &str, now: DateTime<Utc>) -> Option<Arc<Rules>> {
        self.policies.get(name).map(|timeline| Arc::clone(timeline.at(now)))
    }

    /// The names of the policies, in order. `default` is always among them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.policies.keys().map(String::as_str)
    }

    /// Every set of rules that is, was or will be in force, with the name of its policy.
    pub fn all_rules(&self) -> impl Iterator<Item = (&str, &Rules)> {
        self.policies.iter().flat_map(|(name, timeline)| timeline.all().map(move |rules| (name.as_str(), rules)))
    }

    /// The names of the policies that `asks` holds of in any of their periods, in order, each once.
    pub fn policies_that(&self, asks: impl Fn(&Rules) -> bool) -> impl Iterator<Item = &str> {
        let asking = self.policies.iter().filter(move |(_, timeline)| timeline.all().any(&asks));
        asking.map(|(name, _)| name.as_str())
    }

    /// The longest life that any policy gives a URL, uploads and downloads, now or at any time.
    pub fn longest_expiry(&self) -> Duration {
        self.longest_expiry
    }

    /// Adds to `problem` the line where its key is written, or where the nearest table around it starts: for rules
    /// that only the rest of the service can check. A key is spelt as in [`PolicyProblem`]: `policy.default.ip_scope`.
    pub fn locate(&self, problem: Problem) -> PolicyProblem {
        let mut key = problem.key.as_str();
        let line = loop {
            match (self.lines.get(key), key.rsplit_once('.')) {
                (Some(line), _) => break *line,
                (None, Some((table, _))) => key = table,
                (None, None) => break 1,
            }
        };
        PolicyProblem { line, problem }
    }

    pub(super) fn timelines(&self) -> &BTreeMap<String, Timeline> {
        &self.policies
    }
}

/// The rules of one policy over time.
#[derive(Debug)]
pub(super) struct Timeline {
    first: Arc<Rules>,
    /// The instants at which the rules change, ascending, with all rules in force from then on.
    changes: Vec<(DateTime<Utc>, Arc<Rules>)>,
}

impl Timeline {
    pub(super) fn new(first: Rules) -> Self {
        Self { first: Arc::new(first), changes: Vec::new() }
    }

    /// Adds what holds from `from` on, which must be later than all before. Rules that change nothing are left out,
    /// so that equal timelines have equal versions.
    pub(super) fn push(&mut self, from: DateTime<Utc>, rules: Rules) {
        if *self.last() != rules {
            self.changes.push((from, Arc::new(rules)));
        }
    }

    pub(super) fn first(&self) -> &Rules {
        &self.first
    }

    pub(super) fn last(&self) -> &Rules {
        self.changes.last().map_or(&self.first, |(_, rules)| rules)
    }

    pub(super) fn at(&self, now: DateTime<Utc>) -> &Arc<Rules> {
        let begun = self.changes.partition_point(|(from, _)| *from <= now);
        let latest = begun.checked_sub(1).and_then(|at| self.changes.get(at));
        latest.map_or(&self.first, |(_, rules)| rules)
    }

    pub(super) fn changes_after(&self, now: DateTime<Utc>) -> impl Iterator<Item = (DateTime<Utc>, &Rules)> {
        self.changes.iter().filter(move |(from, _)| *from > now).map(|(from, rules)| (*from, rules.as_ref()))
    }

    pub(super) fn instants(&self) -> impl Iterator<Item = DateTime<Utc>> {
        self.changes.iter().map(|(from, _)| *from)
    }

    fn all(&self) -> impl Iterator<Item = &Rules> {
        std::iter::once(&self.first).chain(self.changes.iter().map(|(_, rules)| rules)).map(AsRef::as_ref)
    }
}

/// Settings that count only where they are not the default, because intents carry versions from before there were any.
const LATER_SETTINGS: [&str; 9] = [
    "upload.min_rate",
    "upload.max_expires_in",
    "upload.renew_within",
    "upload.multipart_above",
    "upload.part_size",
    "download.uses",
    "download.ip_scope",
    "sniff",
    "inspection",
];

/// Hashes one line per setting and period. No name or value can hold a line break.
fn version(policies: &BTreeMap<String, Timeline>) -> String {
    let mut canonical = String::new();
    let defaults = Rules::default().settings();
    let mut write = |name: &str, from: &str, rules: &Rules| {
        for ((key, value), (_, default)) in rules.settings().into_iter().zip(&defaults) {
            if LATER_SETTINGS.contains(&key) && value == *default {
                continue;
            }
            canonical.extend([name, " ", from, " ", key, " ", &value, "\n"]);
        }
    };
    for (name, timeline) in policies {
        write(name, "-", &timeline.first);
        for (from, rules) in &timeline.changes {
            write(name, &from.to_rfc3339_opts(SecondsFormat::Nanos, true), rules);
        }
    }
    let mut version = hex::encode(digest(&SHA256, canonical.as_bytes()));
    version.truncate(12);
    version
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ChecksumRule;

    const PLANNED: &str = r#"
[policy.default]
upload.expires_in = "5m"
ip_scope = "off"

[[policy.default.schedule]]
from = "2027-01-01T01:00:00+01:00"
upload.expires_in = "2m"

[[policy.default.schedule]]
from = 2027-02-01T00:00:00Z
checksum = "required"

[policy.reports]
upload.expires_in = "1m"
download.expires_in = "10m"
ip_scope = "off"

[[policy.reports.schedule]]
from = "2027-01-15T00:00:00Z"
upload.expires_in = "20m"
"#;

    fn parse(text: &str) -> PolicyDocument {
        PolicyDocument::parse(text).unwrap()
    }

    fn at(instant: &str) -> DateTime<Utc> {
        instant.parse().unwrap()
    }

    #[test]
    fn schedule_entries_hold_from_their_instant_and_add_up() {
        let document = parse(PLANNED);
        for (now, seconds, required) in [
            ("1970-01-01T00:00:00Z", 300, false),
            ("2026-12-31T23:59:59.999Z", 300, false),
            ("2027-01-01T00:00:00Z", 120, false),
            ("2027-01-31T23:59:59.999Z", 120, false),
            ("2027-02-01T00:00:00Z", 120, true),
            ("2100-01-01T00:00:00Z", 120, true),
        ] {
            let rules = document.policy("default", at(now)).unwrap();
            assert_eq!(rules.upload_expires_in.as_secs(), seconds, "{now}");
            assert_eq!(rules.checksum == ChecksumRule::Required, required, "{now}");
        }
        assert!(document.policy("missing", at("2027-01-01T00:00:00Z")).is_none());
        assert_eq!(document.names().collect::<Vec<_>>(), ["default", "reports"]);
    }

    #[test]
    fn longest_expiry_looks_at_every_policy_and_every_period() {
        let document = parse(PLANNED);
        assert_eq!(document.longest_expiry(), Duration::from_mins(20));
        let downloads = "[policy.default]\nupload.expires_in = \"1s\"\ndownload.expires_in = \"9s\"\n";
        assert_eq!(parse(downloads).longest_expiry(), Duration::from_secs(9));
        let slow = "[policy.default]\nmax_size = \"1GiB\"\nupload.min_rate = \"1MiB/s\"\n";
        assert_eq!(parse(slow).longest_expiry(), Duration::from_secs(1024 + 60));
    }

    #[test]
    fn version_names_the_meaning_and_not_the_spelling() {
        let version = parse("[policy.default]\n").version().to_owned();
        assert_eq!(version.len(), 12);
        assert!(version.bytes().all(|b| b.is_ascii_hexdigit()));
        for same in [
            "# why\n\n[ policy . default ]\n",
            "[policy.default]\nupload.expires_in = \"300s\" # the default\nmax_size = 104857600\nmin_size = \"0B\"\n",
            "policy = { default = { methods = ['post', 'put'], confirm = { grace = '60m' } } }\n",
            "[policy.default]\n[[policy.default.schedule]]\nfrom = 2027-01-01T00:00:00Z\nreaders = \"owner\"\n",
        ] {
            assert_eq!(parse(same).version(), version, "{same}");
        }
        let settings = [
            "methods = [\"put\", \"post\"]",
            "upload.expires_in = \"301s\"",
            "download.expires_in = \"61s\"",
            "min_size = 1",
            "max_size = 104857601",
            "content_types = [\"image/*\"]",
            "key = \"uploads/{id}\"",
            "readers = \"tenant\"",
            "ip_scope = \"off\"",
            "checksum = \"required\"",
            "confirm.grace = \"2h\"",
            "upload.min_rate = \"64KiB/s\"",
            "upload.max_expires_in = \"1d\"",
            "upload.renew_within = \"1d\"",
            "download.uses = 1",
            "download.ip_scope = \"off\"",
            "sniff = \"reject\"",
            "inspection = \"required\"",
        ];
        let mut versions = vec![version];
        for setting in settings {
            versions.push(parse(&format!("[policy.default]\n{setting}\n")).version().to_owned());
            for from in ["2027-01-01T00:00:00Z", "2027-01-01T00:00:00.001Z"] {
                let planned = format!("[policy.default]\n[[policy.default.schedule]]\nfrom = {from}\n{setting}\n");
                versions.push(parse(&planned).version().to_owned());
            }
        }
        versions.push(parse("[policy.default]\n[policy.other]\n").version().to_owned());
        let count = versions.len();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), count);
    }

    #[test]
    fn versions_recorded_with_intents_stay_what_they_were() {
        assert_eq!(parse("[policy.default]\n").version(), "28fa7b2409a4");
    }

    #[test]
    fn problems_of_others_are_located_at_the_key_or_the_table_around_it() {
        let document = parse(PLANNED);
        for (key, line) in [
            ("policy.default.ip_scope", 4),
            ("policy.default.max_size", 2),
            ("policy.default.schedule[0].upload.expires_in", 8),
            ("policy.default.schedule[1].readers", 10),
            ("policy.reports.readers", 14),
            ("policy.missing", 1),
        ] {
            assert_eq!(document.locate(Problem::new(key, "must differ")).line, line, "{key}");
        }
    }
}

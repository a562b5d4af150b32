//! What changes between two policies files.

use std::{collections::BTreeSet, fmt};

use chrono::{DateTime, SecondsFormat, Utc};

use super::{PolicyDocument, Rules, document::Timeline};

/// One difference between two documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the new document has this policy.
    Added {
        /// The policy's name.
        policy: String,
    },
    /// Only the old document has this policy.
    Removed {
        /// The policy's name.
        policy: String,
    },
    /// A setting in force differs.
    Setting {
        /// The policy's name.
        policy: String,
        /// From when on, where either document changes by schedule; `None` for what holds before all schedules.
        from: Option<DateTime<Utc>>,
        /// The setting's key in the file.
        key: &'static str,
        /// The value under the old document.
        old: String,
        /// The value under the new document; equal to `old` where a difference that was reported for an earlier
        /// instant ends.
        new: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { policy } => write!(f, "policy.{policy} added"),
            Self::Removed { policy } => write!(f, "policy.{policy} removed"),
            Self::Setting { policy, from, key, old, new } => {
                write!(f, "policy.{policy} {key}")?;
                if let Some(from) = from {
                    write!(f, " from {}", from.to_rfc3339_opts(SecondsFormat::AutoSi, true))?;
                }
                if old == new { write!(f, ": {new} in both") } else { write!(f, ": {old} -> {new}") }
            }
        }
    }
}

/// Compares the rules that are in force under both documents, before all schedules and at each instant at which
/// either changes. Nothing is reported exactly when the versions are equal.
pub fn diff(old: &PolicyDocument, new: &PolicyDocument) -> Vec<Change> {
    let (old, new) = (old.timelines(), new.timelines());
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        let policy = name.clone();
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => compare(name, old, new, &mut changes),
            (Some(_), None) => changes.push(Change::Removed { policy }),
            (None, _) => changes.push(Change::Added { policy }),
        }
    }
    changes
}

fn compare(policy: &str, old: &Timeline, new: &Timeline, changes: &mut Vec<Change>) {
    let pairs = |old: &Rules, new: &Rules| {
        let pairs = old.settings().into_iter().zip(new.settings());
        pairs.map(|((key, old), (_, new))| (key, old, new)).collect::<Vec<_>>()
    };
    let mut report = |from, (key, old, new): &(&'static str, String, String)| {
        changes.push(Change::Setting { policy: policy.to_owned(), from, key, old: old.clone(), new: new.clone() });
    };
    let mut before = pairs(old.first(), new.first());
    before.iter().filter(|(_, old, new)| old != new).for_each(|pair| report(None, pair));
    let instants: BTreeSet<_> = old.instants().chain(new.instants()).collect();
    for instant in instants {
        let now = pairs(old.at(instant), new.at(instant));
        for (before, now) in before.iter().zip(&now) {
            let differs = |(_, old, new): &(_, String, String)| old != new;
            if before != now && (differs(before) || differs(now)) {
                report(Some(instant), now);
            }
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(old: &str, new: &str) -> Vec<String> {
        let (old, new) = (PolicyDocument::parse(old).unwrap(), PolicyDocument::parse(new).unwrap());
        let changes = diff(&old, &new);
        assert_eq!(changes.is_empty(), old.version() == new.version());
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_meaning_is_no_change() {
        let spelt = "# why\n[policy.default]\nupload.expires_in = \"300s\"\n";
        assert!(lines("[policy.default]\n", spelt).is_empty());
    }

    #[test]
    fn settings_and_policies_that_differ_are_named() {
        let old = "[policy.default]\nupload.expires_in = \"5m\"\n[policy.old]\n";
        let new = "[policy.default]\nupload.expires_in = \"2m\"\nip_scope = \"off\"\n[policy.new]\n";
        assert_eq!(
            lines(old, new),
            [
                "policy.default upload.expires_in: 5m -> 2m",
                "policy.default ip_scope: v4 /32, v6 /64 -> off",
                "policy.new added",
                "policy.old removed",
            ]
        );
    }

    #[test]
    fn schedules_are_compared_by_what_is_in_force() {
        let entry = |from: &str, setting: &str| format!("[[policy.default.schedule]]\nfrom = {from}\n{setting}\n");
        let base = "[policy.default]\n";
        let january = entry("2027-01-01T00:00:00Z", "upload.expires_in = \"2m\"");
        let february = entry("2027-02-01T00:00:00Z", "upload.expires_in = \"2m\"");
        assert_eq!(
            lines(base, &format!("{base}{january}")),
            ["policy.default upload.expires_in from 2027-01-01T00:00:00Z: 5m -> 2m"]
        );
        assert_eq!(
            lines(&format!("{base}{january}"), &format!("{base}{february}")),
            [
                "policy.default upload.expires_in from 2027-01-01T00:00:00Z: 2m -> 5m",
                "policy.default upload.expires_in from 2027-02-01T00:00:00Z: 2m in both",
            ]
        );
        assert_eq!(
            lines(&format!("{base}{january}"), &format!("{base}upload.expires_in = \"1m\"\n{january}")),
            [
                "policy.default upload.expires_in: 5m -> 1m",
                "policy.default upload.expires_in from 2027-01-01T00:00:00Z: 2m in both",
            ]
        );
        let unrelated = entry("2027-03-01T00:00:00Z", "checksum = \"required\"");
        assert_eq!(
            lines(&format!("{base}{unrelated}"), &format!("{base}max_size = 1\n{unrelated}")),
            ["policy.default max_size: 100MiB -> 1B"]
        );
    }
}

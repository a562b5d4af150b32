//! What was found.

use std::fmt::{self, Display};

use serde::Serialize;

use super::StoreCapability;

/// What a try has shown.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It does, with what was seen.
    Works(String),
    /// It does not.
    Lacks(String),
    /// It could not be tried because something is wrong.
    Failed {
        /// What happened.
        found: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// It was not tried.
    Untried(String),
}

impl Verdict {
    pub(super) fn works(found: impl Into<String>) -> Self {
        Self::Works(found.into())
    }

    pub(super) fn lacks(found: impl Into<String>) -> Self {
        Self::Lacks(found.into())
    }

    pub(super) fn failed(found: &impl Display, mend: &'static str) -> Self {
        Self::Failed { found: found.to_string(), mend }
    }

    pub(super) fn untried(why: impl Into<String>) -> Self {
        Self::Untried(why.into())
    }
}

/// How a row is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It works.
    Ok,
    /// It does not, and is needed.
    Failed,
    /// It does not, and nobody needs it.
    Note,
    /// It was not tried.
    Untried,
}

/// One capability.
#[derive(Debug, Clone, Serialize)]
pub struct LiveRow {
    /// What was tried.
    pub capability: StoreCapability,
    /// How it is to be taken.
    pub outcome: Outcome,
    /// Who needs it: names of policies, or `everything`.
    pub needed_by: Vec<String>,
    /// What was seen.
    pub found: String,
    /// What to do about it, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// All that was tried, in order.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LiveReport {
    /// A row for each capability.
    pub rows: Vec<LiveRow>,
}

impl LiveReport {
    pub(super) fn add(&mut self, capability: StoreCapability, needed_by: Vec<String>, verdict: Verdict) {
        let is_needed = !needed_by.is_empty();
        let lacking = if is_needed { Outcome::Failed } else { Outcome::Note };
        let (outcome, found, mend) = match verdict {
            Verdict::Works(found) => (Outcome::Ok, found, None),
            Verdict::Untried(why) => (Outcome::Untried, why, None),
            Verdict::Lacks(found) => (lacking, found, is_needed.then(|| capability.mend().to_owned())),
            Verdict::Failed { found, mend } => (lacking, found, Some(mend.to_owned())),
        };
        self.rows.push(LiveRow { capability, outcome, needed_by, found, mend });
    }

    /// Whether everything works that is needed.
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.outcome != Outcome::Failed)
    }

    /// What does not work, needed or not.
    pub fn lacking(&self) -> impl Iterator<Item = &LiveRow> {
        self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed | Outcome::Note))
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Note => "note",
            Self::Untried => "untried",
        })
    }
}

/// The table for people.
impl Display for LiveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed_by =
            |row: &LiveRow| if row.needed_by.is_empty() { "nobody".to_owned() } else { row.needed_by.join(", ") };
        let width = self.rows.iter().map(|row| needed_by(row).chars().count()).max().unwrap_or_default().max(9);
        write!(f, "{:8} {:24} {:width$}  found", "result", "capability", "needed by")?;
        for row in &self.rows {
            write!(f, "\n{:8} {:24} {:width$}  {}", row.outcome, row.capability, needed_by(row), row.found)?;
            if let Some(mend) = &row.mend {
                write!(f, "\n{:8} mend: {mend}", "")?;
            }
        }
        Ok(())
    }
}

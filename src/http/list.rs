//! Lists, a page at a time.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::FieldError;
use crate::model::IntentId;

/// The rule that a parameter breaks.
pub(super) type Rule = Cow<'static, str>;

/// Which page of a list is asked for: what every list has in its query.
#[derive(Debug)]
pub(super) struct Paging {
    /// At most so many items.
    pub(super) limit: usize,
    /// Only those below this id.
    pub(super) before: Option<IntentId>,
    largest: usize,
}

impl Paging {
    /// The first page, of `limit` items. Nobody gets more than `largest` at once.
    pub(super) const fn new(limit: usize, largest: usize) -> Self {
        Self { limit, before: None, largest }
    }

    /// Reads `limit` or `cursor`. Any other parameter is none of this list, whose own are `others`.
    pub(super) fn read(&mut self, name: &str, text: &str, others: &str) -> Result<(), Rule> {
        match name {
            "limit" => {
                let limit = text.parse().ok().filter(|limit| (1..=self.largest).contains(limit));
                self.limit = limit.ok_or_else(|| format!("must be 1 to {}", self.largest))?;
            }
            "cursor" => self.before = Some(decoded(text).ok_or("must be next_cursor of an earlier page")?),
            _ => return Err(format!("is not a parameter of this list: {others}limit, cursor").into()),
        }
        Ok(())
    }

    /// How many rows to ask for: one more than are shown tells whether there is a next page.
    pub(super) fn rows(&self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// Cuts `rows` to the page, and gives the cursor of the next one if there is one.
    pub(super) fn cut<T>(&self, rows: &mut Vec<T>, id: impl FnOnce(&T) -> IntentId) -> Option<String> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        rows.last().filter(|_| more).map(|last| cursor(id(last)))
    }
}

/// Reads every parameter of `query`, and tells all that break a rule.
pub(super) fn broken(
    query: &BTreeMap<String, String>,
    mut read: impl FnMut(&str, &str) -> Result<(), Rule>,
) -> Vec<FieldError> {
    let read = |(name, text): (&String, &String)| {
        let rule = read(name, text).err()?;
        Some(FieldError::new(name.as_str(), rule.into_owned()).with_received(text.as_str()))
    };
    query.iter().filter_map(read).collect()
}

/// Opaque to clients, so that it can become something else one day.
pub(super) fn cursor(id: IntentId) -> String {
    URL_SAFE_NO_PAD.encode(id.uuid().as_bytes())
}

fn decoded(cursor: &str) -> Option<IntentId> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    Some(IntentId::from_uuid(uuid::Uuid::from_slice(&bytes).ok()?))
}

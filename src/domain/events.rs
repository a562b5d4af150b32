//! Storage events: the store says that something was uploaded, and is asked whether that is so.

mod notification;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use futures_util::{StreamExt as _, stream};

pub use notification::{MAX_RECORDS, Notification, NotificationError, StoreEvent};

use super::{Claim, DomainError, Service};
use crate::{
    db::{SettledVia, UploadIntent},
    model::{IntentId, IntentState},
};

/// Objects of one notification that are looked at at the same time.
const LOOKS_AT_ONCE: usize = 16;

/// Ids that are looked up by one query.
const IDS_AT_ONCE: usize = 1000;

/// What became of the records of a notification. Every record counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Records that came.
    pub received: usize,
    /// The upload is confirmed, by this event or before it.
    pub confirmed: usize,
    /// What was uploaded is not what was promised.
    pub rejected: usize,
    /// Nothing is settled yet: there is no object, or a scanner has to look at it.
    pub pending: usize,
    /// Not a creation, not of an upload, not of one that waits, or a repetition within the notification.
    pub ignored: usize,
}

/// An upload and where its object was written from, as far as the events say.
struct Sighting {
    upload: UploadIntent,
    /// Whether an event names its key, and not just one with the same id in it, as a copy's has.
    is_told: bool,
    addresses: Vec<IpAddr>,
}

enum Outcome {
    Confirmed,
    Rejected,
    Pending,
    Ignored,
}

impl Service {
    /// Looks at every object that `notification` tells of. That it was told counts for nothing more: forged, old,
    /// repeated and disordered events lead to the same look at what the store holds now, so `sequencer` is not needed.
    ///
    /// # Errors
    /// When the database or the store could not be asked for every record. What could be settled is, and the same
    /// notification can be sent again.
    pub async fn take_events(&self, notification: &Notification) -> Result<EventCounts, DomainError> {
        let sightings = self.sightings(&notification.events).await?;
        let mut counts =
            EventCounts { received: notification.received, ignored: notification.received, ..EventCounts::default() };
        let mut failure = None;
        let mut looks = stream::iter(sightings).map(|sighting| self.look(sighting)).buffer_unordered(LOOKS_AT_ONCE);
        while let Some(outcome) = looks.next().await {
            let count = match outcome {
                Ok(Outcome::Confirmed) => &mut counts.confirmed,
                Ok(Outcome::Rejected) => &mut counts.rejected,
                Ok(Outcome::Pending) => &mut counts.pending,
                Ok(Outcome::Ignored) => continue,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            *count += 1;
            counts.ignored -= 1;
        }
        failure.map_or(Ok(counts), Err)
    }

    /// The uploads that `events` are about, each once. Copies of staged objects and what others put into the bucket are
    /// nobody's upload.
    async fn sightings(&self, events: &[StoreEvent]) -> Result<Vec<Sighting>, DomainError> {
        let ours = || events.iter().filter(|event| event.bucket == self.store.bucket());
        let ids: BTreeSet<IntentId> = ours().flat_map(StoreEvent::keys).flat_map(IntentId::all_in).collect();
        let ids: Vec<IntentId> = ids.into_iter().collect();
        let mut sightings = HashMap::new();
        for ids in ids.chunks(IDS_AT_ONCE) {
            for upload in self.database.readable_uploads(ids).await? {
                if upload.bucket == self.store.bucket() {
                    let key = upload.object_key.as_str().to_owned();
                    sightings.insert(key, Sighting { upload, is_told: false, addresses: Vec::new() });
                }
            }
        }
        for event in ours() {
            let key = event.keys().find(|key| sightings.contains_key(*key));
            if let Some(sighting) = key.and_then(|key| sightings.get_mut(key)) {
                sighting.is_told = true;
                // All of them: the newest event need not be about the object that is there by now.
                sighting.addresses.extend(event.source_address);
            }
        }
        Ok(sightings.into_values().filter(|sighting| sighting.is_told).collect())
    }

    async fn look(&self, Sighting { upload, addresses, .. }: Sighting) -> Result<Outcome, DomainError> {
        match self.confirm_written_from(upload, SettledVia::Event, Claim::default(), &addresses).await {
            Ok(upload) if upload.state == IntentState::Inspecting => Ok(Outcome::Pending),
            Ok(_) => Ok(Outcome::Confirmed),
            Err(DomainError::Mismatched(_)) => Ok(Outcome::Rejected),
            Err(error) if error.is_unfinished() => Ok(Outcome::Pending),
            Err(DomainError::Expired | DomainError::Revoked | DomainError::InvalidState(_) | DomainError::NotFound) => {
                Ok(Outcome::Ignored)
            }
            Err(error) => Err(error),
        }
    }
}

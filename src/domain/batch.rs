//! Issuing many uploads at once: decided one by one, recorded together.

use std::mem;

use chrono::{DateTime, Utc};

use super::{Caller, DomainError, IssueRequest, IssuedUpload, Service, issue::Draft};
use crate::{
    db::{
        DbError, UploadIntent,
        idempotency::{EarlierUploads, IdempotencyKey, Recorded},
    },
    model::Scope,
};

/// The most files of one batch.
pub const MAX_BATCH: usize = 100;

/// What is known of one file of a batch.
enum Place<E> {
    /// An earlier request with the same key has led to this.
    Earlier(Box<UploadIntent>),
    /// It is allowed.
    Allowed(Box<Draft>),
    /// It is not.
    Refused(E),
}

impl Service {
    /// Issues an upload for each of `requests`, in their order. All that are allowed are committed together, all or
    /// none, before the first is signed. A request that is an `Err` was refused before it came here; it keeps its place.
    ///
    /// With an idempotency key, what was issued under it before is replayed, and what was refused is decided anew.
    ///
    /// # Errors
    /// What is wrong with one file is its own result. What would be wrong with any is the error of all, and then nothing
    /// is handed out: a missing scope, a key that came with another request, and a database, an STS, a store or a
    /// ledger that cannot serve now.
    pub async fn issue_uploads<E: From<DomainError>>(
        &self,
        caller: Caller<'_>,
        requests: Vec<Result<IssueRequest, E>>,
        idempotency_key: Option<IdempotencyKey>,
    ) -> Result<Vec<Result<IssuedUpload, E>>, DomainError> {
        caller.require(Scope::Upload)?;
        let now = self.clock.now();
        let asked = |request: &IssueRequest| (request.expires_in, request.form_return.clone());
        let asked: Vec<_> = requests.iter().map(|request| request.as_ref().map(asked).unwrap_or_default()).collect();
        let key = idempotency_key.as_ref();
        let nothing = vec![None; requests.len()];
        // Before anything is decided anew: what was granted once is not refused to a client that lost the answer.
        let earlier = match self.record_intents(caller, &nothing, key, now).await? {
            Recorded::Replay(earlier) => earlier,
            Recorded::Mismatch => return Err(DomainError::IdempotencyMismatch),
        };
        let mut places = self.decide(caller, requests, earlier, now).await?;
        self.record_places(caller, &mut places, key, now).await?;
        let mut results = Vec::with_capacity(places.len());
        for (place, (expires_in, form_return)) in places.into_iter().zip(asked) {
            results.push(match place {
                Place::Earlier(upload) => {
                    let recorded = Recorded::Replay(upload);
                    of_one(self.replayed(caller, recorded, expires_in, form_return.as_ref()).await)?
                }
                Place::Allowed(draft) => {
                    let Draft { intent, grant, content_md5, .. } = *draft;
                    of_one(self.signed(intent, &grant, now, form_return.as_ref(), content_md5))?
                }
                Place::Refused(error) => Err(error),
            });
        }
        Ok(results)
    }

    /// Decides about each file that no earlier request has led to an upload.
    async fn decide<E: From<DomainError>>(
        &self,
        caller: Caller<'_>,
        requests: Vec<Result<IssueRequest, E>>,
        earlier: EarlierUploads,
        now: DateTime<Utc>,
    ) -> Result<Vec<Place<E>>, DomainError> {
        let document = self.policies.current();
        let mut earlier = earlier.into_iter();
        let mut places = Vec::with_capacity(requests.len());
        for request in requests {
            places.push(match (request, earlier.next().flatten()) {
                (Err(refused), _) => Place::Refused(refused),
                (Ok(_), Some(upload)) => Place::Earlier(upload),
                (Ok(request), None) => match of_one(self.draft(caller, &document, request, now).await) {
                    Ok(Ok(draft)) => Place::Allowed(Box::new(draft)),
                    Ok(Err(refused)) => Place::Refused(refused),
                    Err(error) => {
                        self.forget_drafts(&places).await;
                        return Err(error);
                    }
                },
            });
        }
        Ok(places)
    }

    /// Commits what is allowed. Where another request with the same key was faster, its upload takes the place.
    async fn record_places<E>(
        &self,
        caller: Caller<'_>,
        places: &mut [Place<E>],
        key: Option<&IdempotencyKey>,
        now: DateTime<Utc>,
    ) -> Result<(), DomainError> {
        let intents: Vec<_> = places.iter().map(|place| place.draft().map(|draft| &*draft.intent)).collect();
        if intents.iter().all(Option::is_none) {
            return Ok(());
        }
        match self.record_intents(caller, &intents, key, now).await {
            Ok(Recorded::Replay(faster)) => {
                for (place, upload) in places.iter_mut().zip(faster) {
                    if let (Place::Allowed(_), Some(upload)) = (&place, upload) {
                        let late = mem::replace(place, Place::Earlier(upload));
                        self.forget_drafts(&[late]).await;
                    }
                }
                Ok(())
            }
            Ok(Recorded::Mismatch) => {
                self.forget_drafts(places).await;
                Err(DomainError::IdempotencyMismatch)
            }
            // The rows may be there all the same, and a client that repeats its request would go on with them.
            Err(error @ DbError::Unavailable(_)) => Err(error.into()),
            Err(error) => {
                self.forget_drafts(places).await;
                Err(error.into())
            }
        }
    }

    /// Writes `intents`, all or none; with a key only those in whose place it has led to nothing before.
    async fn record_intents(
        &self,
        caller: Caller<'_>,
        intents: &[Option<&UploadIntent>],
        key: Option<&IdempotencyKey>,
        now: DateTime<Utc>,
    ) -> Result<Recorded<EarlierUploads>, DbError> {
        if let Some(key) = key {
            return self.database.record_batch_once(caller.principal, intents, key, now).await;
        }
        self.ledger.record_uploads(intents.iter().flatten().map(|intent| (*intent).clone())).await?;
        Ok(Recorded::Replay(Vec::new()))
    }

    /// Leaves nothing at the store of uploads that are not recorded.
    async fn forget_drafts<E>(&self, places: &[Place<E>]) {
        for draft in places.iter().filter_map(Place::draft) {
            if let Some(multipart) = draft.intent.multipart() {
                self.forget_parts(&draft.intent.object_key, multipart.upload_id).await;
            }
        }
    }
}

impl<E> Place<E> {
    fn draft(&self) -> Option<&Draft> {
        match self {
            Self::Allowed(draft) => Some(draft),
            Self::Earlier(_) | Self::Refused(_) => None,
        }
    }
}

/// Tells what is wrong with one file from what is wrong with the service, which is the outer error.
fn of_one<T, E: From<DomainError>>(outcome: Result<T, DomainError>) -> Result<Result<T, E>, DomainError> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(
            error @ (DomainError::Db(_)
            | DomainError::S3(_)
            | DomainError::Signing(_)
            | DomainError::NoRandomness
            | DomainError::OtherBucket { .. }),
        ) => Err(error),
        Err(error) => Ok(Err(error.into())),
    }
}

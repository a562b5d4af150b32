//! Confirming: the store is asked, nobody is believed.

use std::{
    fmt,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::rand;
use serde_json::json;

use super::{ClaimedPart, DomainError, Mismatch, Service, require, sniff};
use crate::{
    db::{MultipartUpload, Outcome, SettledVia, Settlement, UploadIntent, VerifiedObject},
    model::{
        ByteSize, ETag, IntentEvent, IntentId, IntentState, ObjectKey, Principal, Scope, SizePromise, UploadMethod,
        object_key::ATTEMPT_DIGITS,
    },
    policy::{InspectionRule, SniffRule},
    s3::{ObjectAttributes, ObjectHead, S3Error},
    single_flight::SingleFlight,
};

/// Looks at an object that changes between two of them before the client is told to try again.
const LOOKS: usize = 3;

/// Who says that an upload is finished.
#[derive(Clone, Copy)]
pub enum Confirmer<'a> {
    /// Its owner, by JWT.
    Owner(&'a Principal),
    /// Whoever holds the callback token of the upload.
    Token(&'a str),
}

impl fmt::Debug for Confirmer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(principal) => f.debug_tuple("Owner").field(principal).finish(),
            Self::Token(_) => f.debug_tuple("Token").finish_non_exhaustive(),
        }
    }
}

/// What whoever confirms says of what was uploaded. It is held against what the store has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claim<'a> {
    /// `ETag` of the object.
    pub etag: Option<&'a ETag>,
    /// The parts that were sent.
    pub parts: &'a [ClaimedPart],
}

/// How often the first bytes of a file were not of the type that it was declared as.
#[derive(Debug, Default)]
pub struct SniffCounts {
    /// And it was confirmed with a warning, or goes on to the scanner with one.
    pub warned: AtomicU64,
    /// And it was rejected.
    pub rejected: AtomicU64,
}

/// Looks at uploaded objects that are under way, by upload and object: who finds another object there does not take the
/// verdict on this one.
pub type Judging = SingleFlight<(IntentId, ETag), Judged>;

/// What the upload came to; `None` when the object became another while it was looked at.
type Judged = Result<Option<Result<UploadIntent, DomainError>>, DomainError>;

impl Service {
    /// The callback: confirms an upload on the word of `confirmer`, which counts for nothing.
    ///
    /// # Errors
    /// When the confirmer may not, and as [`Service::confirm_intent`].
    pub async fn confirm_upload(
        &self,
        id: IntentId,
        confirmer: Confirmer<'_>,
        claim: Claim<'_>,
    ) -> Result<UploadIntent, DomainError> {
        let intent = self.upload_for(id, confirmer).await?;
        self.confirm_intent(intent, SettledVia::Callback, claim).await
    }

    /// Looks at the stored object, compares it with what was promised, and settles the upload in one conditional
    /// update. Any number of calls, on whatever path, in any order and at once, lead to one transition.
    ///
    /// What counts at the deadline is when the object arrived, or the parts of a planned multipart upload, not when
    /// somebody looks: an upload that was finished in time is not lost because nobody could say so in time.
    ///
    /// A staged upload is copied first, and it is the copy that is verified: no client can write to that, while the
    /// staged object may become another at any moment. A multipart upload whose parts are all there is completed first.
    ///
    /// # Errors
    /// When nothing was uploaded yet, it is not what was promised, it has been revoked, or the time has run out.
    pub async fn confirm_intent(
        &self,
        intent: UploadIntent,
        via: SettledVia,
        claim: Claim<'_>,
    ) -> Result<UploadIntent, DomainError> {
        self.confirm_written_from(intent, via, claim, &[]).await
    }

    /// [`Service::confirm_intent`] for whoever knows `addresses` that the object was written from: an address outside
    /// of the upload's client network is a broken promise like any other.
    ///
    /// # Errors
    /// As [`Service::confirm_intent`].
    pub async fn confirm_written_from(
        &self,
        intent: UploadIntent,
        via: SettledVia,
        claim: Claim<'_>,
        addresses: &[IpAddr],
    ) -> Result<UploadIntent, DomainError> {
        if intent.state != IntentState::Issued {
            return settled(intent);
        }
        self.require_bucket(&intent)?;
        self.refuse_revoked(&intent).await?;
        // Taken before the store is asked, so that what arrives after the answer has arrived too late.
        let is_over = self.clock.now() > intent.confirm_until;
        let mut failure = DomainError::Incomplete;
        for look in 1..=LOOKS {
            let arrived = match self.store.head(&intent.object_key).await {
                Err(S3Error::KeyRequired { .. }) => {
                    return self.settle(&intent, via, Verdict::Rejected(vec![encryption_mismatch()])).await;
                }
                arrived => arrived?,
            };
            if is_over && arrived.as_ref().is_some_and(|head| is_late(&intent, head)) {
                return self.settle(&intent, via, Verdict::Expired).await;
            }
            let Some(arrived) = arrived else {
                // Which parts a file without a plan was to have is known to its client alone.
                let may_be_whole = |multipart: &MultipartUpload<'_>| !is_over || multipart.plan.is_some();
                if let Some(multipart) = intent.multipart().filter(|multipart| look < LOOKS && may_be_whole(multipart))
                {
                    let sent_until = is_over.then_some(intent.confirm_until);
                    match self.assemble(&intent, &multipart, claim.parts, sent_until).await {
                        Ok(()) => {}
                        // Another may have put it together since the store was asked.
                        Err(error @ (DomainError::PartsGone | DomainError::Incomplete)) => failure = error,
                        Err(DomainError::Mismatched(mismatches)) => {
                            return self.settle(&intent, via, Verdict::Rejected(mismatches)).await;
                        }
                        Err(DomainError::PartsMissing(_)) if is_over => {
                            return self.settle(&intent, via, Verdict::Expired).await;
                        }
                        Err(error) => return Err(error),
                    }
                    continue;
                }
                if is_over {
                    if !self.store.is_surely_absent(&intent.object_key).await? {
                        continue;
                    }
                    return self.settle(&intent, via, Verdict::Expired).await;
                }
                // Somebody else may have confirmed it meanwhile, and removed the staged object.
                let now = self.database.upload(intent.id).await?.ok_or(DomainError::NotFound)?;
                return if now.state == IntentState::Issued { Err(failure) } else { settled(now) };
            };
            if let Some(claimed) = claim.etag.filter(|claimed| **claimed != arrived.etag) {
                return Err(DomainError::EtagMismatch {
                    field: "etag".to_owned(),
                    claimed: claimed.to_string(),
                    found: Some(arrived.etag.to_string()),
                });
            }
            let mut mismatches = size_and_type_mismatches(&intent, &arrived);
            mismatches.extend(network_mismatch(&intent, addresses));
            if !mismatches.is_empty() {
                return self.settle(&intent, via, Verdict::Rejected(mismatches)).await;
            }
            if let Some(outcome) = self.judge_once(&intent, via, arrived).await? {
                return outcome;
            }
        }
        Err(DomainError::Incomplete)
    }

    /// [`Service::judge`], once for all who ask at the same time. It goes on when they have gone: a copy that has begun
    /// cannot be called back, and whoever asks again would make another, or read the same again.
    async fn judge_once(&self, intent: &UploadIntent, via: SettledVia, arrived: ObjectHead) -> Judged {
        let (service, key) = (self.clone(), (intent.id, arrived.etag.clone()));
        let intent = intent.clone();
        let judging = async move { service.judge(&intent, via, &arrived).await };
        self.judging.join(key, judging).await.unwrap_or_else(|| Err(S3Error::stopping("HeadObject").into()))
    }

    /// Settles the upload by what `arrived` turns out to be. `None` when the object was another meanwhile.
    async fn judge(&self, intent: &UploadIntent, via: SettledVia, arrived: &ObjectHead) -> Judged {
        if intent.object_key.is_staged() {
            return self.confirm_copy(intent, via, arrived).await;
        }
        match self.verdict(intent, &intent.object_key, arrived).await? {
            Some(verdict) => Ok(Some(self.settle(intent, via, verdict).await)),
            None => Ok(None),
        }
    }

    /// Copies what `arrived` to a key of its own, and confirms the copy. `None` when the staged object changed.
    async fn confirm_copy(&self, intent: &UploadIntent, via: SettledVia, arrived: &ObjectHead) -> Judged {
        let copy = intent.object_key.copied(&attempt()?).map_err(DomainError::NoKey)?;
        self.database.begin_copy(intent.id, &copy, self.clock.now()).await?;
        // As it was promised: who signs by themselves may have written other metadata, and told caches and browsers things.
        let attributes = ObjectAttributes::new(&intent.content_type, &intent.metadata);
        let verdict = match self.store.copy(&intent.object_key, arrived, &copy, attributes).await {
            Ok(true) => self.verdict_on_copy(intent, &copy).await,
            Ok(false) => Ok(None),
            Err(error @ S3Error::Refused { .. }) => Err(error.into()),
            // It may come into being yet, and is found by its row then.
            Err(error) => return Err(error.into()),
        };
        let outcome = match verdict {
            Ok(Some(verdict)) => Some(self.settle(intent, via, verdict).await),
            Ok(None) => None,
            Err(error) => {
                // The next attempt makes another: one whose reading fails for good would fill the bucket.
                self.tidy_after(intent, &copy, None).await;
                return Err(error);
            }
        };
        self.tidy_after(intent, &copy, outcome.as_ref()).await;
        Ok(outcome)
    }

    async fn verdict_on_copy(&self, intent: &UploadIntent, copy: &ObjectKey) -> Result<Option<Verdict>, DomainError> {
        match self.store.head(copy).await? {
            Some(head) => self.verdict(intent, copy, &head).await,
            None => Ok(None),
        }
    }

    /// Removes what a confirmation leaves behind: the staged object where its copy was confirmed, the copy where it
    /// was not. Best effort, because the sweeper does the same for whoever did not get here.
    async fn tidy_after(
        &self,
        intent: &UploadIntent,
        copy: &ObjectKey,
        outcome: Option<&Result<UploadIntent, DomainError>>,
    ) {
        let superfluous = match outcome {
            // Whether the transition was written is not known: the sweeper will look.
            Some(Err(DomainError::Db(_))) => return,
            Some(Ok(confirmed)) if confirmed.stored_key.as_ref() == Some(copy) => &intent.object_key,
            _ => copy,
        };
        let tidied = async {
            if superfluous == copy {
                // For good: once its row is gone, nobody finds a version of it again.
                self.store.purge(copy).await?;
            } else {
                self.store.delete(superfluous).await?;
            }
            Ok::<_, DomainError>(self.database.end_copy(intent.id, copy).await?)
        };
        if let Err(error) = tidied.await {
            log::info!("upload {}: left for the sweeper: {error}", intent.id);
        }
    }

    /// What the object under `key`, which looks like `head`, means for the upload. `None` when it is gone or became
    /// another while it was looked at.
    async fn verdict(
        &self,
        intent: &UploadIntent,
        key: &ObjectKey,
        head: &ObjectHead,
    ) -> Result<Option<Verdict>, DomainError> {
        let mut mismatches = size_and_type_mismatches(intent, head);
        if mismatches.is_empty()
            && let Some(promised) = intent.checksum_sha256
        {
            let found = match head.checksum_sha256 {
                Some(found) => found,
                // The store keeps no digest, so the bytes themselves have to tell.
                None => match self.store.sha256(key, &head.etag).await? {
                    Some(found) => found,
                    None => return Ok(None),
                },
            };
            if found != promised {
                mismatches.push(Mismatch {
                    field: "checksum_sha256".to_owned(),
                    expected: promised.to_base64().into(),
                    found: found.to_base64().into(),
                });
            }
        }
        if !mismatches.is_empty() {
            return Ok(Some(Verdict::Rejected(mismatches)));
        }
        let (sniffing, inspection) = self.content_rules(intent);
        let mut warnings = Vec::new();
        if sniffing != SniffRule::Off && head.size > 0 {
            // The verified object and no other: what was seen at another moment would prove nothing.
            let Some(beginning) = self.store.beginning(key, &head.etag, sniff::BEGINNING).await? else {
                return Ok(None);
            };
            if let Some(found) = sniff::contradiction(&intent.content_type, &beginning) {
                warnings.push(Mismatch {
                    field: Mismatch::CONTENT.to_owned(),
                    expected: intent.content_type.as_str().into(),
                    found: found.into(),
                });
            }
        }
        if sniffing == SniffRule::Reject && !warnings.is_empty() {
            return Ok(Some(Verdict::Rejected(warnings)));
        }
        let object = VerifiedObject {
            stored_key: (*key != intent.object_key).then(|| key.clone()),
            size: ByteSize::from_bytes(head.size),
            etag: head.etag.clone(),
            version_id: head.version_id.clone(),
        };
        Ok(Some(Verdict::Verified { object, warnings, inspection }))
    }

    /// The checks of content that today's policy asks for. Nobody knows what a policy would ask for that was withdrawn
    /// and may come back: whatever can be checked is.
    fn content_rules(&self, intent: &UploadIntent) -> (SniffRule, InspectionRule) {
        match self.policies.current().policy(&intent.policy, self.clock.now()) {
            Some(rules) => (rules.sniff, rules.inspection),
            None if self.inspection.is_some() => (SniffRule::Warn, InspectionRule::Required),
            None => (SniffRule::Warn, InspectionRule::Off),
        }
    }

    async fn upload_for(&self, id: IntentId, confirmer: Confirmer<'_>) -> Result<UploadIntent, DomainError> {
        match confirmer {
            Confirmer::Owner(principal) => {
                require(principal, Scope::Upload)?;
                self.owned_upload(principal, id).await
            }
            Confirmer::Token(token) => {
                self.callback_tokens.verify(token, id, self.clock.now())?;
                self.database.upload(id).await?.ok_or(DomainError::NotFound)
            }
        }
    }

    async fn settle(
        &self,
        intent: &UploadIntent,
        via: SettledVia,
        verdict: Verdict,
    ) -> Result<UploadIntent, DomainError> {
        let (event, object, mismatches) = match verdict {
            Verdict::Verified { object, warnings, inspection: InspectionRule::Off } => {
                (IntentEvent::Confirm, Some(object), warnings)
            }
            Verdict::Verified { object, warnings, inspection: InspectionRule::Required } => {
                (IntentEvent::Inspect, Some(object), warnings)
            }
            Verdict::Rejected(mismatches) => (IntentEvent::Reject, None, mismatches),
            Verdict::Expired => (IntentEvent::Expire, None, Vec::new()),
        };
        let disguised = mismatches.iter().find(|mismatch| mismatch.field == Mismatch::CONTENT).cloned();
        let settlement = Settlement {
            event,
            via: Some(via),
            at: self.clock.now(),
            object,
            mismatches: (!mismatches.is_empty()).then(|| json!(mismatches)),
            has_leftovers: event != IntentEvent::Confirm || intent.object_key.is_staged(),
        };
        match self.transition(intent.id, &settlement).await? {
            Outcome::Changed(intent) => {
                if let Some(disguised) = disguised {
                    self.note_disguise(&intent, &disguised);
                }
                settled(intent)
            }
            // Since it was looked for at the beginning.
            Outcome::NotAllowed(intent) if intent.state == IntentState::Issued && event.accepts() => {
                Err(DomainError::Revoked)
            }
            Outcome::AlreadyThere(intent) | Outcome::NotAllowed(intent) => settled(intent),
            Outcome::Absent => Err(DomainError::NotFound),
        }
    }

    fn note_disguise(&self, intent: &UploadIntent, disguise: &Mismatch) {
        let rejected = intent.state == IntentState::Rejected;
        let count = if rejected { &self.sniffed.rejected } else { &self.sniffed.warned };
        count.fetch_add(1, Ordering::Relaxed);
        let (Mismatch { expected, found, .. }, id, state) = (disguise, intent.id, intent.state);
        log::info!("upload {id}: declared as {expected}, begins like {found}: {state}");
    }

    /// Moves an upload to another state, and tells whoever wants to know.
    pub(super) async fn transition(&self, id: IntentId, settlement: &Settlement) -> Result<Outcome, DomainError> {
        let tell = |upload: &UploadIntent| self.outbox.of_upload(upload, settlement.at);
        let outcome = self.database.settle_upload(id, settlement, tell).await?;
        if let (Outcome::Changed(UploadIntent { state: IntentState::Inspecting, .. }), Some(inspection)) =
            (&outcome, &self.inspection)
        {
            inspection.wake();
        }
        Ok(outcome)
    }
}

enum Verdict {
    Verified { object: VerifiedObject, warnings: Vec<Mismatch>, inspection: InspectionRule },
    Rejected(Vec<Mismatch>),
    Expired,
}

/// What nobody can guess and no other attempt has.
fn attempt() -> Result<String, DomainError> {
    let mut bytes = [0; ATTEMPT_DIGITS / 2];
    rand::fill(&mut bytes).map_err(|_| DomainError::NoRandomness)?;
    Ok(hex::encode(bytes))
}

/// What the state of a settled upload means to whoever wants it confirmed.
fn settled(intent: UploadIntent) -> Result<UploadIntent, DomainError> {
    match intent.state {
        IntentState::Confirmed | IntentState::Inspecting => Ok(intent),
        IntentState::Rejected => {
            let mismatches = intent.mismatches.and_then(|stored| serde_json::from_value(stored).ok());
            Err(DomainError::Mismatched(mismatches.unwrap_or_default()))
        }
        IntentState::Expired => Err(DomainError::Expired),
        // It was to expire, and a renewal came before that.
        IntentState::Issued => Err(DomainError::Incomplete),
        IntentState::Aborted => Err(DomainError::InvalidState(IntentState::Aborted)),
    }
}

/// Whether the object came after the deadline. What is made of parts is as old as the service's own last step, and is
/// there only if they were all there before.
pub(super) fn is_late(intent: &UploadIntent, head: &ObjectHead) -> bool {
    intent.multipart().is_none() && head.last_modified.is_some_and(|at| at > intent.confirm_until)
}

pub(super) fn size_and_type_mismatches(intent: &UploadIntent, head: &ObjectHead) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    if !intent.size_promise().admits(head.size) {
        mismatches.push(size_mismatch(intent, head.size));
    }
    let found = head.content_type.as_deref().unwrap_or_default();
    if !intent.content_type.equivalent(found) {
        mismatches.push(Mismatch {
            field: "file_type".to_owned(),
            expected: intent.content_type.as_str().into(),
            found: head.content_type.as_deref().into(),
        });
    }
    if let Some(class) = head.storage_class.as_deref().filter(|class| ARCHIVES.contains(class)) {
        mismatches.push(Mismatch {
            field: "storage_class".to_owned(),
            expected: "STANDARD".into(),
            found: class.into(),
        });
    }
    if let Some(coding) = head.content_encoding.as_deref().filter(|coding| is_coded(coding)) {
        mismatches.push(Mismatch {
            field: "content_encoding".to_owned(),
            expected: "identity".into(),
            found: coding.into(),
        });
    }
    mismatches
}

/// The storage classes whose objects are read only after they have been restored
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html>).
const ARCHIVES: [&str; 2] = ["DEEP_ARCHIVE", "GLACIER"];

/// What nobody here can read, nobody can verify or deliver.
fn encryption_mismatch() -> Mismatch {
    Mismatch { field: "encryption".to_owned(), expected: "none by the client".into(), found: "SSE-C".into() }
}

/// Whether a browser would undo something (`Content-Encoding`, RFC 9110 section 8.4), and save other bytes than those
/// that were measured, sniffed and scanned. No signature holds clients to leaving the header out of a PUT. `aws-chunked`
/// is how a request was framed; some stores keep it.
fn is_coded(codings: &str) -> bool {
    codings.split(',').map(str::trim).any(|coding| !matches!(coding, "" | "identity" | "aws-chunked"))
}

/// The promise of a size, which `found` does not keep.
pub(super) fn size_mismatch(intent: &UploadIntent, found: u64) -> Mismatch {
    let expected = match intent.size_promise() {
        SizePromise::Exact(size) => size.bytes().into(),
        SizePromise::AtMost(limit) => format!("at most {}", limit.bytes()).into(),
    };
    Mismatch { field: "file_size".to_owned(), expected, found: found.into() }
}

fn network_mismatch(intent: &UploadIntent, addresses: &[IpAddr]) -> Option<Mismatch> {
    // What multipart uploads lead to is written by this service, from its own address.
    let network = intent.client_network.filter(|_| intent.method != UploadMethod::Multipart)?;
    let outside = addresses.iter().find(|address| !network.contains(**address))?;
    Some(Mismatch {
        field: "client_network".to_owned(),
        expected: network.to_string().into(),
        found: outside.to_canonical().to_string().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_token() {
        assert_eq!(format!("{:?}", Confirmer::Token("hunter2")), "Token(..)");
    }
}

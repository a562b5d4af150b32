//! Multipart: the parts of an upload are signed, listed and put together.
//!
//! Clients get URLs for nothing but the parts. The multipart upload is begun, completed and given up by the service
//! itself, so nobody else can make an object of the parts, whatever conditions the store honours.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, btree_map::Entry};

use chrono::{DateTime, SubsecRound as _, Utc};

use super::{
    BrokenRule, Caller, DomainError, Service, confirm::size_mismatch, error::MOST_BROKEN_RULES, require, url_end,
};
use crate::{
    db::{MultipartUpload, PartColumns, UploadIntent},
    model::{
        ETag, IntentId, IntentState, ObjectKey, PartNumber, PartPlan, PlannedPart, Principal, Scope, Sha256Digest,
    },
    s3::{Access, ObjectAttributes, StoredPart},
    signing::{Method, PresignRequest, PresignedUrl},
};

/// Missing parts named at once.
const MOST_MISSING: usize = 20;

/// The parts that a client wants to send, as it names them.
#[derive(Debug, Clone)]
pub struct PartsRequest {
    /// Their numbers.
    pub part_numbers: Vec<u64>,
    /// Their digests, by number.
    pub checksums_sha256: BTreeMap<u64, Sha256Digest>,
}

/// A part that is asked for and can be signed.
struct AskedPart<'a> {
    number: PartNumber,
    /// None where the client cuts the file as it likes.
    planned: Option<PlannedPart>,
    checksum: Option<&'a Sha256Digest>,
}

/// A part that may be sent.
#[derive(Debug)]
pub struct SignedPart {
    /// Which one.
    pub number: PartNumber,
    /// Where its bytes go.
    pub url: PresignedUrl,
}

/// What the store has of a multipart upload.
#[derive(Debug)]
pub struct UploadedParts {
    /// The parts that there are to be; none where the client cuts the file as it likes.
    pub plan: Option<PartPlan>,
    /// Those that were sent, in order.
    pub parts: Vec<StoredPart>,
}

/// A part that a client says it has sent.
#[derive(Debug, Clone)]
pub struct ClaimedPart {
    /// Which one.
    pub number: PartNumber,
    /// What the store answered it with.
    pub etag: ETag,
}

/// Parts that the store does not have, or not in the planned length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingParts {
    /// The first of them.
    pub first: Vec<PartNumber>,
    /// How many there are in all.
    pub count: usize,
}

impl Service {
    /// Presigns parts of the caller's upload, in the order in which they are asked for, until the upload's URLs end.
    /// Changes nothing: what is handed out is what issuing or renewing has allowed.
    ///
    /// # Errors
    /// When the caller does not own the upload or is in another network than it was issued for, its URLs have ended, or
    /// any of the parts is not in its plan. Then none is signed.
    pub async fn sign_parts(
        &self,
        caller: Caller<'_>,
        id: IntentId,
        request: &PartsRequest,
    ) -> Result<Vec<SignedPart>, DomainError> {
        caller.require(Scope::Upload)?;
        let intent = self.owned_upload(caller.principal, id).await?;
        self.require_bucket(&intent)?;
        let now = self.clock.now();
        let multipart = open_multipart(&intent, now)?;
        self.refuse_revoked(&intent).await?;
        let document = self.policies.current();
        if document.policy(&intent.policy, now).is_none() {
            return Err(DomainError::PolicyWithdrawn(intent.policy.clone()));
        }
        let parts = request.planned(&multipart)?;
        if intent.client_network.is_some_and(|network| !network.contains(caller.address)) {
            return Err(DomainError::NetworkChanged);
        }
        if now >= intent.expires_at {
            return Err(DomainError::RenewRequired);
        }
        let left = (intent.expires_at - now.trunc_subsecs(0)).to_std().unwrap_or_default();
        let signer = self.sessions.signer(intent.client_network, Access::Upload, document.longest_expiry()).await?;
        let (life, _) = url_end(now, left, &signer);
        let part_signer = signer.part_signer(&intent.object_key, multipart.upload_id, now, life)?;
        let urls = parts.into_iter().map(|AskedPart { number, planned, checksum }| {
            let url = match planned {
                Some(part) => part_signer.presign(part, checksum),
                None => signer.presign(&free_part(&intent.object_key, multipart.upload_id, number), now, life)?,
            };
            Ok(SignedPart { number, url })
        });
        urls.collect()
    }

    /// What the store has of the upload: what is left to send after a break is the rest.
    ///
    /// # Errors
    /// When `principal` does not own it, it has no parts or is settled, or the store cannot be asked now.
    pub async fn uploaded_parts(&self, principal: &Principal, id: IntentId) -> Result<UploadedParts, DomainError> {
        require(principal, Scope::Upload)?;
        let intent = self.owned_upload(principal, id).await?;
        self.require_bucket(&intent)?;
        let multipart = open_multipart(&intent, self.clock.now())?;
        self.refuse_revoked(&intent).await?;
        let parts = self.store.parts(&intent.object_key, multipart.upload_id).await?.ok_or(DomainError::PartsGone)?;
        Ok(UploadedParts { plan: multipart.plan, parts: chosen_parts(parts, &[]) })
    }

    /// Begins a multipart upload at the store, before its row is written: one that a crash leaves without a row is
    /// found by the sweeper in the bucket.
    pub(super) async fn begin_parts(
        &self,
        key: &ObjectKey,
        plan: Option<&PartPlan>,
        attributes: ObjectAttributes,
        has_checksums: bool,
    ) -> Result<PartColumns, DomainError> {
        let upload_id = self.store.begin_multipart(key, attributes, has_checksums).await?;
        Ok(PartColumns::of(upload_id, plan, has_checksums))
    }

    /// Refuses to let more be sent, where no plan says how long the parts are and there is more of them than was promised.
    /// The store holds a part to no length then, so between two renewals as much can be sent as there is time for; this
    /// ends it. It is not asked whenever parts are signed, which these clients do for each alone: it lists them all.
    pub(super) async fn refuse_excess(&self, intent: &UploadIntent) -> Result<(), DomainError> {
        let Some(MultipartUpload { plan: None, upload_id, .. }) = intent.multipart() else { return Ok(()) };
        let parts = self.store.parts(&intent.object_key, upload_id).await?.unwrap_or_default();
        let size = total(&chosen_parts(parts, &[]));
        if size <= intent.size_promise().largest().bytes() {
            return Ok(());
        }
        Err(DomainError::Mismatched(vec![size_mismatch(intent, size)]))
    }

    /// Gives up what was begun for an upload that is not recorded. Best effort: the sweeper does the same.
    pub(super) async fn forget_parts(&self, key: &ObjectKey, upload_id: &str) {
        if let Err(error) = self.store.abort_multipart(key.as_str(), upload_id).await {
            log::info!("a multipart upload without a record is left for the sweeper: {error}");
        }
    }

    /// Makes the object of the parts that were written until `sent_until`, if every part of the plan is there and is what
    /// `claimed` says. Without a plan, what `claimed` says is the only word on which parts there are to be.
    ///
    /// The store is told the `ETag`s that were listed here, so a part that is replaced meanwhile ends in a refusal and
    /// not in an object that nobody has looked at.
    ///
    /// # Errors
    /// [`DomainError::PartsMissing`] when some are not there; [`DomainError::PartsGone`] or [`DomainError::Incomplete`]
    /// when another was faster, of which the object itself will tell.
    pub(super) async fn assemble(
        &self,
        intent: &UploadIntent,
        multipart: &MultipartUpload<'_>,
        claimed: &[ClaimedPart],
        sent_until: Option<DateTime<Utc>>,
    ) -> Result<(), DomainError> {
        let key = &intent.object_key;
        let mut parts = self.store.parts(key, multipart.upload_id).await?.ok_or(DomainError::PartsGone)?;
        retain_sent(&mut parts, sent_until);
        let parts = chosen_parts(parts, claimed);
        if let Err(refusal) = refuse_other_parts(intent, multipart, claimed, &parts) {
            // Parts may be missing because another has put them together since the object was looked for. SeaweedFS lists
            // none for a moment then, before it says that there is no such multipart upload.
            return if self.store.exists(key, None).await? { Ok(()) } else { Err(refusal) };
        }
        match self.store.complete_multipart(key, multipart.upload_id, &parts).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(DomainError::Incomplete),
            // An answer that was lost, or that another got: the object tells.
            Err(error) => {
                if self.store.exists(key, None).await? {
                    Ok(())
                } else {
                    Err(error.into())
                }
            }
        }
    }
}

impl PartsRequest {
    /// The parts of the plan that are asked for, with the digests that they shall have.
    fn planned(&self, multipart: &MultipartUpload<'_>) -> Result<Vec<AskedPart<'_>>, DomainError> {
        let (count, most) = (self.part_numbers.len(), usize::from(PartNumber::MAX));
        if !(1..=most).contains(&count) {
            return Err(DomainError::broken_rule("part_numbers", format!("must be 1 to {most} numbers"), count));
        }
        let mut broken = Vec::new();
        let mut refuse = |number: u64, field: String, rule: &str| {
            if broken.len() < MOST_BROKEN_RULES {
                broken.push(BrokenRule { field, rule: rule.to_owned(), received: number.into() });
            }
        };
        let outside = format!("must be 1 to {}", multipart.most_parts);
        let mut asked = HashSet::with_capacity(count);
        let mut parts = Vec::with_capacity(count);
        for (at, &number) in self.part_numbers.iter().enumerate() {
            let checksum = self.checksums_sha256.get(&number);
            match PartNumber::new(number).filter(|number| number.get() <= multipart.most_parts) {
                None => refuse(number, format!("part_numbers[{at}]"), &outside),
                Some(_) if !asked.insert(number) => {
                    refuse(number, format!("part_numbers[{at}]"), "must not be repeated");
                }
                Some(_) if multipart.has_checksums && checksum.is_none() => {
                    let rule = "must be given: every part of this upload needs its SHA-256, base64";
                    refuse(number, format!("checksums_sha256.{number}"), rule);
                }
                Some(number) => {
                    let planned = multipart.plan.and_then(|plan| plan.part(number));
                    parts.push(AskedPart { number, planned, checksum });
                }
            }
        }
        for &number in self.checksums_sha256.keys() {
            if !multipart.has_checksums {
                let rule = "must be left out: this upload was not issued with part_checksums";
                refuse(number, format!("checksums_sha256.{number}"), rule);
            } else if !asked.contains(&number) {
                refuse(number, format!("checksums_sha256.{number}"), "must be of a part in part_numbers");
            }
        }
        if broken.is_empty() { Ok(parts) } else { Err(DomainError::BrokenRules(broken)) }
    }
}

/// The multipart upload of an upload whose parts may still be sent.
fn open_multipart(intent: &UploadIntent, now: DateTime<Utc>) -> Result<MultipartUpload<'_>, DomainError> {
    let multipart = intent.multipart().ok_or(DomainError::NotMultipart)?;
    match intent.state {
        // The sweeper has not been there yet; nothing that is sent now counts.
        IntentState::Issued if now > intent.confirm_until => Err(DomainError::Expired),
        IntentState::Issued => Ok(multipart),
        IntentState::Expired => Err(DomainError::Expired),
        state => Err(DomainError::InvalidState(state)),
    }
}

/// Leaves out parts that came after `sent_until`.
pub(super) fn retain_sent(parts: &mut Vec<StoredPart>, sent_until: Option<DateTime<Utc>>) {
    if let Some(end) = sent_until {
        parts.retain(|part| part.last_modified.is_none_or(|at| at <= end));
    }
}

/// One of each part: the one that is claimed, or else the last that was written.
///
/// SeaweedFS keeps every copy of a part that was sent again, and completes with the one whose `ETag` it is told. Their
/// times are whole seconds: where these do not tell which of two different copies is the last, none is chosen, so the
/// part is missing, and the client sends it again.
pub(super) fn chosen_parts(stored: Vec<StoredPart>, claimed: &[ClaimedPart]) -> Vec<StoredPart> {
    let claimed: HashMap<PartNumber, &ETag> = claimed.iter().map(|claim| (claim.number, &claim.etag)).collect();
    let mut chosen: BTreeMap<PartNumber, (StoredPart, bool)> = BTreeMap::new();
    for part in stored {
        let is_claimed = |part: &StoredPart| claimed.get(&part.number) == Some(&&part.etag);
        match chosen.entry(part.number) {
            Entry::Vacant(entry) => drop(entry.insert((part, false))),
            Entry::Occupied(mut entry) => {
                let (held, is_doubtful) = entry.get_mut();
                let rank = |part: &StoredPart| (is_claimed(part), part.last_modified);
                if rank(&part) > rank(held) {
                    entry.insert((part, false));
                } else if rank(&part) == rank(held) && part.etag != held.etag {
                    *is_doubtful = true;
                }
            }
        }
    }
    chosen.into_values().filter(|(_, is_doubtful)| !is_doubtful).map(|(part, _)| part).collect()
}

/// What is missing of `plan`. A part of another length is none: it is the one to send again.
pub(super) fn missing_parts(plan: &PartPlan, parts: &[StoredPart]) -> Option<MissingParts> {
    let sizes: HashMap<PartNumber, u64> = parts.iter().map(|part| (part.number, part.size)).collect();
    let is_missing = |part: &PlannedPart| sizes.get(&part.number()) != Some(&part.length());
    let mut missing = plan.parts().filter(is_missing).map(PlannedPart::number);
    let first: Vec<PartNumber> = missing.by_ref().take(MOST_MISSING).collect();
    let count = first.len() + missing.count();
    (count > 0).then_some(MissingParts { first, count })
}

/// Refuses parts that are not all of the plan, or not those that are claimed.
fn refuse_other_parts(
    intent: &UploadIntent,
    multipart: &MultipartUpload<'_>,
    claimed: &[ClaimedPart],
    parts: &[StoredPart],
) -> Result<(), DomainError> {
    if let Some(missing) = multipart.plan.and_then(|plan| missing_parts(&plan, parts)) {
        return Err(DomainError::PartsMissing(missing));
    }
    refuse_other_etags(claimed, parts)?;
    if multipart.plan.is_none() { refuse_other_file(intent, claimed, parts) } else { Ok(()) }
}

/// Refuses to put a file together that is not what was promised, where no plan says how long its parts are.
fn refuse_other_file(intent: &UploadIntent, claimed: &[ClaimedPart], parts: &[StoredPart]) -> Result<(), DomainError> {
    if claimed.is_empty() {
        // More may be on their way.
        return Err(DomainError::Incomplete);
    }
    let refuse = |rule: &str, received: u64| Err(DomainError::broken_rule("parts", rule, received));
    let claimed: BTreeSet<PartNumber> = claimed.iter().map(|part| part.number).collect();
    if let Some(other) = parts.iter().find(|part| !claimed.contains(&part.number)) {
        return refuse("must name every part that was sent, this one as well", other.number.get().into());
    }
    let all_but_last = parts.split_last().map_or(&[][..], |(_, rest)| rest);
    if let Some(small) = all_but_last.iter().find(|part| part.size < PartPlan::SMALLEST_PART.bytes()) {
        return refuse("must be of at least 5 MiB but for the last", small.number.get().into());
    }
    let size = total(parts);
    if intent.size_promise().admits(size) {
        return Ok(());
    }
    Err(DomainError::Mismatched(vec![size_mismatch(intent, size)]))
}

fn total(parts: &[StoredPart]) -> u64 {
    parts.iter().map(|part| part.size).fold(0, u64::saturating_add)
}

/// The request for a part whose length is the client's to choose.
fn free_part<'a>(key: &'a ObjectKey, upload_id: &'a str, number: PartNumber) -> PresignRequest<'a> {
    let query = vec![("partNumber".into(), number.to_string().into()), ("uploadId".into(), upload_id.into())];
    PresignRequest { method: Method::Put, key, query, headers: Vec::new() }
}

fn refuse_other_etags(claimed: &[ClaimedPart], parts: &[StoredPart]) -> Result<(), DomainError> {
    let etags: HashMap<PartNumber, &ETag> = parts.iter().map(|part| (part.number, &part.etag)).collect();
    for (at, claim) in claimed.iter().enumerate() {
        match etags.get(&claim.number) {
            Some(etag) if **etag == claim.etag => {}
            found => {
                return Err(DomainError::EtagMismatch {
                    field: format!("parts[{at}].etag"),
                    claimed: claim.etag.to_string(),
                    found: found.map(ToString::to_string),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    fn number(number: u64) -> PartNumber {
        PartNumber::new(number).unwrap()
    }

    fn stored(part: u64, etag: &str, second: i64) -> StoredPart {
        StoredPart {
            number: number(part),
            size: 1,
            etag: ETag::parse(etag).unwrap(),
            checksum_sha256: None,
            last_modified: Some(DateTime::UNIX_EPOCH + TimeDelta::seconds(second)),
        }
    }

    #[test]
    fn a_part_of_another_length_is_missing() {
        let plan = PartPlan::new(10 << 20, PartPlan::SMALLEST_PART).unwrap();
        let part = |part: u64, size: u64| StoredPart { size, ..stored(part, "a", 1) };
        let whole = [part(1, 5 << 20), part(2, 5 << 20)];
        assert_eq!(missing_parts(&plan, &whole), None);
        for (parts, missing) in [
            (vec![], vec![1, 2]),
            (vec![whole[1].clone()], vec![1]),
            (vec![part(1, (5 << 20) - 1), whole[1].clone()], vec![1]),
            (vec![whole[0].clone(), part(2, (5 << 20) + 1)], vec![2]),
        ] {
            let found = missing_parts(&plan, &parts).unwrap();
            assert_eq!(found.first, missing.iter().map(|part| number(*part)).collect::<Vec<_>>(), "{parts:?}");
            assert_eq!(found.count, missing.len());
        }
    }

    #[test]
    fn of_several_copies_the_claimed_or_the_last_is_chosen() {
        let claim = |etag: &str| vec![ClaimedPart { number: number(1), etag: ETag::parse(etag).unwrap() }];
        let (a, b, b_later, c_later) = (stored(1, "a", 1), stored(1, "b", 1), stored(1, "b", 2), stored(1, "c", 2));
        let other = stored(2, "z", 0);
        for (copies, claimed, expected) in [
            (vec![&a], vec![], Some("a")),
            (vec![&a, &a], vec![], Some("a")),
            (vec![&a, &b_later], vec![], Some("b")),
            (vec![&a, &b_later], claim("a"), Some("a")),
            (vec![&a, &b_later], claim("neither"), Some("b")),
            // The same second, and nobody knows which was the last.
            (vec![&a, &b], vec![], None),
            (vec![&a, &b], claim("b"), Some("b")),
            (vec![&a, &b, &b_later], vec![], Some("b")),
            (vec![&b_later, &a, &b], vec![], Some("b")),
            (vec![&a, &b_later, &c_later], vec![], None),
            (vec![&b_later, &c_later, &a], vec![], None),
        ] {
            for copies in [copies.clone(), copies.into_iter().rev().collect()] {
                let stored = copies.iter().map(|part| (*part).clone()).chain([other.clone()]).collect();
                let chosen = chosen_parts(stored, &claimed);
                let (last, rest) = chosen.split_last().unwrap();
                assert_eq!(*last, other);
                assert_eq!(rest.first().map(|part| part.etag.as_str()), expected, "{copies:?} {claimed:?}");
            }
        }
    }
}

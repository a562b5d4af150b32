//! Issuing an upload: decide, record, sign, in this order.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Caller, DomainError, FormReturn, Service, url_end};
use crate::{
    db::{
        DbError, PartColumns, UploadIntent,
        idempotency::{IdempotencyKey, Recorded},
    },
    model::{
        ByteSize, ClientNetwork, ContentType, FileName, IntentId, IntentState, Md5Digest, Metadata, PartPlan,
        Principal, Scope, Sha256Digest, SizePromise, StagingArea, UploadMethod,
    },
    policy::{ChecksumRule, FileRequest, PolicyDocument, Refusal, Rules, UploadDecision},
    s3::{Access, ObjectAttributes},
    signing::{Method, PostForm, PresignRequest, PresignedPost, PresignedUrl, Signer, SuccessAction},
};

/// What a client wants to upload.
#[derive(Debug, Clone)]
pub struct IssueRequest {
    /// Name of the file.
    pub original_file_name: FileName,
    /// Its exact size in bytes; any that the policy allows when it is not known.
    pub file_size: Option<u64>,
    /// Its media type; guessed from the extension when absent.
    pub content_type: Option<ContentType>,
    /// The policy to use.
    pub policy: String,
    /// How the bytes shall travel; the policy's first suitable method when absent.
    pub method: Option<UploadMethod>,
    /// Its digest.
    pub checksum_sha256: Option<Sha256Digest>,
    /// Whether every part shall be bound to its digest, where the method is multipart.
    pub part_checksums: bool,
    /// Whether the client cuts the file as it likes, where the method is multipart.
    pub free_parts: bool,
    /// Its MD5, which is bound in the signature and not recorded: the store alone checks it, and only of a PUT.
    pub content_md5: Option<Md5Digest>,
    /// What to store along with it.
    pub metadata: Metadata,
    /// A shorter life than the policy's.
    pub expires_in: Option<Duration>,
    /// Where a browser shall go after it has uploaded a form.
    pub form_return: Option<FormReturn>,
}

/// An upload and where its bytes go.
#[derive(Debug)]
pub struct IssuedUpload {
    /// The committed intent.
    pub intent: Box<UploadIntent>,
    /// Where the bytes go; none for a replayed request whose upload is already settled.
    pub target: Option<UploadTarget>,
    /// What confirms this upload without a JWT.
    pub callback_token: Option<SecretString>,
}

/// Where the bytes of an upload go.
#[derive(Debug)]
pub enum UploadTarget {
    /// A URL to PUT to.
    Put(PresignedUrl),
    /// A form to POST.
    Post(PresignedPost),
    /// Credentials that sign whatever writes this object.
    Credentials(Arc<Signer>),
    /// Parts, for each of which a URL has to be asked for.
    Multipart {
        /// Which parts; none where the client cuts the file as it likes.
        plan: Option<PartPlan>,
        /// Whether every part needs its SHA-256.
        has_checksums: bool,
        /// Until when URLs are to be had.
        expires_at: DateTime<Utc>,
    },
}

/// An upload that is allowed and not recorded yet.
pub(super) struct Draft {
    pub(super) intent: Box<UploadIntent>,
    pub(super) grant: Grant,
    pub(super) form_return: Option<FormReturn>,
    pub(super) content_md5: Option<Md5Digest>,
}

/// What a policy allows one file, resolved to instants and a signer.
pub(super) struct Grant {
    pub(super) method: UploadMethod,
    pub(super) file_size: SizePromise,
    pub(super) plan: Option<PartPlan>,
    pub(super) network: Option<ClientNetwork>,
    /// What the signer reaches, where the client gets its credentials.
    pub(super) area: Option<StagingArea>,
    pub(super) signer: Arc<Signer>,
    pub(super) life: Duration,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) confirm_until: DateTime<Utc>,
}

impl Service {
    /// Issues an upload. The intent is committed before anything is signed, so there is no URL without a row; and the
    /// row's end is the signature's end, so no row promises more than its signature binds.
    ///
    /// # Errors
    /// When the policy refuses, when the same idempotency key came with another request, or when the database, the
    /// STS or the ledger cannot serve now.
    pub async fn issue_upload(
        &self,
        caller: Caller<'_>,
        request: IssueRequest,
        idempotency_key: Option<IdempotencyKey>,
    ) -> Result<IssuedUpload, DomainError> {
        caller.require(Scope::Upload)?;
        // Before anything is decided anew: what was granted once is not refused to a client that lost the answer.
        if let Some(key) = &idempotency_key
            && let Some(recorded) = self.database.recorded_upload(caller.principal, key, self.clock.now()).await?
        {
            return self.replayed(caller, recorded, request.expires_in, request.form_return.as_ref()).await;
        }
        let now = self.clock.now();
        let expires_in = request.expires_in;
        let Draft { intent, grant, form_return, content_md5 } =
            self.draft(caller, &self.policies.current(), request, now).await?;
        match self.record(intent, idempotency_key).await? {
            Ok(intent) => self.signed(intent, &grant, now, form_return.as_ref(), content_md5),
            Err(recorded) => self.replayed(caller, recorded, expires_in, form_return.as_ref()).await,
        }
    }

    /// Decides about one file, and what would be recorded of it.
    pub(super) async fn draft(
        &self,
        caller: Caller<'_>,
        document: &PolicyDocument,
        request: IssueRequest,
        now: DateTime<Utc>,
    ) -> Result<Draft, DomainError> {
        let Some(rules) = document.policy(&request.policy, now) else {
            return Err(DomainError::UnknownPolicy(request.policy));
        };
        let content_type =
            request.content_type.unwrap_or_else(|| ContentType::guess(request.original_file_name.as_str()));
        let exactly = |bytes| SizePromise::Exact(ByteSize::from_bytes(bytes));
        let file = FileRequest {
            file_size: request.file_size.map_or(SizePromise::AtMost(rules.max_size), exactly),
            content_type: &content_type,
            has_checksum: request.checksum_sha256.is_some(),
            method: request.method,
            free_parts: request.free_parts,
            expires_in: request.expires_in,
        };
        let area = rules
            .methods
            .contains(&UploadMethod::Credentials)
            .then(|| area(caller.principal, &request.policy, ClientNetwork::of(caller.address, rules.ip_scope)));
        let grant = self.grant(caller, document, &rules, &file, area, now).await?;
        let form_return = request.form_return;
        if form_return.is_some() && grant.method != UploadMethod::Post {
            return Err(DomainError::ReturnNeedsForm);
        }
        let id = IntentId::at(now);
        let slug = request.original_file_name.slug();
        let object_key = rules.key.render(id, now, caller.principal, &slug).and_then(|key| {
            match grant.area {
                Some(area) => key.staged_in(area),
                // A form can be sent again until it expires, and S3 has no condition that would make it write only once.
                None if self.staged_methods.contains(&grant.method) => key.staged(),
                None => Ok(key),
            }
        });
        let object_key = object_key.map_err(DomainError::NoKey)?;
        let parts = match grant.method {
            UploadMethod::Multipart => {
                let attributes = ObjectAttributes::new(&content_type, &request.metadata);
                let has_checksums = request.part_checksums || rules.checksum == ChecksumRule::Required;
                self.begin_parts(&object_key, grant.plan.as_ref(), attributes, has_checksums).await?
            }
            UploadMethod::Put | UploadMethod::Post | UploadMethod::Credentials => PartColumns::default(),
        };
        let intent = Box::new(UploadIntent {
            id,
            issuer: caller.principal.issuer.clone(),
            subject: caller.principal.subject.clone(),
            tenant: caller.principal.tenant.clone(),
            original_file_name: request.original_file_name,
            upload_to: rules.key.upload_to().to_owned(),
            bucket: self.store.bucket().to_owned(),
            object_key,
            file_size: grant.file_size.largest(),
            file_size_is_limit: grant.file_size.is_limit(),
            content_type,
            checksum_sha256: request.checksum_sha256,
            metadata: request.metadata,
            method: grant.method,
            policy: request.policy,
            policy_version: document.version().to_owned(),
            client_network: grant.network,
            state: IntentState::Issued,
            created_at: now,
            expires_at: grant.expires_at,
            confirm_until: grant.confirm_until,
            settled_at: None,
            settled_via: None,
            etag: None,
            version_id: None,
            mismatches: None,
            stored_key: None,
            parts,
        });
        Ok(Draft { intent, grant, form_return, content_md5: request.content_md5 })
    }

    /// Commits `intent`, unless its idempotency key was used before: then what it was used for is the `Err` inside. Of a
    /// multipart upload that is not recorded nothing stays at the store.
    async fn record(
        &self,
        intent: Box<UploadIntent>,
        idempotency_key: Option<IdempotencyKey>,
    ) -> Result<Result<Box<UploadIntent>, Recorded>, DomainError> {
        let begun = intent.multipart().map(|multipart| (intent.object_key.clone(), multipart.upload_id.to_owned()));
        let recorded = match idempotency_key {
            None => self.ledger.record_upload(intent).await.map(Ok),
            Some(key) => {
                let earlier = self.database.record_upload_once(&intent, &key).await;
                earlier.map(|earlier| earlier.map_or(Ok(intent), Err))
            }
        };
        match (&recorded, begun) {
            // The row may be there all the same, and a client that repeats its request would go on with it.
            (Ok(Ok(_)) | Err(DbError::Unavailable(_)), _) | (_, None) => {}
            (_, Some((key, upload_id))) => self.forget_parts(&key, &upload_id).await,
        }
        Ok(recorded?)
    }

    /// The answer to a request that was made before.
    pub(super) async fn replayed(
        &self,
        caller: Caller<'_>,
        recorded: Recorded,
        expires_in: Option<Duration>,
        form_return: Option<&FormReturn>,
    ) -> Result<IssuedUpload, DomainError> {
        match recorded {
            Recorded::Mismatch => Err(DomainError::IdempotencyMismatch),
            // Of the same user in another tenant: to this one, it is another's.
            Recorded::Replay(earlier) if !earlier.is_owned_by(caller.principal) => {
                Err(DomainError::IdempotencyMismatch)
            }
            // Before the sweeper has been there, its renewal says the same.
            Recorded::Replay(earlier) if earlier.state == IntentState::Expired => Err(DomainError::Expired),
            Recorded::Replay(earlier) if earlier.state == IntentState::Issued => {
                self.renew_intent(caller, *earlier, expires_in, form_return).await
            }
            Recorded::Replay(earlier) => Ok(IssuedUpload { intent: earlier, target: None, callback_token: None }),
        }
    }

    /// Asks the policy, and finds a signer and an end that it allows. `area` is where credentials would reach, if those
    /// are what it comes to.
    pub(super) async fn grant(
        &self,
        caller: Caller<'_>,
        document: &PolicyDocument,
        rules: &Rules,
        file: &FileRequest<'_>,
        area: Option<StagingArea>,
        now: DateTime<Utc>,
    ) -> Result<Grant, DomainError> {
        let decision = rules.decide_upload(file)?;
        let network = ClientNetwork::of(caller.address, rules.ip_scope);
        let UploadDecision { method, file_size, plan, expires_in } = decision;
        let area = area.filter(|_| method == UploadMethod::Credentials);
        let access = area.map_or(Access::Upload, |area| self.sessions.area(area, expires_in));
        let signer = self.sessions.signer(network, access, document.longest_expiry()).await?;
        let (life, expires_at) = url_end(now, expires_in, &signer);
        let grace = TimeDelta::from_std(rules.confirm_grace).unwrap_or_default();
        Ok(Grant {
            area,
            method,
            file_size,
            plan,
            network,
            signer,
            life,
            expires_at,
            confirm_until: expires_at + grace,
        })
    }

    /// Signs what `intent` says, all of it; and beside that only what makes the signature stricter.
    pub(super) fn signed(
        &self,
        intent: Box<UploadIntent>,
        grant: &Grant,
        now: DateTime<Utc>,
        form_return: Option<&FormReturn>,
        content_md5: Option<Md5Digest>,
    ) -> Result<IssuedUpload, DomainError> {
        let target = match intent.method {
            UploadMethod::Put => {
                let SizePromise::Exact(length) = intent.size_promise() else {
                    return Err(Refusal::SizeRequired { why: "a PUT is signed for one size" }.into());
                };
                let mut headers = vec![
                    ("content-length".into(), length.bytes().to_string().into()),
                    ("content-type".into(), intent.content_type.as_str().into()),
                    // The first write wins: the URL cannot replace what it, or anybody else, has written.
                    ("if-none-match".into(), "*".into()),
                ];
                if let Some(digest) = intent.checksum_sha256 {
                    headers.push(("x-amz-checksum-sha256".into(), digest.to_base64().into()));
                }
                if let Some(digest) = content_md5 {
                    headers.push(("content-md5".into(), digest.to_base64().into()));
                }
                for (name, value) in intent.metadata.iter() {
                    headers.push((format!("x-amz-meta-{name}").into(), value.into()));
                }
                let request =
                    PresignRequest { method: Method::Put, key: &intent.object_key, query: Vec::new(), headers };
                UploadTarget::Put(grant.signer.presign(&request, now, grant.life)?)
            }
            UploadMethod::Post => {
                let redirect = form_return.map(|form_return| {
                    form_return.success_action_redirect(intent.id, intent.confirm_until, &self.callback_tokens)
                });
                let success_action = redirect
                    .as_ref()
                    .map_or(SuccessAction::Status(201), |redirect| SuccessAction::Redirect(redirect.expose_secret()));
                let largest = intent.file_size.bytes();
                let least = if intent.file_size_is_limit { 0 } else { largest };
                let form = PostForm {
                    key: &intent.object_key,
                    content_length: least..=largest,
                    content_type: intent.content_type.as_str(),
                    checksum_sha256: intent.checksum_sha256.as_ref(),
                    metadata: &intent.metadata,
                    success_action,
                };
                UploadTarget::Post(grant.signer.presign_post(&form, now, grant.life)?)
            }
            UploadMethod::Credentials => UploadTarget::Credentials(Arc::clone(&grant.signer)),
            UploadMethod::Multipart => {
                let multipart = intent.multipart().ok_or(DomainError::NotMultipart)?;
                let (plan, has_checksums) = (multipart.plan, multipart.has_checksums);
                UploadTarget::Multipart { plan, has_checksums, expires_at: grant.expires_at }
            }
        };
        let callback_token = Some(self.callback_tokens.issue(intent.id, intent.confirm_until));
        Ok(IssuedUpload { intent, target: Some(target), callback_token })
    }
}

/// The area of whoever uploads under one policy from one network: nobody else's credentials reach it, nor those that the
/// same user gets elsewhere. What a client is given with one file writes its other files as well, because clients ask
/// for credentials once and not for each file.
fn area(principal: &Principal, policy: &str, network: Option<ClientNetwork>) -> StagingArea {
    let network = network.map(|network| network.to_string()).unwrap_or_default();
    let mut context = digest::Context::new(&digest::SHA256);
    // Whoever speaks for two tenants has an area in each. An empty name, which tokens cannot have, is not to have none.
    let tenant = principal.tenant.as_ref().map(|tenant| format!("={tenant}")).unwrap_or_default();
    for part in ["presignd area v1", &principal.issuer, &tenant, &principal.subject, policy, &network] {
        // With its length, so that no two lists of parts read the same.
        context.update(&part.len().to_be_bytes());
        context.update(part.as_bytes());
    }
    StagingArea::from_digest(context.finish().as_ref().first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::IpScope;

    #[test]
    fn nobody_shares_an_area() {
        let member = |issuer: &str, subject: &str, tenant: Option<&str>| Principal {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            tenant: tenant.map(str::to_owned),
            can_upload: true,
            can_download: true,
            can_administer: false,
            authenticated_until: DateTime::UNIX_EPOCH,
        };
        let who = |issuer: &str, subject: &str| member(issuer, subject, None);
        let network = |address: &str| ClientNetwork::of(address.parse().unwrap(), IpScope::Prefix { v4: 32, v6: 64 });
        let areas = [
            area(&who("i", "alice"), "default", network("192.0.2.1")),
            area(&who("i", "bob"), "default", network("192.0.2.1")),
            area(&who("j", "alice"), "default", network("192.0.2.1")),
            area(&who("i", "alice"), "photos", network("192.0.2.1")),
            area(&who("i", "alice"), "default", network("192.0.2.2")),
            area(&who("i", "alice"), "default", None),
            area(&who("ia", "lice"), "default", network("192.0.2.1")),
            area(&member("i", "alice", Some("acme")), "default", network("192.0.2.1")),
            area(&member("i", "alice", Some("")), "default", network("192.0.2.1")),
        ];
        for (at, one) in areas.iter().enumerate() {
            assert!(!areas.iter().skip(at + 1).any(|other| other == one), "{at}");
        }
        assert_eq!(areas[0], area(&who("i", "alice"), "default", network("192.0.2.1")));
    }
}

//! Objects by PUT: whether they arrive, and whether the store holds a client to what was signed.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, Utc};

use super::{
    BODY, CLOCK_TOLERANCE, CONTENT_TYPE, LIFE, LONGER_BODY, LiveCheck, OTHER_BODY, StoreCapability, report::Verdict,
    visitor::Answer,
};
use crate::{
    model::{ObjectKey, Sha256Digest},
    s3::Access,
    signing::{Method, PresignRequest, PresignedUrl, Signer},
};

/// The SHA-256 of [`BODY`].
pub(super) fn digest_of_body() -> Option<Sha256Digest> {
    digest(&SHA256, BODY).as_ref().try_into().ok().map(Sha256Digest::from_bytes)
}

impl LiveCheck {
    /// The same URL as for an upload of [`BODY`] by PUT.
    pub(super) fn signed_put(
        &self,
        signer: &Signer,
        key: &ObjectKey,
        checksum: Option<Sha256Digest>,
    ) -> Result<PresignedUrl, Verdict> {
        let mut headers = vec![
            ("content-length".into(), BODY.len().to_string().into()),
            ("content-type".into(), CONTENT_TYPE.into()),
            ("if-none-match".into(), "*".into()),
        ];
        headers.extend(checksum.map(|checksum| ("x-amz-checksum-sha256".into(), checksum.to_base64().into())));
        self.presigned(signer, &PresignRequest { method: Method::Put, key, query: Vec::new(), headers })
    }

    pub(super) fn signed_get(&self, signer: &Signer, key: &ObjectKey) -> Result<PresignedUrl, Verdict> {
        self.presigned(signer, &PresignRequest { method: Method::Get, key, query: Vec::new(), headers: Vec::new() })
    }

    fn presigned(&self, signer: &Signer, request: &PresignRequest<'_>) -> Result<PresignedUrl, Verdict> {
        let presigned = signer.presign(request, self.now(), LIFE);
        presigned.map_err(|error| Verdict::failed(&error, "lengthen s3.sts.session_duration"))
    }

    pub(super) async fn try_put(&self) -> Vec<(StoreCapability, Verdict)> {
        let signers = (self.signer(None, Access::Upload).await, self.signer(None, Access::Download).await);
        let has_sts = self.service.sessions.can_scope();
        let (upload, download) = match signers {
            (Ok(upload), Ok(download)) => (upload, download),
            (Err(verdict), _) | (_, Err(verdict)) => {
                let (sts, put) = if has_sts {
                    (verdict, Verdict::untried("there are no credentials to sign with"))
                } else {
                    // The service's own are missing, so that nothing can be tried with them.
                    (no_sts(), verdict)
                };
                return vec![(StoreCapability::Sts, sts), (StoreCapability::Put, put)];
            }
        };
        let sts = if has_sts { Verdict::works("sessions are given out") } else { no_sts() };
        let mut rows = vec![(StoreCapability::Sts, sts)];
        let (put, clock) = self
            .write_read_remove(&upload, &download)
            .await
            .unwrap_or_else(|failed| (failed, Verdict::untried("there was no answer with a date")));
        let writes = matches!(put, Verdict::Works(_));
        rows.extend([(StoreCapability::Put, put), (StoreCapability::StoreClock, clock)]);
        if writes {
            rows.extend([
                (StoreCapability::PutIfNoneMatch, settled(self.replace(&upload).await)),
                (StoreCapability::PutLength, settled(self.put_otherwise(&upload, "length", LONGER_BODY, &[]).await)),
                (
                    StoreCapability::PutType,
                    settled(self.put_otherwise(&upload, "type", BODY, &[("content-type", "text/html")]).await),
                ),
                (StoreCapability::PutChecksum, settled(self.put_other_bytes(&upload).await)),
            ]);
        }
        rows
    }

    async fn write_read_remove(&self, upload: &Signer, download: &Signer) -> Result<(Verdict, Verdict), Verdict> {
        let key = self.fresh_key("put")?;
        let asked = self.now();
        let answer = self.visitor.put(&self.signed_put(upload, &key, None)?, BODY, &[]).await?;
        let clock = skew(&answer, asked, self.now());
        if !answer.is_success() {
            let told = format!("a PUT was answered {}", answer.told());
            return Ok((Verdict::lacks(told), clock));
        }
        let answer = self.visitor.get(&self.signed_get(download, &key)?, &[]).await?;
        if !answer.is_success() || answer.body != BODY {
            return Ok((Verdict::lacks(format!("a GET of what was written was answered {}", answer.told())), clock));
        }
        let store = &self.service.store;
        let failed = |error| Verdict::failed(&error, super::mend_of(&error));
        store.delete(&key).await.map_err(failed)?;
        if store.exists(&key, None).await.map_err(failed)? {
            return Ok((Verdict::lacks("what was removed is still there"), clock));
        }
        Ok((Verdict::works("written, read and removed"), clock))
    }

    /// Sends the same PUT twice.
    async fn replace(&self, signer: &Signer) -> Result<Verdict, Verdict> {
        let key = self.fresh_key("if-none-match")?;
        let put = self.signed_put(signer, &key, None)?;
        let first = self.visitor.put(&put, BODY, &[]).await?;
        if !first.is_success() {
            return Ok(Verdict::lacks(format!("the first PUT was answered {}", first.told())));
        }
        Ok(refused(&self.visitor.put(&put, BODY, &[]).await?, "a second PUT to the same key"))
    }

    /// Sends what was not signed.
    async fn put_otherwise(
        &self,
        signer: &Signer,
        what: &str,
        body: &'static [u8],
        changed: &[(&str, &str)],
    ) -> Result<Verdict, Verdict> {
        let put = self.signed_put(signer, &self.fresh_key(what)?, None)?;
        let answer = self.visitor.put(&put, body, changed).await?;
        Ok(refused(&answer, &format!("a PUT with another {what} than signed")))
    }

    async fn put_other_bytes(&self, signer: &Signer) -> Result<Verdict, Verdict> {
        let right = self.signed_put(signer, &self.fresh_key("checksum")?, digest_of_body())?;
        let answer = self.visitor.put(&right, BODY, &[]).await?;
        if !answer.is_success() {
            return Ok(Verdict::lacks(format!("a PUT with the right SHA-256 was answered {}", answer.told())));
        }
        let wrong = self.signed_put(signer, &self.fresh_key("other-checksum")?, digest_of_body())?;
        let answer = self.visitor.put(&wrong, OTHER_BODY, &[]).await?;
        Ok(refused(&answer, "a PUT whose bytes have another SHA-256 than signed"))
    }
}

pub(super) fn no_sts() -> Verdict {
    Verdict::untried("[s3.sts] is not configured")
}

/// What a try came to, whichever way it ended.
pub(super) fn settled(tried: Result<Verdict, Verdict>) -> Verdict {
    tried.unwrap_or_else(|verdict| verdict)
}

/// Whether the store refused what it should.
pub(super) fn refused(answer: &Answer, what: &str) -> Verdict {
    let told = answer.told();
    if answer.is_refusal() {
        Verdict::works(format!("{what} is refused: {told}"))
    } else if answer.is_success() {
        Verdict::lacks(format!("{what} is taken: {told}"))
    } else {
        Verdict::lacks(format!("{what} is answered {told}, which is neither taking nor refusing"))
    }
}

/// How far the store's clock is from the middle between `asked` and `answered`.
fn skew(answer: &Answer, asked: DateTime<Utc>, answered: DateTime<Utc>) -> Verdict {
    let Ok(stated) = DateTime::parse_from_rfc2822(answer.header("date")) else {
        return Verdict::untried("the store's answers have no Date");
    };
    clocks(stated.with_timezone(&Utc), asked, answered, "the store's clock")
}

/// Whether `stated` is the time between `asked` and `answered`.
pub(super) fn clocks(stated: DateTime<Utc>, asked: DateTime<Utc>, answered: DateTime<Utc>, whose: &str) -> Verdict {
    let skew = stated - (asked + (answered - asked) / 2);
    // Dates have whole seconds, so a whole one of difference is none.
    let seconds = skew.num_seconds();
    if skew.abs() <= CLOCK_TOLERANCE {
        Verdict::works(format!("{whose} is at most {} s from ours", seconds.abs() + 1))
    } else {
        let direction = if seconds > 0 { "ahead of" } else { "behind" };
        Verdict::lacks(format!("{whose} is {} s {direction} ours", seconds.abs()))
    }
}

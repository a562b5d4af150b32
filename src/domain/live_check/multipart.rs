//! Objects in parts.

use std::collections::BTreeMap;

use super::{
    BODY, CONTENT_TYPE, LIFE, LONGER_BODY, LiveCheck, OTHER_BODY, StoreCapability,
    put::{digest_of_body, refused, settled},
    report::Verdict,
    visitor::Answer,
};
use crate::{
    model::{ByteSize, ObjectKey, PartNumber, PartPlan},
    s3::{Access, ObjectAttributes, S3Error},
};

impl LiveCheck {
    pub(super) async fn try_multipart(&self) -> Vec<(StoreCapability, Verdict)> {
        let plain = settled(self.in_parts("multipart", false).await);
        let works = matches!(plain, Verdict::Works(_));
        let mut rows = vec![(StoreCapability::Multipart, plain)];
        if works {
            rows.extend([
                (StoreCapability::MultipartChecksums, settled(self.in_parts("multipart-checksums", true).await)),
                (StoreCapability::PartLength, settled(self.part_too_long().await)),
                (StoreCapability::PartChecksum, settled(self.part_of_other_bytes().await)),
                (StoreCapability::MultipartIfNoneMatch, settled(self.complete_twice().await)),
            ]);
        }
        rows
    }

    /// Begins, sends the one part, lists and completes, as an upload does.
    async fn in_parts(&self, name: &str, has_checksums: bool) -> Result<Verdict, Verdict> {
        let key = self.fresh_key(name)?;
        let upload_id = self.begin(&key, has_checksums).await?;
        let answer = self.send_part(&key, &upload_id, has_checksums, BODY).await?;
        if !answer.is_success() {
            return Ok(Verdict::lacks(format!("a part was answered {}", answer.told())));
        }
        let store = &self.service.store;
        let parts = store.parts(&key, &upload_id).await?.unwrap_or_default();
        if parts.len() != 1 {
            return Ok(Verdict::lacks(format!("{} parts are listed where one was sent", parts.len())));
        }
        match store.complete_multipart(&key, &upload_id, &parts).await {
            Ok(true) => {}
            Ok(false) => return Ok(Verdict::lacks("the store would not put the parts together")),
            Err(S3Error::Refused { reason, .. }) => {
                return Ok(Verdict::lacks(format!("the store would not put the parts together: {reason}")));
            }
            Err(error) => return Err(error.into()),
        }
        let head = store.head(&key).await?;
        Ok(match head {
            Some(head) if usize::try_from(head.size).is_ok_and(|size| size == BODY.len()) => {
                Verdict::works("begun, sent, listed and put together")
            }
            _ => Verdict::lacks("what was put together is not what was sent"),
        })
    }

    async fn part_too_long(&self) -> Result<Verdict, Verdict> {
        let key = self.fresh_key("part-length")?;
        let upload_id = self.begin(&key, false).await?;
        let answer = self.send_part(&key, &upload_id, false, LONGER_BODY).await?;
        Ok(refused(&answer, "a part with another length than signed"))
    }

    async fn part_of_other_bytes(&self) -> Result<Verdict, Verdict> {
        let key = self.fresh_key("part-checksum")?;
        let upload_id = self.begin(&key, true).await?;
        let answer = self.send_part(&key, &upload_id, true, OTHER_BODY).await?;
        Ok(refused(&answer, "a part whose bytes have another SHA-256 than signed"))
    }

    /// Puts parts together where an object is already.
    async fn complete_twice(&self) -> Result<Verdict, Verdict> {
        let key = self.fresh_key("multipart-if-none-match")?;
        let mut replaced = false;
        for _ in 0..2 {
            let upload_id = self.begin(&key, false).await?;
            let answer = self.send_part(&key, &upload_id, false, BODY).await?;
            if !answer.is_success() {
                return Ok(Verdict::lacks(format!("a part was answered {}", answer.told())));
            }
            let parts = self.service.store.parts(&key, &upload_id).await?.unwrap_or_default();
            replaced = self.service.store.complete_multipart(&key, &upload_id, &parts).await?;
        }
        Ok(if replaced {
            Verdict::lacks("completing replaces an object that is there")
        } else {
            Verdict::works("completing is refused where an object is")
        })
    }

    async fn begin(&self, key: &ObjectKey, has_checksums: bool) -> Result<String, Verdict> {
        let attributes = ObjectAttributes { content_type: CONTENT_TYPE.to_owned(), metadata: BTreeMap::new() };
        let upload_id = self.service.store.begin_multipart(key, attributes, has_checksums).await?;
        self.traces.multipart(key, &upload_id);
        Ok(upload_id)
    }

    async fn send_part(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        has_checksum: bool,
        body: &'static [u8],
    ) -> Result<Answer, Verdict> {
        let signer = self.signer(None, Access::Upload).await?;
        let length = u64::try_from(BODY.len()).unwrap_or_default();
        let plan = PartPlan::new(length, ByteSize::from_bytes(5 << 20));
        let part = plan.ok().and_then(|plan| plan.part(PartNumber::new(1)?));
        let part = part.ok_or_else(|| Verdict::untried("there is no such part"))?;
        let parts = signer.part_signer(key, upload_id, self.now(), LIFE);
        let parts = parts.map_err(|error| Verdict::failed(&error, "lengthen s3.sts.session_duration"))?;
        let checksum = digest_of_body().filter(|_| has_checksum);
        self.visitor.put(&parts.presign(part, checksum.as_ref()), body, &[]).await
    }
}

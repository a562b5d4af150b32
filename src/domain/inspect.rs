//! Inspecting: a scanner looks at what was verified. Nothing but its word confirms, and without a word nothing does.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::rand;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::{Id, JoinHandle, JoinSet},
    time::MissedTickBehavior,
};

use super::{DomainError, Mismatch, Service, url_end};
use crate::{
    config::{InspectionConfig, inspection::InspectionMode},
    db::{DbError, DueInspection, Settlement, UploadIntent},
    model::{IntentEvent, IntentState},
    s3::{Access, S3Error},
    scanner::{Finding, ScanError, ScannedFile, Scanner},
    signing::{Method, PresignRequest},
};

/// What a claim lasts beyond the time limit of its attempt: time to write down what came of it.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// What inspections are done with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inspection {
    scanner: Scanner,
    config: Arc<InspectionConfig>,
    wanted: Arc<Notify>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    clean: AtomicU64,
    infected: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
    waiting: AtomicU64,
}

/// What inspecting has come to, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct InspectionStatus {
    /// Attempts that found a file clean.
    pub clean: u64,
    /// Attempts that found a file infected.
    pub infected: u64,
    /// Attempts without a finding.
    pub failed: u64,
    /// Uploads that were rejected because no finding was to be had.
    pub given_up: u64,
    /// Uploads that waited at the last look, of all processes.
    pub waiting: u64,
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum InspectError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error(transparent)]
    Domain(#[from] DomainError),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("the inspection took longer than its time limit")]
    TimedOut,
}

/// What an attempt showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Clean,
    Infected,
    /// The verified object is gone or another: nobody can say any more what was verified.
    Gone,
    TooLarge,
    GivenUp,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Infected => "infected",
            Self::Gone => "the verified object is no longer there",
            Self::TooLarge => "larger than the scanner takes",
            Self::GivenUp => "no verdict in time",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Inspection {
    /// Inspections by `scanner`, as `config` has it.
    pub fn new(scanner: Scanner, config: &InspectionConfig) -> Self {
        Self { scanner, config: Arc::new(config.clone()), wanted: Arc::default(), counts: Arc::default() }
    }

    /// What it has come to so far.
    pub fn status(&self) -> InspectionStatus {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        InspectionStatus {
            clean: load(&self.counts.clean),
            infected: load(&self.counts.infected),
            failed: load(&self.counts.failed),
            given_up: load(&self.counts.given_up),
            waiting: load(&self.counts.waiting),
        }
    }

    /// Wakes the inspector of this process; others find the upload by polling.
    pub(super) fn wake(&self) {
        self.wanted.notify_one();
    }

    /// The wait after `attempts` without a finding: doubled each time up to the longest, and by chance up to half of it
    /// shorter, so that what failed together does not come back together.
    fn pause(&self, attempts: i32) -> Duration {
        let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or_default().min(31);
        let pause = self.config.first_retry.saturating_mul(1 << doublings).min(self.config.longest_retry);
        let mut chance = [0; 2];
        // Without randomness the wait is whole.
        let _ = rand::fill(&mut chance);
        pause.mul_f64(1.0 - f64::from(u16::from_le_bytes(chance)) / f64::from(u16::MAX) / 2.0)
    }
}

/// The task that has waiting uploads scanned. Any number of processes may have one.
#[derive(Debug)]
pub struct Inspector {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Inspector {
    /// Starts inspecting on `runtime`, the main one; does nothing where no scanner is configured.
    pub fn start(service: &Service, runtime: &Handle) -> Option<Self> {
        let inspection = service.inspection.clone()?;
        let (stop, stopped) = oneshot::channel();
        let task = runtime.spawn(inspect_for_ever(service.clone(), inspection, stopped));
        Some(Self { task, stop })
    }

    /// Ends the attempts under way and gives back what they had claimed.
    pub async fn stop(self) {
        drop(self.stop);
        let _ = self.task.await;
    }
}

async fn inspect_for_ever(service: Service, inspection: Inspection, mut stopped: oneshot::Receiver<()>) {
    let mut attempts = JoinSet::new();
    let mut claims: HashMap<Id, DueInspection> = HashMap::new();
    let mut poll = tokio::time::interval(inspection.config.poll_interval);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let free = inspection.config.concurrency.saturating_sub(attempts.len());
        if free > 0 {
            for claim in service.claim_inspections(&inspection, free).await {
                let attempt = service.clone().inspect(inspection.clone(), claim);
                claims.insert(attempts.spawn(attempt).id(), claim);
            }
        }
        tokio::select! {
            // Nothing is sent: it ends with whoever started it.
            _ = &mut stopped => break,
            Some(ended) = attempts.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        log::error!("an inspection ended by itself: {error}");
                        error.id()
                    }
                };
                claims.remove(&id);
            }
            () = inspection.wanted.notified(), if attempts.len() < inspection.config.concurrency => {}
            _ = poll.tick() => service.count_waiting(&inspection).await,
        }
    }
    attempts.shutdown().await;
    for claim in claims.values() {
        // Where this fails, the lease ends by itself.
        let _ = service.database.put_off_inspection(claim, service.clock.now(), "the service was stopped").await;
    }
}

impl Service {
    async fn claim_inspections(&self, inspection: &Inspection, limit: usize) -> Vec<DueInspection> {
        let now = self.clock.now();
        let lease = inspection.config.timeout.saturating_mul(2) + LEASE_MARGIN;
        let lease_until = now + TimeDelta::from_std(lease).unwrap_or_default();
        let limit = i64::try_from(limit).unwrap_or(1);
        let claimed = self.database.claim_inspections(self.store.bucket(), now, lease_until, limit).await;
        claimed.unwrap_or_else(|error| {
            log::warn!("inspections cannot be claimed, and will be tried again: {error}");
            Vec::new()
        })
    }

    async fn count_waiting(&self, inspection: &Inspection) {
        if let Ok(waiting) = self.database.waiting_inspections().await {
            inspection.counts.waiting.store(u64::try_from(waiting).unwrap_or_default(), Ordering::Relaxed);
        }
    }

    /// One attempt. Whatever does not end in a verdict is put off.
    async fn inspect(self, inspection: Inspection, claim: DueInspection) {
        let limit = inspection.config.timeout;
        let looked = tokio::time::timeout(limit, self.verdict_of(&inspection, &claim)).await;
        let counts = &inspection.counts;
        let mut verdict = looked.unwrap_or(Err(InspectError::TimedOut));
        match &verdict {
            Ok(Some(Verdict::Clean)) => drop(counts.clean.fetch_add(1, Ordering::Relaxed)),
            Ok(Some(Verdict::Infected)) => drop(counts.infected.fetch_add(1, Ordering::Relaxed)),
            Ok(_) => {}
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                log::warn!(
                    "upload {}: attempt {} to inspect it gave no verdict: {error}",
                    claim.upload_id,
                    claim.attempts
                );
                if self.is_overdue(&inspection, &claim) {
                    counts.given_up.fetch_add(1, Ordering::Relaxed);
                    verdict = Ok(Some(Verdict::GivenUp));
                }
            }
        }
        let ended = match verdict {
            Ok(verdict) => self.end_inspection(&claim, verdict).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            let next = TimeDelta::from_std(inspection.pause(claim.attempts)).unwrap_or_default();
            let put_off = self.database.put_off_inspection(&claim, self.clock.now() + next, &error.to_string()).await;
            if let Err(error) = put_off {
                log::warn!("upload {}: its inspection is due again when its lease ends: {error}", claim.upload_id);
            }
        }
    }

    fn is_overdue(&self, inspection: &Inspection, claim: &DueInspection) -> bool {
        let patience = TimeDelta::from_std(inspection.config.give_up_after).unwrap_or(TimeDelta::MAX);
        let end: Option<DateTime<Utc>> = claim.created_at.checked_add_signed(patience);
        end.is_some_and(|end| self.clock.now() >= end)
    }

    /// What the scanner says; `None` when the upload needs no inspection any more.
    async fn verdict_of(
        &self,
        inspection: &Inspection,
        claim: &DueInspection,
    ) -> Result<Option<Verdict>, InspectError> {
        let upload = self.database.upload(claim.upload_id).await?;
        let Some(upload) = upload.filter(|upload| upload.state == IntentState::Inspecting) else { return Ok(None) };
        if upload.file_size > inspection.config.largest {
            return Ok(Some(Verdict::TooLarge));
        }
        let finding = match inspection.scanner.mode() {
            InspectionMode::Multipart => self.send_to(&inspection.scanner, &upload).await?,
            InspectionMode::Url => self.show_to(&inspection.scanner, &upload).await?,
        };
        Ok(Some(match finding {
            Some(Finding::Clean) => Verdict::Clean,
            Some(Finding::Infected) => Verdict::Infected,
            None => Verdict::Gone,
        }))
    }

    /// Streams exactly the verified bytes; `None` when they are gone.
    async fn send_to(&self, scanner: &Scanner, upload: &UploadIntent) -> Result<Option<Finding>, InspectError> {
        let Some(etag) = &upload.etag else { return Ok(None) };
        let body = self.store.read(upload.verified_key(), etag, upload.version_id.as_deref()).await?;
        let Some(body) = body else { return Ok(None) };
        Ok(Some(scanner.scan(file_of(upload), body.into_stream()).await?))
    }

    /// Lets the scanner fetch the verified object, and makes sure that it still was that; `None` when it was not.
    async fn show_to(&self, scanner: &Scanner, upload: &UploadIntent) -> Result<Option<Finding>, InspectError> {
        // Where the scanner comes from is not known.
        let signer = self.sessions.signer(None, Access::Download, scanner.timeout()).await?;
        let now = self.clock.now();
        let (life, _) = url_end(now, scanner.timeout().max(Duration::from_secs(1)), &signer);
        let version = upload.version_id.as_ref().map(|version| ("versionId".into(), version.as_str().into()));
        let query = version.into_iter().collect();
        let get = PresignRequest { method: Method::Get, key: upload.verified_key(), query, headers: Vec::new() };
        let url = signer.presign(&get, now, life).map_err(DomainError::from)?;
        let finding = scanner.scan_url(file_of(upload), url.url()).await?;
        if finding == Finding::Clean
            && upload.version_id.is_none()
            && let Some(etag) = &upload.etag
        {
            // Not a HEAD, whose 404 may be somebody else's than the store's, and would be the end of the upload.
            let still_there = self.store.read(upload.verified_key(), etag, None).await?;
            return Ok(still_there.map(|_| finding));
        }
        Ok(Some(finding))
    }

    async fn end_inspection(&self, claim: &DueInspection, verdict: Option<Verdict>) -> Result<(), InspectError> {
        if let Some(verdict) = verdict {
            let is_clean = verdict == Verdict::Clean;
            let mismatch = || Mismatch {
                field: Mismatch::INSPECTION.to_owned(),
                expected: "clean".into(),
                found: verdict.as_str().into(),
            };
            let Some(upload) = self.database.upload(claim.upload_id).await? else {
                return Ok(self.database.end_inspection(claim.upload_id).await?);
            };
            let settlement = Settlement {
                event: if is_clean { IntentEvent::Confirm } else { IntentEvent::Reject },
                // What led to the inspection stays what is told.
                via: None,
                at: self.clock.now(),
                object: None,
                mismatches: (!is_clean).then(|| json!([mismatch()])),
                has_leftovers: !is_clean || upload.object_key.is_staged(),
            };
            self.transition(claim.upload_id, &settlement).await?;
            log::info!("upload {}: inspected: {verdict}", claim.upload_id);
        }
        Ok(self.database.end_inspection(claim.upload_id).await?)
    }
}

fn file_of(upload: &UploadIntent) -> ScannedFile<'_> {
    ScannedFile {
        file_name: upload.object_key.file_name(),
        file_type: upload.content_type.as_str(),
        file_size: upload.file_size.bytes(),
    }
}

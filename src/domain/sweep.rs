//! Sweeping: uploads that nobody confirms are confirmed or expire, and what nobody needs is removed.
//!
//! Every upload that something is left to do for has a time at which it is looked at next. A look takes the upload for
//! a while, which keeps others away, and says at its end when to look again. So any number of processes share the work,
//! and one that dies over it, or cannot reach the store, loses nothing.

mod multipart;
mod progress;
mod rehearsal;

use std::collections::{BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior},
};

use super::{Claim, DomainError, Service};
use crate::{
    config::SweeperConfig,
    db::{DbError, SettledVia, UploadIntent, uploads::Backlog},
    model::{IntentId, IntentState, ObjectKey},
};

pub use progress::{SweepProgress, SweepStatus};
pub use rehearsal::Rehearsal;

/// Shortest and longest pause between two looks at an upload that is waited for, or that could not be looked at.
const PAUSES: (TimeDelta, TimeDelta) = (TimeDelta::minutes(1), TimeDelta::hours(1));

/// Copies younger than this are left alone: most of them are being confirmed by whoever made them.
const YOUNG_COPY: TimeDelta = TimeDelta::minutes(1);

/// Looks at uploads that are due.
#[derive(Debug, Clone)]
pub struct Sweeper {
    /// With a store that is asked no faster than the settings allow.
    service: Service,
    settings: SweeperConfig,
}

/// The task of a [`Sweeper`]. Any number of processes may have one.
#[derive(Debug)]
pub struct Sweeping {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Sweeping {
    /// Ends it, with what it has taken and not begun to look at given back.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            log::error!("the sweeper ended by itself: {error}");
        }
    }
}

/// Looks that are under way, and uploads that are taken and wait for one. A look that takes its time takes one place,
/// and keeps nobody else.
struct Looks<'a> {
    sweeper: &'a Sweeper,
    taken: VecDeque<(UploadIntent, DateTime<Utc>)>,
    /// Each is a task of its own, because one that nobody polls may keep the connection that another waits for.
    under_way: JoinSet<()>,
    /// Whether there may be more to take.
    more_is_due: bool,
}

impl<'a> Looks<'a> {
    fn new(sweeper: &'a Sweeper) -> Self {
        Self { sweeper, taken: VecDeque::new(), under_way: JoinSet::new(), more_is_due: false }
    }

    /// Begins looks at what is due, as long as there are places.
    async fn begin(&mut self) -> Result<(), DbError> {
        while self.under_way.len() < self.sweeper.settings.concurrency {
            if self.taken.is_empty() && self.more_is_due {
                let (batch, lease_end) = self.sweeper.take_batch().await?;
                self.more_is_due = !batch.is_empty();
                self.taken.extend(batch.into_iter().map(|upload| (upload, lease_end)));
            }
            let Some((upload, lease_end)) = self.taken.pop_front() else { break };
            let sweeper = self.sweeper.clone();
            self.under_way.spawn(async move { Box::pin(sweeper.look(upload, lease_end)).await });
        }
        Ok(())
    }

    async fn look_for_ever(&mut self) {
        let interval = self.sweeper.settings.interval;
        // Not at once, because a process that starts has better things to do with its connections.
        let mut rounds = tokio::time::interval_at(Instant::now() + interval, interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Once a round: counting costs more the more waits, and that is when a round has many batches.
                _ = rounds.tick() => match self.sweeper.backlog().await {
                    Ok(backlog) => self.more_is_due |= backlog.oldest.is_some(),
                    Err(error) => log::warn!("sweeping failed and will be tried again: {error}"),
                },
                true = self.one_ends() => {}
            }
            if let Err(error) = self.begin().await {
                self.more_is_due = false;
                log::warn!("sweeping failed and will be tried again: {error}");
            }
        }
    }

    /// Lets others look at once at what was taken and not begun.
    async fn give_back(self) {
        let now = self.sweeper.service.clock.now();
        for (upload, lease_end) in self.taken {
            if let Err(error) = self.sweeper.service.database.look_again(upload.id, lease_end, Some(now)).await {
                log::info!("what the sweeper had taken is looked at when its lease ends: {error}");
                return;
            }
        }
    }

    /// Waits until one of them is over; `false` when there is none.
    async fn one_ends(&mut self) -> bool {
        let ended = self.under_way.join_next().await;
        if let Some(Err(error)) = &ended {
            log::error!("a look ended by itself: {error}");
        }
        ended.is_some()
    }
}

/// When to look at an upload again.
enum Next {
    /// The transition that the look led to has said so.
    Settled,
    /// At this time.
    At(DateTime<Utc>),
    /// Never: nothing is left to do.
    Never,
}

impl Sweeper {
    /// A sweeper of the uploads of `service`.
    pub fn new(service: Service, settings: &SweeperConfig) -> Self {
        let store = service.store.clone().paced(settings.requests_per_second);
        Self { service: Service { store, ..service }, settings: settings.clone() }
    }

    /// What it has done.
    pub fn progress(&self) -> &SweepProgress {
        &self.service.sweep_progress
    }

    /// Starts sweeping on `runtime`, the main one; where the settings leave that to others, watching whether they do it.
    pub fn start(self, runtime: &Handle) -> Sweeping {
        let (stop, stopped) = oneshot::channel::<()>();
        // Nothing is sent: it ends with whoever started it.
        let stopping = async move {
            let _ = stopped.await;
        };
        let task = if self.settings.enabled {
            runtime.spawn(self.sweep_until(stopping))
        } else {
            runtime.spawn(async move {
                tokio::select! {
                    () = self.watch_for_ever() => {}
                    () = stopping => {}
                }
            })
        };
        Sweeping { task, stop }
    }

    /// Sweeps until `stopping` is over, and gives back what it has taken then and not begun to look at. A look that is cut
    /// off, here or because the task is ended, costs nothing but the time until its lease ends.
    pub async fn sweep_until(self, stopping: impl Future<Output = ()>) {
        let mut looks = Looks::new(&self);
        tokio::select! {
            () = looks.look_for_ever() => {}
            () = self.abort_multiparts_for_ever() => {}
            () = stopping => {}
        }
        looks.give_back().await;
    }

    /// Counts what is due, for whoever leaves the sweeping to others and wants to know whether they do it.
    async fn watch_for_ever(&self) {
        loop {
            tokio::time::sleep(self.settings.interval).await;
            if let Err(error) = self.backlog().await {
                log::warn!("what is due was not counted: {error}");
            }
        }
    }

    async fn abort_multiparts_for_ever(&self) {
        loop {
            // First, so that a process that starts again and again does not list the bucket each time.
            tokio::time::sleep(self.settings.multipart_interval).await;
            if let Err(error) = self.abort_stale_multiparts().await {
                log::warn!("stale multipart uploads were not all aborted: {error}");
            }
        }
    }

    /// How much is due.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn backlog(&self) -> Result<Backlog, DbError> {
        let now = self.service.clock.now();
        let backlog = self.service.database.backlog(self.service.store.bucket(), now).await?;
        let age = backlog.oldest.and_then(|oldest| (now - oldest).to_std().ok());
        self.progress().set_backlog(backlog.due, age.unwrap_or_default());
        Ok(backlog)
    }

    /// Looks at whatever is due, until nothing is any more.
    ///
    /// # Errors
    /// When the database does not answer. What was taken is due again when the lease ends.
    pub async fn sweep_due(&self) -> Result<(), DbError> {
        let mut looks = Looks::new(self);
        looks.more_is_due = true;
        loop {
            if let Err(error) = looks.begin().await {
                // What is under way is not given up half-way.
                while looks.one_ends().await {}
                return Err(error);
            }
            if !looks.one_ends().await {
                return Ok(());
            }
        }
    }

    /// Takes a batch of uploads that are due, and says until when.
    async fn take_batch(&self) -> Result<(Vec<UploadIntent>, DateTime<Utc>), DbError> {
        let now = self.service.clock.now();
        let lease_end = self.lease_end();
        let limit = i64::try_from(self.settings.batch).unwrap_or(i64::MAX);
        let bucket = self.service.store.bucket();
        let due = self.service.database.take_due_uploads(bucket, now, lease_end, limit).await?;
        Ok((due, lease_end))
    }

    /// The end of a lease that begins now. In whole milliseconds, so that it is the same when the database gives it back.
    fn lease_end(&self) -> DateTime<Utc> {
        self.service.clock.now() + TimeDelta::from_std(self.settings.lease).unwrap_or(TimeDelta::hours(1))
    }

    /// Looks at one upload, and says when to look again. A failure postpones.
    async fn look(&self, upload: UploadIntent, lease_end: DateTime<Utc>) {
        let id = upload.id;
        // Somebody else has taken it by now, and would copy and read the same.
        if self.service.clock.now() >= lease_end {
            return;
        }
        self.progress().looked();
        let pause = pause(upload.expires_at, self.service.clock.now());
        let (over, is_over) = oneshot::channel();
        let attending = async {
            let attended = self.attend_to(upload).await;
            // Nobody waits for it once somebody else has the upload.
            let _ = over.send(());
            attended
        };
        let (attended, lease_end) = tokio::join!(attending, self.renew_lease(id, lease_end, is_over));
        let next = match attended {
            Ok(Next::Settled) => return,
            Ok(Next::At(at)) => Some(at),
            Ok(Next::Never) => None,
            Err(error) => {
                self.progress().failed();
                log::warn!("upload {id}: the sweeper will look again: {error}");
                Some(self.service.clock.now() + pause)
            }
        };
        if let Err(error) = self.service.database.look_again(id, lease_end, next).await {
            log::warn!("upload {id}: the sweeper will look again when its lease ends: {error}");
        }
    }

    /// Keeps others away from an upload until its look is over. Gives when its lease ends then.
    async fn renew_lease(
        &self,
        id: IntentId,
        mut lease_end: DateTime<Utc>,
        mut is_over: oneshot::Receiver<()>,
    ) -> DateTime<Utc> {
        // Whether a renewal was written whose answer was lost is not known.
        let mut unsure = None;
        // Often enough that two in a row may fail. It may have waited for its look for most of its lease.
        let left = (lease_end - self.service.clock.now()).to_std().unwrap_or_default();
        let mut wait = (self.settings.lease / 4).min(left / 2);
        while tokio::time::timeout(wait, &mut is_over).await.is_err() {
            wait = self.settings.lease / 4;
            let later = self.lease_end();
            match self.extend_lease(id, [Some(lease_end), unsure], later).await {
                Ok(true) => (lease_end, unsure) = (later, None),
                // Settled meanwhile, or taken by somebody else.
                Ok(false) => break,
                Err(error) => {
                    unsure = Some(later);
                    log::warn!("upload {id}: its lease was not renewed: {error}");
                }
            }
        }
        lease_end
    }

    /// Moves the end of a lease that ends at one of `ends`, if it is still there.
    async fn extend_lease(
        &self,
        id: IntentId,
        ends: [Option<DateTime<Utc>>; 2],
        later: DateTime<Utc>,
    ) -> Result<bool, DbError> {
        for end in ends.into_iter().flatten() {
            if self.service.database.look_again(id, end, Some(later)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn attend_to(&self, upload: UploadIntent) -> Result<Next, DomainError> {
        match upload.state {
            IntentState::Issued => self.confirm_or_wait(upload).await,
            // The scanner's, until it has said something.
            IntentState::Inspecting => Ok(Next::Never),
            IntentState::Confirmed | IntentState::Rejected | IntentState::Aborted | IntentState::Expired => {
                self.tidy(upload).await
            }
        }
    }

    async fn confirm_or_wait(&self, upload: UploadIntent) -> Result<Next, DomainError> {
        let (id, expires_at, confirm_until) = (upload.id, upload.expires_at, upload.confirm_until);
        match self.service.confirm_intent(upload, SettledVia::Sweeper, Claim::default()).await {
            Ok(_) => self.progress().confirmed(),
            Err(DomainError::Mismatched(_)) => self.progress().rejected(),
            // The row comes first: from then on nothing can confirm it, and its next look removes what lies there.
            Err(DomainError::Expired) => self.progress().expired(),
            Err(DomainError::Revoked) => self.service.give_up_revoked(id).await?,
            // Given up by its owner meanwhile.
            Err(DomainError::InvalidState(_)) => {}
            Err(error) if error.is_unfinished() => {
                let now = self.service.clock.now();
                let next = now + pause(expires_at, now);
                // The look that decides comes as soon as it can.
                let decides = confirm_until + TimeDelta::milliseconds(1);
                return Ok(Next::At(if decides > now { next.min(decides) } else { next }));
            }
            Err(error) => return Err(error),
        }
        Ok(Next::Settled)
    }

    /// Removes what a settled upload does not need. URLs of it may still be good, and transfers under way, so it is
    /// done again once neither can be.
    async fn tidy(&self, upload: UploadIntent) -> Result<Next, DomainError> {
        let database = &self.service.database;
        let copies = database.copies_of(upload.id).await?;
        // The row as it is right before anything is removed, not as it was when the batch was taken.
        let Some(upload) = database.upload(upload.id).await? else { return Ok(Next::Never) };
        if matches!(upload.state, IntentState::Issued | IntentState::Inspecting) {
            return Ok(Next::Settled);
        }
        let now = self.service.clock.now();
        for key in superfluous(&upload, &copies, now) {
            if self.service.store.purge(key).await? {
                self.progress().deleted();
            }
        }
        // At both looks: a part that was under way at the first may have arrived since.
        if let Some(multipart) = upload.multipart()
            && upload.state != IntentState::Confirmed
            && self.service.store.abort_multipart(upload.object_key.as_str(), multipart.upload_id).await?
        {
            self.progress().multipart_aborted();
        }
        if copies.iter().any(|(_, begun)| is_young(*begun, now)) {
            return Ok(Next::At(now + YOUNG_COPY));
        }
        // No URL is good after confirm_until: a renewal may bring expires_at closer, but never that.
        let end = upload.settled_at.map_or(upload.confirm_until, |at| at.max(upload.confirm_until))
            + TimeDelta::from_std(self.settings.tombstone_for).unwrap_or_default();
        if now < end {
            return Ok(Next::At(end));
        }
        // Only now: a copy that was still under way at an earlier look may have come into being since.
        for (copy, _) in &copies {
            database.end_copy(upload.id, copy).await?;
        }
        Ok(Next::Never)
    }
}

/// Whether a copy that was begun then may still be on its way to be the verified object.
fn is_young(begun: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    begun > now - YOUNG_COPY
}

/// What a settled upload does not need of what was written for it.
fn superfluous<'a>(
    upload: &'a UploadIntent,
    copies: &'a [(ObjectKey, DateTime<Utc>)],
    now: DateTime<Utc>,
) -> BTreeSet<&'a ObjectKey> {
    let old = copies.iter().filter(|(_, begun)| !is_young(*begun, now)).map(|(copy, _)| copy);
    let mut keys: BTreeSet<_> = [&upload.object_key].into_iter().chain(&upload.stored_key).chain(old).collect();
    if upload.state == IntentState::Confirmed {
        keys.remove(upload.verified_key());
    }
    keys
}

/// Doubles the time since `since`, within bounds.
fn pause(since: DateTime<Utc>, now: DateTime<Utc>) -> TimeDelta {
    (now - since).clamp(PAUSES.0, PAUSES.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_bounds() {
        let start = DateTime::UNIX_EPOCH;
        let after = |minutes| pause(start, start + TimeDelta::minutes(minutes)).num_minutes();
        assert_eq!([-5, 0, 1, 2, 30, 60, 600].map(after), [1, 1, 1, 2, 30, 60, 60]);
    }
}

//! Work that many may ask for at once, and that is done once.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, ready},
};
use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinError},
};

/// What comes of work, for all who wait for it. `None` when it was ended before it was done.
pub type Answer<T> = Shared<BoxFuture<'static, Option<T>>>;

/// Work under way, by what it is for. It is done on the runtime, and goes on when nobody waits for it any more. Cheap
/// to clone.
pub struct SingleFlight<K, T> {
    runtime: Handle,
    under_way: UnderWay<K, T>,
}

/// `None` once nothing may begin any more.
type UnderWay<K, T> = Arc<Mutex<Option<HashMap<K, (Answer<T>, AbortHandle)>>>>;

impl<K: Clone + Eq + Hash + Send + 'static, T: Clone + Send + Sync + 'static> SingleFlight<K, T> {
    /// Work to be done on `runtime`, the main one.
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, under_way: Arc::new(Mutex::new(Some(HashMap::new()))) }
    }

    /// What comes of the work for `key` that is under way; where there is none, `work` is begun.
    pub fn join(&self, key: K, work: impl Future<Output = T> + Send + 'static) -> Answer<T> {
        let mut under_way = lock(&self.under_way);
        let Some(under_way) = under_way.as_mut() else { return ready(None).boxed().shared() };
        if let Some((answer, _)) = under_way.get(&key) {
            return answer.clone();
        }
        let (place, its_key) = (Arc::clone(&self.under_way), key.clone());
        let task = self.runtime.spawn(async move {
            // Made in here: a runtime that ends drops the task at once, while the lock is held that this takes.
            let _place = Place { under_way: place, key: its_key };
            work.await
        });
        let end = task.abort_handle();
        let answer = task.map(|done| done.inspect_err(tell_of_panic).ok()).boxed().shared();
        under_way.insert(key, (answer.clone(), end));
        answer
    }

    /// Ends what is under way, and lets nothing begin any more.
    pub fn close(&self) {
        let ended = lock(&self.under_way).take();
        for (_, task) in ended.into_iter().flat_map(HashMap::into_values) {
            task.abort();
        }
    }
}

impl<K, T> Clone for SingleFlight<K, T> {
    fn clone(&self) -> Self {
        Self { runtime: self.runtime.clone(), under_way: Arc::clone(&self.under_way) }
    }
}

impl<K, T> fmt::Debug for SingleFlight<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let under_way = lock(&self.under_way).as_ref().map_or(0, HashMap::len);
        f.debug_struct("SingleFlight").field("under_way", &under_way).finish_non_exhaustive()
    }
}

fn tell_of_panic(error: &JoinError) {
    if error.is_panic() {
        log::error!("work that many may wait for ended by itself: {error}");
    }
}

fn lock<T>(under_way: &Mutex<T>) -> MutexGuard<'_, T> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes room for the next when this work is over, however it ends.
struct Place<K: Eq + Hash, T> {
    under_way: UnderWay<K, T>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Place<K, T> {
    fn drop(&mut self) {
        if let Some(under_way) = lock(&self.under_way).as_mut() {
            under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn flights() -> SingleFlight<&'static str, u8> {
        SingleFlight::new(Handle::current())
    }

    #[tokio::test]
    async fn work_is_done_once_for_all_who_wait() {
        let flights = flights();
        let (go, gone) = oneshot::channel();
        let first = flights.join("a", async { gone.await.unwrap() });
        let second = flights.join("a", async { unreachable!("the first is under way") });
        let other = flights.join("b", async { 3 });
        assert_eq!(other.await, Some(3), "nobody waits for another's");
        go.send(7).unwrap();
        assert_eq!((first.await, second.await), (Some(7), Some(7)));
        assert_eq!(flights.join("a", async { 8 }).await, Some(8), "what is over keeps nobody");
    }

    #[tokio::test]
    async fn work_outlives_whoever_waits() {
        let flights = flights();
        let (go, gone) = oneshot::channel();
        drop(flights.join("a", async { gone.await.unwrap() }));
        let joined = flights.join("a", async { unreachable!("the first is under way") });
        go.send(7).unwrap();
        assert_eq!(joined.await, Some(7));
    }

    #[tokio::test]
    async fn what_panics_makes_room() {
        let flights = flights();
        assert_eq!(flights.join("a", async { panic!("as it is meant to") }).await, None);
        assert_eq!(flights.join("a", async { 8 }).await, Some(8));
    }

    #[tokio::test]
    async fn closing_ends_what_is_under_way_and_begins_nothing() {
        let flights = flights();
        let (held, released) = oneshot::channel::<()>();
        let endless = flights.join("a", async move {
            let _held = held;
            std::future::pending().await
        });
        flights.close();
        assert_eq!(endless.await, None);
        assert!(released.await.is_err(), "it let go of what it held");
        assert_eq!(flights.join("a", async { 8 }).await, None);
    }
}

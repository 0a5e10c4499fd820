//! Limits that change while they are in use.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Permits taken away at a time, as they are given back.
const STEP: usize = 64;

/// Changes the number of permits; those in use that are too many go when they are given back.
/// Within a runtime.
pub(crate) fn resize(permits: &Arc<Semaphore>, before: usize, now: usize) {
    let Some(surplus) = before.checked_sub(now) else {
        return permits.add_permits(now - before);
    };
    let mut in_use = surplus - permits.forget_permits(surplus);
    if in_use == 0 {
        return;
    }
    let permits = Arc::clone(permits);
    tokio::spawn(async move {
        while in_use > 0 {
            let count = in_use.min(STEP);
            let Ok(some) = permits.acquire_many(count as u32).await else { return };
            some.forget();
            in_use -= count;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_that_is_lowered_holds_as_places_are_given_back() {
        let places = Arc::new(Semaphore::new(100));
        let (used, rest) = (places.acquire_many(90).await.unwrap(), 10);
        resize(&places, 100, 5);
        assert_eq!(places.available_permits(), 0, "of {rest} that were free");
        assert!(places.try_acquire().is_err());
        drop(used);
        while places.available_permits() != 5 {
            tokio::task::yield_now().await;
        }
        resize(&places, 5, 8);
        assert_eq!(places.available_permits(), 8);
    }
}

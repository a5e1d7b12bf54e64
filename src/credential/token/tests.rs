//! Claims about tokens in use. Time is a parameter, so nothing here waits for it.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::Semaphore;

use super::*;

const LIFE: Duration = Duration::from_secs(3600);

/// Answers with tokens named by number; fails as told; may be held back.
#[derive(Debug)]
struct Fake {
    asked: AtomicU64,
    failures: Mutex<VecDeque<TokenError>>,
    /// A permit lets one answer through.
    gate: Semaphore,
}

#[async_trait]
impl TokenSource for Fake {
    async fn fetch(&self, audience: &str) -> Result<AccessToken, TokenError> {
        assert_eq!(audience, "https://storage.azure.com");
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.gate.acquire().await.unwrap().forget();
        match self.failures.lock().pop_front() {
            Some(error) => Err(error),
            None => Ok(AccessToken { text: format!("secret{number}").into(), life: LIFE }),
        }
    }

    fn describe(&self) -> String {
        "a fake".to_owned()
    }
}

fn fake(permits: usize) -> (Arc<Fake>, TokenCredential, Instant) {
    let source = Arc::new(Fake { asked: 0.into(), failures: Mutex::default(), gate: Semaphore::new(permits) });
    let dynamic: Arc<dyn TokenSource> = Arc::clone(&source) as _;
    (source, TokenCredential::new(dynamic, "https://storage.azure.com/"), Instant::now())
}

async fn shown(credential: &TokenCredential, now: Instant) -> Result<String, TokenError> {
    credential.authorization_at(now).await.map(|text| text.expose_secret().to_owned())
}

/// Waits for the fetch that is under way, if one is.
async fn settled(credential: &TokenCredential) {
    let fetch = credential.inner.state.lock().fetching.clone();
    if let Some(fetch) = fetch {
        let _ = fetch.await;
    }
}

fn busy() -> TokenError {
    TokenError::new(TokenErrorKind::Busy, "a fake", "busy")
}

#[tokio::test]
async fn a_token_is_refreshed_behind_the_requests_from_two_thirds_of_its_life_on() {
    let (source, credential, start) = fake(1);
    assert_eq!(shown(&credential, start).await.unwrap(), "Bearer secret1");
    assert_eq!(shown(&credential, start + LIFE / 2).await.unwrap(), "Bearer secret1");
    assert_eq!(source.asked.load(Ordering::Relaxed), 1, "half of a life is no reason");
    let due = start + LIFE * 2 / 3;
    for _ in 0..10 {
        // The source does not answer, and nobody waits for it.
        assert_eq!(shown(&credential, due).await.unwrap(), "Bearer secret1");
    }
    source.gate.add_permits(1);
    settled(&credential).await;
    assert_eq!(shown(&credential, due).await.unwrap(), "Bearer secret2");
    assert_eq!(source.asked.load(Ordering::Relaxed), 2, "one at a time, two a life");
}

#[tokio::test]
async fn many_first_requests_share_one_fetch_and_one_that_gives_up_does_not_end_it() {
    let (source, credential, start) = fake(0);
    let mut first = Box::pin(shown(&credential, start));
    assert!(futures::poll!(first.as_mut()).is_pending());
    let others: Vec<_> = (0..8).map(|_| Box::pin(shown(&credential, start))).collect();
    drop(first);
    source.gate.add_permits(1);
    for answer in futures::future::join_all(others).await {
        assert_eq!(answer.unwrap(), "Bearer secret1");
    }
    assert_eq!(source.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_token_is_not_shown_at_its_end_and_an_idle_mount_asks_nobody_until_then() {
    let (source, credential, start) = fake(2);
    shown(&credential, start).await.unwrap();
    assert_eq!(source.asked.load(Ordering::Relaxed), 1);
    let end = start + LIFE.checked_sub(MARGIN_MAX).unwrap();
    assert_eq!(shown(&credential, end).await.unwrap(), "Bearer secret2");
}

#[tokio::test]
async fn a_source_that_fails_is_left_alone_for_growing_pauses_while_the_old_token_serves() {
    let (source, credential, start) = fake(10);
    shown(&credential, start).await.unwrap();
    source.failures.lock().extend([busy(), busy()]);
    let due = start + LIFE * 2 / 3;
    let seconds = |seconds| due + Duration::from_secs(seconds);
    // Asked at once, after 1 s, and after 2 s more.
    for (now, asked) in [(due, 2), (due, 2), (seconds(1), 3), (seconds(2), 3), (seconds(3), 4)] {
        assert_eq!(shown(&credential, now).await.unwrap(), "Bearer secret1");
        settled(&credential).await;
        assert_eq!(source.asked.load(Ordering::Relaxed), asked, "at {:?}", now - due);
    }
    assert_eq!(shown(&credential, seconds(3)).await.unwrap(), "Bearer secret4");
}

#[tokio::test]
async fn without_a_token_the_reason_of_the_last_failure_is_told_and_retry_after_is_kept() {
    let (source, credential, start) = fake(10);
    let asked_for_time = TokenError { retry_after: Some(Duration::from_secs(40)), ..busy() };
    source.failures.lock().push_back(asked_for_time.clone());
    assert_eq!(shown(&credential, start).await.unwrap_err(), asked_for_time);
    assert_eq!(shown(&credential, start + Duration::from_secs(39)).await.unwrap_err(), asked_for_time);
    assert_eq!(source.asked.load(Ordering::Relaxed), 1);
    assert_eq!(shown(&credential, start + Duration::from_secs(40)).await.unwrap(), "Bearer secret2");
}

#[tokio::test]
async fn a_refused_token_is_replaced_at_once_and_its_successor_is_not_replaced_in_a_loop() {
    let (source, credential, start) = fake(10);
    shown(&credential, start).await.unwrap();
    let refused = credential.serial();
    let (one, two) = tokio::join!(credential.renew_at(refused, start), credential.renew_at(refused, start));
    assert!(one && two);
    assert_eq!(shown(&credential, start).await.unwrap(), "Bearer secret2");
    assert!(credential.renew_at(refused, start).await, "the newer one is there already");
    let again = credential.serial();
    assert!(!credential.renew_at(again, start).await);
    assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    assert!(credential.renew_at(again, start + SECOND_REFUSAL_PAUSE).await);
}

#[tokio::test]
async fn a_token_of_three_seconds_is_asked_for_at_two_and_shown_for_most_of_the_third() {
    let held = Held {
        authorization: "x".into(),
        since: Instant::now(),
        life: Duration::from_secs(3),
        serial: 1,
        forced: false,
    };
    let after = |milliseconds| held.since + Duration::from_millis(milliseconds);
    assert!(!held.is_due(after(1999)) && held.is_due(after(2000)));
    assert!(held.is_good(after(2699)) && !held.is_good(after(2700)));
}

#[tokio::test]
async fn debug_output_never_contains_a_token() {
    let (_, credential, start) = fake(1);
    shown(&credential, start).await.unwrap();
    let token = AccessToken { text: "secret1".into(), life: LIFE };
    assert!(
        !format!("{credential:?} {token:?} {:?}", crate::credential::Credential::Token(credential.clone()))
            .contains("secret1")
    );
}

//! What becomes of a refusal. The service is a set of keys that are good.

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;

use super::*;
use crate::credential::AccountKey;

/// A file with keys, which counts its readers.
#[derive(Debug, Default)]
struct Fake {
    keys: Mutex<Vec<&'static str>>,
    read: AtomicU64,
}

#[async_trait]
impl CredentialSource for Fake {
    async fn read(&self) -> Result<Credential, String> {
        self.read.fetch_add(1, Ordering::Relaxed);
        let keys = self.keys.lock();
        if keys.is_empty() { Err("it is empty".to_owned()) } else { Ok(credential(&keys)) }
    }

    fn describe(&self) -> String {
        "a fake".to_owned()
    }
}

fn credential(keys: &[&str]) -> Credential {
    let parse = |text: &str| AccountKey::parse("test", "acme", &STANDARD.encode(text)).unwrap();
    let key = parse(keys[0]);
    Credential::SharedKey(match keys.get(1) {
        Some(spare) => key.with_spare(&parse(spare)),
        None => key,
    })
}

fn slot(keys: &[&'static str]) -> (Arc<Fake>, Arc<CredentialSlot>) {
    let source = Arc::new(Fake { keys: Mutex::new(keys.to_vec()), ..Fake::default() });
    let dynamic: Arc<dyn CredentialSource> = Arc::clone(&source) as _;
    (source, CredentialSlot::with_source(credential(keys), dynamic))
}

/// A request to a service that takes these keys.
async fn succeeds(slot: &CredentialSlot, good: &[&str]) -> bool {
    for _ in 0..5 {
        let generation = slot.generation();
        if good.iter().any(|key| slot.current().signs_like(&credential(&[key]))) {
            slot.note_success(generation);
            return true;
        }
        if !slot.renew(generation, 0).await {
            return false;
        }
    }
    false
}

#[tokio::test]
async fn a_refused_key_is_read_again() {
    let (source, slot) = slot(&["one"]);
    assert!(succeeds(&slot, &["one"]).await);
    *source.keys.lock() = vec!["two"];
    assert!(succeeds(&slot, &["two"]).await);
    assert_eq!(source.read.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn of_two_keys_the_other_is_tried() {
    let (_, slot) = slot(&["one", "two"]);
    assert!(succeeds(&slot, &["one", "two"]).await);
    assert!(succeeds(&slot, &["new", "two"]).await);
    assert!(slot.current().signs_like(&credential(&["two"])));
}

#[tokio::test]
async fn a_source_that_is_ahead_of_the_service_ends_nothing() {
    let (source, slot) = slot(&["one"]);
    assert!(succeeds(&slot, &["one"]).await);
    *source.keys.lock() = vec!["two"];
    slot.replace(credential(&["two"]));
    assert!(succeeds(&slot, &["one"]).await);
    assert!(succeeds(&slot, &["two"]).await);
    // The same where it was brought along, and refused when it was tried.
    slot.offer(credential(&["three"]));
    assert!(succeeds(&slot, &["two"]).await);
    assert!(succeeds(&slot, &["three"]).await);
}

#[tokio::test]
async fn a_wave_of_refusals_reads_the_source_once_and_then_it_is_left_alone() {
    let (source, slot) = slot(&["one"]);
    assert!(succeeds(&slot, &["one"]).await);
    let all = (0..16).map(|_| succeeds(&slot, &["other"]));
    assert!(!futures::future::join_all(all).await.contains(&true));
    assert_eq!(source.read.load(Ordering::Relaxed), 1);
    assert!(succeeds(&slot, &["one"]).await);
    // It worked again, so the next refusal is news.
    *source.keys.lock() = vec!["two"];
    assert!(succeeds(&slot, &["two"]).await);
    assert_eq!(source.read.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_source_that_fails_leaves_what_is_there() {
    let (source, slot) = slot(&["one", "two"]);
    source.keys.lock().clear();
    assert!(succeeds(&slot, &["two"]).await);
}

#[tokio::test]
async fn the_slot_shows_no_secret() {
    let (_, slot) = slot(&["hunter2"]);
    let text = format!("{slot:?} {:?}", slot.current());
    assert!(!text.contains("hunter2") && !text.contains(&STANDARD.encode("hunter2")), "{text}");
}

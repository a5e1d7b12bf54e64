//! Who may do what: SAS, rotation under load, and that no secret is ever printed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use azblob_csi::{
    blob::{BlobStore, BlockId, Condition, CopyOptions, ErrorKind, ListRequest, Metadata},
    credential::{AccountKey, Credential, SasToken},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use crate::service::{ACCOUNT, CONTAINER, KEY, Service, absent, body, name, options, read, staged};

/// A service SAS for the whole container, signed here by the rules of "Create a service SAS" (2020-12-06).
pub(crate) fn container_sas(permissions: &str, expiry: &str) -> Credential {
    let key = AccountKey::parse("test", ACCOUNT, KEY).unwrap();
    let resource = format!("/blob/{ACCOUNT}/{CONTAINER}");
    let lines = [permissions, "", expiry, &resource, "", "", "", "2020-12-06", "c", "", "", "", "", "", "", ""];
    let signature: String = url::form_urlencoded::byte_serialize(key.sign(&lines.join("\n")).as_bytes()).collect();
    let text = format!("?sv=2020-12-06&sr=c&sp={permissions}&se={expiry}&sig={signature}\n");
    Credential::Sas(SasToken::parse("test", &text).unwrap())
}

#[tokio::test]
async fn a_sas_opens_what_it_permits_and_says_what_it_lacks() {
    let service = Service::start().await;
    service.store.put_blob(&name("a"), body(b"bytes"), &options(absent())).await.unwrap();
    let reader = service.store_with(container_sas("rl", "2099-01-01T00:00:00Z"));
    assert_eq!(read(&reader, "a", 0..9).await, b"bytes");
    assert_eq!(reader.list(&ListRequest::default()).await.unwrap().entries.len(), 1);
    let refused = reader.put_blob(&name("b"), body(b""), &options(absent())).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Denied);
    assert!(refused.remedy().unwrap().contains("sp="), "{:?}", refused.remedy());
    let expired = service.store_with(container_sas("rl", "2020-01-01T00:00:00Z"));
    let refused = expired.list(&ListRequest::default()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Denied);
    assert!(refused.remedy().unwrap().contains("expired"), "{refused} {:?}", refused.remedy());
}

#[tokio::test]
async fn a_sas_authorises_the_source_of_a_copy_too() {
    let service = Service::start().await;
    let store = service.store_with(container_sas("racwdl", "2099-01-01T00:00:00Z"));
    let version = store.put_blob(&name("a b"), body(b"0123456789"), &options(absent())).await.unwrap().etag;
    store.copy(&name("a b"), &version, &name("c"), &CopyOptions::under(absent())).await.unwrap();
    assert_eq!(read(&store, "c", 0..99).await, b"0123456789");
    let id = BlockId(Bytes::from_static(b"nonce-00000000"));
    store.put_block_from_url(&name("d"), &id, &name("a b"), 1..3, &version).await.unwrap();
    store.put_block_list(&name("d"), &staged(&[id]), &options(absent())).await.unwrap();
    assert_eq!(read(&store, "d", 0..99).await, b"12");
}

#[tokio::test]
async fn a_wrong_key_is_denied_with_the_fix_and_without_the_key() {
    let service = Service::start().await;
    let wrong = STANDARD.encode("not the key of this account, but 64 bytes long as keys are......");
    let store = service.store_with(Credential::SharedKey(AccountKey::parse("test", ACCOUNT, &wrong).unwrap()));
    let error = store.list(&ListRequest::default()).await.unwrap_err();
    assert_eq!((error.kind, error.status), (ErrorKind::Denied, Some(403)));
    assert!(error.request_id.is_some() && error.code.as_deref() == Some("AuthenticationFailed"));
    let remedy = error.remedy().unwrap();
    assert!(remedy.contains("key"), "{remedy}");
    assert!(!format!("{error} {error:?} {remedy} {store:?}").contains(&wrong));
}

#[tokio::test]
async fn anonymous_reads_of_a_private_container_are_denied() {
    let service = Service::start().await;
    let error = service.store_with(Credential::Anonymous).list(&ListRequest::default()).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Denied | ErrorKind::ContainerNotFound | ErrorKind::NotFound), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_is_swapped_under_load_without_one_failed_call() {
    let service = Service::start().await;
    service.store.put_blob(&name("a"), body(b"bytes"), &options(absent())).await.unwrap();
    let store = service.store_with(container_sas("rl", "2099-01-01T00:00:00Z"));
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(read(&store, "a", 0..9).await, b"bytes");
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for round in 0..20 {
        store.credentials().replace(match round % 2 {
            0 => Credential::SharedKey(AccountKey::parse("test", ACCOUNT, KEY).unwrap()),
            _ => container_sas("rl", &format!("20{}-01-01T00:00:00Z", 50 + round)),
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        assert!(task.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_refused_while_the_credential_was_replaced_is_made_again() {
    let service = Service::start().await;
    let store = service.store_with(container_sas("rl", "2020-01-01T00:00:00Z"));
    service.wait_before_answers(Duration::from_millis(200));
    let call = tokio::spawn({
        let store = store.clone();
        async move { store.list(&ListRequest::default()).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    store.credentials().replace(container_sas("rl", "2099-01-01T00:00:00Z"));
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn nothing_that_is_printed_holds_a_secret() {
    let service = Service::start().await;
    let credential = container_sas("l", "2099-01-01T00:00:00Z");
    let store = service.store_with(credential.clone());
    let mut printed = format!("{credential:?} {store:?} {:?}", service.store);
    for error in [
        store.put_blob(&name("a"), body(b"x"), &options(absent())).await.unwrap_err(),
        store.head(&name("a"), &Condition::None).await.unwrap_err(),
        store
            .set_metadata(&name("a"), &Metadata::from([("bad name".into(), "\u{1}".into())]), &Condition::None)
            .await
            .unwrap_err(),
    ] {
        printed.push_str(&format!("{error} {error:?} {:?}", error.remedy()));
    }
    assert!(printed.contains("permissions l") && SystemTime::now() > SystemTime::UNIX_EPOCH);
    assert!(!printed.contains(KEY) && !printed.contains("sig="), "{printed}");
}

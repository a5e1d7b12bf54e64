//! Claims of the Blob room about hierarchical accounts: what they are known by, directories, renames, modes, and what
//! holds when a reply is lost.

use azblob_csi::blob::{BlobStore, Condition, ErrorKind, HierarchicalStore, ListEntry, ListRequest, Metadata};
use blob_emulator::{FaultKind, FaultRule, Operation};

use crate::{
    service::{CONTAINER, Service, absent, body, matching, name, options, read},
    signing::container_sas,
};

fn hierarchy(store: &dyn BlobStore) -> &dyn HierarchicalStore {
    store.hierarchy().unwrap()
}

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn the_kind_of_account_is_found_out_whatever_the_credential_may_ask() {
    for hierarchical in [true, false] {
        let service = if hierarchical { Service::start_hierarchical().await } else { Service::start().await };
        service.store.put_blob(&name("a"), body(b"x"), &options(absent())).await.unwrap();
        let refused =
            |status, code: Option<&str>| FaultKind::Status { status, code: code.map(str::to_owned), retry_after: None };
        let denied = || refused(403, None);
        // What a bearer token without a role on the account itself is answered.
        let hidden = || refused(404, Some("ResourceNotFound"));
        for refused_operations in [
            vec![],
            vec![(Operation::GetAccountInformation, denied())],
            vec![(Operation::GetAccountInformation, hidden())],
            vec![(Operation::GetAccountInformation, denied()), (Operation::GetPathAccessControl, denied())],
        ] {
            service.settings(|settings| {
                let rules = refused_operations.iter().map(|(on, kind)| FaultRule::new(kind.clone()).on(*on));
                settings.faults = rules.collect();
            });
            let store = service.store_for(CONTAINER);
            let info = store.account_info().await.unwrap();
            assert_eq!(info.hierarchical, hierarchical, "{refused_operations:?}");
        }
    }
}

#[tokio::test]
async fn a_directory_is_made_once_with_mode_and_metadata_and_deleted_when_empty() {
    let service = Service::start_hierarchical().await;
    let (store, dfs, directory) = (&service.store, hierarchy(&service.store), name("d/e"));
    let wanted = metadata(&[("modtime", "17"), ("hdi_isfolder", "true")]);
    let made = dfs.create_directory(&directory, 0o1755, &wanted, &absent()).await.unwrap();
    assert!(service.is_directory("d/e") && service.is_directory("d"));
    let found = store.head(&directory, &Condition::None).await.unwrap();
    assert_eq!((&found.etag, &found.metadata, found.mode), (&made.etag, &wanted, Some(0o1755)));
    let again = dfs.create_directory(&directory, 0o755, &wanted, &absent()).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::Precondition, "{again}");

    assert_eq!(dfs.delete_directory(&name("d"), false).await.unwrap_err().kind, ErrorKind::NotEmpty);
    dfs.delete_directory(&directory, false).await.unwrap();
    assert_eq!(dfs.delete_directory(&directory, false).await.unwrap_err().kind, ErrorKind::NotFound);

    for text in ["d/1", "d/2", "d/f/3"] {
        store.put_blob(&name(text), body(b"x"), &options(absent())).await.unwrap();
    }
    service.settings(|settings| settings.delete_paths_max = Some(1));
    dfs.delete_directory(&name("d"), true).await.unwrap();
    assert!(store.list(&ListRequest::default()).await.unwrap().entries.is_empty());
    assert!(service.requests_of(Operation::DeletePath) > 6, "the last delete took several requests");
}

#[tokio::test]
async fn files_and_directories_get_other_names_in_one_request() {
    let service = Service::start_hierarchical().await;
    let (store, dfs) = (&service.store, hierarchy(&service.store));
    let first = store.put_blob(&name("d/ü %41"), body(b"one"), &options(absent())).await.unwrap();
    store.put_blob(&name("b"), body(b"two"), &options(absent())).await.unwrap();
    let (source, target) = (name("d/ü %41"), name("b"));
    let taken = dfs.rename(&source, Some(&first.etag), &target, &absent()).await.unwrap_err();
    assert_eq!(taken.kind, ErrorKind::Precondition, "{taken}");
    let before = service.requests_of(Operation::RenamePath);
    dfs.rename(&source, Some(&first.etag), &target, &Condition::None).await.unwrap();
    assert_eq!(service.requests_of(Operation::RenamePath), before + 1);
    assert_eq!(read(store, "b", 0..9).await, b"one");

    let gone = dfs.rename(&source, Some(&first.etag), &name("c"), &Condition::None).await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound);
    let orphan = dfs.rename(&target, None, &name("no/such/c"), &Condition::None).await.unwrap_err();
    assert_eq!(
        (orphan.kind, orphan.code.as_deref()),
        (ErrorKind::NotFound, Some("RenameDestinationParentPathNotFound"))
    );
    let changed = store.put_blob(&target, body(b"three"), &options(Condition::None)).await.unwrap();
    let stale = dfs.rename(&target, Some(&first.etag), &name("c"), &Condition::None).await.unwrap_err();
    assert_eq!(stale.kind, ErrorKind::Precondition);

    dfs.rename(&target, Some(&changed.etag), &name("d/c"), &absent()).await.unwrap();
    dfs.create_directory(&name("e"), 0o755, &Metadata::new(), &absent()).await.unwrap();
    dfs.rename(&name("d"), None, &name("e"), &Condition::None).await.unwrap();
    assert_eq!(read(store, "e/c", 0..9).await, b"three");
    dfs.create_directory(&name("f"), 0o755, &Metadata::new(), &absent()).await.unwrap();
    let full = dfs.rename(&name("f"), None, &name("e"), &Condition::None).await.unwrap_err();
    assert_eq!(full.kind, ErrorKind::NotEmpty, "{full}");
}

#[tokio::test]
async fn modes_and_access_lists_are_set_and_told_by_head_and_listing() {
    let service = Service::start_hierarchical().await;
    let (store, dfs, file) = (&service.store, hierarchy(&service.store), name("f"));
    store.account_info().await.unwrap();
    let made = store.put_blob(&file, body(b"x"), &options(absent())).await.unwrap();
    let moded = dfs.set_mode(&file, 0o100_751, &matching(&made.etag)).await.unwrap();
    assert_eq!(dfs.set_mode(&file, 0o600, &matching(&made.etag)).await.unwrap_err().kind, ErrorKind::Precondition);
    let found = store.head(&file, &Condition::None).await.unwrap();
    assert_eq!((&found.etag, found.mode), (&moded.etag, Some(0o751)));
    let page = store.list(&ListRequest::default()).await.unwrap();
    let ListEntry::Blob(_, listed) = &page.entries[0] else { panic!("{:?}", page.entries) };
    assert_eq!(listed.mode, Some(0o751));

    let list = "user::rwx,user:alice:r--,group::r-x,mask::r-x,other::--x";
    dfs.set_access_list(&file, list, &Condition::None).await.unwrap();
    let control = dfs.access_control(&file).await.unwrap();
    assert_eq!((control.owner.as_str(), control.list.as_str()), ("$superuser", list));
    assert_eq!(control.permissions, "rwxr-x--x+");
    let nonsense = dfs.set_access_list(&file, "everybody", &Condition::None).await.unwrap_err();
    assert_eq!(nonsense.kind, ErrorKind::Invalid);
    assert!(nonsense.to_string().contains("InvalidHeaderValue"), "{nonsense}");
    let missing = dfs.access_control(&name("g")).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn every_path_operation_whose_reply_was_lost_is_reported_as_done_once() {
    for changes_etag in [false, true] {
        let service = Service::start_hierarchical().await;
        service.settings(|settings| settings.rename_changes_etag = changes_etag);
        let (store, dfs) = (&service.store, hierarchy(&service.store));
        let lose = |operation| service.fault(FaultRule::new(FaultKind::ReplyLost).on(operation).times(1));

        lose(Operation::CreatePath);
        let made = dfs.create_directory(&name("d"), 0o755, &metadata(&[("modtime", "1")]), &absent()).await.unwrap();
        assert_eq!(made.etag, store.head(&name("d"), &Condition::None).await.unwrap().etag);
        lose(Operation::SetPathAccessControl);
        let moded = dfs.set_mode(&name("d"), 0o700, &matching(&made.etag)).await.unwrap();
        assert_eq!(moded.etag, store.head(&name("d"), &Condition::None).await.unwrap().etag);

        let file = store.put_blob(&name("d/f"), body(b"x"), &options(absent())).await.unwrap();
        lose(Operation::RenamePath);
        dfs.rename(&name("d/f"), Some(&file.etag), &name("g"), &absent()).await.unwrap();
        lose(Operation::RenamePath);
        dfs.rename(&name("d"), None, &name("e"), &Condition::None).await.unwrap();
        lose(Operation::DeletePath);
        dfs.delete_directory(&name("e"), false).await.unwrap();
        assert_eq!(read(store, "g", 0..9).await, b"x");
    }
}

#[tokio::test]
async fn a_rename_that_another_client_made_impossible_is_not_taken_for_ours() {
    let service = Service::start_hierarchical().await;
    let (store, dfs) = (&service.store, hierarchy(&service.store));
    let file = store.put_blob(&name("a"), body(b"x"), &options(absent())).await.unwrap();
    // Nothing reaches the service before the reply is lost: the first try is ambiguous, and its source stays.
    service.fault(FaultRule::new(FaultKind::ResetConnection).on(Operation::RenamePath).times(1));
    store.put_blob(&name("b"), body(b"theirs"), &options(absent())).await.unwrap();
    let refused = dfs.rename(&name("a"), Some(&file.etag), &name("b"), &absent()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Precondition);
    assert_eq!(read(store, "b", 0..9).await, b"theirs");
}

#[tokio::test]
async fn a_sas_renames_with_its_signature_on_both_sides() {
    let service = Service::start_hierarchical().await;
    let store = service.store_with(container_sas("racwdle", "2099-01-01T00:00:00Z"));
    let file = store.put_blob(&name("a"), body(b"x"), &options(absent())).await.unwrap();
    hierarchy(&store).rename(&name("a"), Some(&file.etag), &name("b"), &absent()).await.unwrap();
    assert_eq!(read(&store, "b", 0..9).await, b"x");
    let refused = hierarchy(&store).set_mode(&name("b"), 0o600, &Condition::None).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Denied);
    assert!(refused.remedy().unwrap().contains("Storage Blob Data Owner"), "{refused}");
}

//! Limits and settings of the service that the conformance list cannot reach: long lists, time, accounts, host names.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use blob_emulator::{Emulator, PublicAccess, Settings};

fn start(settings: Settings) -> Emulator {
    let emulator = Emulator::start(settings).unwrap_or_else(|error| panic!("{error}"));
    emulator.create_container("box");
    emulator
}

fn open() -> Emulator {
    start(Settings { auth: false, ..Settings::default() })
}

/// Sends a request as it stands and returns the answer as text.
fn send(emulator: &Emulator, method: &str, path: &str, headers: &str, body: &str) -> String {
    let host = if headers.contains("host:") { "" } else { "host: x\r\n" };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{host}{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut answer = Vec::new();
    let outcome = TcpStream::connect(emulator.address()).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(request.as_bytes())?;
        stream.read_to_end(&mut answer)
    });
    outcome.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_page_has_five_thousand_entries_and_the_next_one_has_the_rest() {
    let emulator = open();
    for number in 0..5003 {
        emulator.put("box", &format!("{number:05}"), "", &[]).unwrap();
    }
    let list = "/devstoreaccount1/box?restype=container&comp=list&maxresults=9000";
    let first = send(&emulator, "GET", list, "", "");
    assert_eq!(first.matches("<Blob>").count(), 5000);
    let marker = first.split_once("<NextMarker>").unwrap().1.split_once('<').unwrap().0;
    let second = send(&emulator, "GET", &format!("{list}&marker={marker}"), "", "");
    assert_eq!(second.matches("<Blob>").count(), 3);
    assert!(second.contains("<NextMarker></NextMarker>"));
}

#[test]
fn a_block_list_has_fifty_thousand_blocks_and_no_more() {
    let emulator = open();
    let block = "/devstoreaccount1/box/a?comp=block&blockid=QUFB";
    assert!(send(&emulator, "PUT", block, "", "x").starts_with("HTTP/1.1 201"));
    let list = "/devstoreaccount1/box/a?comp=blocklist";
    let of = |count: usize| format!("<BlockList>{}</BlockList>", "<Latest>QUFB</Latest>".repeat(count));
    assert!(send(&emulator, "PUT", list, "", &of(50_001)).contains("x-ms-error-code: BlockListTooLong"));
    assert!(send(&emulator, "PUT", list, "", &of(50_000)).starts_with("HTTP/1.1 201"));
    assert_eq!(emulator.get("box", "a").unwrap().len(), 50_000);
    assert_eq!(emulator.committed_blocks("box", "a").unwrap().len(), 50_000);
}

#[test]
fn a_host_name_that_begins_with_the_account_stands_for_it() {
    let emulator = open();
    let host = "host: devstoreaccount1.blob.local:80\r\n";
    let put = send(&emulator, "PUT", "/box/dir/a", &format!("{host}x-ms-blob-type: BlockBlob\r\n"), "hosted");
    assert!(put.starts_with("HTTP/1.1 201"), "{put}");
    assert_eq!(emulator.get("box", "dir/a").unwrap(), b"hosted");
    assert!(send(&emulator, "GET", "/box/dir/a", host, "").ends_with("hosted"));
    assert!(send(&emulator, "GET", "/box/dir/a", "", "").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_lease_of_fifteen_seconds_expires_with_the_clock() {
    let emulator = open();
    emulator.put("box", "a", "x", &[]).unwrap();
    let acquire = "x-ms-lease-action: acquire\r\nx-ms-lease-duration: 15\r\n";
    let lease = "/devstoreaccount1/box/a?comp=lease";
    assert!(send(&emulator, "PUT", lease, acquire, "").starts_with("HTTP/1.1 201"));
    assert!(send(&emulator, "DELETE", "/devstoreaccount1/box/a", "", "").contains("LeaseIdMissing"));
    emulator.settings(|settings| settings.clock_ahead = Duration::from_secs(16));
    assert!(send(&emulator, "HEAD", "/devstoreaccount1/box/a", "", "").contains("x-ms-lease-state: expired"));
    assert!(send(&emulator, "DELETE", "/devstoreaccount1/box/a", "", "").starts_with("HTTP/1.1 202"));
}

#[test]
fn the_name_of_a_deleted_container_stays_taken_as_long_as_the_knob_says() {
    let emulator = open();
    emulator.settings(|settings| settings.container_delete_time = Duration::from_secs(30));
    let container = "/devstoreaccount1/box?restype=container";
    assert!(send(&emulator, "DELETE", container, "", "").starts_with("HTTP/1.1 202"));
    assert!(send(&emulator, "PUT", container, "", "").contains("x-ms-error-code: ContainerBeingDeleted"));
    emulator.settings(|settings| settings.clock_ahead = Duration::from_secs(31));
    assert!(send(&emulator, "PUT", container, "", "").starts_with("HTTP/1.1 201"));
}

#[test]
fn a_bearer_token_without_tls_is_refused_and_public_containers_follow_the_settings() {
    let emulator = start(Settings { bearer_tokens: vec!["token-1".into()], ..Settings::default() });
    emulator.put("box", "a", "secretless", &[]).unwrap();
    let read = |headers: &str| send(&emulator, "GET", "/devstoreaccount1/box/a", headers, "");
    assert!(read("authorization: Bearer token-1\r\n").starts_with("HTTP/1.1 403"));
    assert!(read("").contains("x-ms-error-code: ResourceNotFound"));
    emulator.set_public_access("box", PublicAccess::Blob).unwrap();
    assert!(read("").ends_with("secretless"));
    emulator.settings(|settings| settings.public_access = false);
    assert!(read("").contains("x-ms-error-code: PublicAccessNotPermitted"));
}

#[test]
fn bytes_beyond_four_mebibytes_are_kept_in_order() {
    let emulator = open();
    let body: String = (0..1_500_000).map(|number| format!("{number:07}")).collect();
    let put = send(&emulator, "PUT", "/devstoreaccount1/box/a", "x-ms-blob-type: BlockBlob\r\n", &body);
    assert!(put.starts_with("HTTP/1.1 201"));
    assert!(emulator.get("box", "a").unwrap() == body.as_bytes());
    let range = send(&emulator, "GET", "/devstoreaccount1/box/a", "range: bytes=4194290-4194317\r\n", "");
    assert!(range.ends_with(&body[4_194_290..4_194_318]));
}

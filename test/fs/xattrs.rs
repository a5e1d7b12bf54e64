//! Extended attributes: what programs keep with a file, in metadata that other clients read and write too.

use azblob_csi::{
    blob::{BlobName, Condition, Metadata},
    fs::{ROOT, RenameMode, SetXattr},
};
use blob_emulator::Operation;

use crate::support::{
    service::Service,
    volume::{CREATE, READ, Volume},
};

impl Volume {
    async fn get(&self, path: &str, name: &str) -> Result<Vec<u8>, i32> {
        let number = self.lookup(path).await.unwrap().attr.number;
        self.fs.get_xattr(number, name.as_bytes()).await.map_err(|error| error.errno)
    }

    async fn set_as(&self, path: &str, name: &str, value: &[u8], mode: SetXattr) -> Result<(), i32> {
        let number = self.lookup(path).await.unwrap().attr.number;
        self.fs.set_xattr(&self.caller, number, name.as_bytes(), value, mode).await.map_err(|error| error.errno)
    }

    async fn set(&self, path: &str, name: &str, value: &[u8]) -> Result<(), i32> {
        self.set_as(path, name, value, SetXattr::Any).await
    }

    async fn unset(&self, path: &str, name: &str) -> Result<(), i32> {
        let number = self.lookup(path).await.unwrap().attr.number;
        self.fs.remove_xattr(&self.caller, number, name.as_bytes()).await.map_err(|error| error.errno)
    }

    async fn list(&self, path: &str) -> String {
        let number = self.lookup(path).await.unwrap().attr.number;
        String::from_utf8(self.fs.list_xattrs(number).await.unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_attributes_are_the_metadata_that_other_clients_write_and_read() {
    let service = Service::start();
    service.put_with("a", b"bytes", &[("author", "Jane"), ("permissions", "33188")]);
    let volume = service.volume().await;
    assert_eq!(volume.get("a", "user.author").await.unwrap(), b"Jane");
    assert_eq!(volume.list("a").await, "user.author\0", "what the file system keeps for itself is not listed");
    volume.set("a", "user.team", b"blue").await.unwrap();
    volume.set("a", "user.Odd name", b"\0\xff").await.unwrap();
    assert_eq!(service.metadata("a").get("team").map(String::as_str), Some("blue"));
    let other = service.volume().await;
    assert_eq!(other.get("a", "user.Odd name").await.unwrap(), b"\0\xff");
    assert_eq!(other.list("a").await, "user.Odd name\0user.author\0user.team\0");
    volume.unset("a", "user.author").await.unwrap();
    assert_eq!(service.metadata("a").get("author"), None);
    assert_eq!(volume.get("a", "user.author").await, Err(libc::ENODATA));
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_survive_rewrites_chmod_and_renames_and_directories_have_them_too() {
    let service = Service::start();
    service.put("d/a", b"old");
    let volume = service.volume().await;
    let d = volume.lookup("d").await.unwrap().attr.number;
    volume.set("d", "user.on", b"a prefix without a marker").await.unwrap();
    volume.write_file("f", b"one").await;
    volume.set("f", "user.kept", b"\n").await.unwrap();
    volume.write_file("f", b"two").await;
    let number = volume.lookup("f").await.unwrap().attr.number;
    let change = azblob_csi::fs::SetAttr { mode: Some(0o600), ..Default::default() };
    volume.fs.setattr(&volume.caller, number, None, change).await.unwrap();
    let (from, to) = ((ROOT, "f".as_ref()), (ROOT, "g".as_ref()));
    volume.fs.rename(&volume.caller, from, to, RenameMode::Replace).await.unwrap();
    let other = service.volume().await;
    assert_eq!(other.get("g", "user.kept").await.unwrap(), b"\n");
    assert_eq!(other.lookup("g").await.unwrap().attr.mode, 0o600);
    assert_eq!(other.get("d", "user.on").await.unwrap(), b"a prefix without a marker");
    assert_eq!(volume.names_in(d).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attribute_of_a_file_that_is_being_written_costs_no_request_of_its_own() {
    let service = Service::start();
    let volume = service.volume().await;
    volume.lookup("none").await.unwrap_err();
    let before = service.requests();
    let (number, handle) = volume.create("new", CREATE).await.unwrap();
    volume.write(handle, 0, b"bytes").await;
    volume.fs.set_xattr(&volume.caller, number, b"user.origin", b"here", SetXattr::Create).await.unwrap();
    assert_eq!(volume.fs.get_xattr(number, b"user.origin").await.unwrap(), b"here");
    volume.close(handle).await.unwrap();
    assert_eq!(service.requests() - before, 1, "one Put Blob at close");
    assert_eq!(service.metadata("new").get("origin").map(String::as_str), Some("here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn setting_an_attribute_under_a_reader_fetches_no_byte_again() {
    let service = Service::start();
    service.put("kept", &vec![9u8; 2 << 20]);
    let volume = service.volume().await;
    let handle = volume.open("kept", READ).await.unwrap();
    volume.read(handle, 0, 2 << 20).await;
    let gets = service.count(Operation::GetBlob);
    for round in 0..5 {
        volume.set("kept", "user.round", &[b'0' + round]).await.unwrap();
        assert_eq!(volume.read(handle, 0, 2 << 20).await.len(), 2 << 20);
    }
    assert_eq!(service.count(Operation::GetBlob), gets);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_another_client_sets_at_once_is_kept_beside_ours() {
    let service = Service::start();
    service.put("both", b"bytes");
    let volume = service.volume().await;
    let number = volume.lookup("both").await.unwrap().attr.number;
    let mut theirs: Metadata = service.metadata("both").into_iter().collect();
    theirs.insert("theirs".to_owned(), "1".to_owned());
    let name = BlobName::new("both").unwrap();
    service.store().set_metadata(&name, &theirs, &Condition::None).await.unwrap();
    volume.fs.set_xattr(&volume.caller, number, b"user.ours", b"2", SetXattr::Any).await.unwrap();
    let now = service.metadata("both");
    assert_eq!((now.get("theirs").map(String::as_str), now.get("ours").map(String::as_str)), (Some("1"), Some("2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_errno() {
    let service = Service::start();
    service.put("a", b"");
    let volume = service.volume().await;
    assert_eq!(volume.set_as("a", "user.x", b"", SetXattr::Replace).await, Err(libc::ENODATA));
    volume.set_as("a", "user.x", b"", SetXattr::Create).await.unwrap();
    assert_eq!(volume.get("a", "user.x").await.unwrap(), b"", "an empty value is a value");
    assert_eq!(volume.set_as("a", "user.x", b"1", SetXattr::Create).await, Err(libc::EEXIST));
    volume.set_as("a", "user.x", b"2", SetXattr::Replace).await.unwrap();
    assert_eq!(volume.unset("a", "user.y").await, Err(libc::ENODATA));
    let before = service.requests();
    for name in ["trusted.x", "security.capability", "system.posix_acl_access", "user."] {
        assert_eq!(volume.get("a", name).await, Err(libc::EOPNOTSUPP), "{name}");
        assert_eq!(volume.set("a", name, b"1").await, Err(libc::EOPNOTSUPP), "{name}");
    }
    assert_eq!(service.requests(), before, "what is not ours is refused without a request");
    assert_eq!(volume.set("a", "user.big", &vec![b'v'; 9000]).await, Err(libc::E2BIG));
    volume.set("a", "user.first", &vec![b'v'; 5000]).await.unwrap();
    assert_eq!(volume.set("a", "user.second", &vec![b'v'; 5000]).await, Err(libc::ENOSPC));
    assert_eq!(volume.get("a", "user.second").await, Err(libc::ENODATA), "a refused value is not there");
    let root = volume.fs.set_xattr(&volume.caller, ROOT, b"user.x", b"1", SetXattr::Any).await;
    assert_eq!(root.unwrap_err().errno, libc::EOPNOTSUPP);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_attributes_are_read_again_and_no_more_are_taken_than_can_be() {
    let service = Service::start();
    let volume = service.volume().await;
    let (_, file) = volume.create("a", CREATE).await.unwrap();
    let mut taken = 0;
    while volume.set("a", &format!("user.x{taken}"), b"1").await.is_ok() {
        taken += 1;
    }
    assert!((200..300).contains(&taken), "{taken} attributes");
    assert_eq!(volume.set("a", "user.more", b"1").await, Err(libc::ENOSPC));
    volume.set("a", "user.x0", b"2").await.unwrap();
    volume.write(file, 0, b"bytes").await;
    volume.close(file).await.unwrap();
    let other = service.volume().await;
    assert_eq!(other.read_file("a").await, b"bytes");
    assert_eq!(other.list("a").await.matches('\0').count(), taken);
    other.unset("a", "user.x7").await.unwrap();
    assert_eq!(service.metadata("a").get("x0").map(String::as_str), Some("2"));
    assert_eq!(service.metadata("a").get("x7"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_of_the_blob_answer_and_are_not_listed() {
    let service = Service::start();
    service.put("dir/fact sheet", b"x");
    let volume = service.volume().await;
    let dir = volume.lookup("dir").await.unwrap().attr.number;
    let number = volume.lookup_in(dir, "fact sheet").await.unwrap().attr.number;
    let fact = |name: &'static str| {
        let fs = std::sync::Arc::clone(&volume.fs);
        async move { fs.get_xattr(number, name.as_bytes()).await.map(|value| String::from_utf8(value).unwrap()) }
    };
    let etag = fact("user.azblob.etag").await.unwrap();
    let head = service.store().head(&BlobName::new("dir/fact sheet").unwrap(), &Condition::None).await.unwrap();
    assert_eq!(etag, head.etag.0.trim_matches('"'));
    assert_eq!(fact("user.azblob.url").await.unwrap(), format!("{}/dir/fact%20sheet", service.url()));
    assert_eq!(fact("user.azblob.content_type").await.ok(), head.headers.content_type);
    let (first, second) =
        (fact("user.azblob.request_id").await.unwrap(), fact("user.azblob.request_id").await.unwrap());
    assert!(first.len() > 30 && first != second, "{first} {second}");
    assert_eq!(fact("user.azblob.colour").await.unwrap_err().errno, libc::ENODATA);
    assert_eq!(volume.fs.list_xattrs(number).await.unwrap(), b"");
    let set = volume.fs.set_xattr(&volume.caller, number, b"user.azblob.etag", b"1", SetXattr::Any).await;
    assert_eq!(set.unwrap_err().errno, libc::EPERM);
}

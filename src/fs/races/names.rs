//! Meetings over names: lookups, forgets, renames, unlinks and exclusive creates.

use std::{sync::Arc, time::Duration};

use super::{ROOT, Volume, meet};
use crate::fs::{RenameMode, Settings};

async fn rename(volume: &Volume, from: &str, to: &str) -> crate::fs::Result<()> {
    let (from, to) = ((ROOT, from.as_ref()), (ROOT, to.as_ref()));
    volume.fs.rename(&volume.caller, from, to, RenameMode::Replace).await
}

#[test]
fn lookups_and_forgets_beside_renames_leave_no_inode_behind() {
    meet(|| async {
        let volume = Volume::open().await;
        volume.put("a", b"bytes").await;
        let looker = volume.spawn(|volume| async move {
            for name in ["a", "b", "a"] {
                match volume.lookup(name).await {
                    Ok(number) => volume.forget(number),
                    Err(error) => assert_eq!(error.errno, libc::ENOENT, "{}", error.to_chain()),
                }
            }
        });
        let renamer = volume.spawn(|volume| async move {
            rename(&volume, "a", "b").await.unwrap();
            rename(&volume, "b", "a").await.unwrap();
        });
        looker.await.unwrap();
        renamer.await.unwrap();
        assert_eq!(volume.container.names(), ["a"]);
        assert_eq!(volume.container.bytes("a"), b"bytes");
        volume.is_quiet();
    });
}

#[test]
fn two_renames_that_cross_end_and_lose_nothing() {
    meet(|| async {
        let volume = Volume::open().await;
        volume.put("a", b"first").await;
        volume.put("b", b"second").await;
        let there = volume.spawn(|volume| async move { rename(&volume, "a", "b").await });
        let back = volume.spawn(|volume| async move { rename(&volume, "b", "a").await });
        let (there, back) = (there.await.unwrap(), back.await.unwrap());
        let names = volume.container.names();
        assert_eq!(names.len(), 1, "{names:?}, {there:?}, {back:?}");
        assert!(there.is_ok() || back.is_ok());
        volume.is_quiet();
    });
}

#[test]
fn of_two_exclusive_creators_exactly_one_wins() {
    meet(|| async {
        let volume = Volume::open().await;
        let create = |byte: u8| {
            volume.spawn(move |volume| async move {
                let made = volume.create("new", true).await;
                if let Ok(handle) = &made {
                    volume.write(*handle, 0, &[byte]).await;
                    volume.close(*handle).await.unwrap();
                }
                made.is_ok()
            })
        };
        let (first, second) = (create(b'1'), create(b'2'));
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert!(first != second, "{first} {second}");
        assert_eq!(volume.container.bytes("new"), if first { b"1" } else { b"2" });
        volume.is_quiet();
    });
}

#[test]
fn two_makers_of_one_name_write_one_file() {
    meet(|| async {
        let volume = Volume::open().await;
        let make = |offset: u64, byte: u8| {
            volume.spawn(move |volume| async move {
                let handle = volume.create("new", false).await.unwrap();
                volume.write(handle, offset, &[byte]).await;
                volume.close(handle).await.unwrap();
            })
        };
        let (first, second) = (make(0, b'1'), make(1, b'2'));
        first.await.unwrap();
        second.await.unwrap();
        assert_eq!(volume.container.bytes("new"), b"12");
        volume.is_quiet();
    });
}

/// What a program does that makes a file, saves it and opens it again, while others look.
fn made_beside_lookups_and_listings(settings: impl Fn() -> Settings + Send + Sync + 'static) {
    meet(move || {
        let settings = settings();
        async move {
            let volume = Volume::with(settings).await;
            let maker = volume.spawn(|volume| async move {
                let handle = volume.create("new", false).await.unwrap();
                volume.write(handle, 0, b"1").await;
                volume.fs.sync_file(handle).await.unwrap();
                volume.fs.flush(handle).await.unwrap();
                // The kernel tells of the last close some time after close(2) has returned.
                let released = volume.spawn(move |volume| async move { volume.fs.release(handle).await });
                let handle = volume.open_file("new").await.unwrap();
                volume.write(handle, 1, b"2").await;
                volume.close(handle).await.unwrap();
                released.await.unwrap().unwrap();
            });
            let looker = volume.spawn(|volume| async move {
                for _ in 0..3 {
                    if let Ok(number) = volume.lookup("new").await {
                        volume.forget(number);
                    }
                }
            });
            let lister = volume.spawn(|volume| async move {
                let handle = volume.fs.open_directory(&volume.caller.view, ROOT).unwrap();
                volume.fs.read_directory(handle, 0, 10).await.unwrap();
                volume.fs.close_directory(handle);
            });
            maker.await.unwrap();
            looker.await.unwrap();
            lister.await.unwrap();
            assert_eq!(volume.container.bytes("new"), b"12");
            volume.is_quiet();
        }
    });
}

#[test]
fn a_file_is_made_and_opened_again_beside_lookups_and_listings() {
    made_beside_lookups_and_listings(Settings::default);
}

#[test]
fn a_file_is_made_and_opened_again_where_names_are_never_believed() {
    made_beside_lookups_and_listings(|| Settings { metadata_ttl: Duration::ZERO, ..Settings::default() });
}

#[test]
fn an_unlink_beside_a_writer_removes_the_name_and_the_writer_ends() {
    meet(|| async {
        let volume = Volume::open().await;
        volume.put("a", b"old").await;
        let handle = volume.open_file("a").await.unwrap();
        let writer = volume.spawn(move |volume| async move {
            volume.write(handle, 0, b"new").await;
            volume.fs.sync_file(handle).await.unwrap();
            assert_eq!(volume.read(handle, 0, 3).await.unwrap(), b"new");
            volume.close(handle).await.unwrap();
        });
        let remover = volume.spawn(|volume| async move { volume.fs.unlink(&volume.caller, ROOT, "a".as_ref()).await });
        remover.await.unwrap().unwrap();
        writer.await.unwrap();
        assert_eq!(volume.container.names(), [""; 0]);
        volume.is_quiet();
    });
}

#[test]
fn a_name_that_is_made_again_while_its_delete_is_under_way_is_there_at_the_end() {
    meet(|| async {
        let volume = Volume::with(Settings { unlinks_waited: 0, ..Settings::default() }).await;
        volume.put("a", b"old").await;
        volume.fs.unlink(&volume.caller, ROOT, "a".as_ref()).await.unwrap();
        let maker = volume.spawn(|volume| async move { volume.put("a", b"new").await });
        let lister = volume.spawn(|volume| async move {
            let handle = volume.fs.open_directory(&volume.caller.view, ROOT).unwrap();
            volume.fs.read_directory(handle, 0, 10).await.unwrap();
            volume.fs.close_directory(handle);
            volume.fs.sync_directory(ROOT).await.unwrap();
        });
        maker.await.unwrap();
        lister.await.unwrap();
        assert_eq!(volume.container.names(), ["a"]);
        assert_eq!(volume.container.bytes("a"), b"new");
        let number = volume.lookup("a").await.unwrap();
        volume.forget(number);
        volume.is_quiet();
    });
}

#[test]
fn a_removed_name_does_not_come_back_by_a_listing_that_was_under_way() {
    meet(|| async {
        let maker = Volume::open().await;
        let made = maker.fs.make_directory(&maker.caller, ROOT, "d".as_ref(), 0o755).await.unwrap().attr.number;
        for name in ["a", "b"] {
            maker.fs.make_symlink(&maker.caller, made, name.as_ref(), b"target").await.unwrap();
        }
        let settings = Settings { unlinks_waited: 0, ..Settings::default() };
        let volume = Volume::on_with(Arc::clone(&maker.container), settings).await;
        let directory = volume.lookup("d").await.unwrap();
        let lister = volume.spawn(move |volume| async move {
            let handle = volume.fs.open_directory(&volume.caller.view, directory).unwrap();
            volume.fs.read_directory(handle, 0, 10).await.unwrap();
            volume.fs.close_directory(handle);
        });
        let is_gone = async || {
            let found = volume.fs.lookup(&volume.caller, directory, "a".as_ref()).await;
            assert_eq!(found.map(|entry| entry.attr.number).unwrap_err().errno, libc::ENOENT);
        };
        volume.fs.unlink(&volume.caller, directory, "a".as_ref()).await.unwrap();
        is_gone().await;
        lister.await.unwrap();
        is_gone().await;
        volume.fs.flush_all().await.unwrap();
        is_gone().await;
        assert_eq!(volume.container.names(), ["d", "d/b"]);
        volume.forget(directory);
        volume.is_quiet();
    });
}

#[test]
fn a_rename_beside_a_writer_takes_every_byte_along() {
    meet(|| async {
        let volume = Volume::open().await;
        volume.put("a", b"old").await;
        let handle = volume.open_file("a").await.unwrap();
        let writer = volume.spawn(move |volume| async move {
            volume.write(handle, 3, b" and new").await;
            volume.close(handle).await.unwrap();
        });
        let renamer = volume.spawn(|volume| async move { rename(&volume, "a", "b").await });
        renamer.await.unwrap().unwrap();
        writer.await.unwrap();
        assert_eq!(volume.container.names(), ["b"]);
        assert_eq!(volume.container.bytes("b"), b"old and new");
        volume.is_quiet();
    });
}

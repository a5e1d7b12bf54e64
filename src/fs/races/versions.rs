//! Meetings over versions: the commit queue, and what the cache keeps of a version that is replaced meanwhile.

use std::sync::Arc;

use super::{Volume, meet, store::Container};

#[test]
fn an_fsync_that_returned_has_its_bytes_at_the_service() {
    meet(|| async {
        let volume = Volume::open().await;
        volume.put("a", &[b'.'; 64]).await;
        let write = |offset: u64, byte: u8| {
            volume.spawn(move |volume| async move {
                let handle = volume.open_file("a").await.unwrap();
                for round in 0..2 {
                    let at = offset + round * 8;
                    volume.write(handle, at, &[byte; 8]).await;
                    volume.fs.sync_file(handle).await.unwrap();
                    let committed = volume.container.bytes("a");
                    assert_eq!(committed[at as usize..at as usize + 8], [byte; 8], "after fsync");
                }
                volume.close(handle).await.unwrap();
            })
        };
        let (first, second) = (write(0, b'1'), write(32, b'2'));
        first.await.unwrap();
        second.await.unwrap();
        let expected = [[b'1'; 16], [b'.'; 16], [b'2'; 16], [b'.'; 16]].concat();
        assert_eq!(volume.container.bytes("a"), expected);
        volume.is_quiet();
    });
}

#[test]
fn a_read_beside_commits_sees_one_state_after_another() {
    meet(|| async {
        let volume = Volume::open().await;
        volume.put("a", b"0000").await;
        let handle = volume.open_file("a").await.unwrap();
        let writer = volume.spawn(move |volume| async move {
            for state in [b"1111", b"2222"] {
                volume.write(handle, 0, state).await;
                volume.fs.sync_file(handle).await.unwrap();
            }
            volume.close(handle).await.unwrap();
        });
        let reader = volume.spawn(|volume| async move {
            let handle = volume.open_file("a").await.unwrap();
            let mut last = b'0';
            for _ in 0..3 {
                let bytes = volume.read(handle, 0, 4).await.unwrap();
                assert!(bytes.iter().all(|byte| *byte == bytes[0]) && bytes.len() == 4, "{bytes:?} is a mix");
                assert!(bytes[0] >= last, "{bytes:?} came after {last}");
                last = bytes[0];
            }
            volume.close(handle).await.unwrap();
        });
        writer.await.unwrap();
        reader.await.unwrap();
        volume.is_quiet();
    });
}

#[test]
fn of_two_nodes_one_wins_and_the_other_hears_of_it() {
    meet(|| async {
        let container = Arc::new(Container::default());
        let here = Volume::on(Arc::clone(&container)).await;
        here.put("a", b"base").await;
        let there = Volume::on(Arc::clone(&container)).await;
        let rewrite = |node: &Volume, bytes: &'static [u8]| {
            node.spawn(move |node| async move {
                let handle = node.open_file("a").await.unwrap();
                node.write(handle, 0, bytes).await;
                node.close(handle).await.map_err(|error| error.errno)
            })
        };
        let (first, second) = (rewrite(&here, b"1111"), rewrite(&there, b"2222"));
        match (first.await.unwrap(), second.await.unwrap()) {
            (Ok(()), Ok(())) => {} // One after the other: the second was opened after the first had closed.
            (Ok(()), Err(errno)) => assert_eq!((errno, container.bytes("a").as_slice()), (libc::ESTALE, &b"1111"[..])),
            (Err(errno), Ok(())) => assert_eq!((errno, container.bytes("a").as_slice()), (libc::ESTALE, &b"2222"[..])),
            both => panic!("nobody won: {both:?}"),
        }
    });
}

#[test]
fn a_reader_of_a_replaced_version_gets_its_bytes_or_estale() {
    meet(|| async {
        let container = Arc::new(Container::default());
        container.put("a", &[b'1'; 200_000]);
        let volume = Volume::on(Arc::clone(&container)).await;
        let handle = volume.open_file("a").await.unwrap();
        let reader = volume.spawn(move |volume| async move {
            for offset in [0, 100_000] {
                match volume.read(handle, offset, 100_000).await {
                    Ok(bytes) => assert!(bytes.iter().all(|byte| *byte == b'1'), "bytes of another version"),
                    Err(error) => assert_eq!(error.errno, libc::ESTALE, "{}", error.to_chain()),
                }
            }
            volume.close(handle).await.unwrap();
        });
        let stranger = shuttle::future::spawn(async move { container.put("a", &[b'2'; 200_000]) });
        stranger.await.unwrap();
        reader.await.unwrap();
    });
}

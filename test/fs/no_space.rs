//! Where bytes stay that cannot be saved yet: in memory, then in the spool; and what a program hears when both are full.

use azblob_csi::fs::{ROOT, Settings};

use crate::support::{random::Random, service::Service, volume::CREATE};

const MEMORY_BYTES: u64 = 32 << 20;
const FILE_BYTES: usize = 96 << 20;
const STEP_BYTES: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_name_that_is_larger_than_memory_lives_in_the_spool() {
    let service = Service::start();
    let volume = service.volume_within(Settings::default(), MEMORY_BYTES, Some(std::env::temp_dir())).await;
    let (_, handle) = volume.create("scratch", CREATE).await.unwrap();
    volume.fs.unlink(&volume.caller, ROOT, "scratch".as_ref()).await.unwrap();
    let bytes = Random::new(1).bytes(FILE_BYTES);
    volume.write(handle, 0, &bytes).await;
    assert!(volume.read(handle, 0, FILE_BYTES).await == bytes);
    volume.close(handle).await.unwrap();
    assert_eq!(service.names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_it_is_full_with_enospc_and_keeps_what_it_has() {
    let service = Service::start();
    let volume = service.volume_within(Settings::default(), MEMORY_BYTES, None).await;
    let (_, handle) = volume.create("scratch", CREATE).await.unwrap();
    volume.fs.unlink(&volume.caller, ROOT, "scratch".as_ref()).await.unwrap();
    let bytes = Random::new(2).bytes(FILE_BYTES);
    let mut written = 0;
    let error = loop {
        let step = &bytes[written..written + STEP_BYTES];
        match volume.fs.write(&volume.caller, handle, written as u64, step).await {
            Ok(_) => written += STEP_BYTES,
            Err(error) => break error,
        }
        assert!(written < FILE_BYTES - STEP_BYTES, "more than memory holds");
    };
    assert_eq!(error.errno, libc::ENOSPC, "{error}");
    assert!(error.to_string().contains("spool"), "{error}");
    assert!(written > 0 && volume.read(handle, 0, FILE_BYTES).await == bytes[..written]);
    volume.close(handle).await.unwrap();
    // Its memory is free again, and others never needed the spool: what has a name is saved when memory is short.
    volume.write_file("named", &bytes).await;
    assert!(service.blob("named") == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_takes_no_more_costs_commits_and_no_byte() {
    let service = Service::start();
    let missing = std::env::temp_dir().join("no such directory");
    let volume = service.volume_within(Settings::default(), MEMORY_BYTES, Some(missing)).await;
    let (_, handle) = volume.create("spilled", CREATE).await.unwrap();
    let mut bytes = Random::new(3).bytes(FILE_BYTES);
    // Backwards and with gaps, so that nothing can be sent ahead.
    for start in (0..FILE_BYTES).step_by(STEP_BYTES).rev() {
        volume.write(handle, start as u64, &bytes[start..start + STEP_BYTES - 1]).await;
        bytes[start + STEP_BYTES - 1] = 0;
    }
    let written = FILE_BYTES - 1;
    assert!(volume.read(handle, 0, FILE_BYTES).await == bytes[..written]);
    volume.close(handle).await.unwrap();
    assert!(service.blob("spilled") == bytes[..written]);
}

//! Directories of more names than there is memory for.

use std::collections::HashSet;

use azblob_csi::{
    cache::MEMORY_BYTES_MIN,
    fs::{DirectoryEntry, HandleId, InodeNumber, Invalidation, Settings},
};
use blob_emulator::Operation;

use crate::support::{service::Service, volume::Volume};

/// As many as the kernel asks for at a time.
const STEP: usize = 128;
/// A page of the service.
const PAGE: usize = 5000;
/// Names may take a quarter of the memory that is for names and bytes, seven eighths of all.
const NAME_BYTES_MAX: u64 = MEMORY_BYTES_MIN / 8 * 7 / 4;

fn fill(service: &Service, directory: &str, count: usize) {
    for index in 0..count {
        service.put(&format!("{directory}/file-{index:06}"), b"");
    }
}

async fn smallest(service: &Service) -> std::sync::Arc<Volume> {
    service.volume_within(Settings::default(), MEMORY_BYTES_MIN, None).await
}

/// Reads on from `offset`, as a kernel that wants the attributes too: every entry is entered, and forgotten again.
async fn read_on(volume: &Volume, handle: HandleId, mut offset: u64, most: usize) -> Vec<DirectoryEntry> {
    let mut all = Vec::new();
    while all.len() < most {
        let entries = volume.fs.read_directory(handle, offset, STEP).await.unwrap();
        let Some(last) = entries.last() else { break };
        offset = last.next_offset;
        for entry in entries.into_iter().filter(|entry| !entry.name.starts_with('.')) {
            let entered = volume.fs.enter_listed(&volume.caller, handle, &entry).expect("its attributes are known");
            assert_eq!(entered.attr.number, entry.number);
            volume.fs.forget(&volume.caller.view, entry.number, 1);
            all.push(entry);
        }
        assert!(volume.fs.name_bytes() <= NAME_BYTES_MAX, "{} bytes of names", volume.fs.name_bytes());
    }
    all
}

async fn directory(volume: &Volume, name: &str) -> (InodeNumber, HandleId) {
    let number = volume.lookup(name).await.unwrap().attr.number;
    (number, volume.fs.open_directory(&volume.caller.view, number).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_more_names_than_memory_is_listed_whole_in_a_request_a_page() {
    const COUNT: usize = 12 * PAGE;
    let service = Service::start();
    fill(&service, "large", COUNT);
    let volume = smallest(&service).await;
    let (_, handle) = directory(&volume, "large").await;
    let before = service.requests();
    let entries = read_on(&volume, handle, 0, usize::MAX).await;
    assert_eq!(service.requests() - before, (COUNT / PAGE) as u64);
    let expected: Vec<String> = (0..COUNT).map(|index| format!("file-{index:06}")).collect();
    assert!(entries.iter().map(|entry| &*entry.name).eq(expected.iter().map(String::as_str)));

    // A reader who goes back reads on where it was.
    let at = COUNT / 3;
    let again = read_on(&volume, handle, entries[at - 1].next_offset, PAGE).await;
    assert!(again.iter().zip(&entries[at..]).all(|(one, other)| one.name == other.name));
    // And one who starts again sees all of it.
    let names: HashSet<_> = read_on(&volume, handle, 0, usize::MAX).await.into_iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), COUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_cold_directories_give_way_and_are_asked_for_again() {
    const COUNT: usize = 1000;
    const DIRECTORIES: usize = 60;
    let service = Service::start();
    for index in 0..DIRECTORIES {
        fill(&service, &format!("d{index:02}"), COUNT);
    }
    let volume = smallest(&service).await;
    let mut numbers = Vec::new();
    for index in 0..DIRECTORIES {
        let (number, handle) = directory(&volume, &format!("d{index:02}")).await;
        assert_eq!(read_on(&volume, handle, 0, usize::MAX).await.len(), COUNT);
        volume.fs.close_directory(handle);
        numbers.push(number);
    }
    let before = service.requests();
    volume.lookup_in(numbers[DIRECTORIES - 1], "file-000999").await.unwrap();
    assert_eq!(volume.lookup_in(numbers[DIRECTORIES - 1], "no such file").await.unwrap_err().errno, libc::ENOENT);
    assert_eq!(service.requests(), before, "the warmest directory was given up");
    volume.lookup_in(numbers[0], "file-000999").await.unwrap();
    assert!(service.requests() > before, "nothing was given up: the test is too small");
    assert_eq!(volume.lookup_in(numbers[0], "no such file").await.unwrap_err().errno, libc::ENOENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_takes_less_than_two_hundred_bytes() {
    const COUNT: usize = 20_000;
    let service = Service::start();
    let written = [
        ("permissions", "33188"),
        ("posix_owner", "1000"),
        ("posix_group", "1000"),
        ("modtime", "1790000000123456789"),
        ("posix_ctime", "1790000000123456789"),
    ];
    for index in 0..COUNT {
        service.put_with(&format!("large/file-{index:06}"), b"content", &written);
    }
    let volume = service.volume_within(Settings::default(), 128 << 20, None).await;
    let (_, handle) = directory(&volume, "large").await;
    while volume.fs.name_bytes() == 0 {
        volume.fs.read_directory(handle, 0, STEP).await.unwrap();
    }
    let mut offset = 0;
    while let Some(last) = volume.fs.read_directory(handle, offset, STEP).await.unwrap().last() {
        offset = last.next_offset;
    }
    let each = volume.fs.name_bytes() / COUNT as u64;
    assert!(each < 200, "{each} bytes a name");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_page_is_fetched_while_this_one_is_read() {
    let service = Service::start();
    fill(&service, "large", 3 * PAGE);
    let volume = service.volume().await;
    let (_, handle) = directory(&volume, "large").await;
    let before = service.count(Operation::ListBlobs);
    volume.fs.read_directory(handle, 0, STEP).await.unwrap();
    while service.count(Operation::ListBlobs) < before + 2 {
        tokio::task::yield_now().await;
    }
    // Not further: the reader may stop here.
    assert_eq!(read_on(&volume, handle, 0, PAGE / 2).await.len(), (PAGE / 2).next_multiple_of(STEP) - 2);
    assert_eq!(service.count(Operation::ListBlobs), before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn kernels_are_asked_to_forget_names_that_nobody_uses() {
    const COUNT: usize = 4 * PAGE;
    let service = Service::start();
    fill(&service, "large", COUNT);
    service.put("used", b"content");
    let volume = smallest(&service).await;
    let used = volume.lookup("used").await.unwrap().attr.number;
    // A kernel that forgets what it is told to, once it is told. It has the used file in use as it goes: while the reader
    // waits for a processor, it forgets thousands of names.
    let kernel = {
        let (volume, queue) = (std::sync::Arc::clone(&volume), volume.caller.view.invalidations());
        tokio::spawn(async move {
            loop {
                for told in queue.take().await {
                    let Invalidation::Entry(parent, name) = told else { panic!("{told:?}") };
                    volume.fs.getattr(&volume.caller, used).await.unwrap();
                    let number = volume.lookup_in(parent, &name).await.unwrap().attr.number;
                    volume.fs.forget(&volume.caller.view, number, 2);
                }
            }
        })
    };
    let (_, handle) = directory(&volume, "large").await;
    let (mut offset, mut most) = (0, 0);
    loop {
        let entries = volume.fs.read_directory(handle, offset, STEP).await.unwrap();
        let Some(last) = entries.last() else { break };
        offset = last.next_offset;
        for entry in entries.iter().filter(|entry| !entry.name.starts_with('.')) {
            volume.fs.enter_listed(&volume.caller, handle, entry).unwrap();
        }
        volume.fs.getattr(&volume.caller, used).await.unwrap();
        tokio::task::yield_now().await;
        most = most.max(volume.fs.gauges().0);
    }
    while volume.fs.gauges().0 > 3000 {
        tokio::task::yield_now().await;
    }
    kernel.abort();
    assert!(most > 1024, "all were kept: the test is too small");
    assert!(volume.fs.getattr(&volume.caller, used).await.is_ok(), "what is used was forgotten");
}

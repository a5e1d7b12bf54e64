//! fallocate(2) and lseek(2) on the core: zeros and sizes, before and after commits, over every kind of layer.

use azblob_csi::fs::{Allocation, HandleId, InodeNumber, Seek, SetAttr};

use crate::support::{
    random::Random,
    service::Service,
    volume::{CREATE, READ, Volume},
};

const MIB: u64 = 1 << 20;

async fn allocate(volume: &Volume, handle: HandleId, range: std::ops::Range<u64>, allocation: Allocation) {
    volume.fs.allocate(&volume.caller, handle, range, allocation).await.unwrap();
}

async fn size(volume: &Volume, number: InodeNumber) -> u64 {
    volume.fs.getattr(&volume.caller, number).await.unwrap().0.size
}

#[test]
fn modes_are_those_of_fallocate_and_what_would_move_bytes_is_not_supported() {
    let (keep, punch, zero) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_ZERO_RANGE);
    let known = [
        (0, Allocation::Grow),
        (keep, Allocation::Reserve),
        (punch | keep, Allocation::Zero),
        (zero | keep, Allocation::Zero),
        (zero, Allocation::ZeroAndGrow),
    ];
    for (mode, expected) in known {
        assert_eq!(Allocation::from_mode(mode).unwrap(), expected);
    }
    for mode in [libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE, libc::FALLOC_FL_UNSHARE_RANGE] {
        assert_eq!(Allocation::from_mode(mode).unwrap_err().errno, libc::EOPNOTSUPP);
    }
    for mode in [punch, punch | zero | keep] {
        assert_eq!(Allocation::from_mode(mode).unwrap_err().errno, libc::EINVAL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn allocating_grows_with_zeros_or_keeps_the_size() {
    let service = Service::start();
    let volume = service.volume().await;
    let (number, handle) = volume.create("grown", CREATE).await.unwrap();
    volume.write(handle, 0, b"begin").await;
    allocate(&volume, handle, 0..100, Allocation::Reserve).await;
    assert_eq!(size(&volume, number).await, 5);
    allocate(&volume, handle, 3..10, Allocation::Grow).await;
    assert_eq!(size(&volume, number).await, 10);
    allocate(&volume, handle, 1..3, Allocation::Grow).await;
    allocate(&volume, handle, 8..12, Allocation::ZeroAndGrow).await;
    allocate(&volume, handle, 10..50, Allocation::Zero).await;
    assert_eq!(size(&volume, number).await, 12);
    assert_eq!(volume.read(handle, 0, 100).await, b"begin\0\0\0\0\0\0\0");
    volume.close(handle).await.unwrap();
    assert_eq!(service.blob("grown"), b"begin\0\0\0\0\0\0\0");
}

#[tokio::test(flavor = "multi_thread")]
async fn allocating_is_refused_where_it_makes_no_sense() {
    let service = Service::start();
    service.put("there", b"there");
    let volume = service.volume().await;
    let reader = volume.open("there", READ).await.unwrap();
    let writer = volume.open("there", CREATE).await.unwrap();
    for (handle, range, errno) in
        [(reader, 0..1, libc::EBADF), (writer, 5..5, libc::EINVAL), (writer, 0..(4 << 40) + 1, libc::EFBIG)]
    {
        let refused = volume.fs.allocate(&volume.caller, handle, range, Allocation::Grow).await;
        assert_eq!(refused.unwrap_err().errno, errno);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_what_another_client_wrote_costs_what_changed() {
    let service = Service::start();
    let blocks: Vec<Vec<u8>> = (1..13u8).map(|fill| vec![fill; MIB as usize]).collect();
    service.put_blocks("punched", &blocks).await;
    let volume = service.volume().await;
    let handle = volume.open("punched", CREATE).await.unwrap();
    allocate(&volume, handle, 5 * MIB + 100..6 * MIB + 100, Allocation::Zero).await;
    let mut expected = blocks.concat();
    expected[(5 * MIB + 100) as usize..(6 * MIB + 100) as usize].fill(0);
    assert!(volume.read(handle, 0, 12 << 20).await == expected, "before the commit");
    let sent = service.bytes_in();
    volume.close(handle).await.unwrap();
    assert!(service.bytes_in() - sent < 2 * MIB, "{} bytes", service.bytes_in() - sent);
    assert!(service.blob("punched") == expected, "after the commit");
}

/// The writer's memory is too small for the file: most of it is at the service, uncommitted, when the hole is punched.
#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_what_was_sent_ahead_and_left_memory_is_exact() {
    let service = Service::start();
    let volume = service.volume().await;
    let write_only = azblob_csi::fs::Access { read: false, ..CREATE };
    let (_, handle) = volume.create("sent", write_only).await.unwrap();
    let mut expected = Random::new(3).bytes(96 << 20);
    volume.write(handle, 0, &expected).await;
    for at in [3 * MIB + 5, 8 * MIB, 40 * MIB - 1, 90 * MIB] {
        allocate(&volume, handle, at..at + 9 * MIB, Allocation::Zero).await;
        let end = (at + 9 * MIB).min(96 * MIB);
        expected[at as usize..end as usize].fill(0);
    }
    volume.close(handle).await.unwrap();
    assert!(service.blob("sent") == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_and_data_are_found_in_what_is_not_committed_and_all_else_is_data() {
    let service = Service::start();
    let volume = service.volume().await;
    let (number, handle) = volume.create("sparse", CREATE).await.unwrap();
    let seek = |offset: u64, seek: Seek| volume.fs.seek(handle, offset, seek).map_err(|error| error.errno);
    assert_eq!(seek(0, Seek::Data), Err(libc::ENXIO), "an empty file");
    volume.write(handle, MIB, &[1; 4096]).await;
    volume.write(handle, 3 * MIB, &[1; 4096]).await;
    let grow = SetAttr { size: Some(5 * MIB), ..SetAttr::default() };
    volume.fs.setattr(&volume.caller, number, Some(handle), grow).await.unwrap();
    let found = [
        (0, MIB, 0),
        (MIB, MIB, MIB + 4096),
        (MIB + 4095, MIB + 4095, MIB + 4096),
        (2 * MIB, 3 * MIB, 2 * MIB),
        (3 * MIB, 3 * MIB, 3 * MIB + 4096),
    ];
    for (offset, data, hole) in found {
        assert_eq!((seek(offset, Seek::Data), seek(offset, Seek::Hole)), (Ok(data), Ok(hole)), "from {offset}");
    }
    assert_eq!(seek(4 * MIB, Seek::Data), Err(libc::ENXIO), "only a hole follows");
    assert_eq!(seek(4 * MIB, Seek::Hole), Ok(4 * MIB));
    assert_eq!((seek(5 * MIB, Seek::Data), seek(5 * MIB, Seek::Hole)), (Err(libc::ENXIO), Err(libc::ENXIO)));
    volume.fs.sync_file(handle).await.unwrap();
    assert_eq!((seek(0, Seek::Data), seek(0, Seek::Hole)), (Ok(0), Ok(5 * MIB)), "the service tells of no holes");
    allocate(&volume, handle, MIB..2 * MIB, Allocation::Zero).await;
    assert_eq!((seek(MIB, Seek::Data), seek(0, Seek::Hole)), (Ok(2 * MIB), Ok(MIB)));
    volume.close(handle).await.unwrap();
}

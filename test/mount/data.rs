//! The less common ways to put bytes into a file and to find them, as programs for a local disk use them: fallocate,
//! lseek for holes, O_DIRECT, shared mappings, O_SYNC, O_APPEND, truncation under readers, and what is refused.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileExt as _, OpenOptionsExt as _},
        },
    },
    path::Path,
    ptr::NonNull,
    thread,
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};

use crate::world;

const MIB: u64 = 1 << 20;
/// What O_DIRECT asks of addresses and sizes on a local disk; programs therefore do it everywhere.
const SECTOR_BYTES: usize = 4096;

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn seek(file: &File, offset: u64, whence: i32) -> Result<u64, Errno> {
    // SAFETY: lseek(2) reads no memory of ours.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset.cast_signed(), whence) };
    Errno::result(found).map(i64::cast_unsigned)
}

/// A shared, writable mapping of a whole file.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(file: &File, length: usize) -> Self {
        // SAFETY: a new mapping at an address of the kernel's choice; unmapped once, in drop.
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(start, libc::MAP_FAILED, "{}", Errno::last());
        Self { start: NonNull::new(start.cast()).unwrap(), length }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        // SAFETY: inside the mapping, which nobody else touches in this process.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len()) };
    }

    fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length);
        // SAFETY: inside the mapping, which nobody changes meanwhile.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset), length) }.to_vec()
    }

    fn sync(&self) {
        // SAFETY: the mapping as mmap(2) returned it.
        let synced = unsafe { libc::msync(self.start.as_ptr().cast(), self.length, libc::MS_SYNC) };
        assert_eq!(synced, 0, "{}", Errno::last());
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping as mmap(2) returned it; no slice of it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[test]
fn fallocate_grows_punches_and_zeroes_also_what_the_kernel_has_cached() {
    let world = world();
    let mount = world.mount(&[]);
    let file = open(&mount.path("f"));
    let mut model: Vec<u8> = (0..3 * MIB).map(|at| (at % 251) as u8 + 1).collect();
    file.write_all_at(&model, 0).unwrap();
    let (keep, punch, zero) = (
        FallocateFlags::FALLOC_FL_KEEP_SIZE,
        FallocateFlags::FALLOC_FL_PUNCH_HOLE,
        FallocateFlags::FALLOC_FL_ZERO_RANGE,
    );
    let read = |length: usize| {
        let mut bytes = vec![0; length];
        let read = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(read);
        let mut rest = Vec::new();
        (&file).seek(SeekFrom::Start(read as u64)).unwrap();
        (&file).read_to_end(&mut rest).unwrap();
        [bytes, rest].concat()
    };
    assert!(read(model.len()) == model);
    let steps = [
        (punch | keep, 1000, MIB as i64),
        (zero | keep, 2 * MIB as i64 + 5, 5000),
        (punch | keep, 3 * MIB as i64 - 10, 4 * MIB as i64),
        (keep, 0, 10 * MIB as i64),
        (FallocateFlags::empty(), MIB as i64, 3 * MIB as i64),
        (zero, 4 * MIB as i64 - 100, 4096),
    ];
    for (mode, offset, length) in steps {
        fallocate(&file, mode, offset, length).unwrap();
        let (start, end) = (offset as usize, (offset + length) as usize);
        if !mode.contains(keep) {
            model.resize(model.len().max(end), 0);
        }
        if mode.intersects(punch | zero) {
            let end = end.min(model.len());
            model[start..end].fill(0);
        }
        assert_eq!(file.metadata().unwrap().len(), model.len() as u64, "{mode:?}");
        assert!(read(model.len()) == model, "after {mode:?} at {offset}");
    }
    for mode in [FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, FallocateFlags::FALLOC_FL_INSERT_RANGE] {
        assert_eq!(fallocate(&file, mode, 0, 4096), Err(Errno::EOPNOTSUPP), "{mode:?}");
    }
    drop(file);
    mount.unmount();
    assert!(world.emulator().get(world.container(), "f").as_deref() == Some(&model[..]));
}

#[test]
fn holes_are_found_by_lseek_and_sparse_copies_are_equal() {
    let world = world();
    let mount = world.mount(&[]);
    let file = open(&mount.path("sparse"));
    file.set_len(10 * MIB).unwrap();
    file.write_all_at(b"island", 4 * MIB).unwrap();
    assert_eq!(seek(&file, 0, libc::SEEK_DATA), Ok(4 * MIB));
    assert_eq!(seek(&file, 4 * MIB, libc::SEEK_HOLE), Ok(4 * MIB + 6));
    assert_eq!(seek(&file, 5 * MIB, libc::SEEK_DATA), Err(Errno::ENXIO));
    assert_eq!(seek(&file, 10 * MIB, libc::SEEK_HOLE), Err(Errno::ENXIO));
    let mut copy = std::process::Command::new("cp");
    copy.args(["--sparse=always", "sparse", "copy"]).current_dir(mount.root());
    world.run(&mut copy, std::time::Duration::from_secs(60)).success();
    drop(file);
    assert!(fs::read(mount.path("copy")).unwrap() == fs::read(mount.path("sparse")).unwrap());
    mount.unmount();
}

#[test]
fn direct_and_buffered_io_on_one_file_see_each_other() {
    let world = world();
    let mount = world.mount(&[]);
    let buffered = open(&mount.path("f"));
    let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(mount.path("f")).unwrap();
    // Aligned, as programs that use O_DIRECT do it.
    let layout = std::alloc::Layout::from_size_align(64 << 10, SECTOR_BYTES).unwrap();
    // SAFETY: a layout of non-zero size; freed at the end of the test with the same layout.
    let memory = unsafe { std::alloc::alloc_zeroed(layout) };
    assert!(!memory.is_null());
    // SAFETY: just allocated, of this size, and used through this slice alone.
    let aligned = unsafe { std::slice::from_raw_parts_mut(memory, layout.size()) };
    for round in 1..6u8 {
        buffered.write_all_at(&vec![round; 256 << 10], 0).unwrap();
        direct.read_exact_at(aligned, 64 << 10).unwrap();
        assert!(aligned.iter().all(|byte| *byte == round), "O_DIRECT reads what was written through the page cache");
        aligned.fill(round + 100);
        direct.write_all_at(aligned, 128 << 10).unwrap();
        let mut seen = vec![0; 256 << 10];
        buffered.read_exact_at(&mut seen, 0).unwrap();
        assert!(seen[..128 << 10].iter().all(|byte| *byte == round));
        assert!(seen[128 << 10..192 << 10].iter().all(|byte| *byte == round + 100), "the page cache is not behind");
    }
    // SAFETY: allocated above with this layout.
    unsafe { std::alloc::dealloc(memory, layout) };
    drop((buffered, direct));
    mount.unmount();
    let blob = world.emulator().get(world.container(), "f").unwrap();
    assert!(
        blob[128 << 10..192 << 10].iter().all(|byte| *byte == 105) && blob[..128 << 10].iter().all(|byte| *byte == 5)
    );
}

#[test]
fn stores_through_a_shared_mapping_are_saved_by_msync_and_by_the_last_close() {
    let world = world();
    let mount = world.mount(&[]);
    let file = open(&mount.path("mapped"));
    file.set_len(3 * MIB + 100).unwrap();
    let mapping = Mapping::new(&file, (3 * MIB + 100) as usize);
    mapping.write(MIB as usize - 3, b"across pages");
    file.write_all_at(b"by write", 50).unwrap();
    assert_eq!(mapping.read(50, 8), b"by write");
    let mut seen = [0; 12];
    file.read_exact_at(&mut seen, MIB - 3).unwrap();
    assert_eq!(&seen, b"across pages");
    mapping.sync();
    let saved = || world.emulator().get(world.container(), "mapped").unwrap();
    let found = saved();
    assert_eq!((found.len() as u64, &found[MIB as usize - 3..][..12]), (3 * MIB + 100, &b"across pages"[..]));
    // The descriptor goes first: what is stored after that is saved when the mapping goes.
    drop(file);
    mapping.write(3 * MIB as usize + 90, b"at the end");
    drop(mapping);
    mount.unmount();
    assert_eq!(&saved()[3 * MIB as usize + 90..], b"at the end");
}

/// Pages of a mapping are written back through any handle of the file, here one that appends.
#[test]
fn a_mapping_beside_an_appending_handle_writes_to_its_own_place() {
    let world = world();
    let mount = world.mount(&[]);
    fs::write(mount.path("f"), vec![b'.'; 8192]).unwrap();
    let appender = OpenOptions::new().read(true).append(true).open(mount.path("f")).unwrap();
    let file = open(&mount.path("f"));
    let mapping = Mapping::new(&file, 8192);
    drop(file);
    mapping.write(10, b"mapped");
    (&appender).write_all(b"appended").unwrap();
    mapping.sync();
    drop(mapping);
    appender.sync_all().unwrap();
    drop(appender);
    mount.unmount();
    let blob = world.emulator().get(world.container(), "f").unwrap();
    assert_eq!((blob.len(), &blob[10..16], &blob[8192..]), (8200, &b"mapped"[..], &b"appended"[..]));
}

#[test]
fn synchronous_writes_are_on_the_service_when_they_return() {
    let world = world();
    let mount = world.mount(&[]);
    for (name, flags) in [("sync", libc::O_SYNC), ("dsync", libc::O_DSYNC)] {
        let path = mount.path(name);
        let file = OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(&path).unwrap();
        file.write_all_at(b"saved", 3).unwrap();
        assert_eq!(world.emulator().get(world.container(), name).as_deref(), Some(&b"\0\0\0saved"[..]), "{name}");
    }
    let file = open(&mount.path("rwf"));
    let write = |bytes: &[u8], offset: i64, flags: i32| {
        let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: one part that lives through the call, which only reads it.
        let written = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, offset, flags) };
        assert_eq!(written, bytes.len() as isize, "{}", Errno::last());
    };
    write(b"lazy", 0, 0);
    assert_eq!(world.emulator().get(world.container(), "rwf"), None, "nobody asked for it");
    write(b"now", 4, libc::RWF_DSYNC);
    assert_eq!(world.emulator().get(world.container(), "rwf").as_deref(), Some(&b"lazynow"[..]));
    drop(file);
    mount.unmount();
}

#[test]
fn records_appended_by_many_descriptors_at_once_are_all_there_and_whole() {
    let world = world();
    let mount = world.mount(&[]);
    let path = mount.path("log");
    fs::write(&path, b"").unwrap();
    thread::scope(|scope| {
        for writer in 0..8u8 {
            let path = &path;
            scope.spawn(move || {
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                for number in 0..200 {
                    let mut line = format!("{writer} {number:04} ").into_bytes();
                    line.resize(79, b'a' + writer);
                    line.push(b'\n');
                    file.write_all(&line).unwrap();
                }
            });
        }
    });
    mount.unmount();
    let blob = world.emulator().get(world.container(), "log").unwrap();
    let mut next = [0; 8];
    for line in blob.chunks(80) {
        let writer = usize::from(line[0] - b'0');
        assert!(
            line.starts_with(format!("{writer} {:04} ", next[writer]).as_bytes()) && line.ends_with(b"\n"),
            "{line:?}"
        );
        next[writer] += 1;
    }
    assert_eq!(next, [200; 8]);
}

#[test]
fn what_cannot_be_is_refused_with_the_errno_that_programs_know() {
    let world = world();
    let mount = world.mount(&[]);
    let nameless = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(mount.root()).unwrap_err();
    assert_eq!(nameless.raw_os_error(), Some(libc::EOPNOTSUPP), "O_TMPFILE");
    let file = open(&mount.path("f"));
    assert_eq!(file.write_all_at(b"x", 4 << 40).unwrap_err().raw_os_error(), Some(libc::EFBIG));
    assert_eq!(file.set_len((4 << 40) + 1).unwrap_err().raw_os_error(), Some(libc::EFBIG));
    assert_eq!(fallocate(&file, FallocateFlags::empty(), 4 << 40, 1), Err(Errno::EFBIG));
    assert_eq!(file.metadata().unwrap().len(), 0);
    // The kernel's part: nothing behind the limit of the process is written.
    let tool = "ulimit -f 8; trap '' XFSZ; head -c 100000 /dev/zero > limited";
    let limited = std::process::Command::new("sh").args(["-c", tool]).current_dir(mount.root()).status().unwrap();
    assert!(!limited.success());
    let limit = fs::metadata(mount.path("limited")).unwrap().len();
    assert!(limit == 4096 || limit == 8192, "{limit}: 8 blocks of 512 or 1024 bytes");
    drop(file);
    mount.unmount();
}

/// A reader whose size is a moment older than the cut sees zeros behind it (the kernel fills its page up), and never other
/// bytes.
#[test]
fn truncation_by_path_and_by_descriptor_is_exact_while_others_read() {
    let world = world();
    let mount = world.mount(&[]);
    let path = mount.path("f");
    let full: Vec<u8> = (0..2 * MIB).map(|at| (at / 4096 % 250) as u8 + 1).collect();
    fs::write(&path, &full).unwrap();
    let cuts = [MIB + 17, 5000, 1, 0];
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let file = File::open(&path).unwrap();
            let mut bytes = vec![0; full.len()];
            loop {
                let read = file.read_at(&mut bytes, 0).unwrap();
                let kept = bytes[..read].iter().zip(&full).take_while(|(read, full)| read == full).count();
                assert!(bytes[kept..read].iter().all(|byte| *byte == 0), "other bytes behind {kept} of {read}");
                if read == 0 {
                    return;
                }
            }
        });
        let file = open(&path);
        for (at, cut) in cuts.into_iter().enumerate() {
            if at % 2 == 0 {
                file.set_len(cut).unwrap();
            } else {
                let name = CString::new(path.as_os_str().as_bytes()).unwrap();
                // SAFETY: a NUL-terminated path that lives through the call.
                assert_eq!(unsafe { libc::truncate(name.as_ptr(), cut.cast_signed()) }, 0, "{}", Errno::last());
            }
            assert_eq!(file.metadata().unwrap().len(), cut);
            assert_eq!(fs::read(&path).unwrap(), &full[..cut as usize]);
        }
        reader.join().unwrap();
        file.set_len(10_000).unwrap();
        assert_eq!(fs::read(&path).unwrap(), vec![0; 10_000], "what was cut never comes back");
        assert_eq!(file.read_at(&mut [0; 10], 10_000).unwrap(), 0, "nothing behind the end");
    });
    mount.unmount();
    assert_eq!(world.emulator().get(world.container(), "f").unwrap(), vec![0; 10_000]);
}

/// coreutils' cp asks for copy_file_range(2).
#[test]
fn cp_of_a_gibibyte_moves_less_than_a_hundredth_of_it_through_the_client() {
    let world = world();
    const BYTES: usize = 1 << 30;
    let byte = |at: usize| (at / 65_521) as u8;
    world.emulator().put(world.container(), "source", (0..BYTES).map(byte).collect::<Vec<u8>>(), &[]).unwrap();
    let mount = world.mount(&[]);
    let moved = || {
        let counters = world.emulator().counters();
        counters.operations.values().map(|operation| operation.bytes_in + operation.bytes_out).sum::<u64>()
    };
    let before = moved();
    let mut cp = std::process::Command::new("cp");
    cp.args(["--reflink=auto", "source", "copy"]).current_dir(mount.root());
    world.run(&mut cp, std::time::Duration::from_secs(120)).success();
    let cost = moved() - before;
    assert!(cost < BYTES as u64 / 100, "{cost} bytes were moved");
    assert_eq!(fs::metadata(mount.path("copy")).unwrap().len(), BYTES as u64);
    let mut part = vec![0; 1 << 20];
    File::open(mount.path("copy")).unwrap().read_exact_at(&mut part, 700 << 20).unwrap();
    assert!(part.iter().enumerate().all(|(at, found)| *found == byte((700 << 20) + at)));
    mount.unmount();
    let copy = world.emulator().get(world.container(), "copy").unwrap();
    assert!(copy.len() == BYTES && copy.iter().enumerate().all(|(at, found)| *found == byte(at)));
}

//! What is asked about files and volumes beside names and bytes: extended attributes, statfs.

use std::{
    ffi::{CStr, CString},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use nix::errno::Errno;

use crate::world;

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn set(path: &Path, name: &CStr, value: &[u8], flags: libc::c_int) -> Result<(), Errno> {
    let path = text(path);
    // SAFETY: texts end with NUL and, like the value, live through the call.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    Errno::result(done).map(drop)
}

fn get(path: &Path, name: &CStr) -> Result<Vec<u8>, Errno> {
    let (path, mut value) = (text(path), vec![0; 1000]);
    // SAFETY: texts end with NUL; the buffer is as long as is said.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(Errno::result(length)?).unwrap());
    Ok(value)
}

/// Names, each behind the NUL of the one before.
fn list(path: &Path) -> Vec<u8> {
    let (path, mut names) = (text(path), vec![0; 1000]);
    // SAFETY: the text ends with NUL; the buffer is as long as is said.
    let length = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(Errno::result(length).unwrap()).unwrap());
    names
}

#[test]
fn extended_attributes_are_set_read_listed_removed_and_metadata_of_the_blob() {
    let world = world();
    let mount = world.mount(&[]);
    let path = mount.path("f");
    fs::write(&path, b"bytes").unwrap();
    set(&path, c"user.author", b"Jane Doe", libc::XATTR_CREATE).unwrap();
    assert_eq!(set(&path, c"user.author", b"x", libc::XATTR_CREATE), Err(Errno::EEXIST));
    assert_eq!(set(&path, c"user.other", b"x", libc::XATTR_REPLACE), Err(Errno::ENODATA));
    set(&path, c"user.odd name", &[0, 255, 10], 0).unwrap();
    assert_eq!(get(&path, c"user.author").unwrap(), b"Jane Doe");
    assert_eq!(get(&path, c"user.odd name").unwrap(), [0, 255, 10]);
    assert_eq!(get(&path, c"user.other"), Err(Errno::ENODATA));
    let names = list(&path);
    for name in ["user.author", "user.odd name"] {
        assert!(names.split(|byte| *byte == 0).any(|listed| listed == name.as_bytes()), "{name}: {names:?}");
    }
    let metadata = || world.emulator().metadata(world.container(), "f").unwrap();
    assert_eq!(metadata().get("author").map(String::as_str), Some("Jane Doe"));
    // SAFETY: texts that end with NUL and live through the call.
    let removed = unsafe { libc::removexattr(text(&path).as_ptr(), c"user.author".as_ptr()) };
    assert_eq!(Errno::result(removed), Ok(0));
    assert_eq!(get(&path, c"user.author"), Err(Errno::ENODATA));
    assert_eq!(metadata().get("author"), None);
    assert_eq!(fs::read(&path).unwrap(), b"bytes");
    mount.unmount();
}

#[test]
fn statfs_and_stat_answer_for_a_volume_and_its_files() {
    let world = world();
    let mount = world.mount(&[]);
    fs::write(mount.path("f"), vec![1; 10_000]).unwrap();
    let volume = nix::sys::statvfs::statvfs(mount.root()).unwrap();
    assert!(volume.blocks() > 0 && volume.blocks_available() > 0, "it looks full: {volume:?}");
    assert!(volume.name_max() >= 255, "{volume:?}");
    let file = fs::metadata(mount.path("f")).unwrap();
    assert_eq!((file.size(), file.nlink()), (10_000, 1));
    assert_eq!(file.dev(), fs::metadata(mount.root()).unwrap().dev());
    assert!(file.blocks() * 512 >= 10_000, "du shows nothing: {file:?}");
    mount.unmount();
}

//! Trees of files as a map that can be compared.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use md5::{Digest as _, Md5};

/// MD5 of a file's bytes, as md5sum prints it.
#[must_use]
pub fn md5_of(path: &Path) -> String {
    let mut file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut hash = Md5::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if read == 0 {
            return hex(&hash.finalize());
        }
        hash.update(&buffer[..read]);
    }
}

/// MD5 of bytes.
#[must_use]
pub fn md5_of_bytes(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

/// Every file and link below `root` by its relative path: the MD5 of a file, `-> target` of a link, `/` of a directory.
#[must_use]
pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let what = match kind.file_type() {
                kind if kind.is_symlink() => format!("-> {}", fs::read_link(&path).unwrap().display()),
                kind if kind.is_dir() => "/".to_owned(),
                kind if kind.is_socket() || kind.is_fifo() => "special".to_owned(),
                _ => md5_of(&path),
            };
            let name = path.strip_prefix(root).unwrap().to_owned();
            if what == "/" {
                directories.push(path);
            }
            found.insert(name, what);
        }
    }
    found
}

/// Fails unless both trees are the same, naming the first differences only: trees are long.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let (left, right) = (tree(one), tree(other));
    let differ: Vec<_> = left
        .keys()
        .chain(right.keys())
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| (name, left.get(name), right.get(name)))
        .take(5)
        .collect();
    assert!(differ.is_empty(), "{} and {} differ: {differ:#?}", one.display(), other.display());
    assert!(!left.is_empty(), "{} is empty", one.display());
}

/// `length` bytes that look random, compress badly and are the same for the same seed.
#[must_use]
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    // SplitMix64: each word is a hash of its number, so that no two blocks of a file are equal.
    let word = |index: u64| {
        let mut x = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)).to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8) as u64).flat_map(word).collect();
    bytes.truncate(length);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

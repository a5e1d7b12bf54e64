//! Tables by numbers that we count out ourselves: nobody chooses them to make a table slow, so one multiplication spreads them.
//! (std's SipHash was 5 % of the processor time of listing 100,000 names.)

use std::hash::{BuildHasherDefault, Hasher};

/// A table whose keys are inode numbers or handles.
pub(super) type ByNumber<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// 2^64 divided by the golden ratio, made odd: numbers that follow each other come to lie far apart in the upper bits, which
/// the table compares first, and side by side in no more of the lower ones than there are (Knuth, TAOCP 3, 6.4).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// See the module's doc.
#[derive(Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(SPREAD);
    }

    /// Nothing else is ever hashed here; right nevertheless.
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

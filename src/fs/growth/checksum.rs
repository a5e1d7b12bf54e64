//! Checksums of blocks in their ids, and of stretches of a file put together from those of its blocks: two versions are
//! compared without reading them. CRC64 as the service computes it (the NVME polynomial). Pure.
//!
//! The checksum of A followed by B is that of A, taken through as many zero bits as B has, exclusive-or that of B. Taking a
//! checksum through zeros is linear, so a 64 by 64 matrix of bits does it, squared once for every doubling of the length.

use std::ops::Range;

use crc64fast_nvme::Digest;

use crate::{blob::CommittedBlock, fs::stage::checksum_of};

/// The polynomial with its bits reversed, as the register shifts right.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

/// Column `n`: what becomes of bit `n` of a checksum.
type Matrix = [u64; 64];

/// The checksum of slices, one behind the other.
#[must_use]
pub fn of_slices<'a>(slices: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut digest = Digest::new();
    slices.for_each(|slice| digest.write(slice));
    digest.sum64()
}

/// The checksum of `range`, where it begins and ends with a block and the ids of all blocks in it hold theirs.
#[must_use]
pub fn of_blocks(blocks: &[CommittedBlock], range: &Range<u64>) -> Option<u64> {
    let (mut position, mut sum) = (0, 0);
    for block in blocks {
        let end = position + block.length;
        if position >= range.end {
            break;
        }
        if position >= range.start {
            sum = join(sum, checksum_of(&block.id)?, block.length);
        } else if end > range.start {
            return None;
        }
        position = end;
    }
    (position == range.end).then_some(sum)
}

/// The checksum of two stretches, the second of `length` bytes. That of no byte is 0.
#[must_use]
pub fn join(first: u64, second: u64, length: u64) -> u64 {
    let mut sum = first;
    let mut bytes = length;
    let mut power = zero_byte();
    while bytes > 0 {
        if bytes & 1 == 1 {
            sum = times(&power, sum);
        }
        bytes >>= 1;
        if bytes > 0 {
            power = square(&power);
        }
    }
    sum ^ second
}

/// One zero byte: eight zero bits.
fn zero_byte() -> Matrix {
    let mut bit: Matrix = std::array::from_fn(|n| if n == 0 { POLYNOMIAL } else { 1 << (n - 1) });
    for _ in 0..3 {
        bit = square(&bit);
    }
    bit
}

fn times(matrix: &Matrix, vector: u64) -> u64 {
    matrix.iter().enumerate().fold(0, |sum, (n, column)| if vector >> n & 1 == 1 { sum ^ column } else { sum })
}

fn square(matrix: &Matrix) -> Matrix {
    matrix.map(|column| times(matrix, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u64 {
        of_slices(std::iter::once(bytes))
    }

    #[test]
    fn the_checksum_of_two_stretches_is_that_of_their_bytes() {
        let bytes: Vec<u8> = (0..200_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for cut in [0, 1, 7, 8, 4096, 65_537, 199_999, 200_000] {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(join(sum(first), sum(second), second.len() as u64), sum(&bytes), "cut at {cut}");
        }
        assert_eq!(join(0, sum(b"x"), 1), sum(b"x"), "no byte before");
    }
}

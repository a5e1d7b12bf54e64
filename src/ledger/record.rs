//! One record, as it lies in memory.

use super::Section;

/// Bytes in front of the value.
const HEAD_BYTES: usize = 24;

/// Whether a value is put or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Remove,
}

/// See the module's doc of [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub section: Section,
    pub kind: Kind,
    pub key: u64,
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Bytes that it takes, a multiple of eight.
    pub(super) fn len(&self) -> u64 {
        padded(self.value.len()) as u64
    }

    /// Writes it to `target`, which has [`Self::len`] bytes.
    pub(super) fn write(&self, target: &mut [u8]) {
        let kind: u16 = match self.kind {
            Kind::Put => 1,
            Kind::Remove => 2,
        };
        // A value is a path or a few numbers; one of 4 GiB would not fit an area either.
        let length = u32::try_from(self.value.len()).unwrap_or(u32::MAX);
        target[8..12].copy_from_slice(&length.to_le_bytes());
        target[12..14].copy_from_slice(&self.section.0.to_le_bytes());
        target[14..16].copy_from_slice(&kind.to_le_bytes());
        target[16..24].copy_from_slice(&self.key.to_le_bytes());
        let (value, padding) = target[HEAD_BYTES..].split_at_mut(self.value.len());
        value.copy_from_slice(self.value);
        padding.fill(0);
        let check = checksum(&target[8..]);
        target[..8].copy_from_slice(&check.to_le_bytes());
    }

    /// The record that `bytes` begin with; `None` if they do not begin with one.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let (check, lengths, key) = (number(0)?, number(8)?, number(16)?);
        let length = usize::try_from(lengths & u64::from(u32::MAX)).ok()?;
        let whole = bytes.get(..padded(length))?;
        if checksum(&whole[8..]) != check {
            return None;
        }
        let kind = match lengths >> 48 {
            1 => Kind::Put,
            2 => Kind::Remove,
            _ => return None,
        };
        let section = Section((lengths >> 32) as u16);
        Some(Self { section, kind, key, value: &whole[HEAD_BYTES..HEAD_BYTES + length] })
    }
}

fn padded(value: usize) -> usize {
    (HEAD_BYTES + value).next_multiple_of(8)
}

/// The checksum that the service uses for its bodies too; its crate has the processor's instructions for it.
fn checksum(bytes: &[u8]) -> u64 {
    let mut digest = crc64fast_nvme::Digest::new();
    digest.write(bytes);
    digest.sum64()
}

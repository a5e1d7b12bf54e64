//! What a container of a hierarchical account (Data Lake Storage Gen2) can do beside what every container can:
//! directories, renames in one step, modes and access lists. The contract only; plain data in and out.

use std::fmt;

use async_trait::async_trait;

use super::{BlobName, Committed, Condition, ETag, Metadata, Result};

/// The metadata by which the Blob endpoint tells that a blob is a directory, on either sort of account.
pub const DIRECTORY_MARK: &str = "hdi_isfolder";

/// Permission bits that the service keeps: read, write, execute of three classes, and the sticky bit.
pub const MODE_BITS: u32 = 0o1777;

/// Who may do what with a path, in the service's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessControl {
    /// Object id, user principal name or `$superuser`.
    pub owner: String,
    /// The same of a group.
    pub group: String,
    /// `rwxr-x---`, with a `+` where the list names more than owner, group and others.
    pub permissions: String,
    /// `user::rwx,group::r-x,other::---,default:...`.
    pub list: String,
}

/// A container whose account is hierarchical. What [`super::BlobStore`] promises (each change reported once, deadlines,
/// retries) holds here too.
#[async_trait]
pub trait HierarchicalStore: Send + Sync + fmt::Debug {
    /// Gives a file, or a directory with everything below it, another name, at once. `source_version`: only this version
    /// (files). Returns the new version where the service names one; the documents do not say that a rename makes one.
    ///
    /// # Errors
    /// `NotFound` (no source; or no parent of the new name: code `RenameDestinationParentPathNotFound`), `Precondition`
    /// when the source is not `source_version`, `destination` does not hold, or another sort of thing is there;
    /// `NotEmpty` for a directory with something in it at the new name; `Blocked` (lease).
    async fn rename(
        &self,
        source: &BlobName,
        source_version: Option<&ETag>,
        name: &BlobName,
        destination: &Condition,
    ) -> Result<Option<Committed>>;

    /// Makes a directory, and the missing ones above it. `mode`: [`MODE_BITS`] of it, whatever the service's umask.
    ///
    /// # Errors
    /// `Precondition` when it must not exist and does, or when a file is in the way.
    async fn create_directory(
        &self,
        name: &BlobName,
        mode: u32,
        metadata: &Metadata,
        condition: &Condition,
    ) -> Result<Committed>;

    /// Deletes a directory; `recursive`: with everything below it.
    ///
    /// # Errors
    /// `NotFound`; `NotEmpty` unless recursive; `Blocked` (leases).
    async fn delete_directory(&self, name: &BlobName, recursive: bool) -> Result<()>;

    /// Sets [`MODE_BITS`], as chmod(2) does: where the access list names more than owner, group and others, the group's
    /// bits set its mask.
    ///
    /// # Errors
    /// `NotFound`, `Precondition`; `Denied` where the credential may not (SAS without `p`, role without ownership).
    async fn set_mode(&self, name: &BlobName, mode: u32, condition: &Condition) -> Result<Committed>;

    /// Owner, group, permissions and access list.
    ///
    /// # Errors
    /// `NotFound`, `Denied`.
    async fn access_control(&self, name: &BlobName) -> Result<AccessControl>;

    /// Replaces the access list.
    ///
    /// # Errors
    /// As [`Self::set_mode`]; `Invalid` for a text that is no list.
    async fn set_access_list(&self, name: &BlobName, list: &str, condition: &Condition) -> Result<Committed>;
}

/// The mode that a permissions text of the service means: `rwxr-x--t+` is 0o1751.
#[must_use]
pub fn parse_permissions(text: &str) -> Option<u32> {
    let text = text.strip_suffix('+').unwrap_or(text);
    if text.len() != 9 {
        return None;
    }
    let mut mode = 0;
    for (position, (letter, full)) in text.chars().zip("rwxrwxrwx".chars()).enumerate() {
        let bit = 1 << (8 - position);
        mode |= match letter {
            '-' => 0,
            letter if letter == full => bit,
            't' if position == 8 => bit | 0o1000,
            'T' if position == 8 => 0o1000,
            _ => return None,
        };
    }
    Some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_of_the_service_are_modes() {
        for (text, mode) in [
            ("rwxr-x---", Some(0o750)),
            ("rw-rw-r--+", Some(0o664)),
            ("rwxrwxrwt", Some(0o1777)),
            ("--------T", Some(0o1000)),
            ("rwx", None),
            ("tttttttttt", None),
            ("xwrxwrxwr", None),
        ] {
            assert_eq!(parse_permissions(text), mode, "{text}");
        }
    }
}

//! The keeper: a tiny process that holds descriptors for others, so that what they stand for outlives whoever made them.
//!
//! A FUSE connection lives as long as one descriptor of it is open (fuse_dev_release of fs/fuse/dev.c aborts it with the
//! last), and a memory file likewise. The process that serves a mount gives the keeper a duplicate of both; when it is
//! killed or replaced, the next one takes them from there and goes on. The keeper never reads what it holds, never does I/O
//! on a mount and knows nothing of volumes, so it has no reason to change, and none to be restarted. All that it writes are
//! notifications to the kernel on a server's behalf, which must not hold up that server's end (`notification`).
//!
//! | to understand | read |
//! |---|---|
//! | what is said | `protocol` |
//! | how a message and its descriptors travel | `packet` |
//! | who holds what, and for how long | `shelf` (pure) |
//! | what it tells the kernel for others | [`notification`] |
//! | the two ends | `server`, `client` |
//!
//! ```text
//! client                        keeper
//!   Hello{group} ────────────────►   one at a time for each group: Welcome, or Busy{pid}
//!   Keep{key, note} + descriptors ►   Done
//!   Fetch ───────────────────────►   Item{key, note} + descriptors, for each; Done
//!   Drop{key} ───────────────────►   Done
//!   Tell{message} + device ───────►   Told{errno}, when the kernel has taken it; on a connection without a group
//!   (the connection ends)            the group is free; what nobody comes for is let go after a time
//! ```

mod client;
pub mod notification;
mod packet;
mod protocol;
mod server;
mod shelf;
#[cfg(test)]
mod tests;

pub use client::{Claim, Error, Teller};
pub use server::{Keeper, Settings};
pub use shelf::Item;

/// How long the keeper holds what no process has come for: then its last descriptors close, the kernel ends these
/// connections, and whoever waits in such a mount gets an error and no longer hangs.
pub const ABANDON_AGE_DEFAULT: std::time::Duration = std::time::Duration::from_secs(600);

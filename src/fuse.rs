//! The thin adapter between the kernel's FUSE requests and [`crate::fs`]. Decides nothing about files.
//!
//! | file | what it is for |
//! |---|---|
//! | `mount` | opens /dev/fuse and calls mount(2); turns each refusal into a sentence with the fix |
//! | `connection` | the kernel's side of a mounted session: its device number, tuning, abort |
//! | [`handshake`] | what kernel and server agree on, and how another server goes on with it |
//! | [`session`](Session) | threads that serve one mount; unmounting without losing data |
//! | `origin` | a mount that is made, or that another process has left |
//! | `adapter` | one short method a request |
//! | `listed` | readdirplus: entries with their attributes |
//! | `convert` | the kernel's types to ours and back |
//! | `dispatch` | runs an operation at once where it needs nobody, else as a task; panics become EIO |
//! | `gate` | how its threads stop when the process leaves the mount to the next one |
//! | `lock_caller` | which call a locking thread is in, and whether a signal ends its wait |
//! | `name_copies` | directories that the kernel reads again by itself |
//! | `open_handles` | what one kernel has open, to release what it forgets at the end |
//! | `receive` | the buffers into which requests are read: mapped, and resident where a request comes to lie |
//! | `passthrough` | files that the kernel reads from the node's disk without us |
//! | `notifier` | tells the kernel what changed behind its back |
//!
//! The process must never hold a descriptor, or call stat(2), inside one of its own mounts: it would wait for itself.
//! (`gate` asks on threads that may wait until the process ends.)

mod adapter;
mod connection;
mod convert;
mod dispatch;
mod error;
mod gate;
pub mod handshake;
mod listed;
mod lock_caller;
mod mount;
mod name_copies;
mod notifier;
mod open_handles;
mod origin;
mod passthrough;
mod receive;
mod session;

pub use error::Error;
pub use notifier::Tell;
pub use origin::{Connected, Keep};
pub use receive::Allocator;
pub use session::{Session, SessionOptions};

#[cfg(test)]
mod tests;

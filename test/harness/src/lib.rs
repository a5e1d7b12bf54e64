//! What the integration tests share: a [`World`] with an emulator and a directory, [`Mount`]s of the real binary in it,
//! and [`program`]s with deadlines. Every scenario ends with the same invariants, checked when the world is dropped: no
//! mount is left, and no secret stands in any output. A test that panics leaves no mount and no process behind either.
//!
//! Knows the driver only as a program: nothing here links against it.

// A harness fails a test by panicking, with what it saw.
#![expect(clippy::unwrap_used, reason = "a test's machinery fails the test by panicking")]

mod account;
mod azurite;
mod keeper;
mod kept;
mod length;
mod mount;
pub mod mountinfo;
pub mod program;
mod role;
mod secret;
pub mod tree;
mod world;

pub use account::{account_settings, run_hierarchical};
pub use azurite::Azurite;
pub use keeper::Keeper;
pub use kept::Kept;
pub use length::{Length, length};
pub use mount::Mount;
pub use program::{Finished, run};
pub use role::Ended;
pub use secret::assert_no_secret;
pub use world::World;

//! The locks, atomics, tasks and clocks of the concurrent core, from one place, so that a model checker's can stand in for
//! them: with the feature `shuttle`, every point where threads meet is one where the checker may switch.
//!
//! The rooms `fs` and `cache` import from here and never from `std::sync`, `parking_lot` or `tokio`. Nothing but re-exports
//! belongs here. parking_lot's locks are used because they cannot be poisoned: a panic in one operation is caught and
//! answered as an I/O error (DESIGN 7), and must not make every later operation fail as well.

#[cfg(not(feature = "shuttle"))]
pub use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(feature = "shuttle")]
pub use shuttle::sync::atomic::{self, AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(feature = "shuttle")]
pub use shuttle_parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(feature = "shuttle")]
pub use shuttle_tokio as tokio;
#[cfg(not(feature = "shuttle"))]
pub use std::sync::atomic::{self, AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub use std::sync::{Arc, OnceLock, Weak};
#[cfg(not(feature = "shuttle"))]
pub use tokio;

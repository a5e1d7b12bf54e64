//! The locks and atomics of the concurrent core, from one place, so that a model checker's can stand in for them.
//!
//! Rooms import from here and never from `std::sync` or `parking_lot`. Nothing but re-exports belongs here.
//! parking_lot's locks are used because they cannot be poisoned: a panic in one operation is caught and answered as an
//! I/O error (DESIGN 7), and must not make every later operation fail as well.

pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{self, AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

//! Memory that the host has really given us.
//!
//! A machine that hands its free memory back to the host pays for the first touch of each page again: a cold read fell from
//! 750 to 225 MiB/s for that alone. So this holds memory that was touched, and lets go of as much as a job takes while it
//! takes it: what the kernel gives out then is what was freed last. Knows nothing of jobs.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::process::memory_bytes;

/// What is taken and given at once.
const PIECE_BYTES: usize = 48 << 20;
/// Warm memory that lies free while a job runs: what it takes between two looks.
const READY_BYTES: u64 = 256 << 20;
/// How often we look at what was taken. Hosts get free pages back after seconds, not milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Pages that were written to. Larger than what the allocator keeps for itself (32 MiB, mallopt(3)): it goes back to the
/// kernel at once.
struct Piece(#[expect(dead_code, reason = "what counts is that it is there")] Vec<u8>);

impl Piece {
    fn touched() -> Self {
        Self(vec![1; PIECE_BYTES])
    }
}

/// See the module's doc.
pub struct Warmth {
    held: Arc<Mutex<Vec<Piece>>>,
    bytes: u64,
}

impl Warmth {
    /// Nothing is held until [`Warmth::take`]; then up to `bytes`, and never over a third of what is free.
    pub fn new(bytes: u64) -> Self {
        Self { held: Arc::default(), bytes }
    }

    /// Takes memory until as much is held as was asked for.
    pub fn take(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let have = (held.len() * PIECE_BYTES) as u64;
        let most = self.bytes.min((memory_bytes("MemAvailable") + have) / 3);
        while ((held.len() + 1) * PIECE_BYTES) as u64 <= most {
            held.push(Piece::touched());
        }
    }

    /// Lets go while the value lives, as fast as free memory is taken.
    pub fn melt(&self) -> Melting {
        let over = Arc::new(AtomicBool::new(false));
        let (held, told) = (Arc::clone(&self.held), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let let_go = |bytes: u64| {
                let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                let keep = held.len().saturating_sub(bytes.div_ceil(PIECE_BYTES as u64) as usize);
                held.truncate(keep);
            };
            let_go(READY_BYTES);
            let mut free = memory_bytes("MemFree");
            while !told.load(Ordering::Relaxed) {
                thread::sleep(LOOK_EVERY);
                let now = memory_bytes("MemFree");
                // Less free than it was: as much more is let go, so that the amount of warm memory stays.
                if let Some(taken) = free.checked_sub(now).filter(|taken| *taken >= PIECE_BYTES as u64) {
                    let_go(taken);
                } else {
                    free = free.max(now);
                }
            }
        });
        Melting { over, thread: Some(thread) }
    }
}

/// While it lives, memory is let go.
pub struct Melting {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Melting {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

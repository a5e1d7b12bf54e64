//! The service and its link, and the data of the jobs. Shared by ceilings and mounts, so that both see the same.

use std::time::Duration;

use anyhow::Result;
use blob_emulator::{Emulator, Settings};
use bytes::Bytes;
use reqwest::Client;

use super::http::{block_on, commit, put_block};

/// Time to the first byte and speed of a connection: what a node in the region of its account sees of Azure.
const LATENCY: Duration = Duration::from_millis(10);
const BYTES_PER_SECOND_PER_CONNECTION: u64 = 60 << 20;
/// The container of the jobs.
pub const CONTAINER: &str = "bench";
/// The large file.
pub const LARGE: &str = "large.bin";
/// A file that no cache can hold: the large one over and over, as one block committed many times.
pub const HUGE: &str = "huge.bin";
/// Its length at least: 32 times the default memory of a mount.
const HUGE_BYTES_MIN: usize = 16 << 30;
/// Small files, for jobs about names.
pub const SMALL_FILES: usize = 1000;
/// Bytes in each of them.
pub const SMALL_BYTES: usize = 4096;

/// See the module's doc.
pub struct Link {
    /// The service.
    pub emulator: Emulator,
    /// Bytes of the large file.
    pub data: Bytes,
}

impl Link {
    /// Starts the service with a large file of `bytes` bytes and the small files.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(bytes: usize) -> Result<Self> {
        // Without credentials: the bare client of the ceilings needs none, and signing is not what is compared.
        let settings = Settings { auth: false, ..Settings::default() };
        let link = Self { emulator: Emulator::start(settings)?, data: random(bytes) };
        link.emulator.create_container(CONTAINER);
        link.emulator.put(CONTAINER, LARGE, link.data.clone(), &[])?;
        block_on(async {
            let (client, url) = (Client::new(), format!("{}/{HUGE}", link.url()));
            put_block(&client, &url, 0, link.data.clone()).await?;
            commit(&client, &url, std::iter::repeat_n(0, link.repeats())).await
        })?;
        for index in 0..SMALL_FILES {
            link.emulator.put(CONTAINER, &small_name(index), link.small(index), &[])?;
        }
        link.emulator.settings(|settings| {
            settings.latency = LATENCY;
            settings.per_connection = Some(BYTES_PER_SECOND_PER_CONNECTION);
        });
        Ok(link)
    }

    /// URL of the container.
    pub fn url(&self) -> String {
        format!("{}/{CONTAINER}", self.emulator.endpoint())
    }

    fn repeats(&self) -> usize {
        HUGE_BYTES_MIN.div_ceil(self.data.len())
    }

    /// A place in the huge file for a random number, and the `bytes` bytes that are there.
    pub fn random_place(&self, random: u64, bytes: usize) -> (u64, Bytes) {
        let within = random as usize % (self.data.len() - bytes);
        // Other bits than those that chose the place inside.
        let repeat = (random >> 40) % self.repeats() as u64;
        (repeat * self.data.len() as u64 + within as u64, self.data.slice(within..within + bytes))
    }

    /// Bytes of a small file.
    pub fn small(&self, index: usize) -> Bytes {
        let at = (index * SMALL_BYTES) % (self.data.len() - SMALL_BYTES);
        self.data.slice(at..at + SMALL_BYTES)
    }

    /// What is measured on.
    pub fn describe(&self) -> String {
        format!(
            "{} ms to the first byte, {} MiB/s a connection, files of {} MiB",
            LATENCY.as_millis(),
            BYTES_PER_SECOND_PER_CONNECTION >> 20,
            self.data.len() >> 20
        )
    }
}

/// Name of a small file.
pub fn small_name(index: usize) -> String {
    format!("small/file-{index:04}")
}

/// Bytes without a pattern (xorshift64*), so that no layer gets away with guessing.
fn random(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut data = Vec::with_capacity(bytes);
    while data.len() < bytes {
        data.extend_from_slice(&next(&mut state).to_le_bytes());
    }
    data.truncate(bytes);
    Bytes::from(data)
}

/// The next random number.
pub fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

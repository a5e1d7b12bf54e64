//! `azblob-csi keeper`: holds what the mounts of other processes live on while those are replaced ([`crate::keeper`]).
//!
//! Prints `ready` on stdout once it listens. SIGTERM and SIGINT end it, and what it held goes with it; mounts whose process lives
//! go on. It has no runtime, no network and no volume: what it needs is a thread that sleeps.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use nix::sys::signal::{SigSet, Signal};

use super::Failure;
use crate::{
    keeper::{Keeper, Settings},
    volume::options::parse_duration,
};

const EXAMPLES: &str = "\
Examples:
  azblob-csi keeper --socket /run/azblob-csi/keeper.sock
  azblob-csi keeper --socket /run/azblob-csi/keeper.sock --abandon-after 1h
  azblob-csi node --keeper /var/lib/kubelet/plugins/blob.csi.azure.com/keeper/keeper.sock ...

Start it before the processes whose mounts it shall hold, and leave it alone: with it, a node plugin that is killed or replaced by
another version goes on with its mounts. When only the keeper is replaced, mounts go on, and are given to the next one at once. When
both are gone at the same time, mounts are at their end, as without a keeper.
";

/// Below this, a process that is merely being restarted would find its mounts gone.
const ABANDON_AGE_MIN: Duration = Duration::from_secs(1);

/// Hold the mounts of other processes of azblob-csi, so that those can be replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The socket to listen on. Its directory is made where it is missing; it is for this user and root alone.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// How long the mounts of a process that is gone are held for the next. Then they are let go, and whoever waits in one of them
    /// gets an error instead of waiting for ever.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_age)]
    abandon_after: Duration,
}

fn parse_age(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        short if short < ABANDON_AGE_MIN => Err(format!("at least {} s", ABANDON_AGE_MIN.as_secs())),
        age => Ok(age),
    }
}

/// Holds until SIGTERM or SIGINT.
///
/// # Errors
/// [`Failure`] when the socket cannot be made, or another keeper serves it.
pub fn run(args: Args) -> Result<(), Failure> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    // Threads that are started from here on inherit it, so that only the one that waits hears of them.
    signals.thread_block().map_err(|errno| Failure::new(format!("cannot handle signals: {errno}")))?;
    let settings = Settings { socket: args.socket, abandon_age: args.abandon_after };
    let keeper = Keeper::listen(settings).map_err(|error| Failure::new(format!("cannot listen: {error}")))?;
    let keeper = Arc::new(keeper);
    let stopped = Arc::clone(&keeper);
    let waiting = thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let signal = signals.wait();
        tracing::info!(?signal, "told to end");
        stopped.stop();
    });
    let waiting = waiting.map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    super::mount::announce_ready();
    unmap_what_is_done();
    keeper.serve().map_err(|error| Failure::new(format!("cannot listen any more: {error}")))?;
    // It has a share of the keeper, whose socket goes with the last.
    let _ = waiting.join();
    Ok(())
}

/// Most of the code that is mapped has been run for the last time: command line, help texts, the log's start. Its pages are the
/// file's, and are mapped again when they are needed.
fn unmap_what_is_done() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(unchanged_range) {
        // SAFETY: code, and constants before it, of a file: nobody has written there, so the next touch finds the same again.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Start and length of a mapping of a file, from its line in /proc/self/maps, if the program's loader changes nothing in it: code, or
/// what stands in front of it. What is relocated comes later in a file.
fn unchanged_range(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, access, offset) = (words.next()?, words.next()?, words.next()?);
    let path = words.nth(2).filter(|path| path.starts_with('/'));
    let is_unchanged = access == "r-xp" || (access == "r--p" && offset.bytes().all(|digit| digit == b'0'));
    path.filter(|_| is_unchanged)?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(args: &[&str]) -> Result<Duration, String> {
        let args = ["keeper", "--socket", "/s"].iter().chain(args);
        Command::try_parse_from(args).map(|command| command.args.abandon_after).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_the_loader_leaves_as_it_is_in_the_file_is_unmapped() {
        let range = |rest: &str| unchanged_range(&format!("1000-3000 {rest}"));
        assert_eq!(range("r-xp 007df000 fe:00 544 /azblob-csi"), Some((0x1000, 0x2000)));
        assert_eq!(range("r--p 00000000 fe:00 544 /azblob-csi"), Some((0x1000, 0x2000)));
        for other in [
            "r--p 0170e000 fe:00 544 /azblob-csi",
            "rw-p 00000000 fe:00 544 /azblob-csi",
            "r-xp 00000000 00:00 0 [vdso]",
            "r--p 00000000 00:00 0",
        ] {
            assert_eq!(range(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_abandoned_is_held_for_as_long_as_the_keeper_says_and_never_for_no_time() {
        assert_eq!(parsed(&[]).unwrap(), crate::keeper::ABANDON_AGE_DEFAULT);
        assert_eq!(parsed(&["--abandon-after", "1h"]).unwrap(), Duration::from_secs(3600));
        assert!(parsed(&["--abandon-after", "0s"]).unwrap_err().contains("at least 1 s"));
    }
}

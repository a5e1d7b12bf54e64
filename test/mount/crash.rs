//! kill -9 while files are written: what was acknowledged is there, and nothing half-written shows.

use std::{
    fs,
    io::Write as _,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use harness::tree::noise;
use nix::sys::signal::Signal;

use crate::world;

/// Sizes on both sides of what one Put Blob carries.
const SIZES: [usize; 3] = [10_000, 700_000, 9 << 20];

#[test]
fn everything_acknowledged_before_kill_9_is_whole_and_nothing_half_written_shows() {
    let world = world();
    // Pace, so that the kill falls into the middle of uploads.
    world.emulator().settings(|settings| {
        settings.latency = Duration::from_millis(2);
        settings.total = Some(200 << 20);
    });
    let mount = world.mount(&[]);
    let root = mount.root().to_owned();
    let (said, acknowledged) = mpsc::channel();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (root, said) = (root.clone(), said.clone());
            thread::spawn(move || {
                for number in 0.. {
                    let length = SIZES[(writer + number) % SIZES.len()];
                    let name = format!("w{writer}-{number}");
                    let seed = (writer * 1_000_000 + number) as u64;
                    let written = fs::File::create(root.join(&name)).and_then(|mut file| {
                        for part in noise(length, seed).chunks(300_000) {
                            file.write_all(part)?;
                        }
                        file.sync_all()
                    });
                    match written {
                        Ok(()) => said.send((name, length, seed)).unwrap(),
                        Err(_) => return,
                    }
                }
            })
        })
        .collect();
    drop(said);
    let until = Instant::now() + Duration::from_secs(3);
    let mut done = Vec::new();
    while let Ok(file) = acknowledged.recv_timeout(until.saturating_duration_since(Instant::now())) {
        done.push(file);
    }
    let ended = mount.end_with(Signal::SIGKILL);
    assert_eq!(ended.code, None);
    for writer in writers {
        writer.join().unwrap();
    }
    done.extend(acknowledged.try_iter());
    assert!(done.len() >= 10, "too few files to say anything: {}", done.len());
    world.emulator().settings(|settings| settings.total = None);
    let fresh = world.mount(&[]);
    for (name, length, seed) in &done {
        assert!(fs::read(fresh.path(name)).unwrap() == noise(*length, *seed), "{name} is not whole");
    }
    // What was not acknowledged is absent, or whole: committed, but killed before the answer.
    for name in world.emulator().names(world.container()) {
        let mut numbers = name[1..].split('-').map(|text| text.parse::<usize>().unwrap());
        let (writer, number) = (numbers.next().unwrap(), numbers.next().unwrap());
        let whole = noise(SIZES[(writer + number) % SIZES.len()], (writer * 1_000_000 + number) as u64);
        assert!(world.emulator().get(world.container(), &name).unwrap() == whole, "{name} shows half-written");
    }
    fresh.unmount();
}

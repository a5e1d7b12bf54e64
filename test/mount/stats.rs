//! What a mount does, as `azblob-csi stats` shows it, from outside: its page of metrics, read by the real command.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use harness::{Mount, World};
use serde_json::Value;

use crate::world;

const LIMIT: Duration = Duration::from_secs(60);
/// Reports to wait for something in: far more than are needed.
const REPORTS_MAX: usize = 500;

/// `azblob-csi stats --json`, while it runs.
struct Stats {
    child: Child,
    reports: BufReader<ChildStdout>,
}

impl Stats {
    fn start(world: &World, address: &str) -> Self {
        let mut command = world.command(&["stats", "--json", "--interval", "100ms", "--address", address]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let reports = BufReader::new(child.stdout.take().unwrap());
        Self { child, reports }
    }

    /// The first volume of the next report, all of whose figures must be possible.
    fn volume(&mut self) -> Value {
        let mut line = String::new();
        self.reports.read_line(&mut line).unwrap();
        let report: Value = serde_json::from_str(&line).unwrap();
        let volume = report["volumes"][0].clone();
        for (name, figure) in volume.as_object().unwrap() {
            assert!(figure.as_f64().is_none_or(|figure| (0.0..1e12).contains(&figure)), "{name} is {figure}");
        }
        volume
    }

    /// Works until a report has all of `figures` above nought, not necessarily at once.
    fn until_seen(&mut self, figures: &[&'static str], mut work: impl FnMut(usize)) {
        let mut missing = figures.to_vec();
        for number in 0..REPORTS_MAX {
            work(number);
            let volume = self.volume();
            missing.retain(|name| volume[*name].as_f64().is_none_or(|figure| figure <= 0.0));
            if missing.is_empty() {
                return;
            }
        }
        panic!("{missing:?} were never seen");
    }

    /// Reads no more, as head(1) does; it ends without a complaint. Returns what it said on stderr.
    fn end(mut self) -> String {
        drop(self.reports);
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

/// Where a mount with `--metrics 127.0.0.1:0` serves them.
fn address(mount: &Mount) -> String {
    let log = mount.wait_for_log("serving metrics at /metrics address=");
    let (_, rest) = log.split_once("serving metrics at /metrics address=").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_running_mount_is_shown_by_volume_with_what_it_does() {
    let world = world();
    for number in 0..REPORTS_MAX {
        world.emulator().put(world.container(), &format!("cold{number}"), vec![7; 70_000], &[]).unwrap();
    }
    let mount = world.mount(&["--metrics", "127.0.0.1:0"]);
    let address = address(&mount);
    let mut stats = Stats::start(&world, &address);
    let figures = [
        "reads_per_second",
        "writes_per_second",
        "read_bytes_per_second",
        "written_bytes_per_second",
        "latency_p50_seconds",
        "latency_p99_seconds",
        "backend_requests_per_second",
        "backend_fetched_bytes_per_second",
        "backend_sent_bytes_per_second",
    ];
    stats.until_seen(&figures, |number| {
        assert_eq!(fs::read(mount.path(&format!("cold{number}"))).unwrap().len(), 70_000);
        fs::write(mount.path(&format!("new{number}")), [8; 5000]).unwrap();
    });
    assert_eq!(stats.volume()["volume"], world.url());
    stats.end();

    let args = ["stats", "--address", &address, "--interval", "100ms", "--count", "3"];
    let text = world.run(&mut world.command(&args), LIMIT).success();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "a head of three lines, and three reports: {text}");
    assert!(lines.iter().all(|line| line.chars().count() <= 120), "{text}");
    assert!(lines[1].starts_with("volume") && lines[2].contains("B/s"), "{text}");
    assert!(lines[5].contains("/data ") && lines[5].ends_with(" 0"), "{text}");
    let url = format!("http://{address}/metrics");
    let text = world.run(&mut world.command(&["stats", "--url", &url, "--once"]), LIMIT).success();
    assert_eq!(text.lines().count(), 4, "{text}");
    mount.unmount();

    let text = world.fails(&mut world.command(&["stats", "--address", &address]));
    assert!(text.contains(&address) && text.contains("--metrics-address"), "{text}");
}

#[test]
fn a_process_that_is_started_anew_is_shown_again_and_nothing_is_negative() {
    let world = world();
    let address = format!("unix:{}", world.path("metrics.sock").display());
    let first = world.mount(&["--metrics", &address]);
    let write = |mount: &Mount, name: &str| fs::write(mount.path(name), [8; 50_000]).unwrap();
    (0..20).for_each(|number| write(&first, &format!("first{number}")));
    let mut stats = Stats::start(&world, &address);
    stats.until_seen(&["writes_per_second"], |number| write(&first, &format!("more{number}")));
    first.unmount();
    let second = world.mount(&["--metrics", &address]);
    stats.until_seen(&["writes_per_second"], |number| write(&second, &format!("second{number}")));
    stats.end();
    second.unmount();
}

#[test]
fn what_is_no_page_of_a_mount_is_named_with_what_to_do() {
    let world = world();
    let endpoint = world.emulator().endpoint();
    let text = world.fails(&mut world.command(&["stats", "--url", &endpoint]));
    assert!(text.contains(&endpoint) && text.contains("answers 4") && text.contains("--url"), "{text}");
    let text = world.fails(&mut world.command(&["stats", "--address", "nowhere"]));
    assert!(text.contains("HOST:PORT"), "{text}");
    let path = format!("unix:{}", world.path("none.sock").display());
    let text = world.fails(&mut world.command(&["stats", "--once", "--address", &path]));
    assert!(text.contains(&path) && text.contains("fix: start the node plugin with --metrics-address"), "{text}");
}

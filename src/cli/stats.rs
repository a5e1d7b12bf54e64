//! `azblob-csi stats`: what each volume of a running process does, as a table that goes on, like dstat(1). It reads the process's
//! page of metrics (docs/METRICS.md) and nothing else, so it asks no volume and no service. stdout is the table.

mod figures;
mod table;

use std::{
    io::{self, Write as _},
    time::{Duration, Instant, SystemTime},
};

use tokio::time::MissedTickBehavior;

use self::{
    figures::{Figures, Row},
    table::Table,
};
use super::{Failure, driver};
use crate::{
    telemetry::{self, endpoint::UNIX, metrics::scraped},
    volume::options::parse_duration,
};

const EXAMPLES: &str = "\
Examples:
  azblob-csi stats --address :29634 --interval 5s
  kubectl exec -n kube-system ds/csi-blob-node -c blob -- /azblob-csi stats
  azblob-csi stats --once --json | jq '.volumes[] | select(.backend_throttled_per_second > 0)'

programs: requests of the kernel (what it has in its page cache it does not ask for), bytes handed to and taken from programs, and
how long the kernel waited for answers. cache: of the bytes read, those that were in memory. service: requests to the service,
those that it refused because it is asked too much, and bytes from and to it. dirty: bytes that the service does not have yet.
Figures are those between two looks; K, M and G of bytes are powers of 1024. A volume that is mounted anew begins at 0.
";

/// Where a node plugin that the chart installed serves its page.
const ADDRESS_DEFAULT: &str = "localhost:29635";
/// Below this, reading the page would be most of what is seen.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A page is written without waiting for anything.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Far more than the page of a full node: some 100 KiB a volume.
const PAGE_BYTES_MAX: usize = 256 << 20;
/// What vmstat(8) takes a screen for that is none.
const SCREEN_LINES_DEFAULT: usize = 24;

/// Show what the volumes of a running process do: a table that goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where the process serves metrics (--metrics-address, --metrics): HOST:PORT, :PORT on this machine, or unix:PATH.
    #[arg(long, value_name = "ADDRESS", default_value = ADDRESS_DEFAULT)]
    address: String,
    /// URL of the page itself, where something stands in front of it.
    #[arg(long, value_name = "URL", conflicts_with = "address")]
    url: Option<String>,
    /// Between two reports.
    #[arg(long, short, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Ends after so many reports [default: goes on].
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Ends after one report: that of one interval.
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Print each report as one line of JSON.
    #[arg(long)]
    json: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        short if short < INTERVAL_MIN => Err(format!("at least {} ms", INTERVAL_MIN.as_millis())),
        interval => Ok(interval),
    }
}

/// Prints reports until there were enough, or nobody reads them any more.
///
/// # Errors
/// [`Failure`] when the page cannot be read at first, or at last; between, a process may be away (it was started anew).
pub fn run(args: Args) -> Result<(), Failure> {
    let Args { address, url, interval, count, once, json } = args;
    let place = match url {
        Some(url) => Place::of_url(&url)?,
        None => Place::of_address(&address)?,
    };
    let source = Source::new(place)?;
    let runtime = driver::runtime()?;
    let printer = Printer { json, table: Table::default() };
    let reports = if once { Some(1) } else { count };
    let ended = runtime.block_on(watch(&source, interval, reports, printer));
    runtime.shutdown_background();
    ended
}

async fn watch(
    source: &Source,
    interval: Duration,
    mut reports: Option<u64>,
    mut printer: Printer,
) -> Result<(), Failure> {
    let (mut before, mut seen_at) = (source.read().await?, Instant::now());
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_away = false;
    while reports != Some(0) {
        ticks.tick().await;
        reports = reports.map(|left| left - 1);
        match source.read().await {
            Ok(figures) => {
                let now = Instant::now();
                let elapsed = now - seen_at;
                let rows = figures.since(&before, elapsed);
                (before, seen_at, is_away) = (figures, now, false);
                match printer.print(&rows, elapsed) {
                    Ok(()) => {}
                    // head(1) has what it wanted.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    Err(error) => return Err(Failure::new(format!("cannot print: {error}"))),
                }
            }
            Err(failure) if reports == Some(0) => return Err(failure),
            Err(failure) => {
                if !is_away {
                    eprintln!("azblob-csi: {}; it is asked again", failure.message);
                }
                is_away = true;
            }
        }
    }
    Ok(())
}

struct Printer {
    json: bool,
    table: Table,
}

impl Printer {
    fn print(&mut self, rows: &[Row], elapsed: Duration) -> io::Result<()> {
        let text = match self.json {
            true => {
                let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
                format!("{}\n", table::json(rows, &time, elapsed.as_secs_f64()))
            }
            false => self.table.report(rows, screen_lines()),
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// How high the terminal is that is written to.
fn screen_lines() -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request fills one winsize, which is ours and outlives the call.
    let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if asked == 0 && size.ws_row > 0 { usize::from(size.ws_row) } else { SCREEN_LINES_DEFAULT }
}

/// Where a page is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    url: url::Url,
    /// The socket that is spoken to in place of the URL's host.
    socket: Option<String>,
}

impl Place {
    fn of_address(address: &str) -> Result<Self, Failure> {
        let (host, socket) = match address.strip_prefix(UNIX) {
            Some(path) => ("localhost".to_owned(), Some(path.to_owned())),
            None if address.starts_with(':') => (format!("localhost{address}"), None),
            None => (address.to_owned(), None),
        };
        let url = url::Url::parse(&format!("http://{host}/metrics")).ok();
        let url = url.filter(|url| socket.is_some() || (url.port_or_known_default().is_some() && host.contains(':')));
        match url {
            Some(url) if url.path() == "/metrics" && url.username().is_empty() => Ok(Self { url, socket }),
            _ => Err(Failure::new(format!(
                "--address {address:?} is neither HOST:PORT, :PORT nor unix:PATH; a whole URL goes to --url"
            ))),
        }
    }

    fn of_url(text: &str) -> Result<Self, Failure> {
        match url::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Self { url, socket: None }),
            _ => Err(Failure::new(format!("--url {text:?} is not one such as http://localhost:29635/metrics"))),
        }
    }

    /// As a person would write it down; a password is nobody's business.
    fn shown(&self) -> String {
        match &self.socket {
            Some(path) => format!("{UNIX}{path}"),
            None => {
                let mut url = self.url.clone();
                // Of a URL with a host, nothing refuses that.
                let _ = url.set_password(None);
                url.to_string()
            }
        }
    }
}

/// A process's page.
struct Source {
    place: Place,
    client: reqwest::Client,
}

impl Source {
    fn new(place: Place) -> Result<Self, Failure> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            // The process is on this machine or near it: a proxy on the way out knows neither.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let builder = match (&place.socket, place.url.scheme()) {
            (Some(path), _) => builder.unix_socket(path.as_str()).tls_certs_only([]),
            (None, "http") => builder.tls_certs_only([]),
            (None, _) => builder,
        };
        let client = builder.build().map_err(|error| Failure::from_chain(&error))?;
        Ok(Self { place, client })
    }

    /// The page as it is now.
    async fn read(&self) -> Result<Figures, Failure> {
        let page = self.text().await?;
        let of = |reason: String| {
            Failure {
            message: format!("{} is not the page of a process that mounts volumes: {reason}", self.place.shown()),
            remedy: Some(
                "name the node plugin's --metrics-address, or --metrics of azblob-csi mount (the controller has no volumes)"
                    .to_owned(),
            ),
        }
        };
        let samples = scraped::parse(&page).map_err(|error| of(error.to_string()))?;
        Figures::of(&samples).ok_or_else(|| of("azblob_csi_volumes is not on it".to_owned()))
    }

    async fn text(&self) -> Result<String, Failure> {
        let unreachable = |error: reqwest::Error| {
            Failure {
            message: format!("cannot read {}: {}", self.place.shown(), telemetry::chain(&error.without_url())),
            remedy: Some(
                "start the node plugin with --metrics-address (azblob-csi mount with --metrics) and name it with --address; \
                 in a cluster: kubectl exec -n NAMESPACE POD-OF-THE-NODE-PLUGIN -c blob -- /azblob-csi stats"
                    .to_owned(),
            ),
        }
        };
        let mut response = self.client.get(self.place.url.clone()).send().await.map_err(unreachable)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(Failure {
                message: format!("{} answers {}", self.place.shown(), response.status()),
                remedy: Some("name the page itself: --url http://HOST:PORT/metrics".to_owned()),
            });
        }
        let mut page = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            page.extend_from_slice(&piece);
            if page.len() > PAGE_BYTES_MAX {
                return Err(Failure::new(format!(
                    "{} has more than {} MiB and is no page of metrics: name another --address",
                    self.place.shown(),
                    PAGE_BYTES_MAX >> 20
                )));
            }
        }
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_that_the_endpoint_takes() {
        let url = |address| Place::of_address(address).map(|place| place.url.to_string());
        assert_eq!(url(":29634").unwrap(), "http://localhost:29634/metrics");
        assert_eq!(url("[::1]:29634").unwrap(), "http://[::1]:29634/metrics");
        assert_eq!(url("10.0.0.1:80").unwrap(), "http://10.0.0.1/metrics");
        assert_eq!(Place::of_address("unix:/run/m.sock").unwrap().socket.unwrap(), "/run/m.sock");
        for wrong in ["", "localhost", "http://localhost:1", "localhost:1/metrics", "localhost:http", "a b:1"] {
            assert!(url(wrong).unwrap_err().message.contains("unix:PATH"), "{wrong}");
        }
        assert!(Place::of_url("ftp://a/metrics").is_err());
        assert_eq!(Place::of_url("https://me:secret@a/m").unwrap().shown(), "https://me@a/m");
    }

    #[test]
    fn an_interval_is_a_duration_that_is_long_enough() {
        assert_eq!(parse_interval("500ms"), Ok(Duration::from_millis(500)));
        assert!(parse_interval("0").is_err() && parse_interval("soon").is_err());
    }
}

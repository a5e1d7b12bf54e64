//! The service, in a process of its own: its memory and CPU time are not ours. This side starts it and asks; the other
//! side (`service/serve.rs`) holds the emulator. They speak JSON, a line each way, over the child's stdin and stdout, so
//! that no question goes over the link that is measured.

mod protocol;
mod serve;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use protocol::{Answer, Question};
pub use protocol::{Checked, Counts, Link};
pub use serve::{ARGUMENT, serve};

use super::data::File;

/// The container of the jobs.
pub const CONTAINER: &str = "bench";
/// How often we look whether everything has arrived: a peer that uploads in the background is not judged by our patience.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Longest wait for that.
const ARRIVES_WITHIN: Duration = Duration::from_secs(120);
/// Nobody asks any more when no request came for so long: many times the latency of every link.
const IDLE_TIME: Duration = Duration::from_millis(300);

/// See the module's doc. Ends with the value.
pub struct Service {
    child: Child,
    lines: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    started: protocol::Started,
}

impl Service {
    /// Starts it, with an empty container.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the service")?;
        let stdin = child.stdin.take().context("no stdin")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let started = serde_json::from_str(&line).context("the service did not start")?;
        Ok(Self { child, lines: Mutex::new((stdin, stdout)), started })
    }

    fn ask(&self, question: &Question) -> Result<Answer> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (stdin, stdout) = &mut *lines;
        writeln!(stdin, "{}", serde_json::to_string(question)?)?;
        stdin.flush()?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        match serde_json::from_str(&line).context("the service has ended")? {
            Answer::Failed(reason) => bail!("the service: {reason}"),
            answer => Ok(answer),
        }
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// URL of the account.
    pub fn endpoint(&self) -> &str {
        &self.started.endpoint
    }

    /// Name of the account.
    pub fn account(&self) -> &str {
        &self.started.account
    }

    /// Its key: that of all emulators.
    pub fn key(&self) -> &str {
        &self.started.key
    }

    /// URL of the container.
    pub fn url(&self) -> String {
        format!("{}/{CONTAINER}", self.started.endpoint)
    }

    /// Makes the way to it faster or slower.
    ///
    /// # Errors
    /// When it has ended, as with all that follow.
    pub fn set_link(&self, link: Link) -> Result<()> {
        self.ask(&Question::Link(link)).map(drop)
    }

    /// Stores files, as another client would.
    ///
    /// # Errors
    /// See [`Service::set_link`].
    pub fn put(&self, files: &[File]) -> Result<()> {
        self.ask(&Question::Put(files.to_vec())).map(drop)
    }

    /// Removes everything whose name begins so.
    ///
    /// # Errors
    /// See [`Service::set_link`].
    pub fn delete(&self, prefix: &str) -> Result<()> {
        self.ask(&Question::Delete(prefix.to_owned())).map(drop)
    }

    /// Requests and bytes since [`Service::reset`].
    ///
    /// # Errors
    /// See [`Service::set_link`].
    pub fn counts(&self) -> Result<Counts> {
        match self.ask(&Question::Counts)? {
            Answer::Counts(counts) => Ok(counts),
            other => bail!("the service answered {other:?}"),
        }
    }

    /// Starts counting anew.
    ///
    /// # Errors
    /// See [`Service::set_link`].
    pub fn reset(&self) -> Result<()> {
        self.ask(&Question::Reset).map(drop)
    }

    fn compare(&self, prefix: &str, files: &[File], bytes: bool) -> Result<Checked> {
        match self.ask(&Question::Check { prefix: prefix.to_owned(), files: files.to_vec(), bytes })? {
            Answer::Checked(checked) => Ok(checked),
            other => bail!("the service answered {other:?}"),
        }
    }

    /// Compares every byte of `files` with what it holds.
    ///
    /// # Errors
    /// The first file that is missing or has other bytes.
    pub fn check(&self, files: &[File]) -> Result<()> {
        self.compare("", files, true)?.wrong.map_or(Ok(()), |wrong| bail!("{wrong}"))
    }

    /// Waits until it holds all of `files` with their lengths: at once where close and fsync wait for that themselves. Cheap,
    /// so that it can be part of what is measured; [`Service::check`] follows.
    ///
    /// # Errors
    /// What is not there in time.
    pub fn wait_for(&self, files: &[File]) -> Result<()> {
        self.wait_until("", files, |checked| checked.wrong.is_none())
    }

    /// Waits until it holds no blob below `prefix`.
    ///
    /// # Errors
    /// What is still there in time.
    pub fn wait_gone(&self, prefix: &str) -> Result<()> {
        self.wait_until(prefix, &[], |checked| checked.entries == 0)
    }

    /// Waits until no more requests come.
    ///
    /// # Errors
    /// When they go on.
    pub fn wait_idle(&self) -> Result<()> {
        let deadline = Instant::now() + ARRIVES_WITHIN;
        let mut before = self.counts()?.requests;
        loop {
            std::thread::sleep(IDLE_TIME);
            let now = self.counts()?.requests;
            if now == before {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "requests go on");
            before = now;
        }
    }

    fn wait_until(&self, prefix: &str, files: &[File], done: impl Fn(&Checked) -> bool) -> Result<()> {
        let deadline = Instant::now() + ARRIVES_WITHIN;
        loop {
            let checked = self.compare(prefix, files, false)?;
            if done(&checked) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the service holds {} blobs below {prefix}; {}",
                    checked.entries,
                    checked.wrong.unwrap_or_default()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Its stdin ends with us, but a hung one must not keep us.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The machine: QEMU, which emulates the processor in software, so that it runs wherever tests run.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::suite::Verdict;

/// Far more than the suite takes, also on a machine that has much else to do. Then it hangs: the last line names the test.
const ENDS_WITHIN: Duration = Duration::from_secs(1200);

/// The machine's clock goes on by 2^0 ns with each instruction, and skips what nobody uses: however little of a processor
/// the machine gets, no test in it runs out of time, and who sleeps in it costs nobody time.
const CLOCK: &str = "shift=0,sleep=off";

/// How often we look at the time while the machine is silent.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the kernel is told: its console is the serial line; it tells of trouble only, and a panic ends the machine.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1";

/// A running machine, ended with the value.
struct Machine(Child);

impl Machine {
    fn start(kernel: &Path, initramfs: &Path) -> Result<Self> {
        let mut command = Command::new("nice");
        // It takes a whole processor for minutes; whoever waits for something shall not wait for it.
        command.args([
            "-n",
            "10",
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-icount",
            CLOCK,
            "-cpu",
            "max",
            "-smp",
            "1",
            "-m",
            "1G",
        ]);
        command.args(["-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-serial", "stdio"]);
        command.arg("-no-reboot").arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
        command.args(["-append", COMMAND_LINE]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().map(Self).context("cannot start QEMU")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the machine, shows what it says, and waits for its verdict.
pub(crate) fn run(kernel: &Path, initramfs: &Path) -> Result<Verdict> {
    let began = Instant::now();
    let mut machine = Machine::start(kernel, initramfs)?;
    let console = machine.0.stdout.take().context("QEMU has no output")?;
    let (said, hear) = mpsc::channel();
    thread::spawn(move || show(console, &said));
    let mut verdict = None;
    loop {
        match hear.recv_timeout(LOOK_EVERY) {
            Ok(line) => verdict = Verdict::parse(&line).or(verdict),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if began.elapsed() > ENDS_WITHIN {
            bail!("the machine did not end within {ENDS_WITHIN:?}: what it printed last hangs");
        }
    }
    let status = machine.0.wait().context("cannot wait for QEMU")?;
    verdict
        .with_context(|| format!("the machine ended without a verdict ({status}): the kernel panicked, or QEMU failed"))
}

/// Passes on what comes, as it comes: also the half of a line behind which a test hangs. Whole lines are told as well.
fn show(console: ChildStdout, said: &mpsc::Sender<String>) {
    let mut console = BufReader::new(console);
    let mut line = Vec::new();
    while let Ok(bytes) = console.fill_buf() {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        // A serial line ends lines with CR and LF.
        let text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
        console.consume(length);
        let mut out = std::io::stdout().lock();
        // Nobody may be listening; the verdict counts.
        let _ = out.write_all(&text).and_then(|()| out.flush());
        for byte in text {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let _ = said.send(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    }
}

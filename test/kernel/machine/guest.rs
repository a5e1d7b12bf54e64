//! Process 1 of the machine. What it cannot do it says, as a failure: the machine switches itself off in any case.

use std::{
    ffi::CString,
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::suite::{Plan, Verdict};

/// The kernel's module for FUSE.
pub(crate) const MODULE: &str = "/fuse.ko";
/// What is run.
pub(crate) const PLAN: &str = "/plan.json";

/// Where tests have their files: nothing of the archive may lie below.
const TESTS: &str = "/tests";

/// Type and place of what programs expect to be mounted; the other comes with the module.
const FILE_SYSTEMS: [(&str, &str); 4] = [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", TESTS)];
const FUSE_CONTROL: (&str, &str) = ("fusectl", "/sys/fs/fuse/connections");

/// Runs the suite, prints the verdict and switches the machine off.
pub(crate) fn live() -> ! {
    let mut verdict = Verdict::default();
    if let Err(error) = prepare().and_then(|()| run(&mut verdict)) {
        println!("the machine: {error:#}");
        verdict.failed += 1;
    }
    println!("\n{verdict}");
    let _ = std::io::stdout().flush();
    // SAFETY: reboot(2) takes no memory of ours. It does not return, but where we are not allowed to.
    unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_POWER_OFF) };
    // The kernel panics when process 1 ends, which ends the machine as well.
    std::process::exit(1)
}

fn prepare() -> Result<()> {
    FILE_SYSTEMS.into_iter().try_for_each(attach)?;
    load_module()?;
    attach(FUSE_CONTROL)?;
    bring_loopback_up().context("cannot bring the network interface lo up")
}

fn attach((kind, place): (&str, &str)) -> Result<()> {
    std::fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
    mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount {kind} on {place}"))
}

fn load_module() -> Result<()> {
    let file = File::open(MODULE).with_context(|| format!("cannot open {MODULE}"))?;
    let parameters = CString::default();
    // SAFETY: a descriptor and a NUL-terminated text that live through the call.
    let loaded = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) };
    match Errno::result(loaded) {
        // It is built in.
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).context("cannot load the module fuse: is it of this kernel?"),
    }
}

/// The emulator listens on 127.0.0.1.
fn bring_loopback_up() -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zeros is a valid value of this plain struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request lives through the call, and is what this one takes.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    Errno::result(done)?;
    Ok(())
}

fn run(verdict: &mut Verdict) -> Result<()> {
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot ask for the kernel's release")?;
    release.trim().clone_into(&mut verdict.kernel);
    let text = std::fs::read_to_string(PLAN).with_context(|| format!("cannot read {PLAN}"))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| format!("cannot understand {PLAN}"))?;
    for line in plan.0 {
        let (program, arguments) = line.split_first().context("a command line is empty")?;
        let began = Instant::now();
        println!("\n{program}");
        let mut command = Command::new(program);
        command.args(arguments).env("TMPDIR", TESTS).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let printed = child.stdout.take().map(pass_on).context("it has no output")??;
        let status = child.wait().context("cannot wait for it")?;
        verdict.add(&printed, status.success());
        println!("{status} after {} s", began.elapsed().as_secs());
    }
    Ok(())
}

/// Shows what a program prints as it comes, and returns it.
fn pass_on(mut output: std::process::ChildStdout) -> Result<String> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let length = output.read(&mut piece).context("cannot read what it prints")?;
        if length == 0 {
            return Ok(String::from_utf8_lossy(&all).into_owned());
        }
        all.extend_from_slice(&piece[..length]);
        let mut console = std::io::stdout().lock();
        console.write_all(&piece[..length]).and_then(|()| console.flush()).context("cannot write to the console")?;
    }
}

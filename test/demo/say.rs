//! What the demo prints, and the shell commands that it shows. Files on the volume are touched by other processes only.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// No command of the demo may take longer, in seconds.
const COMMAND_SECONDS: &str = "50";

/// Announces a step.
pub fn step(number: u32, title: &str) {
    println!("\n\u{2500}\u{2500} {number}. {title}");
}

/// Says one line.
pub fn tell(line: &str) {
    println!("   {line}");
}

/// Runs a shell command and returns what it printed.
///
/// # Errors
/// It could not be started, or failed; with what it complained.
pub fn shell(script: &str) -> Result<String> {
    let mut command = Command::new("timeout");
    let output = command.args([COMMAND_SECONDS, "sh", "-c", script]).output().context("cannot start a shell")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}: {}: {complaint}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a shell command before the reader's eyes.
///
/// # Errors
/// As [`shell`].
pub fn show(script: &str) -> Result<String> {
    tell(&format!("$ {script}"));
    let printed = shell(script)?;
    printed.lines().for_each(|line| tell(&format!("  {line}")));
    Ok(printed)
}

//! Jobs about trees of files, by the programs that people use for them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use md5::{Digest as _, Md5};

use super::{
    super::{
        data::{self, File},
        stage::{Bench, Measured, Stage},
    },
    names::run,
};

/// The tree of the copy and of the checksums.
const TREE_FILES: usize = 3000;
const TREE_DIRECTORIES: usize = 166;
/// The tree of the clone.
const CLONE_FILES: usize = 2000;
const CLONE_DIRECTORIES: usize = 110;

/// The tree that is copied.
pub fn copied(prefix: &str) -> Vec<File> {
    data::tree(prefix, TREE_FILES, TREE_DIRECTORIES)
}

/// A tree in the service.
pub fn stored(_: &Bench) -> Vec<File> {
    copied("tree")
}

/// `find -type f | xargs md5sum`, and every sum.
pub fn md5sum(stage: &Stage) -> Result<Measured> {
    let files = stage.files();
    stage.begin()?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "find tree -type f -print0 | xargs -0 md5sum"]).current_dir(stage.mount.path(""));
    let text = run(&mut shell)?;
    let measured = stage.time(data::sum(files))?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable_by_key(|line| line.get(34..));
    let mut expected: Vec<String> = files
        .iter()
        .map(|file| {
            let sum = Md5::digest(stage.bench.unit.whole(file));
            let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{sum}  {}", file.name)
        })
        .collect();
    expected.sort_unstable_by(|one, other| one.get(34..).cmp(&other.get(34..)));
    let differs = lines.iter().zip(&expected).find(|(line, expected)| line != expected);
    ensure!(differs.is_none(), "md5sum printed (and should have): {differs:?}");
    ensure!(lines.len() == expected.len(), "md5sum printed {} lines, not {}", lines.len(), expected.len());
    Ok(measured)
}

/// Writes files below a local directory, unless an earlier run did.
fn local(stage: &Stage, place: &str, files: &[File]) -> Result<PathBuf> {
    let root = stage.bench.scratch().join(place);
    if !root.exists() {
        for file in files {
            let path = root.join(&file.name);
            fs::create_dir_all(path.parent().context("no parent")?)?;
            fs::write(path, stage.bench.unit.whole(file))?;
        }
    }
    Ok(root)
}

/// When a job that writes is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    /// When the program has ended.
    Seen,
    /// When the service has everything.
    Kept,
}

/// The time until a program's files are where the job wants them; the service has them in any case, whole, when this returns.
fn arrival(stage: &Stage, files: &[File], over: Over) -> Result<Measured> {
    let seen = (over == Over::Seen).then(|| stage.time(data::sum(files))).transpose()?;
    stage.bench.service.wait_for(files)?;
    let measured = match seen {
        Some(seen) => seen,
        None => stage.time(data::sum(files))?,
    };
    stage.bench.service.check(files)?;
    Ok(measured)
}

fn copy_until(stage: &Stage, over: Over) -> Result<Measured> {
    let files = copied("copied");
    let root = local(stage, "copy", &files)?;
    stage.begin()?;
    run(Command::new("cp").arg("-r").arg(root.join("copied")).arg(stage.mount.path("copied")))?;
    arrival(stage, &files, over)
}

/// `cp -r` of a local tree; over when the service has all of it.
pub fn copy(stage: &Stage) -> Result<Measured> {
    copy_until(stage, Over::Kept)
}

/// The same, over when cp(1) has ended.
pub fn copy_seen(stage: &Stage) -> Result<Measured> {
    copy_until(stage, Over::Seen)
}

/// git, with nobody's settings.
fn git(directory: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args(["-c", "user.name=bench", "-c", "user.email=bench@example.com", "-c", "init.defaultBranch=main"])
        .args(["-c", "safe.directory=*"]);
    git
}

fn repository(stage: &Stage, files: &[File]) -> Result<PathBuf> {
    let fresh = !stage.bench.scratch().join("clone").exists();
    let root = local(stage, "clone", files)?.join("cloned");
    if fresh {
        run(git(&root).args(["init", "--quiet"]))?;
        run(git(&root).args(["add", "."]))?;
        run(git(&root).args(["commit", "--quiet", "--message", "all files"]))?;
        run(git(&root).args(["gc", "--quiet"]))?;
    }
    Ok(root)
}

/// `git clone` of a local repository, its pack sent as over a network; over when the service has the tree. Then git itself says
/// whether what it wrote is whole.
pub fn clone(stage: &Stage) -> Result<Measured> {
    clone_until(stage, Over::Kept)
}

/// The same, over when git has ended.
pub fn clone_seen(stage: &Stage) -> Result<Measured> {
    clone_until(stage, Over::Seen)
}

fn clone_until(stage: &Stage, over: Over) -> Result<Measured> {
    let files = data::tree("cloned", CLONE_FILES, CLONE_DIRECTORIES);
    let root = repository(stage, &files)?;
    let (place, url) = (stage.mount.path(""), format!("file://{}", root.display()));
    stage.begin()?;
    run(git(&place).args(["clone", "--quiet", &url, "cloned"]))?;
    let measured = arrival(stage, &files, over)?;
    let status = run(git(&place.join("cloned")).args(["status", "--porcelain"]))?;
    ensure!(status.is_empty(), "git sees changes in its clone: {}", status.lines().next().unwrap_or_default());
    run(git(&place.join("cloned")).args(["fsck", "--no-progress"]))?;
    Ok(measured)
}

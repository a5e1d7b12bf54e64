//! Jobs about names and small files of one directory.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};

use super::super::{
    data::{self, File},
    stage::{Bench, Measured, Stage},
};

/// Files of one directory.
pub fn small(_: &Bench) -> Vec<File> {
    data::small("small")
}

/// Very many.
pub fn many(_: &Bench) -> Vec<File> {
    data::many("many")
}

/// One after the other: create, write, close; over when the service has them all.
pub fn create(stage: &Stage) -> Result<Measured> {
    let files = data::small("created");
    fs::create_dir(stage.mount.path("created"))?;
    stage.begin()?;
    for file in &files {
        fs::write(stage.mount.path(&file.name), stage.bench.unit.whole(file)).with_context(|| file.name.clone())?;
    }
    stage.bench.service.wait_for(&files)?;
    let measured = stage.rate(files.len() as f64, data::sum(&files))?;
    stage.bench.service.check(&files)?;
    Ok(measured)
}

/// Looks at each name, and at its length.
pub fn stat_all(stage: &Stage) -> Result<()> {
    for file in stage.files() {
        let length = fs::metadata(stage.mount.path(&file.name)).with_context(|| file.name.clone())?.len();
        ensure!(length == file.bytes, "{} has {length} bytes, not {}", file.name, file.bytes);
    }
    Ok(())
}

/// Names of a directory that was never looked at.
pub fn stat_cold(stage: &Stage) -> Result<Measured> {
    stage.begin()?;
    stat_all(stage)?;
    stage.rate(stage.files().len() as f64, 0)
}

/// The same once more.
pub fn stat_warm(stage: &Stage) -> Result<Measured> {
    stat_all(stage)?;
    stage.begin()?;
    stat_all(stage)?;
    stage.rate(stage.files().len() as f64, 0)
}

/// Lists a directory and reads its files, one after the other, in the order of the listing.
pub fn read(stage: &Stage) -> Result<Measured> {
    let files = stage.files();
    let by_name: std::collections::HashMap<&str, &File> = files.iter().map(|file| (file.name.as_str(), file)).collect();
    stage.begin()?;
    let mut count = 0;
    for entry in fs::read_dir(stage.mount.path("small"))? {
        let name = format!("small/{}", entry?.file_name().to_string_lossy());
        let file = by_name.get(name.as_str()).with_context(|| format!("{name} should not be there"))?;
        let bytes = fs::read(stage.mount.path(&name)).with_context(|| name.clone())?;
        ensure!(bytes == stage.bench.unit.whole(file), "{name} has wrong bytes");
        count += 1;
    }
    ensure!(count == files.len(), "{count} files were listed of {}", files.len());
    stage.rate(count as f64, data::sum(files))
}

/// One after the other.
pub fn unlink(stage: &Stage) -> Result<Measured> {
    let files = stage.files();
    stage.begin()?;
    for file in files {
        fs::remove_file(stage.mount.path(&file.name)).with_context(|| file.name.clone())?;
    }
    for file in files {
        stage.bench.service.wait_gone(&file.name)?;
    }
    stage.rate(files.len() as f64, 0)
}

/// Runs a command whose failure is the job's.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}; it said: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A directory with all that is in it. It is a prefix of names and no blob: peers lose it with its last file, before rm(1) comes to
/// remove it. That is no failure, if it is all that rm complains about.
pub fn remove(stage: &Stage) -> Result<Measured> {
    let directory = stage.mount.path("small");
    stage.begin()?;
    let output = Command::new("rm").arg("-r").arg(&directory).env("LC_ALL", "C").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let is_lost = said.trim() == format!("rm: cannot remove '{}': No such file or directory", directory.display());
    ensure!(output.status.success() || is_lost, "rm -r: {}; it said: {}", output.status, said.trim());
    stage.bench.service.wait_gone("small")?;
    stage.rate(stage.files().len() as f64, 0)
}

/// rename(2) of a directory; over when the service has all under the new name and none under the old.
pub fn rename(stage: &Stage) -> Result<Measured> {
    let moved = data::small("moved");
    stage.begin()?;
    fs::rename(stage.mount.path("small"), stage.mount.path("moved"))?;
    stage.bench.service.wait_gone("small/")?;
    stage.bench.service.wait_for(&moved)?;
    let measured = stage.time(0)?;
    stage.bench.service.check(&moved)?;
    Ok(measured)
}

/// `ls -l`, with every length.
pub fn list_many(stage: &Stage) -> Result<Measured> {
    let files = stage.files();
    stage.begin()?;
    let text = run(Command::new("ls").arg("-l").arg(stage.mount.path("many")))?;
    let measured = stage.time(0)?;
    let lengths = text.lines().filter_map(|line| line.split_whitespace().nth(4)?.parse::<u64>().ok());
    let (count, sum) = lengths.fold((0, 0), |(count, sum), length| (count + 1, sum + length));
    let expected = (files.len(), data::sum(files));
    ensure!((count, sum) == expected, "ls has (names, bytes) {:?}, not {expected:?}", (count, sum));
    Ok(measured)
}

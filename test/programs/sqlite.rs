//! SQLite with two writers, killed and killed with its mount: every row whose commit returned is there, and the database is
//! whole. With a write-ahead log the writers share memory through a mapped file.

use std::{path::Path, process::Command};

use harness::{World, length};
use nix::sys::signal::Signal;

use crate::{
    background::Background,
    script::{script, text},
    world,
};

/// Commits row after row and says the number of each once its COMMIT has returned. A process of its own, since it is to
/// be killed.
const WRITER: &str = "
import itertools, sqlite3, sys
path, writer = sys.argv[1], int(sys.argv[2])
database = sqlite3.connect(path, timeout=60, isolation_level=None)
database.execute('PRAGMA synchronous = FULL')
first = database.execute('SELECT coalesce(max(number), -1) + 1 FROM rows WHERE writer = ?', (writer,)).fetchone()[0]
for number in itertools.count(first):
    database.execute('BEGIN IMMEDIATE')
    database.execute('INSERT INTO rows VALUES (?, ?, randomblob(300))', (writer, number))
    database.execute('UPDATE rows SET filler = randomblob(200) WHERE writer = ? AND number % 7 = ?', (writer, number % 7))
    database.execute('COMMIT')
    print(number, flush=True)
";

/// Rows that each round commits at least.
const ROWS: (usize, usize) = (40, 2000);

struct Database<'a> {
    world: &'a World,
    mode: &'static str,
}

impl Database<'_> {
    fn create(&self, root: &Path) {
        let sql = format!(
            "PRAGMA journal_mode = {}; CREATE TABLE rows (writer INT, number INT, filler BLOB, UNIQUE (writer, number));",
            self.mode
        );
        script(self.world, root, "sqlite3 db \"$1\"", &[&sql]);
    }

    /// Two writers at work, once each has committed enough.
    fn writers(&self, root: &Path, round: usize) -> Vec<Background> {
        let mut writers: Vec<Background> = (0..2)
            .map(|writer| {
                let mut command = Command::new("python3");
                command.args(["-c", WRITER, text(&root.join("db")), &writer.to_string()]);
                Background::start(&mut command, &self.world.path(&format!("{}-{round}-{writer}", self.mode)))
            })
            .collect();
        // SQLite's lock is not fair: one writer may have committed hundreds of rows when the other gets its first.
        let rows = length().of(ROWS.0, ROWS.1);
        let committed = |writer: &Background| writer.said().lines().count();
        for writer in &mut writers {
            writer.wait_until("the first rows were committed", |writer| committed(writer) > 1);
        }
        let [one, other] = &mut writers[..] else { unreachable!("two were started") };
        one.wait_until("enough rows were committed", |one| committed(one) + committed(other) >= rows);
        writers
    }

    /// What was said to be committed is there, in order and without gaps, and nothing is broken.
    fn check(&self, root: &Path, writers: &[Background]) {
        assert_eq!(script(self.world, root, "sqlite3 db 'PRAGMA integrity_check'", &[]), "ok\n", "{}", self.mode);
        for (number, writer) in writers.iter().enumerate() {
            let said = writer.said();
            // The last line may be torn: its writer was killed.
            let complete = said.rfind('\n').map_or("", |end| &said[..end]);
            let last: u64 = complete.lines().last().unwrap().parse().unwrap();
            let sql = format!("SELECT count(*), max(number) FROM rows WHERE writer = {number}");
            let answer = script(self.world, root, "sqlite3 db \"$1\"", &[&sql]);
            let (count, max) = answer.trim().split_once('|').unwrap();
            let (count, max): (u64, u64) = (count.parse().unwrap(), max.parse().unwrap());
            assert_eq!(count, max + 1, "{}: rows of writer {number} are missing", self.mode);
            // The row that was being committed when the kill came may be there as well.
            assert!(max == last || max == last + 1, "{}: {last} was committed, {max} is there", self.mode);
        }
    }
}

fn survives_kills(mode: &'static str) {
    let world = world();
    let database = Database { world: &world, mode };
    let mount = world.mount(&[]);
    database.create(mount.root());
    let mut writers = database.writers(mount.root(), 1);
    writers.iter_mut().for_each(Background::kill);
    database.check(mount.root(), &writers);
    let mut writers = database.writers(mount.root(), 2);
    mount.end_with(Signal::SIGKILL);
    writers.iter_mut().for_each(|writer| assert!(writer.ends(), "a writer hangs on a dead mount"));
    let fresh = world.mount(&[]);
    database.check(fresh.root(), &writers);
    let mut writers = database.writers(fresh.root(), 3);
    writers.iter_mut().for_each(Background::kill);
    database.check(fresh.root(), &writers);
    fresh.unmount();
}

#[test]
fn sqlite_with_a_write_ahead_log_keeps_every_committed_row_when_it_and_its_mount_are_killed() {
    survives_kills("WAL");
}

#[test]
fn sqlite_with_a_rollback_journal_keeps_every_committed_row_when_it_and_its_mount_are_killed() {
    survives_kills("DELETE");
}

//! MariaDB: its data in a volume survives the death of the server and of the mount; its backups are made as MySQL operators
//! make them, written through one mount while the server works, and restored into another server through another mount.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness::World;
use nix::sys::signal::Signal;

use crate::{
    background::Background,
    script::{script, text},
    world,
};

const LIMIT: Duration = Duration::from_secs(120);

/// 60,000 rows in two tables, with all that a dump has to escape, a view and a trigger.
const TABLES: &str = r"
CREATE DATABASE shop;
USE shop;
CREATE TABLE goods (id INT PRIMARY KEY, name VARCHAR(200), picture BLOB, price DECIMAL(10, 2)) ENGINE = InnoDB;
INSERT INTO goods SELECT seq, CONCAT('it\'s \\ \n ü ', seq), UNHEX(SHA2(seq, 512)), seq / 7 FROM seq_1_to_20000;
CREATE TABLE orders (id INT PRIMARY KEY, good INT, note TEXT, KEY (good)) ENGINE = InnoDB;
INSERT INTO orders SELECT seq, seq % 20000 + 1, REPEAT(MD5(seq), 8) FROM seq_1_to_40000;
CREATE VIEW dear AS SELECT * FROM goods WHERE price > 1000;
CREATE TRIGGER tidy BEFORE INSERT ON orders FOR EACH ROW SET NEW.note = TRIM(NEW.note);
";

/// A server with its socket on the local disk.
struct Server<'a> {
    world: &'a World,
    socket: PathBuf,
    process: Background,
}

/// Temporary tables of the server on `data`, beside it. Not in /tmp: servers that are installed at the same time take each
/// other's away there.
fn temporary(data: &Path) -> String {
    let directory = data.with_extension("tmp");
    fs::create_dir_all(&directory).unwrap();
    format!("--tmpdir={}", directory.display())
}

/// Makes an empty database in `data`.
fn install(world: &World, data: &Path) {
    // --user=root: the server asks for that, and has nothing but this directory.
    let mut install = Command::new("mariadb-install-db");
    install.args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    install.arg(temporary(data)).arg(format!("--datadir={}", data.display()));
    world.run(&mut install, LIMIT).success();
}

impl<'a> Server<'a> {
    /// The server on `data`, once it answers. Recovery is part of its start.
    fn start(world: &'a World, name: &str, data: &Path) -> Self {
        let socket = world.path(&format!("{name}.socket"));
        let mut command = Command::new("mariadbd");
        command.args(["--no-defaults", "--user=root", "--skip-networking", "--log-bin=binary", "--server-id=1"]);
        // Beside a binary log, InnoDB's commit is as durable as that log is: MariaDB's default leaves it to the disk's mood.
        command.arg("--sync-binlog=1");
        command.args(["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"]).arg(temporary(data));
        command.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", socket.display()));
        let mut process = Background::start(&mut command, &world.path(name));
        process.wait_until("the server accepts connections", |_| fs::exists(&socket).unwrap());
        Self { world, socket, process }
    }

    /// A client at work that inserts row after row, each in a transaction of its own, and says its number after that.
    fn writer(&self, first: u64, said: &str) -> Background {
        let mut command = Command::new("bash");
        let rows = "for n in $(seq \"$2\" 10000000); do echo \"INSERT INTO shop.rows VALUES ($n, MD5($n)); SELECT $n;\"; done \
            | mariadb --no-defaults -S \"$1\" -n -N -B";
        command.args(["-c", rows, "writer", text(&self.socket), &first.to_string()]);
        let mut writer = Background::start(&mut command, &self.world.path(said));
        writer.wait_until("rows were committed", |writer| writer.said().lines().count() > 200);
        writer
    }

    /// All rows up to the last that was acknowledged are there, and nothing is broken. Returns how many there are.
    #[track_caller]
    fn check(&self, writer: &Background) -> u64 {
        let said = writer.said();
        let complete = said.rfind('\n').map_or("", |end| &said[..end]);
        let last: u64 = complete.lines().last().unwrap().parse().unwrap();
        let ask = "sql -e 'SELECT COUNT(*), MAX(id), SUM(BINARY hash != MD5(id)) FROM shop.rows; CHECK TABLE shop.rows EXTENDED'";
        let answer = self.script(Path::new("/"), ask);
        let (rows, health) = answer.split_once('\n').unwrap();
        let rows: Vec<u64> = rows.split('\t').map(|number| number.parse().unwrap()).collect();
        assert!(rows[0] == rows[1] + 1 && rows[2] == 0, "rows are missing or wrong: {answer}");
        assert!(rows[1] == last || rows[1] == last + 1, "{last} was acknowledged, {} is there", rows[1]);
        assert!(health.ends_with("status\tOK\n"), "{answer}");
        rows[0]
    }

    /// Runs `text` in `directory` with `$S` as the socket.
    #[track_caller]
    fn script(&self, directory: &Path, commands: &str) -> String {
        let commands = format!("S=$1; sql() {{ mariadb --no-defaults -S \"$S\" -N -B \"$@\"; }}\n{commands}");
        script(self.world, directory, &commands, &[text(&self.socket)])
    }

    fn checksums(&self) -> String {
        let tables = self.script(Path::new("/"), "sql -e 'CHECKSUM TABLE shop.goods, shop.orders EXTENDED'");
        let names = "sql -e 'SHOW FULL TABLES IN shop; SHOW TRIGGERS IN shop; SELECT COUNT(*) FROM shop.dear'";
        let (mut all, shown) = (tables, self.script(Path::new("/"), names));
        // A trigger's line ends with when it was made.
        all.extend(shown.lines().map(|line| line.split("\t20").next().unwrap().to_owned() + "\n"));
        all
    }

    fn stop(mut self) {
        assert!(self.process.end_with(Signal::SIGTERM), "the server does not shut down");
    }
}

#[test]
fn a_dump_of_mariadb_is_restored_from_another_mount() {
    let world = world();
    let (here, there) = (world.mount(&[]), world.mount(&["--metadata-ttl", "1s"]));
    let (one, two) = (world.path("one.data"), world.path("two.data"));
    install(&world, &one);
    let server = Server::start(&world, "one", &one);
    fs::write(world.path("tables.sql"), TABLES).unwrap();
    server.script(&world.path(""), "sql < tables.sql");
    let before = server.checksums();
    assert!(before.contains("shop.goods") && before.contains("dear") && before.contains("tidy"), "{before}");
    // The layout of a backup: one directory a time, the dump and the binary logs behind it. A name that is not final
    // until the dump is whole.
    let back_up = "mkdir -p backups/20260101T000000Z
        cd backups/20260101T000000Z
        dump() { mariadb-dump --no-defaults -S \"$S\" --single-transaction --routines --triggers \"$@\"; }
        dump --flush-logs --master-data=2 --databases shop | gzip > dump.sql.gz.part
        mv dump.sql.gz.part dump.sql.gz
        dump --compact shop orders | split -b 1M - orders.
        sql -e 'INSERT INTO shop.goods VALUES (1000000, \"after the dump\", NULL, 1); FLUSH BINARY LOGS'
        cp \"$(dirname \"$S\")\"/one.data/binary.000002 binlog
        sha256sum * > SHA256SUMS";
    server.script(here.root(), back_up);
    let after = server.checksums();
    assert_ne!(before, after);
    server.stop();
    install(&world, &two);
    let other = Server::start(&world, "two", &two);
    let restore = "cd backups/20260101T000000Z
        sha256sum --quiet --check SHA256SUMS
        gunzip -c dump.sql.gz | sql
        mariadb-binlog --no-defaults binlog | sql
        sql -e 'CREATE DATABASE again'
        cat orders.* | sql again
        sql -e 'SELECT COUNT(*) FROM again.orders'";
    assert_eq!(other.script(there.root(), restore), "40000\n");
    assert_eq!(other.checksums(), after, "what was restored differs");
    other.stop();
    there.unmount();
    here.unmount();
}

#[test]
fn mariadb_keeps_every_acknowledged_row_when_it_and_its_mount_are_killed() {
    let world = world();
    let mount = world.mount(&[]);
    install(&world, &mount.path("data"));
    let mut server = Server::start(&world, "server1", &mount.path("data"));
    let table = "sql -e 'CREATE DATABASE shop; CREATE TABLE shop.rows (id INT PRIMARY KEY, hash CHAR(32), KEY (hash))'";
    server.script(Path::new("/"), table);
    let mut writer = server.writer(0, "writer1");
    server.process.kill();
    assert!(writer.ends(), "a client does not see that its server is gone");
    let mut server = Server::start(&world, "server2", &mount.path("data"));
    let rows = server.check(&writer);
    let mut writer = server.writer(rows, "writer2");
    mount.end_with(Signal::SIGKILL);
    assert!(writer.ends(), "a client hangs on a server without a disk");
    server.process.kill();
    let fresh = world.mount(&[]);
    let server = Server::start(&world, "server3", &fresh.path("data"));
    server.check(&writer);
    server.stop();
    fresh.unmount();
}

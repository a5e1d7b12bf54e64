//! MariaDB's backups in a volume, as MySQL operators make them: a dump is written through one mount while the server works,
//! and restored into another server through another mount.

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

/// A server with its data on the local disk.
struct Server<'a> {
    world: &'a World,
    directory: PathBuf,
    process: Background,
}

impl<'a> Server<'a> {
    fn start(world: &'a World, name: &str) -> Self {
        let directory = world.directory(name);
        let data = directory.join("data");
        // --user=root: the server asks for that, and has nothing but this directory.
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        world.run(install.arg(format!("--datadir={}", data.display())), LIMIT).success();
        let socket = directory.join("socket");
        let mut command = Command::new("mariadbd");
        command.args(["--no-defaults", "--user=root", "--skip-networking"]);
        command.args(["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--log-bin", "--server-id=1"]);
        command.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", socket.display()));
        let mut process = Background::start(&mut command, &directory.join("server"));
        process.wait_until("the server accepts connections", |_| fs::exists(&socket).unwrap());
        Self { world, directory, process }
    }

    /// Runs `text` in `directory` with `$S` as the socket.
    #[track_caller]
    fn script(&self, directory: &Path, commands: &str) -> String {
        let socket = self.directory.join("socket");
        let commands = format!("S=$1; sql() {{ mariadb --no-defaults -S \"$S\" -N -B \"$@\"; }}\n{commands}");
        script(self.world, directory, &commands, &[text(&socket)])
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
    let server = Server::start(&world, "one");
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
        cp \"$(dirname \"$S\")\"/data/*-bin.000002 binlog
        sha256sum * > SHA256SUMS";
    server.script(here.root(), back_up);
    let after = server.checksums();
    assert_ne!(before, after);
    server.stop();
    let other = Server::start(&world, "two");
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

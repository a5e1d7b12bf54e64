//! PostgreSQL with its data in a volume: killed, and killed with its mount, it recovers every transaction that it has
//! acknowledged, and its books balance.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use harness::{World, length};
use nix::{sys::signal::Signal, unistd::User};

use crate::{
    background::Background,
    script::{script, text},
    world,
};

/// The user that the Debian package makes. The server refuses to run as root.
const USER: &str = "postgres";

/// How long pgbench works before the first kill, in seconds.
const BENCH_SECONDS: (u32, u32) = (10, 60);

/// The four sums of pgbench's books, which are equal between any two transactions, and the transactions so far.
const BOOKS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches), \
    (SELECT sum(tbalance) FROM pgbench_tellers), coalesce((SELECT sum(delta) FROM pgbench_history), 0), \
    (SELECT count(*) FROM pgbench_history)";

/// Where the newest version that the package installed keeps its programs.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (make tools)");
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path().join("bin")).collect();
    versions.retain(|directory| directory.join("postgres").exists());
    versions.sort();
    versions.pop().expect("PostgreSQL's server is installed (make tools)")
}

/// A command as the server's user.
fn as_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--init-groups"]).arg(program).current_dir("/");
    command
}

struct Cluster<'a> {
    world: &'a World,
    /// The server's socket, and what it and its clients print: all on the local disk.
    local: PathBuf,
}

impl<'a> Cluster<'a> {
    /// A cluster in a volume that the server's user owns.
    fn create(world: &'a World, root: &Path) -> Self {
        let user = User::from_name(USER).unwrap().expect("the package's user");
        let local = world.directory("local");
        world.open_to_other_users();
        let cluster = Self { world, local };
        let data = root.join("data");
        fs::create_dir(&data).unwrap();
        for directory in [&data, &cluster.local] {
            chown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        let mut initdb = as_user(&programs().join("initdb"));
        initdb.args(["--auth=trust", "--locale=C", "--encoding=UTF8", "--data-checksums", "-D"]).arg(&data);
        world.run(&mut initdb, std::time::Duration::from_secs(120)).success();
        cluster
    }

    /// The server on the cluster in `root`, once it answers. Recovery is part of its start.
    fn start(&self, root: &Path, number: u32) -> Background {
        let mut command = as_user(&programs().join("postgres"));
        command.arg("-D").arg(root.join("data")).args(["-c", "listen_addresses=", "-c"]);
        command.arg(format!("unix_socket_directories={}", self.local.display()));
        let mut server = Background::start(&mut command, &self.local.join(format!("server{number}")));
        server.wait_until("the server accepts connections", |server| {
            server.complained().contains("database system is ready to accept connections")
        });
        server
    }

    fn sql(&self, sql: &str) -> String {
        let ask = "psql -h \"$1\" -U postgres -X -q -A -t -v ON_ERROR_STOP=1 -c \"$2\" postgres";
        script(self.world, Path::new("/"), ask, &[text(&self.local), sql])
    }

    /// pgbench at work for ever, once it has done enough transactions. It logs each that was acknowledged.
    fn bench(&self, number: u32, transactions: usize) -> Background {
        let prefix = self.local.join(format!("log{number}"));
        let mut command = as_user(&programs().join("pgbench"));
        command.args(["-h", text(&self.local), "-U", "postgres", "-n", "-c", "4", "-T", "36000", "-P", "1"]);
        command.args(["-l", "--log-prefix", text(&prefix), "postgres"]);
        let mut bench = Background::start(&mut command, &self.local.join(format!("bench{number}")));
        bench.wait_until("transactions were done", |_| self.acknowledged(number) > transactions);
        bench
    }

    /// Transactions that a pgbench has logged as done. It logs through a buffer: these are a part, and the last may be torn.
    fn acknowledged(&self, number: u32) -> usize {
        let prefix = format!("log{number}.");
        let logs = fs::read_dir(&self.local).unwrap().map(|entry| entry.unwrap().path());
        let logs = logs.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix));
        logs.map(|log| fs::read(log).unwrap().iter().filter(|byte| **byte == b'\n').count()).sum()
    }

    /// The books balance, every page's checksum is right, and at least so many transactions are in them.
    #[track_caller]
    fn check(&self, transactions: usize) -> usize {
        let books = self.sql(BOOKS);
        let numbers: Vec<i64> = books.trim().split('|').map(|number| number.parse().unwrap()).collect();
        let [accounts, branches, tellers, deltas, done] = numbers[..] else { panic!("{books}") };
        assert!([branches, tellers, deltas].iter().all(|sum| *sum == accounts), "the books do not balance: {books}");
        let done = usize::try_from(done).unwrap();
        assert!(done >= transactions, "{transactions} transactions were acknowledged, {done} are there");
        // Reads every page, and holds the indexes against the tables.
        self.sql("CREATE EXTENSION IF NOT EXISTS amcheck");
        self.sql("SELECT bt_index_check(c.oid, true) FROM pg_class c WHERE c.relkind = 'i' AND c.relam = 403");
        self.sql("VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) pgbench_accounts");
        done
    }
}

#[test]
fn postgresql_recovers_every_acknowledged_transaction_after_it_and_its_mount_are_killed() {
    let world = world();
    let mount = world.mount(&["-o", "allow_other"]);
    let cluster = Cluster::create(&world, mount.root());
    let mut server = cluster.start(mount.root(), 1);
    let seconds = length().of(BENCH_SECONDS.0, BENCH_SECONDS.1).to_string();
    let bench = "\"$1\"/pgbench -h \"$2\" -U postgres -i -q -s 5 postgres
        \"$1\"/pgbench -h \"$2\" -U postgres -c 4 -T \"$3\" postgres";
    script(&world, Path::new("/"), bench, &[text(&programs()), text(&cluster.local), &seconds]);
    let done = cluster.check(1);
    println!("{done} transactions in {seconds} s");
    // The server dies, its mount lives: what it wrote without fsync is still in the volume.
    let mut bench = cluster.bench(1, 100);
    server.kill();
    assert!(bench.ends(), "pgbench does not see that its server is gone");
    fs::remove_file(mount.path("data/postmaster.pid")).unwrap();
    let mut server = cluster.start(mount.root(), 2);
    let done = cluster.check(done + cluster.acknowledged(1));
    // The mount dies under it: only what was fsynced is left.
    let mut bench = cluster.bench(2, 100);
    mount.end_with(Signal::SIGKILL);
    assert!(bench.ends(), "pgbench hangs on a server without a disk");
    server.kill();
    let fresh = world.mount(&["-o", "allow_other"]);
    fs::remove_file(fresh.path("data/postmaster.pid")).unwrap();
    let mut server = cluster.start(fresh.root(), 3);
    cluster.check(done + cluster.acknowledged(2));
    // "Fast" shutdown: a last checkpoint, and no recovery at the next start.
    assert!(server.end_with(Signal::SIGINT), "the server does not shut down");
    let state = script(&world, fresh.root(), "\"$1\"/pg_controldata data", &[text(&programs())]);
    assert!(state.contains("Database cluster state:               shut down\n"), "{state}");
    fresh.unmount();
}

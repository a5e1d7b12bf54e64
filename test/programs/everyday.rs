//! What people and cron jobs do with files all day. The measure is the local disk: each script must print the same there and
//! in a volume, and leave the same tree, which a fresh mount shows as well.

use std::{fs, process::Command};

use harness::tree::assert_same;

use crate::{
    background::Background,
    listing::{assert_same_lines, listing, part_of},
    script::{script, text},
    world,
};

/// Kind, mode, owner and size of everything: what must be equal. Times are the moment's.
const FIELDS: usize = 6;

/// Runs `commands` in a directory of the local disk and in one of a volume, and compares.
#[track_caller]
fn does_the_same_as_on_a_local_disk(commands: &str) {
    let world = world();
    let local = world.directory("local");
    let expected = script(&world, &local, commands, &[]);
    let mount = world.mount(&[]);
    let directory = mount.path("directory");
    fs::create_dir(&directory).unwrap();
    assert_eq!(script(&world, &directory, commands, &[]), expected, "it prints something else");
    let attributes = |root| part_of(&listing(&world, root), "fdlp", FIELDS);
    assert_same(&local, &directory);
    assert_same_lines(&attributes(&directory), &attributes(&local), "in the volume");
    mount.unmount();
    let fresh = world.mount(&[]);
    assert_same(&local, &fresh.path("directory"));
    assert_same_lines(&attributes(&fresh.path("directory")), &attributes(&local), "through a fresh mount");
    script(&world, fresh.root(), "rm -r directory", &[]);
    fresh.unmount();
    assert_eq!(world.emulator().names(world.container()), [""; 0], "something is left");
}

#[test]
fn editors_save_in_all_their_ways() {
    does_the_same_as_on_a_local_disk(
        r#"
        printf 'one\ntwo\nthree\n' > file; chmod 640 file; chown 1000:33 file
        # vim: a copy as the backup, then in place; then by a new file and two renames.
        for way in yes no; do
            vim -u NONE -i NONE -N -es -c "set backup backupskip= backupext=.$way backupcopy=$way swapfile" \
                -c '%s/t[wW][oO]/two '$way'/' -c 'wq' file
        done
        cat file file.yes file.no; ls -A
        # As Emacs does: the file becomes the backup, a new one takes its name and mode.
        mv file 'file~'; printf 'by emacs\n' > file; chmod --reference='file~' file; cat file 'file~'
        # As most programs do: a new file beside it, fsync, rename over it, fsync of the directory.
        python3 - <<'PYTHON'
import os
for round in range(20):
    with open('.file.tmp', 'w') as file:
        file.write(f'round {round}\n' * (round + 1)); file.flush(); os.fsync(file.fileno())
    os.replace('.file.tmp', 'file')
    directory = os.open('.', os.O_RDONLY); os.fsync(directory); os.close(directory)
PYTHON
        cat file
        sed -i.orig 's/19/nineteen/' file; sed -i '1d' file; cat file
        perl -pi -e 's/round/Round/' file; head -n 2 file
        seq 30000 -1 1 > numbers; sort -n -o numbers numbers; head -n 2 numbers; tail -n 1 numbers
        printf -- '--- a\n+++ b\n@@ -1,2 +1,2 @@\n-1\n+first\n 2\n' | patch -s numbers; head -n 2 numbers
        install -m 750 -o 33 -g 1000 file installed
        printf 'more\n' | tee -a file installed >/dev/null; wc -l file installed
        "#,
    );
}

#[test]
fn blocks_are_overwritten_cut_split_and_shredded_in_place() {
    does_the_same_as_on_a_local_disk(
        r#"
        python3 -c 'import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes(12000000))' > data
        dd if=data of=copy bs=64k conv=fsync status=none; cmp data copy
        dd if=/dev/zero of=copy bs=4k seek=3 count=2 conv=notrunc,fsync status=none
        dd if=data of=copy bs=4096 skip=7 seek=2000 count=300 oflag=direct conv=notrunc status=none
        dd if=data of=copy bs=1 skip=9 seek=11999995 count=10 conv=notrunc oflag=sync status=none
        dd if=copy iflag=direct bs=1M status=none | md5sum
        truncate -s 5000001 copy; truncate -s +3000000 copy; truncate -s %4096 copy; md5sum copy
        fallocate -l 9000000 copy 2>/dev/null || truncate -s 9000000 copy; md5sum copy
        split -b 1000000 data part.; cat part.* | cmp - data; ls | wc -l
        cat part.aa part.ab > part.aa.ab; cat part.ac >> part.aa.ab; head -c 3000000 data | cmp - part.aa.ab
        cp --sparse=always copy sparse; cmp copy sparse
        cp --reflink=auto data clone; cmp data clone
        cp data shredded; shred -x -n 2 -z shredded; cmp -n 12000000 shredded /dev/zero; wc -c < shredded
        # shred renames as often as the name is long before it removes the file.
        shred -u shredded; test ! -e shredded
        tail -c 1000 data | md5sum; head -c 7 data | od -An -tx1; tac numbers 2>/dev/null || true
        python3 - <<'PYTHON'
import mmap, os
with open('copy', 'r+b') as file:
    with mmap.mmap(file.fileno(), 0) as map:
        map[8999990:9000000] = b'0123456789'; map[5_000_000:5_000_004] = b'mmap'; map.flush()
        file.seek(5_000_000); print(file.read(4))
        map.resize(9_500_000); map[9_400_000] = 65
with open('copy', 'rb') as file:
    file.seek(8_999_990); print(file.read(10)); file.seek(9_400_000); print(file.read(1))
# What kernels do for web servers and containers: file to file and file to socket without a copy.
source, target = os.open('data', os.O_RDONLY), os.open('sent', os.O_WRONLY | os.O_CREAT, 0o600)
while os.sendfile(target, source, None, 1 << 20): pass
os.close(target)
os.system('cmp data sent')
PYTHON
        "#,
    );
}

#[test]
fn archivers_and_comparers_agree_with_the_local_disk() {
    does_the_same_as_on_a_local_disk(
        r#"
        mkdir -p tree/a/b tree/empty
        for n in $(seq 120); do seq "$n" "$((n * 3))" > "tree/a/f$n"; done
        cp tree/a/f1 tree/a/b/x; chmod 755 tree/a/b/x; ln -s ../f1 tree/a/b/link
        zip -q -r -y tree.zip tree; mkdir unzipped; unzip -q tree.zip -d unzipped; diff -r tree unzipped/tree; rm tree.zip
        zip -q one.zip tree/a/f1; zip -q -u one.zip tree/a/f2; zip -q -d one.zip tree/a/f1; unzip -l one.zip | grep -c f2
        rm one.zip
        rm unzipped/tree/a/b/link tree/a/b/link
        gzip -r -n unzipped/tree/a; ls unzipped/tree/a | head -n 3; gunzip -r unzipped/tree/a; diff -r tree unzipped/tree
        bzip2 -k tree/a/f100; bzip2 -dc tree/a/f100.bz2 | cmp - tree/a/f100
        cp -a tree copied; diff -r tree copied; mv copied/a copied/renamed; ls copied
        mv copied/renamed/f7 moved; mv -n moved tree/a/f8; ls moved; mv -f moved tree/a/f8; cmp tree/a/f8 tree/a/f7
        touch -d '2020-01-01 UTC' reference; find tree -newer reference -name 'f1*' | sort | md5sum
        find tree -type f -size +2 | wc -l; find tree -name 'f?' -delete; find tree -type f | wc -l
        grep -rl 199 tree | sort; du -s --apparent-size -B1 tree/a/f100 | cut -f1
        mkdir -p many/{1..5}/{1..5}; rmdir many/1/1; rmdir many/1 2>/dev/null || echo 'not empty'; rm -r many
        ln -s ../f50 tree/a/b/link; readlink tree/a/b/link; realpath --relative-to=. tree/a/b/link; ln -sfn elsewhere tree/a/b/link; readlink tree/a/b/link
        ln tree/a/f20 hard 2>/dev/null || cp tree/a/f20 hard; cmp tree/a/f20 hard; rm hard
        mkfifo pipe; (seq 5 > pipe &); cat pipe
        chmod -R go-rwx tree; chmod -R u=rwX,g=rX tree; stat -c '%a %n' tree tree/a tree/a/f20
        "#,
    );
}

#[test]
fn pythons_temporary_files_stores_and_locks_work() {
    does_the_same_as_on_a_local_disk(
        r#"
        python3 - <<'PYTHON'
import dbm.dumb, fcntl, glob, json, os, pathlib, shelve, shutil, subprocess, sys, tempfile
with tempfile.NamedTemporaryFile(dir='.') as file:
    file.write(b'x' * 100); file.flush(); print(os.path.getsize(file.name))
with tempfile.TemporaryFile(dir='.') as file:
    file.write(b'y' * 3_000_000); file.seek(0); print(len(file.read()))
with tempfile.TemporaryDirectory(dir='.') as directory:
    pathlib.Path(directory, 'a').write_text('b'); pathlib.Path(directory, 'c').mkdir()
with shelve.open('shelf') as shelf:
    for key in range(200): shelf[str(key)] = {'key': key, 'text': 'z' * key}
with shelve.open('shelf') as shelf:
    del shelf['7']; shelf['8'] = 8
with shelve.open('shelf', flag='r') as shelf:
    print(len(shelf), shelf['8'], shelf['199']['key'])
# What the store is made of differs with Python; only what is in it counts.
for name in glob.glob('shelf*'): os.remove(name)
with dbm.dumb.open('numbers', 'n') as store:
    for key in range(1000): store[str(key)] = str(key) * 10
with dbm.dumb.open('numbers', 'r') as store: print(store[b'77'])
# A removed file goes on for who has it open; so does one that another was renamed over.
with open('gone', 'w+') as file:
    file.write('still here'); file.flush(); os.remove('gone'); file.seek(0); print(file.read(), os.path.exists('gone'))
with open('victim', 'w+') as file:
    file.write('old'); file.flush()
    pathlib.Path('new').write_text('new'); os.replace('new', 'victim')
    file.seek(0); print(file.read(), pathlib.Path('victim').read_text())
# Locks of both sorts, against another process.
ask = '''
import fcntl, sys
with open('lock', 'r+') as file:
    for lock in (lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
                 lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100)):
        try: lock(); print('free', end=' ')
        except BlockingIOError: print('held', end=' ')
'''
def others():
    print(subprocess.run([sys.executable, '-c', ask], capture_output=True, text=True, check=True).stdout)
with open('lock', 'w') as file:
    others()
    fcntl.flock(file, fcntl.LOCK_EX); others(); fcntl.flock(file, fcntl.LOCK_UN)
    fcntl.lockf(file, fcntl.LOCK_EX, 50, 60); others(); fcntl.lockf(file, fcntl.LOCK_UN, 50, 60)
    others()
shutil.copytree('.', '../tree-copy', dirs_exist_ok=True); shutil.rmtree('../tree-copy')
print(sorted(os.listdir('.')))
PYTHON
        "#,
    );
}

/// A log that grows while logrotate copies and cuts it, and one that it renames.
const LOGROTATE: &str = r#"
cat > conf <<CONF
"$PWD/cut.log" { copytruncate
rotate 5
compress
delaycompress }
"$PWD/moved.log" { create 0640 root root
rotate 5
compress }
CONF
chmod 644 conf
for round in 1 2 3; do
    for n in $(seq 200); do echo "round $round line $n" >> cut.log; echo "round $round line $n" >> moved.log; done
    logrotate --force --state "$PWD/state" conf
done
cat cut.log.1; zcat cut.log.2.gz cut.log.3.gz | wc -l; zcat moved.log.*.gz | sort | uniq -d | wc -l
zcat moved.log.*.gz | wc -l; wc -c < cut.log; wc -c < moved.log; rm state conf
"#;

#[test]
fn logrotate_cuts_and_moves_logs() {
    let world = world();
    let mount = world.mount(&[]);
    // logrotate wants directories that only root can write.
    let prepared = format!("mkdir logs; chmod 755 logs; cd logs\n{LOGROTATE}");
    let said = script(&world, mount.root(), &prepared, &[]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 205, "{said}");
    assert!((0..200).all(|n| lines[n] == format!("round 3 line {}", n + 1)), "{said}");
    assert_eq!(lines[200..], ["400", "0", "600", "0", "0"]);
    mount.unmount();
}

#[test]
fn inotify_tells_of_local_changes() {
    let world = world();
    let mount = world.mount(&[]);
    let mut command = Command::new("inotifywait");
    command.args(["--monitor", "--format", "%e %f", "-e", "create,close_write,moved_to,delete", text(mount.root())]);
    let mut watcher = Background::start(&mut command, &world.path("events"));
    watcher.wait_until("it watches", |watcher| watcher.complained().contains("Watches established"));
    script(&world, mount.root(), "echo 1 > a; mv a b; rm b; mkdir d", &[]);
    watcher.wait_until("all was told", |watcher| watcher.said().contains("CREATE,ISDIR d"));
    assert_eq!(watcher.said(), "CREATE a\nCLOSE_WRITE,CLOSE a\nMOVED_TO b\nDELETE b\nCREATE,ISDIR d\n");
    watcher.kill();
    mount.unmount();
}

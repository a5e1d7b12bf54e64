//! What the machine lacks. Mounting fails for most of it in its own place; the doctor sees it without mounting.

use std::process::Command;

use azblob_csi::finding::Finding;

use crate::clinic::{Case, Clinic};

impl Clinic {
    /// The doctor, started by a shell that has done `before` (which ends with `exec "$@"`).
    fn examine_after(&self, program: &str, before: &[&str]) -> crate::clinic::Examined {
        let url = self.world.url();
        let mut command = Command::new(program);
        command.args(before).arg(env!("CARGO_BIN_EXE_azblob-csi")).args(["doctor", "--json", &url]);
        command.env("AZURE_STORAGE_KEY", self.world.emulator().key());
        self.examined(&mut command)
    }
}

#[test]
fn what_the_machine_lacks_is_told() {
    let clinic = Clinic::new();
    let hidden = clinic.examine_after("unshare", &["-m", "sh", "-c", "mount -t tmpfs none /dev && exec \"$@\"", "sh"]);
    clinic.found(&Case::new(Finding::NoFuseDevice, &["modprobe fuse"]), &hidden);
    let unprivileged = clinic.examine_after("setpriv", &["--bounding-set=-sys_admin"]);
    clinic.found(&Case::new(Finding::MountNotPermitted, &["CAP_SYS_ADMIN"]), &unprivileged);
    let limited = clinic.examine_after("sh", &["-c", "ulimit -n 512 && exec \"$@\"", "sh"]);
    let kernel = limited.check("kernel");
    assert!(limited.healthy && kernel["finding"] == Finding::FileLimit.name(), "{kernel}");
    let file = clinic.world.path("file");
    std::fs::write(&file, "").unwrap();
    let directory = clinic.world.directory("cache");
    for (flags, finding) in [
        (vec![format!("--cache-dir={}", file.display())], Finding::CacheDirectoryUnusable),
        (
            vec![format!("--cache-dir={}", directory.display()), "--cache-free=99".to_owned()],
            Finding::CacheDirectoryFull,
        ),
    ] {
        let mut arguments = flags;
        arguments.push(clinic.world.url());
        let examined = clinic.examine(&arguments, &[("AZURE_STORAGE_KEY", clinic.world.emulator().key())]);
        let cache = examined.check("cache-directory");
        assert!(examined.healthy && cache["finding"] == finding.name(), "{cache}");
        assert_eq!(cache["result"], "advice");
    }
}

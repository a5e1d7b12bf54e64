//! Shell scripts with a deadline, as the person at the terminal would type them.

use std::{path::Path, process::Command, time::Duration};

use harness::{Finished, World, length};

/// Far more than any script takes on a machine that is shared with a build.
const LIMIT: Duration = Duration::from_secs(240);
const LIMIT_LONG: Duration = Duration::from_secs(3600);

/// Runs `text` with bash in `directory`; `arguments` are `$1` and so on. The first command that fails ends it,
/// and is the last one named on the error output, also where it is a silent `test`.
#[track_caller]
pub fn try_script(world: &World, directory: &Path, text: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new("bash");
    command.args(["-euxo", "pipefail", "-c", text, "script"]).args(arguments).current_dir(directory);
    // Neither the settings of whoever runs the test, nor those of the cargo and the make that run it.
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_SYSTEM", "/dev/null"),
        ("GIT_AUTHOR_NAME", "test"),
        ("GIT_AUTHOR_EMAIL", "test@example.com"),
        ("GIT_COMMITTER_NAME", "test"),
        ("GIT_COMMITTER_EMAIL", "test@example.com"),
        ("PIP_CONFIG_FILE", "/dev/null"),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("LC_ALL", "C.UTF-8"),
    ] {
        command.env(name, value);
    }
    // A make below another one says so in its output.
    for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "RUSTC_WRAPPER", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        command.env_remove(name);
    }
    world.run(&mut command, length().of(LIMIT, LIMIT_LONG))
}

/// [`try_script`] that must succeed. Returns what it printed.
#[track_caller]
pub fn script(world: &World, directory: &Path, text: &str, arguments: &[&str]) -> String {
    try_script(world, directory, text, arguments).success()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

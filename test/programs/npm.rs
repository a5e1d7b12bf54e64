//! npm in a volume: its cache, packages with links to their programs, and an installation made again from the lock file.

use crate::{
    script::{script, text},
    world,
};

/// Two packages, one of which needs the other, each with a program and a few hundred files. Nothing comes from the network.
const PACKAGES: &str = r#"
for name in one two; do
    mkdir -p "$name/lib"
    printf '#!/usr/bin/env node\nconsole.log("%s", require("fs").readdirSync(__dirname + "/lib").length)\n' "$name" > "$name/run.js"
    for n in $(seq 200); do echo "module.exports = $n" > "$name/lib/$n.js"; done
    printf '{"name": "demo-%s", "version": "1.0.0", "bin": {"demo-%s": "run.js"}}' "$name" "$name" > "$name/package.json"
    (cd "$name" && npm pack --silent --pack-destination .. >/dev/null)
done
ls *.tgz
"#;

#[test]
fn npm_installs_into_the_volume_and_a_fresh_mount_runs_and_reinstalls_it() {
    let world = world();
    let packages = world.directory("packages");
    assert_eq!(script(&world, &packages, PACKAGES, &[]), "demo-one-1.0.0.tgz\ndemo-two-1.0.0.tgz\n");
    let mount = world.mount(&[]);
    let npm = "npm() { command npm --offline --no-audit --no-fund --loglevel=error --cache \"$PWD/cache\" \"$@\"; }\n";
    let install = format!(
        "{npm} echo '{{\"name\": \"app\", \"version\": \"1.0.0\"}}' > package.json
        npm install \"$1\"/demo-one-1.0.0.tgz \"$1\"/demo-two-1.0.0.tgz >/dev/null
        node_modules/.bin/demo-one; node_modules/.bin/demo-two"
    );
    assert_eq!(script(&world, mount.root(), &install, &[text(&packages)]), "one 200\ntwo 200\n");
    mount.unmount();
    let fresh = world.mount(&[]);
    let again = format!(
        "{npm} node_modules/.bin/demo-one; npm ci >/dev/null; node_modules/.bin/demo-two; npm ls --parseable | wc -l"
    );
    assert_eq!(script(&world, fresh.root(), &again, &[]), "one 200\ntwo 200\n3\n");
    fresh.unmount();
}

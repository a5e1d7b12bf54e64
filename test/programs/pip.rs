//! A Python virtual environment in a volume: thousands of small files, compiled modules beside them, scripts to run.

use crate::{
    script::{script, text},
    world,
};

/// A wheel with 300 modules and a command, made here so that nothing is asked of the network.
const WHEEL: &str = r#"
import base64, hashlib, sys, zipfile
files = {f"demo/m{number:03}.py": f"VALUE = {number}\n" for number in range(300)}
files["demo/__init__.py"] = "from importlib import import_module\n" \
    "def main():\n    print(sum(import_module(f'demo.m{n:03}').VALUE for n in range(300)))\n"
info = "demo-1.0.dist-info"
files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
files[f"{info}/entry_points.txt"] = "[console_scripts]\ndemo = demo:main\n"
digest = lambda data: base64.urlsafe_b64encode(hashlib.sha256(data.encode()).digest()).rstrip(b"=").decode()
record = [f"{name},sha256={digest(data)},{len(data)}" for name, data in files.items()]
files[f"{info}/RECORD"] = "\n".join(record + [f"{info}/RECORD,,"]) + "\n"
with zipfile.ZipFile(sys.argv[1] + "/demo-1.0-py3-none-any.whl", "w") as wheel:
    for name, data in files.items():
        wheel.writestr(name, data)
"#;

#[test]
fn pip_installs_into_a_virtual_environment_in_the_volume_and_a_fresh_mount_imports_it() {
    let world = world();
    let wheels = world.directory("wheels");
    script(&world, &wheels, "python3 -c \"$1\" \"$2\"", &[WHEEL, text(&wheels)]);
    let mount = world.mount(&[]);
    // --copies: the interpreter itself is run from the volume.
    let install = "python3 -m venv --copies venv
        venv/bin/pip install --quiet --no-index --find-links \"$1\" demo
        venv/bin/pip check
        venv/bin/demo";
    let installed = script(&world, mount.root(), install, &[text(&wheels)]);
    assert!(installed.ends_with("\n44850\n"), "{installed}");
    // Scripts name their interpreter by its path, which the fresh mount has too.
    let point = mount.root().to_owned();
    mount.unmount();
    let fresh = world.mount_at(&point, &[]);
    assert_eq!(script(&world, fresh.root(), "venv/bin/demo", &[]), "44850\n");
    let remove = "venv/bin/pip uninstall --quiet --yes demo; ! venv/bin/python -c 'import demo' 2>/dev/null";
    script(&world, fresh.root(), remove, &[]);
    fresh.unmount();
}

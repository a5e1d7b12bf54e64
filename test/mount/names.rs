//! Every blob is reachable under its exact name, or hidden with one counted, logged reason.

use std::{collections::BTreeSet, fs, time::Duration};

use crate::world;

/// Written by another client: what a path can hold and a careless client mangles.
const ODD: [&str; 9] = [
    "\u{fc}n\u{ef}",
    "sp ace",
    "100%25",
    "..a",
    "a+b&c=d?e#f",
    "tab\tname",
    "quote'\"",
    "back\\slash",
    "deep/\u{65e5}\u{672c}/x",
];

#[test]
fn odd_names_of_other_clients_list_and_read_and_are_kept_when_written() {
    let world = world();
    for name in ODD {
        world.emulator().put(world.container(), name, name.as_bytes().to_vec(), &[]).unwrap();
    }
    let mount = world.mount(&[]);
    let listed: BTreeSet<String> =
        fs::read_dir(mount.root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let wanted: BTreeSet<String> = ODD.iter().map(|name| name.split('/').next().unwrap().to_owned()).collect();
    assert_eq!(listed, wanted);
    for name in ODD {
        assert_eq!(fs::read(mount.path(name)).unwrap(), name.as_bytes(), "{name}");
        fs::write(mount.path(name), format!("again {name}")).unwrap();
        fs::write(mount.path(&format!("{name}.new")), name).unwrap();
    }
    mount.unmount();
    for name in ODD {
        let of = |name: &str| String::from_utf8(world.emulator().get(world.container(), name).unwrap()).unwrap();
        assert_eq!(of(name), format!("again {name}"));
        assert_eq!(of(&format!("{name}.new")), name);
    }
}

#[test]
fn twelve_thousand_entries_list_once_each_and_read() {
    let world = world();
    let names: BTreeSet<String> = (0..12_000).map(|number| format!("entry-{number:05}")).collect();
    for name in &names {
        world.emulator().put(world.container(), &format!("many/{name}"), name.clone().into_bytes(), &[]).unwrap();
    }
    let mount = world.mount(&[]);
    let listed: Vec<String> = fs::read_dir(mount.path("many"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(listed.len(), names.len(), "an entry is missing or listed twice");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), names);
    for name in names.iter().step_by(997) {
        assert_eq!(fs::read_to_string(mount.path(&format!("many/{name}"))).unwrap(), *name);
    }
    mount.unmount();
}

/// `a//b` and `d/` have an empty component, which no path can hold.
#[test]
fn names_that_no_path_holds_are_hidden_logged_and_survive_the_removal_of_their_parent() {
    let world = world();
    let put = |name: &str| world.emulator().put(world.container(), name, name.as_bytes().to_vec(), &[]).unwrap();
    for name in ["a//b", "a/c", "d/", "e"] {
        put(name);
    }
    let mount = world.mount(&[]);
    let names = |path: &str| {
        let mut names: Vec<_> = fs::read_dir(mount.path(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("a"), ["c"]);
    assert_eq!(names("."), ["a", "d", "e"]);
    assert_eq!(names("d"), Vec::<String>::new());
    let mut rm = std::process::Command::new("rm");
    let removed = world.run(rm.arg("-r").arg(mount.path("a")), Duration::from_secs(30));
    assert!(!removed.status.success(), "the directory still holds a//b");
    assert!(removed.stderr.contains("not empty"), "{}", removed.stderr);
    let log = mount.unmount().log;
    assert!(log.contains("a//b"), "the log does not name what is hidden: {log}");
    let kept = world.emulator().names(world.container());
    assert!(["a//b", "d/", "e"].iter().all(|name| kept.iter().any(|kept| kept == name)), "{kept:?}");
    assert!(!kept.iter().any(|name| name == "a/c"), "{kept:?}");
}

#[test]
fn escape_names_shows_what_is_hidden_otherwise() {
    let world = world();
    for name in ["a//b", "d/"] {
        world.emulator().put(world.container(), name, name.as_bytes().to_vec(), &[]).unwrap();
    }
    let mount = world.mount(&["-o", "escape_names"]);
    let tree = harness::tree::tree(mount.root());
    let files: Vec<_> = tree.iter().filter(|(_, what)| *what != "/").collect();
    assert_eq!(files.len(), 2, "{tree:#?}");
    let contents: BTreeSet<String> =
        files.iter().map(|(name, _)| fs::read_to_string(mount.root().join(name)).unwrap()).collect();
    assert_eq!(contents, BTreeSet::from(["a//b".to_owned(), "d/".to_owned()]));
    // Written under their escapes, they keep their names.
    for (name, _) in files {
        fs::write(mount.root().join(name), b"changed").unwrap();
    }
    mount.unmount();
    assert_eq!(world.emulator().names(world.container()), ["a//b", "d/"]);
    assert_eq!(world.emulator().get(world.container(), "a//b").as_deref(), Some(&b"changed"[..]));
}

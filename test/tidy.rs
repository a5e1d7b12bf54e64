//! The house rules that a machine can check, as a test. Each rule is proven by a snippet that breaks it.
//!
//! | rule | limit |
//! |---|---|
//! | every file opens with `//!` | what it is for and what it must not know |
//! | sizes | 600 production lines a file, 70 lines a function |
//! | rooms | dependencies point downwards: see [`ROOMS`] |
//! | banned | see [`BANNED`], each with its replacement |
//! | docs | every promise in docs/SEMANTICS.md names tests that exist |

// Helpers of tests fail the test by panicking, like the tests themselves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Hard limits; usual is half of it (DESIGN 9).
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Rooms from the top down: a room may use those after it. `mapping`, `sync` and `telemetry` are everybody's and use nobody.
const ROOMS: [&str; 14] = [
    "cli",
    "migrate",
    "csi",
    "kube",
    "volume",
    "doctor",
    "fuse",
    "fs",
    "cache",
    "blob",
    "credential",
    "finding",
    "keeper",
    "ledger",
];

/// Text that has no place in the code, and what to write instead. Split, so that this file does not find itself.
const BANNED: [(&str, &str, &str); 8] = [
    ("#[al", "low(", "#[expect(lint, reason = \"...\")]: it tells when it is no longer needed"),
    ("#![al", "low(", "#![expect(lint, reason = \"...\")]: it tells when it is no longer needed"),
    ("TO", "DO", "an issue, or the thing itself"),
    ("FIX", "ME", "an issue, or the thing itself"),
    ("XX", "X", "an issue, or the thing itself"),
    ("db", "g!(", "tracing::debug!"),
    ("unimpl", "emented!(", "an error that says what is missing"),
    ("#[ig", "nore", "a test that runs, or none"),
];

/// A source file, with its path below the root.
struct Source {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the project.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> = ["src", "test", "examples"].iter().map(|name| root().join(name)).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                // What package clients put there is not ours.
                if !matches!(name.as_str(), "node_modules" | ".venv" | "target") {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(root()).unwrap().display().to_string(), text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// The part of a file that ships: everything before its test module.
fn production(source: &Source) -> &str {
    let is_test =
        source.path.starts_with("test/") || source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
    if is_test {
        return "";
    }
    source.text.split("#[cfg(test)]").next().unwrap()
}

fn opens_with_its_purpose(source: &Source) -> Vec<String> {
    let opens = source.text.starts_with("//! ") && !source.text.starts_with("//! placeholder");
    if opens { vec![] } else { vec![format!("{}: does not open with //! saying what it is for", source.path)] }
}

fn is_not_too_long(source: &Source) -> Vec<String> {
    let lines = production(source).lines().count();
    if lines <= FILE_LINES_MAX {
        return vec![];
    }
    vec![format!("{}: {lines} production lines, {FILE_LINES_MAX} are the limit: it is two rooms", source.path)]
}

/// Functions by indentation: rustfmt closes a function with a brace under its `fn`.
fn functions_are_not_too_long(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines: Vec<&str> = source.text.lines().collect();
    for (first, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let qualifiers = ["pub", "pub(super)", "pub(crate)", "async", "const", "unsafe"];
        let is_function = text.split_whitespace().find(|word| !qualifiers.contains(word)) == Some("fn");
        if !is_function {
            continue;
        }
        // A signature ends with the brace of its body, or with the semicolon of a declaration.
        let signature_end = lines[first..].iter().find(|line| line.ends_with(['{', ';', '}']));
        if !signature_end.is_some_and(|line| line.ends_with('{')) {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let length = lines[first..].iter().position(|line| *line == close).map(|last| last + 1);
        if let Some(length) = length.filter(|length| *length > FUNCTION_LINES_MAX) {
            found.push(format!(
                "{}:{}: a function of {length} lines, {FUNCTION_LINES_MAX} are the limit",
                source.path,
                first + 1
            ));
        }
    }
    found
}

/// The room of a file, if it is in one.
fn room(path: &str) -> Option<usize> {
    let name = path.strip_prefix("src/")?.split(['/', '.']).next()?;
    ROOMS.iter().position(|room| *room == name)
}

fn rooms_depend_downwards(source: &Source) -> Vec<String> {
    let Some(own) = room(&source.path) else { return vec![] };
    let mut found = Vec::new();
    let text = production(source);
    for (above, name) in ROOMS.iter().enumerate().filter(|(above, _)| *above < own) {
        let direct = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .any(|line| line.contains(&format!("crate::{name}::")) || line.contains(&format!("crate::{name};")));
        let grouped = text.split("use crate::{").skip(1).any(|group| {
            let group = group.split("};").next().unwrap();
            top_level_names(group).iter().any(|used| used == name)
        });
        if direct || grouped {
            found.push(format!(
                "{}: room {} uses {name}, which stands above it ({above} < {own})",
                source.path, ROOMS[own]
            ));
        }
    }
    found
}

/// First names of a `use` group, whatever is nested in them: `a, b::{c, d}` gives a and b.
fn top_level_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut current) = (0_usize, Vec::new(), String::new());
    for letter in group.chars().chain([',']) {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                names.push(current.split(':').next().unwrap().trim().to_owned());
                current.clear();
                continue;
            }
            _ => {}
        }
        current.push(letter);
    }
    names
}

fn holds_nothing_banned(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for (start, end, instead) in BANNED {
            let word = format!("{start}{end}");
            let alone = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric());
            if line.match_indices(&word).any(|(at, _)| alone(at) || word.starts_with('#')) {
                found.push(format!("{}:{}: {word}; instead: {instead}", source.path, number + 1));
            }
        }
    }
    found
}

type Rule = fn(&Source) -> Vec<String>;

const RULES: [Rule; 5] =
    [opens_with_its_purpose, is_not_too_long, functions_are_not_too_long, rooms_depend_downwards, holds_nothing_banned];

#[test]
fn every_file_keeps_the_house_rules() {
    let sources = sources();
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    let broken: Vec<String> =
        sources.iter().flat_map(|source| RULES.iter().flat_map(move |rule| rule(source))).collect();
    assert!(broken.is_empty(), "{} house rules are broken:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_rule_catches_what_breaks_it() {
    let snippet = |path: &str, text: String| Source { path: path.to_owned(), text };
    let catches = |rule: Rule, source: &Source| assert_eq!(rule(source).len(), 1, "{}", source.text);
    let passes = |rule: Rule, source: &Source| assert_eq!(rule(source), Vec::<String>::new());
    catches(opens_with_its_purpose, &snippet("src/a.rs", "use std::fs;\n".into()));
    catches(is_not_too_long, &snippet("src/a.rs", "x\n".repeat(601)));
    passes(is_not_too_long, &snippet("src/a.rs", format!("{}#[cfg(test)]\n{}", "x\n".repeat(500), "x\n".repeat(500))));
    let body =
        |lines: usize| format!("impl A {{\n    pub async fn f() {{\n{}    }}\n}}\n", "        x();\n".repeat(lines));
    catches(functions_are_not_too_long, &snippet("src/a.rs", body(69)));
    passes(functions_are_not_too_long, &snippet("src/a.rs", body(68)));
    for text in [
        "use crate::csi::Node;\n",
        "use crate::{\n    blob,\n    fuse::{Session, Error},\n};\n",
        "fn f() { crate::cli::main() }\n",
    ] {
        catches(rooms_depend_downwards, &snippet("src/fs/a.rs", text.into()));
    }
    let down = "use crate::{blob::{self, fuse}, cache};\n// crate::cli::main\n#[cfg(test)]\nuse crate::cli::main;\n";
    passes(rooms_depend_downwards, &snippet("src/fs/a.rs", down.into()));
    for (start, end, _) in BANNED {
        let found = holds_nothing_banned(&snippet("src/a.rs", format!("    {start}{end}x)]\n")));
        assert!(!found.is_empty(), "{start}{end}");
    }
}

/// A promise line of docs/SEMANTICS.md ends with its tests: "... (tests: `file::name`, `file::name`)".
fn promised_tests(page: &str) -> Vec<String> {
    let groups = page.split("(test").skip(1).filter_map(|rest| rest.split(')').next());
    groups.flat_map(|group| group.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/SEMANTICS.md")).unwrap();
    let all: String = sources().into_iter().map(|source| source.text).collect();
    let named = promised_tests(&page);
    assert!(named.len() > 10, "the page names only {} tests", named.len());
    let missing: Vec<_> =
        named.iter().filter(|name| !all.contains(&format!("fn {}(", name.rsplit("::").next().unwrap()))).collect();
    assert!(missing.is_empty(), "docs/SEMANTICS.md names tests that do not exist: {missing:#?}");
    let promises = page.lines().filter(|line| line.starts_with("- ")).count();
    let with_tests = page.split("\n- ").skip(1).filter(|promise| promise.contains("(test")).count();
    assert_eq!(promises, with_tests, "a promise names no test");
}

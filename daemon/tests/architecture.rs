//! The plan of the house in `docs/architecture.md`, read from the sources: who may import whom, which library stays
//! in which room, and how long a file may be.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Every module of the library, from the bottom up, and what it may import. Nothing imports back up.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("audit", &[]),
    ("clock", &[]),
    ("journal", &[]),
    ("supervisor", &[]),
    ("decision", &[]),
    ("registry", &[]),
    ("token", &[]),
    ("config", &["token"]),
    ("hotplug", &["token"]),
    ("judging", &["registry"]),
    ("owed", &["judging", "registry"]),
    ("presence", &["decision", "token"]),
    ("serialization", &["audit", "clock", "judging", "registry", "token"]),
    ("error", &["decision", "registry", "serialization", "token"]),
    ("queries", &["error", "judging", "owed", "registry"]),
    (
        "station",
        &[
            "audit",
            "clock",
            "config",
            "decision",
            "error",
            "hotplug",
            "judging",
            "owed",
            "presence",
            "queries",
            "registry",
            "serialization",
            "token",
        ],
    ),
    ("link", &["clock", "config", "error", "judging", "queries", "registry", "station"]),
    ("lifecycle", &["clock", "station", "supervisor"]),
    (
        "bus",
        &["clock", "error", "judging", "queries", "registry", "serialization", "station", "token"],
    ),
];

/// Names that occur in these places only.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("sled::", &["registry/"]),
    ("bincode::", &["registry/"]),
    ("zbus::", &["bus/"]),
    ("async fn", &["bus/", "lifecycle.rs", "station/handle.rs", "main.rs"]),
    ("SystemTime", &["clock.rs", "registry/directory.rs"]),
];

/// Files of rules: no I/O, no clock, no threads, no async.
const RULES: &[&str] = &[
    "audit/mod.rs",
    "audit/denials.rs",
    "decision.rs",
    "judging/kept.rs",
    "presence.rs",
    "serialization/look.rs",
    "serialization/stage.rs",
    "serialization/wizard.rs",
];
const NOT_IN_RULES: &[&str] =
    &["std::fs", "std::io", "std::net", "std::thread", "std::time", "tokio", "async ", "getrandom"];

const LONGEST_FILE: usize = 480;

/// Every source file by its path below `src`, without comments.
fn sources() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut directories: Vec<PathBuf> = vec![src.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.lines().map(|line| line.split("//").next().unwrap());
                let name = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
                found.insert(name, code.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    found
}

/// The module of the library that a file belongs to; none for the roots.
fn module(file: &str) -> Option<&str> {
    let name = file.split('/').next()?.trim_end_matches(".rs").trim_end_matches("_tests");
    (!["lib", "main"].contains(&name)).then_some(name)
}

/// The modules that are named behind `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let compact: String = code.split_whitespace().collect();
    let mut found = BTreeSet::new();
    for rest in compact.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(list) => first_names(list),
            None => vec![identifier(rest)],
        };
        found.extend(names.into_iter().filter(|name| !name.is_empty()));
    }
    found
}

/// The first name of each entry of a list, up to the brace that closes it.
fn first_names(list: &str) -> Vec<String> {
    let (mut names, mut depth, mut at_start) = (Vec::new(), 1, true);
    for (place, character) in list.char_indices() {
        if at_start {
            names.push(identifier(&list[place..]));
        }
        depth += i32::from(character == '{') - i32::from(character == '}');
        at_start = character == ',' && depth == 1;
        if depth == 0 {
            break;
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_are_found_as_they_are_written() {
    let code =
        "use crate::a;\nuse crate::{\n    b::{c, d},\n    e, f::*,\n};\nlet x = crate::g::h();";
    assert_eq!(imports(code), ["a", "b", "e", "f", "g"].map(String::from).into());
    assert_eq!(
        (module("bus/key.rs"), module("decision_tests.rs")),
        (Some("bus"), Some("decision"))
    );
}

#[test]
fn nothing_imports_back_up() {
    for (file, code) in sources() {
        let Some(module) = module(&file) else { continue };
        let row = MAY_IMPORT.iter().find(|(name, _)| *name == module);
        let (_, allowed) =
            row.unwrap_or_else(|| panic!("{file}: {module} has no place in the plan"));
        for import in imports(&code) {
            let fine = import == module || allowed.contains(&import.as_str());
            assert!(fine, "{file} imports crate::{import}, which {module} may not");
        }
    }
}

#[test]
fn the_plan_itself_has_no_way_up() {
    for (floor, (module, allowed)) in MAY_IMPORT.iter().enumerate() {
        for import in *allowed {
            let below = MAY_IMPORT[..floor].iter().any(|(name, _)| name == import);
            assert!(below, "{module} stands below {import}");
        }
    }
}

#[test]
fn each_library_stays_in_its_room() {
    let sources = sources();
    for (name, places) in ONLY_IN {
        let using: Vec<_> = sources.iter().filter(|(_, code)| code.contains(name)).collect();
        assert!(!using.is_empty(), "{name} is not used at all");
        for (file, _) in using {
            assert!(places.iter().any(|place| file.starts_with(place)), "{file} uses {name}");
        }
    }
}

#[test]
fn rules_are_pure() {
    let sources = sources();
    for file in RULES {
        for name in NOT_IN_RULES {
            assert!(!sources[*file].contains(name), "{file} uses {name}");
        }
    }
}

#[test]
fn files_are_short() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources().keys() {
        let lines = fs::read_to_string(src.join(file)).unwrap().lines().count();
        assert!(lines <= LONGEST_FILE, "{file} has {lines} lines: it is about more than one thing");
    }
}

//! The house rules that can be counted: who may import whom, how long a file may be, what every file begins with, under
//! which licences the dependencies stand.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders of `src` and their floors. Imports point to lower floors only.
const FLOORS: [(&str, u8); 12] = [
    ("base", 0),
    ("crypt", 1),
    ("map", 2),
    ("record", 2),
    ("image", 2),
    ("torrent", 2),
    ("tree", 3),
    ("sync", 3),
    ("fuse", 4),
    ("net", 4),
    ("share", 4),
    ("daemon", 5),
];
const TOP: (&str, u8) = ("cli", 6);

const LINES_MAX: usize = 450;
/// Files that may be longer, each with its reason. None has one.
const LONGER: [&str; 0] = [];
/// Files that may contain unsafe code: each carries its proof.
const UNSAFE: [&str; 1] = ["tests/mount/mapping.rs"];

/// Files that silence another lint. The forgeries use a part of the harness of the end-to-end tests.
const SILENCED: [&str; 1] = ["tests/forge/main.rs"];

/// Licences under which a dependency may stand.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Additions to a licence that only permit more.
const LICENCE_ADDITIONS: [&str; 1] = ["LLVM-exception"];

fn floor(folder: &str) -> Option<u8> {
    FLOORS.iter().chain([&TOP]).find(|(name, _)| *name == folder).map(|(_, floor)| *floor)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The first word behind each `crate::` of a file, comments left out.
fn imported(text: &str) -> BTreeSet<&str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let behind = code.flat_map(|line| line.split("crate::").skip(1).map(move |rest| (line, rest)));
    let words = behind.flat_map(|(_, rest)| {
        // `use crate::{a, b}` names several.
        let list = rest.strip_prefix('{').map_or(rest, |list| list.split('}').next().unwrap_or(list));
        let several = if list.len() < rest.len() {
            list
        } else {
            list.split([':', ';', ',', ')', ' ']).next().unwrap_or("")
        };
        several.split(',').map(|item| item.trim().split("::").next().unwrap_or(""))
    });
    words
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '_'))
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let inside = file.strip_prefix(root().join("src")).unwrap();
        let Some(folder) =
            inside.parent().and_then(|parent| parent.iter().next()).and_then(|name| name.to_str())
        else {
            continue;
        };
        let own =
            floor(folder).unwrap_or_else(|| panic!("src/{folder} is on no floor: name it in this test"));
        let text = std::fs::read_to_string(&file).unwrap();
        for word in imported(&text) {
            let below = floor(word).is_none_or(|other| other < own);
            if word != folder && !below {
                wrong.push(format!("{} imports crate::{word}", shown(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_are_found() {
    let text =
        "use crate::tree::Tree;\n// crate::cli\nuse crate::{base::Id, crypt};\nfn f() { crate::net::go() }";
    assert_eq!(imported(text), BTreeSet::from(["base", "crypt", "net", "tree"]));
}

#[test]
fn a_file_holds_one_concept() {
    let mut long = Vec::new();
    for file in rust_files("src").into_iter().chain(rust_files("tests")) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        if lines > LINES_MAX && !LONGER.contains(&shown(&file).as_str()) {
            long.push(format!("{}: {lines} lines", shown(&file)));
        }
    }
    assert!(long.is_empty(), "at most {LINES_MAX} lines: {long:#?}");
}

#[test]
fn a_file_begins_with_what_it_is() {
    // Unit tests beside their subject are introduced by it.
    let is_test = |file: &Path| {
        file.ends_with("tests.rs") || shown(file).contains("/tests/") || shown(file).ends_with("_tests.rs")
    };
    let bare = |file: &PathBuf| !is_test(file) && !std::fs::read_to_string(file).unwrap().starts_with("//! ");
    let bare: Vec<String> = rust_files("src")
        .into_iter()
        .chain(rust_files("tests"))
        .filter(bare)
        .map(|file| shown(&file))
        .collect();
    assert!(bare.is_empty(), "no header: {bare:#?}");
}

#[test]
fn unsafe_code_and_silenced_lints_are_named() {
    // Put together here, so that this file does not find itself.
    let forbidden = ["unsafe_code", "dead_code", "unused"].map(|lint| format!("allow({lint}"));
    let mut found = Vec::new();
    for file in rust_files("src").into_iter().chain(rust_files("tests")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let silenced = forbidden.iter().any(|lint| text.contains(lint.as_str()));
        let name = shown(&file);
        if silenced && !UNSAFE.contains(&name.as_str()) && !SILENCED.contains(&name.as_str()) {
            found.push(shown(&file));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whether an SPDX expression lets us choose permissive licences. `AND` binds closer than `OR`; an old form of `OR` is `/`.
fn is_permissive(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let permissive = any_of(&tokens, &mut at);
    permissive && at == tokens.len()
}

fn any_of(tokens: &[&str], at: &mut usize) -> bool {
    let mut permissive = all_of(tokens, at);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        permissive |= all_of(tokens, at);
    }
    permissive
}

fn all_of(tokens: &[&str], at: &mut usize) -> bool {
    let mut permissive = one(tokens, at);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        permissive &= one(tokens, at);
    }
    permissive
}

fn one(tokens: &[&str], at: &mut usize) -> bool {
    let token = tokens.get(*at).copied().unwrap_or_default();
    *at += 1;
    if token == "(" {
        let permissive = any_of(tokens, at);
        let closed = tokens.get(*at) == Some(&")");
        *at += 1;
        return permissive && closed;
    }
    let mut permissive = LICENCES.contains(&token);
    if tokens.get(*at) == Some(&"WITH") {
        permissive &= tokens.get(*at + 1).is_some_and(|addition| LICENCE_ADDITIONS.contains(addition));
        *at += 2;
    }
    permissive
}

#[test]
fn expressions_of_licences_are_understood() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-2.0) AND ISC",
        "Apache-2.0 WITH LLVM-exception OR MIT",
        "MIT AND (Apache-2.0 OR LGPL-3.0)",
    ] {
        assert!(is_permissive(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-2.0",
        "MIT OR",
        "(MIT",
        "MIT)",
        "Apache-2.0 WITH Strange-exception",
        "MIT ISC",
    ] {
        assert!(!is_permissive(bad), "{bad}");
    }
}

#[test]
fn every_dependency_is_permissive() {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "the list of packages is not what this test expects");
    let wrong: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_permissive))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The tests that the attack book in kilofs(7) names.
fn named_in_the_book(page: &str) -> BTreeSet<&str> {
    let observer = page.find(".Ss What an observer learns\n").unwrap();
    let attacks = observer + page[observer..].find(".Ss Attacks, one by one\n").unwrap();
    let end = attacks + page[attacks..].find("\n.Ss What an invitation").unwrap();
    let book = &page[observer..end];
    book.lines()
        .filter_map(|line| line.strip_prefix(".Fn "))
        .map(|rest| rest.split(' ').next().unwrap())
        .collect()
}

/// The functions marked as tests in a source file.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    let marked = text.split("#[test]").skip(1);
    marked.filter_map(|rest| rest.split("fn ").nth(1)?.split('(').next())
}

#[test]
fn every_attack_of_the_book_is_a_test() {
    let page = std::fs::read_to_string(root().join("man/kilofs.7")).unwrap();
    let named = named_in_the_book(&page);
    assert!(named.len() >= 60, "{} names: the book is not where this test looks for it", named.len());
    let read = |folder| rust_files(folder).into_iter().map(|file| std::fs::read_to_string(file).unwrap());
    let (src, tests): (Vec<String>, Vec<String>) = (read("src").collect(), read("tests").collect());
    let known: BTreeSet<&str> = src.iter().chain(&tests).flat_map(|text| tests_of(text)).collect();
    let missing: Vec<_> = named.difference(&known).collect();
    assert!(missing.is_empty(), "kilofs(7) names tests that do not exist: {missing:#?}");
    // And what the thief is made to try, the book tells.
    let tried: Vec<String> = read("tests/forge").collect();
    let tried: BTreeSet<&str> = tried.iter().flat_map(|text| tests_of(text)).collect();
    let untold: Vec<_> = tried.difference(&named).collect();
    assert!(untold.is_empty(), "kilofs(7) does not tell of {untold:#?}");
}

//! A strict reader of the text format of Prometheus, version 0.0.4: what `promtool check metrics` would refuse, it
//! refuses too.

use std::collections::{BTreeMap, BTreeSet};

/// The samples of a text by name and labels. Panics where the text is not what the format asks for.
#[track_caller]
pub fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'), "the last line is not ended");
    let mut samples = BTreeMap::new();
    let mut families: BTreeSet<String> = BTreeSet::new();
    let (mut helped, mut family, mut kind) = (None, String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(is_name(name) && !help.trim().is_empty(), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            assert_eq!(helped.take().as_deref(), Some(name), "help comes before the type: {line}");
            assert!(["counter", "gauge"].contains(&of), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "counters end in _total: {line}");
            assert!(families.insert(name.to_owned()), "a family stands in one piece: {line}");
            (family, kind) = (name.to_owned(), of.to_owned());
        } else {
            assert!(helped.is_none() && !line.starts_with('#') && !line.is_empty(), "{line:?}");
            let (name, labels, value) = sample(line);
            assert_eq!(name, family, "a sample stands in its family: {line}");
            let keys: Vec<&str> = labels.iter().map(|(key, _)| key.as_str()).collect();
            assert_eq!(keys, ["database", "name"], "{line}");
            assert!(value.is_finite() && (value >= 0.0 || kind == "gauge"), "{line}");
            let key = format!("{name} {}", labels[1].1);
            assert!(samples.insert(key, value).is_none(), "told twice: {line}");
        }
    }
    assert!(helped.is_none());
    samples
}

fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|other| other.is_ascii_alphanumeric() || other == '_')
}

fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let (name, rest) = line.split_once('{').unwrap_or_else(|| panic!("no labels: {line}"));
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    let mut rest = rest;
    loop {
        let (key, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        assert!(is_name(key), "{line}");
        let mut value = String::new();
        let mut characters = behind.char_indices();
        let end = loop {
            match characters.next() {
                Some((_, '\\')) => match characters.next() {
                    Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                    Some((_, 'n')) => value.push('\n'),
                    other => panic!("a wrong escape {other:?}: {line}"),
                },
                Some((at, '"')) => break at,
                Some((_, other)) => value.push(other),
                None => panic!("a label without an end: {line}"),
            }
        };
        labels.push((key.to_owned(), value));
        rest = &behind[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    let value = rest.strip_prefix("} ").unwrap_or_else(|| panic!("no value: {line}"));
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

#[test]
fn what_is_wrong_is_refused() {
    let good = "# HELP a_total What.\n# TYPE a_total counter\na_total{database=\"d\",name=\"n\\\"\"} 1\n";
    assert_eq!(parse(good)["a_total n\""], 1.0);
    for (from, to) in [
        ("# HELP a_total What.\n", ""),
        ("counter", "gauge"),
        ("\\\"", "\""),
        ("} 1\n", "} 1"),
        ("} 1", "} one"),
        ("a_total{", "b_total{"),
        ("name=", "na-me="),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(std::panic::catch_unwind(|| parse(&bad)).is_err(), "{bad}");
    }
    assert!(std::panic::catch_unwind(|| parse(&good.repeat(2))).is_err(), "a family twice");
}

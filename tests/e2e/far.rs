//! Two devices with a network of their own between them: what goes over the wire is counted by the kernel, and a line may
//! be long and lose packets. The measuring is done by `scripts/bench/sync`, which needs root.

use super::harness::BINARY;
use super::process::run_within;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(400);

/// What `scripts/bench/sync` measures of kilofs; none where this user may not make networks.
fn measured(label: &str, arguments: &[&str]) -> Option<Value> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("figures.json");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bench/sync");
    let mut command = Command::new(script);
    command.env("KILOFS", BINARY).env("SYNC_NAMESPACES", format!("kfs{label}{}", std::process::id()));
    command.args(["kilofs", "--limit", "90", "--out"]).arg(&out).args(arguments);
    let done = run_within(&mut command, b"", DEADLINE);
    let said = done.expect("scripts/bench/sync");
    let figures: Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    let figures = figures["kilofs"].clone();
    let failed = figures.as_object().unwrap().keys().any(|name| name.ends_with("_error"));
    assert!(!failed, "{said}");
    Some(figures)
}

#[track_caller]
fn at_most(figures: &Value, name: &str, limit: u64) {
    let found = figures[name].as_f64().unwrap_or_else(|| panic!("{name} was not measured: {figures}"));
    assert!(found <= limit as f64, "{name} is {found}, more than {limit}: {figures}");
}

#[test]
fn a_cable_carries_no_more_than_what_changed() {
    const LARGE_MIB: u64 = 256;
    let tests = ["--tests", "small,large,overwrite,append,tiny,many,missed", "--reps", "5"];
    let sizes = ["--large", "256", "--files", "300"];
    let Some(figures) = measured("c", &[&tests[..], &sizes[..]].concat()) else { return };
    at_most(&figures, "small_wire_bytes", 40_000);
    assert!(figures["large_wire_ratio"].as_f64().unwrap() <= 1.05, "{figures}");
    let piece = 64 << 10;
    let metainfo = LARGE_MIB * MIB / piece * 20 + 1024;
    at_most(&figures, "overwrite_wire_bytes", MIB + 4 * piece + metainfo + (64 << 10));
    at_most(&figures, "append_wire_bytes", 5 * piece + metainfo);
    at_most(&figures, "tiny_wire_bytes", 5 * piece + metainfo);
    at_most(&figures, "many_wire_bytes", 300 * 4096 / 100 * 125);
    // The image grew by 300 saves and the nodes above each, and what grew is fetched once.
    at_most(&figures, "missed_wire_bytes", 4 * MIB);
}

#[test]
fn a_long_line_that_loses_packets_holds_nothing_up() {
    let line = ["--delay", "100", "--loss", "5"];
    let tests = ["--tests", "small,large,overwrite,many,conflict", "--reps", "3"];
    let sizes = ["--large", "4", "--files", "100"];
    let Some(figures) = measured("l", &[&line[..], &tests[..], &sizes[..]].concat()) else { return };
    let conflict = &figures["conflict"];
    assert_eq!(conflict["equal"], true, "{conflict}");
    let shown = conflict["A"].to_string();
    for edit in
        ["from A", "from B, longer", "new by A", "new by B", "changed by B", "still a file of B", "added"]
    {
        assert!(shown.contains(edit), "{edit} is lost: {shown}");
    }
}

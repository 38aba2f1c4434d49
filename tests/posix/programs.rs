//! Programs that people use, each with a check of its own: `tests/posix/programs/NAME DIR SECONDS`. `scripts/soak` runs
//! the same for longer.

use super::stage::{Stage, command, ran, said};
use std::path::Path;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/posix/programs");
/// How long those run that run for a time.
const SECONDS: &str = "4";

fn runs(program: &str) {
    let stage = Stage::new("allow_other,acl");
    let place = stage.path().join(program);
    std::fs::create_dir(&place).unwrap();
    let script = Path::new(FOLDER).join(program);
    let output = ran(command("bash").arg(&script).arg(&place).arg(SECONDS).env("TMPDIR", stage.home()));
    assert!(output.status.success(), "{program}: {}", said(&output));
    stage.end();
}

#[test]
fn cargo_builds() {
    runs("cargo");
}

#[test]
fn dbench_finds_what_it_wrote() {
    runs("dbench");
}

#[test]
fn editors_save() {
    runs("editors");
}

#[test]
fn fio_reads_what_it_wrote() {
    runs("fio");
}

#[test]
fn git_keeps_its_objects() {
    runs("git");
}

#[test]
fn rsync_and_tar_lose_nothing() {
    runs("archives");
}

#[test]
fn sqlite_keeps_its_transactions() {
    runs("sqlite");
}

#[test]
fn stress_ng_finds_nothing() {
    runs("stress");
}

#[test]
fn every_program_has_a_test() {
    let text = include_str!("programs.rs");
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(text.contains(&format!("runs(\"{name}\")")), "{name} is not run");
    }
}

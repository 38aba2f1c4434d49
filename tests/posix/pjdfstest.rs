//! pjdfstest: nothing fails here that passes on a tmpfs in the same run.

use super::stage::{Stage, Tmpfs, ran, said, tool, with_mount_helper};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

/// Cases that may differ from a tmpfs, each with its reason. None does.
const DIFFERENCES: [(&str, &str); 0] = [];
/// So many cases there are at least; fewer mean that the suite did not run.
const CASES_MIN: usize = 390;

/// What the suite is told of both file systems. The pause between two operations is longer than a tick of the coarse
/// clock that a tmpfs stamps its files with.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = true
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// The verdict on each case in `place`.
fn verdicts(stage: &Stage, place: &Path, other: &Path, patterns: &[&str]) -> BTreeMap<String, String> {
    let configuration = stage.home().join("pjdfstest.toml");
    std::fs::write(&configuration, CONFIGURATION).unwrap();
    let suite = tool("pjdfstest");
    let mut inner = vec![suite.as_os_str(), OsStr::new("-c"), configuration.as_os_str(), OsStr::new("-p")];
    inner.extend([place.as_os_str(), OsStr::new("-s"), other.as_os_str()]);
    inner.extend(patterns.iter().map(OsStr::new));
    let output = ran(&mut with_mount_helper(stage, &inner));
    let mut verdicts = BTreeMap::new();
    for line in said(&output).lines() {
        let plain = plain(line);
        let words: Vec<&str> = plain.split_whitespace().collect();
        if let [case, verdict @ ("ok" | "FAILED" | "skipped")] = words[..] {
            verdicts.insert(case.to_owned(), verdict.to_owned());
        }
    }
    assert!(!verdicts.is_empty(), "the suite said: {}", said(&output));
    verdicts
}

/// A line without what colours it.
fn plain(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[test]
fn nothing_fails_here_that_passes_on_a_tmpfs() {
    let stage = Stage::new("allow_other,acl");
    let (tmpfs, other) = (Tmpfs::new(), Tmpfs::new());
    // Some cases leave files open, so that those that need a read-only mount have a turn of their own.
    for (patterns, least) in [(&[][..], CASES_MIN), (&["erofs"][..], 10)] {
        let there = verdicts(&stage, tmpfs.path(), other.path(), patterns);
        let here = verdicts(&stage, &stage.path(), other.path(), patterns);
        assert_eq!(here.len(), there.len(), "not all cases ran");
        assert!(here.len() >= least, "{} cases only", here.len());
        let passes = here.values().filter(|verdict| *verdict == "ok").count();
        assert!(passes + 20 > least, "{passes} cases pass");
        let allowed = |case: &str| DIFFERENCES.iter().any(|(name, _)| *name == case);
        let worse: Vec<&String> = there
            .iter()
            .filter(|(case, verdict)| *verdict == "ok" && here.get(*case) != Some(verdict) && !allowed(case))
            .map(|(case, _)| case)
            .collect();
        assert!(worse.is_empty(), "these pass on a tmpfs only: {worse:#?}");
    }
    stage.end();
}

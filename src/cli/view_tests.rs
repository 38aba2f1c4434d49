use super::*;
use crate::daemon::status::{BlockStatus, ConflictStatus, NeighbourStatus, RefusalStatus};

const CLOCK: i64 = 1_800_000_000;

fn now() -> Now {
    Now { clock: CLOCK, instant: Instant::now() }
}

fn full() -> Seen {
    let status = Status {
        name: "notes".into(),
        database: "db".into(),
        pid: Some(7),
        capability: "admin".into(),
        device: "aa".repeat(32),
        seq: Some(17),
        root: Some("cafe".repeat(16)),
        pending_bytes: 5000,
        dht_answers: Some(false),
        mounted_at: Some("/mnt/\x1b[31m".into()),
        versions: vec![VersionStatus {
            infohash: "4f".repeat(20),
            complete: true,
            peers: 2,
            time: Some(CLOCK - 180),
            device: Some("aa".repeat(32)),
            image_bytes: 1 << 20,
        }],
        transfers: vec![TransferStatus { infohash: "5e".repeat(20), total_bytes: 4096, done_bytes: 1024 }],
        conflicts: (0..10)
            .map(|n| ConflictStatus { path: format!("/c{n}\n"), device: "0123abcd".into() })
            .collect(),
        refused: vec![RefusalStatus {
            path: "/docs".into(),
            signer: Some("beef".repeat(16)),
            reason: "it is older than what is here".into(),
            ..RefusalStatus::default()
        }],
        connected: vec![NeighbourStatus { address: "[::1]:9".into(), seconds: 3.0 }],
        blocks: vec![BlockStatus {
            path: "/".into(),
            mode: "rw".into(),
            writable: true,
            ..Default::default()
        }],
        warnings: vec!["old".into()],
        ..Status::default()
    };
    let mut seen = Seen::new("notes", None);
    seen.take(Instant::now(), super::super::seen::Look::Answered(Box::new(status)));
    seen.log = vec![LogEntry {
        device: "bb".repeat(32),
        time: CLOCK - 5,
        paths: vec!["/a\x07".into(), "/b".into()],
        more: 3,
        ..LogEntry::default()
    }];
    seen
}

fn text(lines: &(Vec<Line>, Vec<Line>)) -> String {
    lines.0.iter().chain(&lines.1).map(|line| line.plain() + "\n").collect()
}

#[test]
fn everything_that_a_person_asks_for_is_there_and_harmless() {
    let text = text(&detail(&full(), now(), 80));
    for part in [
        "notes (admin)",
        "4.9 KiB not published yet",
        "number 17",
        "the DHT does not answer",
        "cafecafecafe",
        "[#####---------------]  25 %  1.0 KiB of 4.0 KiB",
        "Conflicts: 10",
        "/c0\\n  by 0123abcd",
        "and 2 more",
        "/docs  by beefbeef",
        "it is older than what is here",
        "3 min ago   this device  2 peers",
        "5 s ago     bbbbbbbb     /a\\u{7}, /b and 3 more",
        "[::1]:9  for 3 s",
        "0  /  rw",
        "mounted at /mnt/\\u{1b}[31m",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
}

#[test]
fn an_engine_that_is_gone_is_shown_as_gone() {
    let mut seen = full();
    seen.take(Instant::now(), super::super::seen::Look::NoEngine);
    let text = text(&detail(&seen, now(), 80));
    assert!(text.contains("no engine for 0 s") && text.contains("no engine runs"), "{text}");
    assert!(text.contains("number 17") && !text.contains("Fetching"), "{text}");
}

#[test]
fn all_databases_take_few_lines_each() {
    let locked = Status { warnings: vec!["locked".into()], ..Status::default() };
    let all = [full(), Seen::new("other", Some(locked))];
    let (head, body) = overview(&all, 0, 80);
    assert_eq!(head.len(), 1);
    let text = text(&(head, body));
    for part in [
        "kilofs, 2 databases",
        "notes  mounted at",
        "10 conflicts, 1 refused, old",
        "other  no engine runs",
        "locked",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn no_line_is_wider_than_a_narrow_terminal() {
    let (head, body) = detail(&full(), now(), 30);
    for line in head.iter().chain(&body) {
        assert!(line.render(30, false).chars().count() <= 30, "{line:?}");
    }
}

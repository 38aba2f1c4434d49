//! `kilofs status`: one database, or all of this home.

use super::Outcome;
use super::context::Context;
use super::output::{bytes, short, shown, span, table};
use super::session::{STATUS_DEADLINE, Session, is_to_be_asked_again};
use super::view::{Now, age, counted, device};
use crate::crypt::keyring;
use crate::daemon::client::{self, Asked};
use crate::daemon::control::{Failure, Request};
use crate::daemon::home::Name;
use crate::daemon::kernel_keys;
use crate::daemon::status::{BlockStatus, ShareStatus, SkippedStatus, Status, VersionStatus};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// So many blocks, refusals and other things of one kind are listed unless more is asked for.
const LISTED_MAX: usize = 20;
const INTERVAL_MIN: f64 = 0.1;
const INTERVAL_MAX: f64 = 3600.0;

/// What to do about conflicts.
pub const RESOLVE: &str =
    "the file without `.conflict-…` has the other edit: keep what you want there, then delete the copy";

/// Shows how a database is, or all of them.
#[derive(Args)]
pub struct Show {
    /// The database; all without it
    #[arg(value_parser = Name::new)]
    name: Option<Name>,
    /// Show it live, until q or Ctrl-C; with --json one object a line at each change
    #[arg(long, short)]
    watch: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "S", value_parser = interval, default_value = "1", requires = "watch")]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (INTERVAL_MIN..=INTERVAL_MAX).contains(seconds));
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| format!("an interval lies between {INTERVAL_MIN} and {INTERVAL_MAX} seconds"))
}

/// Runs `status`.
pub fn run(context: &Context, Show { name, watch, interval }: Show) -> Outcome {
    if watch {
        return super::watch::run(context, name, interval);
    }
    if let Some(name) = name {
        let answer = asked(context, &name)?;
        return context.output.answer(answer, |status: Status| described(&status, context.verbose > 0));
    }
    let names = context
        .home
        .names()
        .map_err(|error| Failure::failed(format!("cannot list the databases: {error}")))?;
    let all: Vec<Value> = names.iter().map(|name| one_of_all(context, name)).collect();
    context.output.result(&all, |all| {
        if all.is_empty() {
            return "there is no database yet; `kilofs create NAME` makes one, `kilofs join NAME` takes one from a link".into();
        }
        let statuses = all.iter().filter_map(|status| serde_json::from_value(status.clone()).ok());
        statuses
            .map(|status: Status| described(&status, context.verbose > 0))
            .collect::<Vec<_>>()
            .join("\n")
    })
}

/// One database of many: what cannot be opened without asking a person is listed with a warning.
pub fn one_of_all(context: &Context, name: &Name) -> Value {
    look(context, name).unwrap_or_else(|failure| {
        let status =
            Status { name: name.as_str().into(), warnings: vec![failure.message], ..Status::default() };
        serde_json::to_value(status).expect("a status of plain fields serialises")
    })
}

fn look(context: &Context, name: &Name) -> Result<Value, Failure> {
    let paths = context.existing(name)?;
    if let Asked::Answered(answer) = client::ask(&paths.socket, &Request::Status, STATUS_DEADLINE)
        && !is_to_be_asked_again(&Request::Status, &answer)
    {
        return answer;
    }
    let cannot =
        |error: &dyn std::fmt::Display| Failure::failed(format!("its keyring cannot be read: {error}"));
    let sealed = std::fs::read(&paths.keyring).map_err(|error| cannot(&error))?;
    let needs = keyring::needs(&sealed).map_err(|error| cannot(&error))?;
    let kept =
        || kernel_keys::recall(&paths.keyring).is_some_and(|key| keyring::open_with(&sealed, &key).is_ok());
    if needs.passphrase && !context.passphrases.is_at_hand(name, &context.options(name)?) && !kept() {
        let message = format!(
            "no engine runs, and its keyring is locked: `kilofs status {name}` asks for the passphrase"
        );
        return Err(Failure::failed(message));
    }
    asked(context, name)
}

/// How a database is, as its engine or its store says, and what an engine that ended has left mounted.
fn asked(context: &Context, name: &Name) -> Result<Value, Failure> {
    let mut answer = Session::new(context, name, false)?.ask(Request::Status)?;
    if answer["pid"].is_null()
        && let Some(warnings) = answer["warnings"].as_array_mut()
    {
        warnings.extend(crate::fuse::dead_mounts(Some(name.as_str())).into_iter().map(|directory| {
            let shown = directory.display();
            format!("an engine that ended has left its mount at {shown}: `kilofs umount {shown}`, or mount there again").into()
        }));
    }
    Ok(answer)
}

/// One database, in full if `all`, else with at most [`LISTED_MAX`] things of a kind.
fn described(status: &Status, all: bool) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let place = match (&status.mounted_at, status.pid) {
        (Some(directory), Some(pid)) => {
            format!("mounted at {} by process {pid}", shown(directory.as_bytes()))
        }
        (None, Some(pid)) if status.shared_at.is_some() => {
            let folder = status.shared_at.as_deref().unwrap_or_default();
            format!("shared with {} by process {pid}", shown(folder.as_bytes()))
        }
        (None, Some(pid)) => format!("mirrored by process {pid}"),
        _ => "no engine runs".into(),
    };
    rows.push(("engine", place));
    rows.push(("database", shown(status.database.as_bytes())));
    rows.push(("device", status.device.clone()));
    let confirmed = match status.confirmed_seconds_ago {
        Some(seconds) => format!("looked up {} ago", span(seconds)),
        None if status.dht_answers == Some(false) => "the DHT does not answer".into(),
        None => "not looked up yet".into(),
    };
    rows.push((
        "record",
        match status.seq {
            Some(seq) => {
                format!("number {seq}, {confirmed}")
            }
            None => format!("none yet, {confirmed}"),
        },
    ));
    let (neighbours, peers) = (counted(status.neighbours, "neighbour"), counted(status.peers, "peer"));
    rows.push(("peers", format!("{neighbours} told at once, {peers} known")));
    rows.push((
        "changes",
        if status.published {
            "all published".into()
        } else if status.seq.is_none() {
            "nothing published yet".into()
        } else if status.pending_bytes == 0 {
            "none wait to be published".into()
        } else {
            format!("{} not published yet", bytes(status.pending_bytes))
        },
    ));
    rows.push(("size", size(status)));
    rows.push((
        "traffic",
        format!("{} fetched, {} sent", bytes(status.fetched_bytes), bytes(status.sent_bytes)),
    ));
    rows.extend(status.share.iter().flat_map(folder));
    rows.extend(versions(status).lines().map(|line| ("version", line.to_owned())));
    for transfer in &status.transfers {
        let (done, total) = (bytes(transfer.done_bytes), bytes(transfer.total_bytes));
        let share = transfer.done_bytes * 100 / transfer.total_bytes.max(1);
        rows.push(("fetching", format!("{} {share} %, {done} of {total}", short(&transfer.infohash))));
    }
    let shown_blocks = if all { status.blocks.len() } else { LISTED_MAX };
    if status.blocks.len() > shown_blocks {
        rows.push(("blocks", modes(&status.blocks)));
    }
    let listed = &status.blocks[..status.blocks.len().min(shown_blocks)];
    rows.extend(blocks(listed).lines().map(|line| ("block", line.to_owned())));
    if let Some(more) = status.blocks.len().checked_sub(listed.len() + 1) {
        rows.push(("block", more_of(more + 1)));
    }
    for conflict in &status.conflicts {
        let by = device(&conflict.device, status);
        rows.push(("conflict", format!("{} (the edit of {by})", shown(conflict.path.as_bytes()))));
    }
    if !status.conflicts.is_empty() {
        rows.push(("", RESOLVE.into()));
    }
    for refusal in &status.refused {
        let signer = refusal
            .signer
            .as_deref()
            .map_or(String::new(), |signer| format!(", signed by {}", device(signer, status)));
        let (path, reason) = (shown(refusal.path.as_bytes()), shown(refusal.reason.as_bytes()));
        rows.push((
            "refused",
            format!("block {} {path} ({}){signer}: {reason}", refusal.block, shown(refusal.kind.as_bytes())),
        ));
    }
    rows.extend(status.warnings.iter().map(|warning| ("warning", shown(warning.as_bytes()))));
    // A database that could not be opened has nothing but its warnings to show.
    if status.database.is_empty() {
        rows.retain(|(label, _)| *label == "warning");
    }
    let capability = if status.capability.is_empty() { "not opened" } else { &status.capability };
    if !all {
        rows = shortened(rows);
    }
    let mut text = format!("{} ({})\n", shown(status.name.as_bytes()), shown(capability.as_bytes()));
    let mut last = "";
    for (label, value) in rows {
        let label = if label == last {
            ""
        } else {
            last = label;
            label
        };
        text.push_str(&format!("  {label:<9} {value}\n"));
    }
    text
}

/// How large the image is, and how much of it is here if not all of it is.
pub fn size(status: &Status) -> String {
    let here = match status.image_bytes.saturating_sub(status.here_bytes) {
        0 => String::new(),
        _ if status.on_demand => format!(", {} here, the rest on demand", bytes(status.here_bytes)),
        _ => format!(", {} here, the rest on its way", bytes(status.here_bytes)),
    };
    format!("{}, {} in use{here}", bytes(status.image_bytes), bytes(status.live_bytes))
}

/// Versions as a table: newest first, what is here, when and by whom it was made, who else has it.
fn versions(status: &Status) -> String {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = Now { clock: i64::try_from(clock).unwrap_or(i64::MAX), instant: Instant::now() };
    let row = |version: &VersionStatus| {
        let complete = if version.complete { "complete" } else { "not here" };
        vec![
            short(&version.infohash),
            complete.into(),
            version.time.map_or(String::new(), |time| age(time, now)),
            version.device.as_deref().map_or(String::new(), |maker| format!("by {}", device(maker, status))),
            counted(version.peers, "peer"),
        ]
    };
    table(&status.versions.iter().map(row).collect::<Vec<_>>())
}

/// How a shared folder is.
fn folder(share: &ShareStatus) -> Vec<(&'static str, String)> {
    let state = match &share.halted {
        Some(why) => format!("halted: {}", shown(why.as_bytes())),
        None if share.in_step => "in step".into(),
        None => format!("{} paths wait", share.waiting),
    };
    let named = |what: &'static str, of: &SkippedStatus| {
        (what, format!("{}: {}", shown(of.path.as_bytes()), shown(of.reason.as_bytes())))
    };
    let mut rows = vec![("folder", state)];
    rows.extend(share.failing.iter().map(|path| named("failing", path)));
    rows.extend(share.skipped.iter().map(|path| named("skipped", path)));
    rows.extend(share.refused.iter().map(|path| ("set aside", shown(path.as_bytes()))));
    rows
}

/// How many blocks there are of each mode.
fn modes(blocks: &[BlockStatus]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for block in blocks {
        *counts.entry(&block.mode).or_default() += 1;
    }
    let counts = counts.iter().map(|(mode, count)| format!("{count} {}", shown(mode.as_bytes())));
    let writable = blocks.iter().filter(|block| block.writable).count();
    format!("{}: {}; {writable} writable here", blocks.len(), counts.collect::<Vec<_>>().join(", "))
}

fn more_of(count: usize) -> String {
    format!("and {count} more; -v lists them, --json too")
}

/// Rows of which no label has many.
fn shortened(rows: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (label, _) in &rows {
        *counts.entry(label).or_default() += 1;
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut short = Vec::new();
    for (label, value) in rows {
        let (at, count) = (seen.entry(label).or_default(), counts[label]);
        *at += 1;
        // The blocks have been cut already, their note included.
        if label == "block" || *at <= LISTED_MAX {
            short.push((label, value));
        } else if *at == LISTED_MAX + 1 {
            short.push((label, more_of(count - LISTED_MAX)));
        }
    }
    short
}

/// Blocks as a table: number, path, mode, owner.
pub fn blocks(blocks: &[BlockStatus]) -> String {
    let row = |block: &BlockStatus| {
        let note = match (block.writable, &block.owner) {
            _ if !block.readable => "cannot be opened here".into(),
            (true, Some(owner)) => format!("owner {}", short(owner)),
            (false, Some(owner)) => format!("owner {}, read-only here", short(owner)),
            (false, None) => "read-only here".into(),
            (true, None) => String::new(),
        };
        let note = [note, private(block), quota(block)]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(", ");
        vec![block.number.to_string(), shown(block.path.as_bytes()), shown(block.mode.as_bytes()), note]
    };
    table(&blocks.iter().map(row).collect::<Vec<_>>())
}

/// For whom a private block is beside its owner and the admin.
fn private(block: &BlockStatus) -> String {
    let others = block.readers.iter().filter(|reader| block.owner.as_ref() != Some(reader));
    let others: Vec<String> = others.map(|reader| short(reader)).collect();
    match (block.private, others.is_empty()) {
        (false, _) => String::new(),
        (true, true) => "private".into(),
        (true, false) => format!("private, for {}", others.join(" ")),
    }
}

/// What a block may hold, and holds, if it has a quota.
fn quota(block: &BlockStatus) -> String {
    let of = |used: Option<String>, limit: String| match used {
        Some(used) => format!("{used} of {limit}"),
        None => format!("at most {limit}"),
    };
    let size = block.quota_bytes.map(|limit| of(block.used_bytes.map(bytes), bytes(limit)));
    let count = block
        .quota_files
        .map(|limit| of(block.used_files.map(|used| used.to_string()), format!("{limit} files")));
    size.into_iter().chain(count).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::status::RefusalStatus;

    #[test]
    fn a_hostile_name_is_shown_harmless() {
        let block =
            BlockStatus { number: 1, path: "/a\x1b[0m".into(), mode: "rw".into(), ..BlockStatus::default() };
        let status =
            Status { name: "n".into(), database: "ab".into(), blocks: vec![block], ..Status::default() };
        let text = described(&status, false);
        assert!(text.contains("\\u{1b}[0m"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn what_there_is_much_of_is_counted() {
        let block = |number: u16| BlockStatus {
            number,
            path: format!("/block-{number}"),
            mode: if number.is_multiple_of(3) { "owner" } else { "rw" }.into(),
            writable: !number.is_multiple_of(3),
            ..BlockStatus::default()
        };
        let refusal = |number: u16| RefusalStatus { block: number, ..RefusalStatus::default() };
        let status = Status {
            name: "n".into(),
            database: "ab".into(),
            blocks: (0..2168).map(block).collect(),
            refused: (0..100).map(refusal).collect(),
            ..Status::default()
        };
        let text = described(&status, false);
        assert!(text.lines().count() < 60, "{text}");
        for line in
            ["2168: 723 owner, 1445 rw; 1445 writable here", "and 2148 more", "and 80 more", "/block-19"]
        {
            assert!(text.contains(line), "{line}: {text}");
        }
        let text = described(&status, true);
        assert!(text.contains("/block-2167 ") && !text.contains(" more;"), "{}", text.len());
    }

    #[test]
    fn a_locked_database_shows_its_warning_only() {
        let status = Status { name: "n".into(), warnings: vec!["locked".into()], ..Status::default() };
        assert_eq!(described(&status, false), "n (not opened)\n  warning   locked\n");
    }
}

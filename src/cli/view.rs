//! What the live view shows: lines from what was seen. No terminal and no engine in it.

use super::output::{bytes, short, shown, span};
use super::seen::Seen;
use super::status::size;
use super::text::{Line, Tone, bar, column};
use crate::daemon::answers::LogEntry;
use crate::daemon::status::{Status, TransferStatus, VersionStatus};
use std::time::Instant;

/// Of lists that may be long so many are shown.
const LISTED_MAX: usize = 8;
const BAR_CELLS: usize = 20;
const LABEL_COLUMNS: usize = 10;
const DEVICE_CHARACTERS: usize = 8;
const DEVICE_COLUMNS: usize = 11;
const AGE_COLUMNS: usize = 12;

/// When it is: on the clock for ages of versions, and for spans.
#[derive(Clone, Copy)]
pub struct Now {
    /// Seconds since 1970.
    pub clock: i64,
    /// The same moment.
    pub instant: Instant,
}

/// One database: its name and state, then everything else.
pub fn detail(seen: &Seen, now: Now, width: usize) -> (Vec<Line>, Vec<Line>) {
    let status = seen.as_it_is();
    let mut head = vec![title(seen, &status, now, width)];
    let mut body = summary(seen, &status);
    warnings(&status, &mut body);
    transfers(seen, &status, &mut body);
    conflicts(&status, &mut body);
    refusals(&status, &mut body);
    versions(&status, now, &mut body);
    changes(&seen.log, &status, now, &mut body);
    neighbours(&status, &mut body);
    blocks(&status, &mut body);
    if let Some(failure) = &seen.failure {
        head.push(Line::of(Tone::Bad, shown(failure.as_bytes())));
    }
    (head, body)
}

/// All databases, a few lines each; `chosen` is marked.
pub fn overview(all: &[Seen], chosen: usize, width: usize) -> (Vec<Line>, Vec<Line>) {
    let head = Line::of(Tone::Bold, format!("kilofs, {}", counted(all.len(), "database")));
    let names = all.iter().map(|seen| seen.name.chars().count()).max().unwrap_or(0).clamp(4, 20);
    let mut body = Vec::new();
    for (index, seen) in all.iter().enumerate() {
        let status = seen.as_it_is();
        let tone = if index == chosen { Tone::Chosen } else { Tone::Bold };
        let (state, text) = condition(seen, &status);
        let name = column(&shown(seen.name.as_bytes()), names);
        body.push(Line::of(tone, name).and(state, format!("  {text}")));
        let indent = " ".repeat(names + 2);
        if status.database.is_empty() {
            body.extend(
                status
                    .warnings
                    .iter()
                    .map(|w| Line::of(Tone::Dim, format!("{indent}{}", shown(w.as_bytes())))),
            );
            continue;
        }
        let (published, pending) = pending(&status);
        let mut line = Line::of(Tone::Plain, indent.clone()).and(published, pending);
        if seen.alive {
            let peers = format!(", {}", counted(status.neighbours, "neighbour"));
            line = line.and(Tone::Plain, peers).and(Tone::Dim, format!(", {}", speed(seen)));
        }
        body.push(line);
        for transfer in &status.transfers {
            body.push(on_its_way(seen, transfer, &indent));
        }
        let trouble = [(status.conflicts.len(), "conflicts"), (status.refused.len(), "refused")];
        let trouble: Vec<String> = trouble
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .chain(status.warnings.iter().map(|warning| shown(warning.as_bytes())))
            .collect();
        if !trouble.is_empty() {
            body.push(Line::of(Tone::Bad, format!("{indent}{}", trouble.join(", "))));
        }
    }
    (vec![head.right(width, Tone::Dim, "kilofs status --watch")], body)
}

fn title(seen: &Seen, status: &Status, now: Now, width: usize) -> Line {
    let capability = if status.capability.is_empty() { "not opened" } else { &status.capability };
    let line = Line::of(Tone::Bold, shown(seen.name.as_bytes()))
        .and(Tone::Plain, format!(" ({})", shown(capability.as_bytes())));
    let since = seen.since.map_or(0.0, |since| now.instant.duration_since(since).as_secs_f64());
    match (seen.alive, &seen.failure) {
        (true, _) => line.right(width, Tone::Dim, "live"),
        (false, Some(_)) => line.right(width, Tone::Bad, "does not answer"),
        (false, None) => line.right(width, Tone::Bad, &format!("no engine for {}", span(since))),
    }
}

/// In a few words, whether and where it runs.
fn condition(seen: &Seen, status: &Status) -> (Tone, String) {
    match (&status.mounted_at, status.pid) {
        _ if seen.failure.is_some() => (Tone::Bad, "its engine does not answer".into()),
        (Some(directory), Some(_)) => (Tone::Good, format!("mounted at {}", shown(directory.as_bytes()))),
        (None, Some(_)) => (Tone::Good, "mirrored".into()),
        _ => (Tone::Warn, "no engine runs".into()),
    }
}

fn pending(status: &Status) -> (Tone, String) {
    if status.published {
        (Tone::Good, "all published".into())
    } else if status.seq.is_none() {
        (Tone::Warn, "nothing published yet".into())
    } else if status.pending_bytes == 0 {
        (Tone::Plain, "none wait to be published".into())
    } else {
        (Tone::Warn, format!("{} not published yet", bytes(status.pending_bytes)))
    }
}

fn speed(seen: &Seen) -> String {
    let rate = |rate: f64| format!("{}/s", bytes(rate as u64));
    format!("down {}, up {}", rate(seen.down.per_second()), rate(seen.up.per_second()))
}

fn labelled(label: &str, tone: Tone, text: impl Into<String>) -> Line {
    Line::of(Tone::Dim, column(label, LABEL_COLUMNS)).and(tone, text)
}

fn summary(seen: &Seen, status: &Status) -> Vec<Line> {
    if status.database.is_empty() {
        return vec![labelled("engine", Tone::Warn, "none runs, and nothing is known without it")];
    }
    let (tone, text) = condition(seen, status);
    let process = status.pid.map_or(String::new(), |pid| format!(", process {pid}"));
    let mut lines = vec![labelled("engine", tone, text).and(Tone::Dim, process)];
    let (tone, text) = pending(status);
    lines.push(labelled("changes", tone, text));
    let number = status.seq.map_or("none yet".into(), |seq| format!("number {seq}"));
    let mut record = labelled("record", Tone::Plain, number);
    if status.dht_answers == Some(false) {
        record = record.and(Tone::Bad, ", the DHT does not answer");
    }
    if let Some(seconds) = status.confirmed_seconds_ago {
        record = record.and(Tone::Dim, format!(", confirmed {} ago", span(seconds)));
    }
    lines.push(record);
    let root = status.root.as_deref().map_or("not readable here".into(), short);
    let size = format!(", {}", size(status));
    lines.push(labelled("content", Tone::Plain, root).and(Tone::Dim, size));
    if seen.alive {
        let known = format!(", {} known", counted(status.peers, "peer"));
        let neighbours = counted(status.neighbours, "neighbour");
        lines.push(labelled("peers", Tone::Plain, neighbours).and(Tone::Dim, known));
    }
    let total = format!("{} fetched, {} sent", bytes(status.fetched_bytes), bytes(status.sent_bytes));
    lines.push(match seen.alive {
        true => labelled("traffic", Tone::Plain, speed(seen)).and(Tone::Dim, format!(", {total}")),
        false => labelled("traffic", Tone::Dim, total),
    });
    lines
}

fn heading(lines: &mut Vec<Line>, text: impl Into<String>) {
    lines.push(Line::default());
    lines.push(Line::of(Tone::Bold, text));
}

fn more(lines: &mut Vec<Line>, all: usize) {
    if all > LISTED_MAX {
        lines.push(Line::of(Tone::Dim, format!("  and {} more", all - LISTED_MAX)));
    }
}

fn warnings(status: &Status, lines: &mut Vec<Line>) {
    for warning in &status.warnings {
        lines.push(labelled("warning", Tone::Bad, shown(warning.as_bytes())));
    }
}

fn on_its_way(seen: &Seen, transfer: &TransferStatus, indent: &str) -> Line {
    let TransferStatus { infohash, total_bytes, done_bytes } = transfer;
    let rate = seen.transfers.get(infohash).map_or(0.0, super::rates::Rate::per_second);
    let share = if *total_bytes == 0 { 100 } else { done_bytes * 100 / total_bytes };
    let left = total_bytes.saturating_sub(*done_bytes) as f64;
    let eta = if rate >= 1.0 { format!(", {} left", span((left / rate).ceil())) } else { String::new() };
    Line::of(Tone::Plain, indent)
        .and(Tone::Good, bar(*done_bytes, *total_bytes, BAR_CELLS))
        .and(Tone::Plain, format!(" {share:3} %  {} of {}", bytes(*done_bytes), bytes(*total_bytes)))
        .and(Tone::Dim, format!("  {}/s{eta}", bytes(rate as u64)))
}

fn transfers(seen: &Seen, status: &Status, lines: &mut Vec<Line>) {
    if status.transfers.is_empty() {
        return;
    }
    heading(lines, "Fetching");
    lines.extend(status.transfers.iter().map(|transfer| on_its_way(seen, transfer, "  ")));
}

fn conflicts(status: &Status, lines: &mut Vec<Line>) {
    if status.conflicts.is_empty() {
        return;
    }
    heading(lines, format!("Conflicts: {}", status.conflicts.len()));
    for conflict in status.conflicts.iter().take(LISTED_MAX) {
        let by = format!("  by {}", device(&conflict.device, status));
        lines.push(Line::of(Tone::Bad, format!("  {}", shown(conflict.path.as_bytes()))).and(Tone::Dim, by));
    }
    more(lines, status.conflicts.len());
    lines.push(Line::of(Tone::Dim, format!("  {}", super::status::RESOLVE)));
}

fn refusals(status: &Status, lines: &mut Vec<Line>) {
    if status.refused.is_empty() {
        return;
    }
    heading(lines, format!("Refused: {}", status.refused.len()));
    for refusal in status.refused.iter().take(LISTED_MAX) {
        let by = refusal
            .signer
            .as_ref()
            .map_or(String::new(), |signer| format!("  by {}", device(signer, status)));
        let what = format!("  {}", shown(refusal.path.as_bytes()));
        lines.push(Line::of(Tone::Bad, what).and(Tone::Dim, by));
        lines.push(Line::of(Tone::Plain, format!("    {}", shown(refusal.reason.as_bytes()))));
    }
    more(lines, status.refused.len());
}

fn versions(status: &Status, now: Now, lines: &mut Vec<Line>) {
    if status.versions.is_empty() {
        return;
    }
    heading(lines, "Versions");
    for (number, version) in (1..).zip(&status.versions) {
        let VersionStatus { infohash, complete, peers, time, device: author, image_bytes } = version;
        let (tone, state) = if *complete { (Tone::Good, "here") } else { (Tone::Warn, "not here") };
        let made = time.map_or(String::new(), |time| age(time, now));
        let by = author.as_ref().map_or(String::new(), |author| device(author, status));
        let size = if *complete { bytes(*image_bytes) } else { String::new() };
        let rest = format!(
            "{}{}{}{}{}",
            column(&made, AGE_COLUMNS),
            column(&by, DEVICE_COLUMNS + 2),
            column(&counted(*peers, "peer"), 10),
            column(&size, 12),
            short(infohash)
        );
        lines.push(
            Line::of(Tone::Dim, format!("  {number} ")).and(tone, column(state, 10)).and(Tone::Plain, rest),
        );
    }
}

fn changes(log: &[LogEntry], status: &Status, now: Now, lines: &mut Vec<Line>) {
    if log.is_empty() {
        return;
    }
    heading(lines, "Who wrote what");
    for entry in log.iter().take(LISTED_MAX) {
        let made = column(&age(entry.time, now), AGE_COLUMNS);
        let by = column(&device(&entry.device, status), DEVICE_COLUMNS + 2);
        lines.push(
            Line::of(Tone::Dim, format!("  {made}")).and(Tone::Plain, by).and(Tone::Plain, touched(entry)),
        );
    }
}

/// What a commit changed, as far as that is known.
pub fn touched(entry: &LogEntry) -> String {
    let merge = if entry.parents.len() > 1 { "merge: " } else { "" };
    if entry.paths.is_empty() {
        return merge.trim_end_matches(": ").into();
    }
    let paths: Vec<String> = entry.paths.iter().map(|path| shown(path.as_bytes())).collect();
    let more = if entry.more > 0 { format!(" and {} more", entry.more) } else { String::new() };
    format!("{merge}{}{more}", paths.join(", "))
}

fn neighbours(status: &Status, lines: &mut Vec<Line>) {
    if status.connected.is_empty() {
        return;
    }
    heading(lines, "Neighbours");
    for neighbour in status.connected.iter().take(LISTED_MAX) {
        let since = format!("  for {}", span(neighbour.seconds));
        let address = format!("  {}", shown(neighbour.address.as_bytes()));
        lines.push(Line::of(Tone::Plain, address).and(Tone::Dim, since));
    }
    more(lines, status.connected.len());
}

fn blocks(status: &Status, lines: &mut Vec<Line>) {
    if status.blocks.is_empty() {
        return;
    }
    heading(lines, "Blocks");
    lines.extend(
        super::status::blocks(&status.blocks).lines().map(|line| Line::of(Tone::Plain, format!("  {line}"))),
    );
}

/// A number of things.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A device for a person: the first characters of its id.
pub fn device(id: &str, status: &Status) -> String {
    if !status.device.is_empty() && status.device.starts_with(id) {
        return "this device".into();
    }
    shown(id.chars().take(DEVICE_CHARACTERS).collect::<String>().as_bytes())
}

/// How long ago something was made. Clocks differ: what is yet to come is now.
pub fn age(time: i64, now: Now) -> String {
    format!("{} ago", span(now.clock.saturating_sub(time).max(0) as f64))
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;

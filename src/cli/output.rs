//! Results on stdout, for a person or as JSON; notes on stderr; what comes from outside is escaped for a terminal.
//!
//! Who puts a name into a line escapes it ([`shown()`]), so that a line break in it makes no second line. Whatever is forgotten
//! there is caught here: nothing that a terminal would act on leaves this file.

use super::Outcome;
use crate::base::is_active;
pub use crate::base::shown;
use crate::daemon::control::Failure;
use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, ErrorKind, Write};

/// Where results go.
#[derive(Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// An output for scripts (`json`) or for a person.
    pub fn new(json: bool) -> Output {
        Output { json }
    }

    /// Prints a result: as JSON, or what `human` makes of it.
    pub fn result<T: Serialize>(self, value: &T, human: impl FnOnce(&T) -> String) -> Outcome {
        if !self.json {
            return print(&harmless(&human(value)));
        }
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))?;
        print(&harmless_json(&text))
    }

    /// Prints an engine's answer: as JSON with every field that it has, or what `human` makes of the fields known here.
    pub fn answer<T: serde::de::DeserializeOwned>(
        self,
        answer: Value,
        human: impl FnOnce(T) -> String,
    ) -> Outcome {
        if self.json {
            return self.result(&answer, |_| String::new());
        }
        print(&harmless(&human(understood(answer)?)))
    }

    /// Whether results are JSON.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// A line on stderr that is no result.
    pub fn note(self, text: &str) {
        // Nobody is left to hear that stderr is closed.
        _ = writeln!(io::stderr(), "{}", harmless(text));
    }
}

/// An engine's answer in the type that this version expects.
pub fn understood<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        Failure::failed(format!(
            "the engine answered in a way that this version does not know ({error}); are both of one version?"
        ))
    })
}

/// Lines without anything that a terminal acts on.
fn harmless(text: &str) -> String {
    text.split('\n').map(|line| shown(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

/// The same JSON, ASCII where a terminal would act on it. Such characters stand in strings only, where their number says
/// the same; those below 32 have been written so already.
pub fn harmless_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_active(character) && character != '\n' {
            safe.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            safe.push(character);
        }
    }
    safe
}

fn print(text: &str) -> Outcome {
    let text = text.trim_end_matches('\n');
    if text.is_empty() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed(format!("cannot write the result: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// A path in hexadecimal, with a leading slash, for a terminal.
pub fn shown_path(hex: &str) -> String {
    match HEXLOWER.decode(hex.as_bytes()) {
        Ok(bytes) => format!("/{}", shown(bytes.strip_prefix(b"/").unwrap_or(&bytes))),
        Err(_) => format!("(unreadable path {hex})"),
    }
}

/// A number of bytes for a person.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A span of time for a person.
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// A moment as `YYYY-MM-DD HH:MM:SS` in UTC, from seconds since 1970.
pub fn moment(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's civil_from_days: years that begin in March, in eras of 400.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next_year;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The first characters of a long id.
pub fn short(id: &str) -> String {
    shown(id.chars().take(12).collect::<String>().as_bytes())
}

/// Rows in columns that are as wide as their widest cell.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_printed() {
        assert_eq!(harmless("one\ntwo \x1b[2J\u{9b}31m\u{202e}"), "one\ntwo \\u{1b}[2J\\u{9b}31m\\u{202e}");
        let name = "\x1b]0;\u{9b}31m\u{7f}\u{202e}\n✓";
        let text = harmless_json(&serde_json::to_string_pretty(&[name]).unwrap_or_default());
        assert!(text.chars().all(|character| character == '\n' || !is_active(character)), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).ok().as_deref(), Some(&[name.to_owned()][..]));
    }

    #[test]
    fn sizes_and_moments() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!(moment(0), "1970-01-01 00:00:00");
        assert_eq!(moment(951_827_696), "2000-02-29 12:34:56");
        assert_eq!(moment(-1), "1969-12-31 23:59:59");
        assert_eq!(moment(4_102_444_799), "2099-12-31 23:59:59");
    }
}

//! Where the log goes and how much it says. `KILOFS_LOG` takes a `tracing` filter for those who want one module.

use super::background;
use super::output::moment;
use crate::daemon::home::Name;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// What `-v`, `-vv` and more mean, for a command and for an engine, which says more from the start.
const LEVELS: [&str; 4] = ["warn", "info", "debug", "trace"];
const ENGINE_LEVEL: u8 = 1;
const DEBUG: usize = 2;

/// The time of a line, in UTC.
struct Seconds;

impl FormatTime for Seconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(writer, "{}Z", moment(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)))
    }
}

/// A command's log: warnings on stderr unless `-v` asks for more.
pub fn to_terminal(verbose: u8) {
    start(verbose, std::io::stderr().is_terminal());
}

/// An engine's log on stderr, which is its log file or, in the foreground, the terminal.
pub fn of_engine(verbose: u8) {
    start(verbose.saturating_add(ENGINE_LEVEL), false);
}

/// Says where the system did not let this process be shut.
pub fn tell(open: &[String]) {
    open.iter().for_each(|line| tracing::info!("{line}"));
}

/// Other crates say their errors only, until the most detailed level, `mainline` and `librqbit` not even those: one repeats
/// itself while there is no network, which we say once, the other speaks of torrents that end as they should.
fn levels(verbose: usize) -> String {
    let level = LEVELS[verbose.min(LEVELS.len() - 1)];
    if verbose < LEVELS.len() {
        format!("error,mainline=off,librqbit=off,kilofs={level}")
    } else {
        format!("debug,kilofs={level}")
    }
}

fn filter(verbose: u8) -> EnvFilter {
    EnvFilter::try_from_env("KILOFS_LOG").unwrap_or_else(|_| EnvFilter::new(levels(usize::from(verbose))))
}

fn start(verbose: u8, colours: bool) {
    // A second start in one process keeps the first: a command that becomes an engine in the foreground.
    _ = tracing_subscriber::fmt()
        .with_env_filter(filter(verbose))
        .with_timer(Seconds)
        // Where a line comes from is of use to who looks for a fault.
        .with_target(usize::from(verbose) >= DEBUG)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .try_init();
}

/// The log of one engine among others on the stderr that they share: each line begins with the database's name.
pub fn of_one(verbose: u8, name: &Name) -> Dispatch {
    let (verbose, prefix) = (verbose.saturating_add(ENGINE_LEVEL), format!("{name}: "));
    let log = tracing_subscriber::fmt().with_env_filter(filter(verbose)).with_timer(Seconds);
    let log = log.with_target(usize::from(verbose) >= DEBUG).with_ansi(false);
    log.with_writer(move || Prefixed(prefix.clone())).into()
}

/// The log of one engine among others in a file of its own; where that cannot be had, the one that they share.
pub fn of_one_in_file(verbose: u8, name: &Name, file: &Path) -> Dispatch {
    match background::open_log(file) {
        Ok(file) => {
            let verbose = verbose.saturating_add(ENGINE_LEVEL);
            let log = tracing_subscriber::fmt().with_env_filter(filter(verbose)).with_timer(Seconds);
            let log = log.with_target(usize::from(verbose) >= DEBUG).with_ansi(false);
            log.with_writer(Mutex::new(file)).into()
        }
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the log of a database cannot be opened");
            of_one(verbose, name)
        }
    }
}

/// Writes whole events, each in one piece.
struct Prefixed(String);

impl Write for Prefixed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(&[self.0.as_bytes(), bytes].concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Where the log goes and how much it says. `KILOFS_LOG` takes a `tracing` filter for those who want one module.

use super::output::moment;
use std::io::IsTerminal;
use std::time::{SystemTime, UNIX_EPOCH};
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

/// Other crates say their errors only, until the most detailed level, and `mainline` not even those: it repeats itself
/// while there is no network, which we say once.
fn filter(verbose: usize) -> String {
    let level = LEVELS[verbose.min(LEVELS.len() - 1)];
    if verbose < LEVELS.len() {
        format!("error,mainline=off,kilofs={level}")
    } else {
        format!("debug,kilofs={level}")
    }
}

fn start(verbose: u8, colours: bool) {
    let filter = EnvFilter::try_from_env("KILOFS_LOG")
        .unwrap_or_else(|_| EnvFilter::new(filter(usize::from(verbose))));
    // A second start in one process keeps the first: a command that becomes an engine in the foreground.
    _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Seconds)
        // Where a line comes from is of use to who looks for a fault.
        .with_target(usize::from(verbose) >= DEBUG)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .try_init();
}

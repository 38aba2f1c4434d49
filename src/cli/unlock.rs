//! `kilofs unlock` and `kilofs lock`: the kernel keeps what opens a keyring for a while, so that nobody is asked.

use super::Outcome;
use super::context::Context;
use super::output::span;
use crate::daemon::client::{self, Asked};
use crate::daemon::control::{Failure, Request};
use crate::daemon::home::Name;
use crate::daemon::kernel_keys;
use clap::Args;
use serde_json::json;
use std::time::Duration;

const TIMEOUT_DEFAULT: &str = "15m";
/// What is meant to stay longer needs no passphrase.
const TIMEOUT_MAX: Duration = Duration::from_secs(366 * 86_400);
const RUNNING_DEADLINE: Duration = Duration::from_secs(5);

/// Asks for the passphrase once and lets the kernel keep the key, for all commands of this user on this database.
#[derive(Args)]
pub struct Unlock {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// For how long, such as 90s, 15m, 8h or 2d
    #[arg(long, value_name = "TIME", default_value = TIMEOUT_DEFAULT, value_parser = time)]
    timeout: Duration,
}

/// Lets go what `unlock` keeps.
#[derive(Args)]
pub struct Lock {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
}

/// Runs `unlock`.
pub fn unlock(context: &Context, Unlock { name, timeout }: Unlock) -> Outcome {
    let paths = context.existing(&name)?;
    let (_, factors, key) = context.open_afresh(&name)?;
    let needed = factors.needs().anything();
    if needed {
        let kept = kernel_keys::keep(&paths.keyring, &key, timeout);
        kept.map_err(|error| Failure::failed(format!("{name} stays locked: {error}")))?;
    }
    let seconds = if needed { Some(timeout.as_secs()) } else { None };
    context.output.result(&json!({ "name": name.as_str(), "seconds": seconds }), |_| match seconds {
        Some(seconds) => format!(
            "{name} is unlocked for {}; `kilofs {}lock {name}` ends that sooner",
            span(seconds as f64),
            context.home_flag()
        ),
        None => format!("{name} opens without a passphrase: there is nothing to unlock"),
    })
}

/// Runs `lock`.
pub fn lock(context: &Context, Lock { name }: Lock) -> Outcome {
    let paths = context.existing(&name)?;
    let forgotten = kernel_keys::forget(&paths.keyring);
    let forgotten = forgotten.map_err(|error| Failure::failed(format!("{name}: {error}")))?;
    let asked = client::ask(&paths.socket, &Request::Status, RUNNING_DEADLINE);
    let runs = matches!(asked, Asked::Answered(_));
    let made = json!({ "name": name.as_str(), "was_unlocked": forgotten, "engine_runs": runs });
    context.output.result(&made, |_| {
        let mut text =
            if forgotten { format!("{name} is locked") } else { format!("{name} was not unlocked") };
        if runs {
            text.push_str(&format!(
                "; its engine runs on and keeps the keys that it has until `kilofs {}umount {name}`",
                context.home_flag()
            ));
        }
        text
    })
}

/// A span of time: a number and one of `s`, `m`, `h`, `d`, `w`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is a number and one of s, m, h, d, w: 90s, 15m, 8h, 7d".to_owned();
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = digits.parse::<u64>().ok().filter(|_| plain).and_then(|number| number.checked_mul(unit));
    let time = Duration::from_secs(seconds.ok_or_else(wrong)?);
    let bounds = Duration::from_secs(1)..=TIMEOUT_MAX;
    bounds.contains(&time).then_some(time).ok_or_else(|| "a time lies between 1s and 366d".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("1s", 1), ("15m", 900), ("8h", 28_800), ("2d", 172_800), ("1w", 604_800)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "s", "15", "0s", "-1h", "+1h", "1.5h", "367d", "99999999999999999999w", "1µ", "ä"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}

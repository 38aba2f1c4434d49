//! `kilofs mirror`: keeps one database alive, or with `--all` every database of this home in one process.

use super::Outcome;
use super::background;
use super::context::Context;
use super::logging;
use super::mount;
use super::output::{bytes, shown};
use super::passphrase::Passphrase;
use crate::daemon::client::{self, Asked};
use crate::daemon::config::Options;
use crate::daemon::control::{Failure, FailureKind, Request};
use crate::daemon::fleet::{self, Fleet, Mustered, Skipped};
use crate::daemon::home::Name;
use crate::daemon::launch::{Launch, Role};
use crate::daemon::size;
use clap::Args;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const RUNNING_DEADLINE: Duration = Duration::from_secs(5);

/// Follows databases, keeps and seeds them, puts their records again; shows nothing and needs no key that opens them.
#[derive(Args)]
pub struct Mirror {
    /// The database
    #[arg(value_parser = Name::new, required_unless_present = "all", conflicts_with = "all")]
    name: Option<Name>,
    /// Mirror every database that nothing runs yet, in one process
    #[arg(long)]
    all: bool,
    /// Stay in the foreground, with the log on stderr
    #[arg(short, long)]
    foreground: bool,
    /// What the store of each database may take, such as 20G; for one database it is saved
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    quota: Option<u64>,
    /// Serve metrics over HTTP, on loopback unless an address is given
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = metrics_address)]
    metrics: Option<SocketAddr>,
}

/// Runs `mirror`.
pub fn run(context: &Context, command: Mirror) -> Outcome {
    let Some(name) = command.name else { return all(context, &command) };
    if command.metrics.is_some() {
        let message = "--metrics goes with --all: one process serves them for all databases of a home";
        return Err(Failure::new(FailureKind::Usage, message));
    }
    mount::ensure_idle(context, &name)?;
    if let Some(quota) = command.quota {
        let what = format!("the quota of {}", bytes(quota));
        context.save_options(&name, &what, |saved| Options { mirror_quota: Some(quota), ..saved })?;
    }
    mount::start(context, name, Role::Mirror, command.foreground)
}

fn all(context: &Context, command: &Mirror) -> Outcome {
    let names = context.home.names();
    let names = names.map_err(|error| Failure::failed(format!("cannot list the databases: {error}")))?;
    if names.is_empty() {
        return Err(Failure::failed("there is no database yet; `kilofs join NAME` takes one from a link"));
    }
    let mut fleet = Fleet {
        home: context.home.clone(),
        flags: context.flags.clone(),
        quota_bytes: command.quota,
        metrics: command.metrics,
        left_alone: Vec::new(),
        launches: Vec::new(),
    };
    let mut skipped = Vec::new();
    let mut typed = Vec::new();
    for name in names {
        match launch(context, &fleet, &name, &mut typed) {
            Ok(launch) => fleet.launches.push((name, launch.encode())),
            Err(failure) => {
                skipped.push(Skipped { name: name.to_string(), failure, again: false });
                fleet.left_alone.push(name);
            }
        }
    }
    drop(typed);
    if fleet.launches.is_empty() {
        let kind = skipped.first().map_or(FailureKind::Failed, |skipped| skipped.failure.kind);
        let reasons: Vec<_> = skipped.iter().map(|one| format!("{}: {}", one.name, one.failure)).collect();
        return Err(Failure::new(kind, format!("no database can be mirrored: {}", reasons.join("; "))));
    }
    for one in &skipped {
        context.output.note(&format!(
            "kilofs: {} is left out: {}",
            one.name,
            shown(one.failure.message.as_bytes())
        ));
    }
    let told = |mustered: Mustered| tell(context, mustered, &skipped);
    if !command.foreground {
        return background::start_all(context, &fleet).and_then(told);
    }
    logging::of_engine(context.verbose);
    let log_of = |name: &Name| logging::of_one(context.verbose, name);
    fleet::serve(fleet, log_of, |mustered| {
        if let Ok(mustered) = mustered {
            // One to print is no reason to end the mirrors.
            _ = told(mustered);
        }
    })
}

fn launch(
    context: &Context,
    fleet: &Fleet,
    name: &Name,
    typed: &mut Vec<Passphrase>,
) -> Result<Launch, Failure> {
    let paths = context.existing(name)?;
    if let Asked::Answered(_) = client::ask(&paths.socket, &Request::Status, RUNNING_DEADLINE) {
        return Err(Failure::failed("an engine runs it already"));
    }
    let keyring = context.open_keyring_trying(name, typed)?;
    let options = fleet.options(name);
    let options = options.map_err(|error| Failure::failed(format!("cannot read its options: {error}")))?;
    Ok(Launch::new(context.home.clone(), name.clone(), keyring, options, Role::Mirror))
}

fn tell(context: &Context, mut mustered: Mustered, skipped: &[Skipped]) -> Outcome {
    for one in &mustered.skipped {
        let reason = shown(one.failure.message.as_bytes());
        context.output.note(&format!("kilofs: {} is not mirrored yet, and tried again: {reason}", one.name));
    }
    mustered.skipped.extend_from_slice(skipped);
    context.output.result(&mustered, |mustered| {
        let mut text = format!(
            "process {} mirrors {}; `kilofs umount NAME` ends one of them",
            mustered.pid,
            mustered.mirrored.join(", ")
        );
        if let Some(address) = &mustered.metrics {
            text.push_str(&format!("\nmetrics: {address}"));
        }
        text
    })
}

/// An address with a port, or a port on loopback.
fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    let loopback = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?)));
    text.parse()
        .ok()
        .or_else(loopback)
        .ok_or_else(|| "metrics are served at a port, or at ADDRESS:PORT".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_stay_on_this_machine_unless_an_address_is_given() {
        for (text, address) in [
            ("9100", "127.0.0.1:9100"),
            (":9100", "127.0.0.1:9100"),
            ("0.0.0.0:9", "0.0.0.0:9"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(metrics_address(text).map(|found| found.to_string()), Ok(address.into()));
        }
        for bad in ["", "host", "1.2.3.4", "99999"] {
            assert!(metrics_address(bad).is_err(), "{bad}");
        }
    }
}

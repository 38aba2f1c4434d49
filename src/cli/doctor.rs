//! `kilofs doctor`: looks for what keeps kilofs from working on this machine.

use super::Outcome;
use super::context::Context;
use super::output::{bytes, shown};
use crate::crypt::keyring;
use crate::daemon::client::{self, Asked};
use crate::daemon::config::{Options, Settings};
use crate::daemon::control::{Failure, Request};
use crate::daemon::home::Name;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::{ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

const ENGINE_DEADLINE: Duration = Duration::from_secs(5);
const DHT_DEADLINE: Duration = Duration::from_secs(4);
/// Less than this is too little for a store to grow in.
const FREE_BYTES_MIN: u64 = 256 << 20;
/// A KRPC ping (BEP 5) from a node without a name.
const PING: &[u8] = b"d1:ad2:id20:kilofs doctor looks e1:q4:ping1:t4:kilo1:y1:qe";

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Problem,
}

#[derive(Serialize)]
struct Finding {
    verdict: Verdict,
    subject: String,
    message: String,
}

fn finding(verdict: Verdict, subject: &str, message: impl Into<String>) -> Finding {
    Finding { verdict, subject: subject.into(), message: message.into() }
}

/// Runs `doctor`.
pub fn run(context: &Context) -> Outcome {
    let mut findings = vec![fuse_device(), fuse_helper(), home(context)];
    let options = context.common_options();
    findings.push(match &options {
        Ok(_) => finding(Verdict::Ok, "config.toml", "is understood"),
        Err(failure) => finding(Verdict::Problem, "config.toml", failure.message.clone()),
    });
    findings.extend(dead_mounts());
    let names = context.home.names();
    match &names {
        Ok(names) => findings.extend(names.iter().map(|name| database(context, name))),
        Err(error) => {
            findings.push(finding(Verdict::Problem, "databases", format!("cannot be listed: {error}")))
        }
    }
    // Each database may have nodes of its own; those that none has are asked where there is no database yet.
    let mut of_each: BTreeMap<(bool, Vec<String>), Settings> = BTreeMap::new();
    for options in names.iter().flatten().filter_map(|name| context.options(name).ok()) {
        let settings = options.settle();
        of_each.entry((settings.offline, settings.bootstrap.clone())).or_insert(settings);
    }
    if of_each.is_empty() {
        let settings = options.unwrap_or_default().under(context.flags.clone()).settle();
        of_each.insert((settings.offline, settings.bootstrap.clone()), settings);
    }
    findings.extend(of_each.values().map(dht));
    context.output.result(&findings, |findings| findings.iter().map(line).collect())?;
    match findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count() {
        0 => Ok(()),
        count => Err(Failure::failed(format!("problems found: {count}"))),
    }
}

fn line(finding: &Finding) -> String {
    let sign = match finding.verdict {
        Verdict::Ok => "ok     ",
        Verdict::Warning => "warning",
        Verdict::Problem => "problem",
    };
    format!("{sign}  {}: {}\n", shown(finding.subject.as_bytes()), shown(finding.message.as_bytes()))
}

fn fuse_device() -> Finding {
    let subject = "/dev/fuse";
    match OpenOptions::new().read(true).write(true).open(subject) {
        Ok(_) => finding(Verdict::Ok, subject, "can be opened"),
        Err(error) => finding(
            Verdict::Problem,
            subject,
            format!(
                "cannot be opened ({error}): load the kernel module fuse, or pass the device into the container"
            ),
        ),
    }
}

fn fuse_helper() -> Finding {
    let subject = "fusermount3";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(subject)).find(|file| file.is_file());
    match found {
        Some(file) => finding(Verdict::Ok, subject, format!("is {}", file.display())),
        None if rustix::process::geteuid().is_root() => {
            finding(Verdict::Ok, subject, "is missing, which root does not need")
        }
        None => finding(Verdict::Problem, subject, "is missing: install the package fuse3"),
    }
}

fn home(context: &Context) -> Finding {
    let directory = context.home.config_file().parent().map(Path::to_path_buf).unwrap_or_default();
    let nearest = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(&directory);
    let subject = directory.display().to_string();
    let writable = rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK).is_ok();
    let free = rustix::fs::statvfs(nearest).map(|space| space.f_bavail.saturating_mul(space.f_frsize));
    match (writable, free) {
        (false, _) => finding(Verdict::Problem, &subject, "cannot be written to"),
        (true, Ok(free)) if free < FREE_BYTES_MIN => {
            finding(Verdict::Warning, &subject, format!("has only {} free", bytes(free)))
        }
        (true, Ok(free)) => {
            finding(Verdict::Ok, &subject, format!("can be written to, {} free", bytes(free)))
        }
        (true, Err(error)) => {
            finding(Verdict::Warning, &subject, format!("does not say how much is free: {error}"))
        }
    }
}

/// FUSE mounts of ours that nobody answers for.
fn dead_mounts() -> Vec<Finding> {
    let dead = crate::fuse::dead_mounts(None).into_iter();
    dead.map(|directory| {
        let message = "is a mount without an engine: `kilofs umount` it, or mount there again";
        finding(Verdict::Warning, &directory.display().to_string(), message)
    })
    .collect()
}

fn database(context: &Context, name: &Name) -> Finding {
    let paths = context.home.database(name);
    let keyring = std::fs::read(&paths.keyring).map_err(|error| error.to_string());
    if let Err(error) = keyring.and_then(|bytes| keyring::needs(&bytes).map_err(|error| error.to_string())) {
        return finding(
            Verdict::Problem,
            name.as_str(),
            format!("its keyring {}: {error}", paths.keyring.display()),
        );
    }
    if let Err(error) = Options::read(&paths.config) {
        return finding(Verdict::Problem, name.as_str(), format!("its options: {error}"));
    }
    if let Err(error) = File::open(&paths.store) {
        return finding(
            Verdict::Problem,
            name.as_str(),
            format!("its store {}: {error}; restore it from a backup, or join again", paths.store.display()),
        );
    }
    match client::ask(&paths.socket, &Request::Status, ENGINE_DEADLINE) {
        Asked::Answered(Ok(_)) => finding(Verdict::Ok, name.as_str(), "its engine answers"),
        Asked::Answered(Err(failure)) => {
            finding(Verdict::Problem, name.as_str(), format!("its engine: {failure}"))
        }
        Asked::NoEngine => finding(Verdict::Ok, name.as_str(), "no engine runs"),
        Asked::Stale => finding(
            Verdict::Warning,
            name.as_str(),
            "its engine ended without cleaning up; the next one does that",
        ),
    }
}

/// Whether any bootstrap node answers a ping.
fn dht(settings: &Settings) -> Finding {
    let subject = "DHT";
    if settings.offline {
        return finding(Verdict::Warning, subject, "is switched off by `offline`");
    }
    let addresses = settings.bootstrap.iter().filter_map(|node| node.to_socket_addrs().ok()).flatten();
    let addresses: Vec<_> = addresses.filter(|address| address.is_ipv4()).collect();
    let asked = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        for address in &addresses {
            // One that cannot be reached at all is one that does not answer.
            _ = socket.send_to(PING, address);
        }
        let end = Instant::now() + DHT_DEADLINE;
        let mut answer = [0; 1500];
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left))?;
            if let Ok((length, _)) = socket.recv_from(&mut answer)
                && answer[..length].starts_with(b"d")
            {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match asked() {
        _ if addresses.is_empty() => {
            finding(Verdict::Warning, subject, "no bootstrap node has an IPv4 address: is there a network?")
        }
        Ok(true) => {
            finding(Verdict::Ok, subject, format!("answers at one of {}", settings.bootstrap.join(", ")))
        }
        Ok(false) => finding(
            Verdict::Warning,
            subject,
            format!("none of {} does; UDP may be blocked", settings.bootstrap.join(", ")),
        ),
        Err(error) => finding(Verdict::Problem, subject, format!("no socket: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ping_is_well_formed() {
        let id = PING.windows(3).position(|window| window == b"20:").map(|at| &PING[at + 3..at + 23]);
        assert_eq!(id, Some(&b"kilofs doctor looks "[..]));
    }
}

//! `kilofs member` and `kilofs rotate`: whose changes count, and new keys for those who remain.

use super::Outcome;
use super::context::Context;
use super::device::{DeviceText, NotADevice};
use super::enact::Admin;
use super::output::{moment, short, table, understood};
use super::session::Session;
use crate::base::DeviceId;
use crate::crypt::link::Kind;
use crate::daemon::answers::MemberSeen;
use crate::daemon::control::{Failure, FailureKind, Listing, Request};
use crate::daemon::home::Name;
use crate::record::{MEMBERS_MAX, Members};
use clap::{Args, Subcommand};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long new keys are given to reach others before the command ends; they go on reaching them after that.
const TELLING_SECONDS: f64 = 10.0;

/// Who may write in a database that lists its members.
#[derive(Args)]
pub struct Member {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the devices that are known
    List,
    /// Let devices write, and nobody who is not listed
    Add {
        /// Their ids, as `kilofs status` shows them there
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Let devices read only
    Demote {
        /// Their ids, or the first digits of one that is known
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// Let devices neither write nor read what comes after: the database moves to new keys
    Remove {
        /// Their ids, or the first digits of one that is known
        #[arg(required = true)]
        devices: Vec<String>,
        /// Others that get the new keys: an id, with `:read` or `:mirror` behind it for one that does not write
        #[arg(long, value_name = "DEVICE")]
        keep: Vec<String>,
    },
    /// Let everybody write who has a write link
    Open,
}

/// Moves a database to new keys, as after a theft of a link or a device. What was sealed before stays readable with the
/// old keys; nothing new does. Links that were given out before give nothing new.
#[derive(Args)]
pub struct Rotate {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    /// Who gets the new keys besides this device: an id, with `:read` or `:mirror` behind it for one that does not write
    #[arg(long, value_name = "DEVICE")]
    keep: Vec<String>,
    /// All devices that are known to have written get them
    #[arg(long)]
    keep_known: bool,
}

/// Runs `member`.
pub fn run(context: &Context, Member { name, action }: Member) -> Outcome {
    match action {
        Action::List => list(context, &name),
        Action::Add { devices } => add(context, &name, &devices),
        Action::Demote { devices } => demote(context, &name, &devices),
        Action::Remove { devices, keep } => remove(context, &name, &devices, &keep),
        Action::Open => open(context, &name),
    }
}

/// Runs `rotate`.
pub fn rotate(context: &Context, command: Rotate) -> Outcome {
    let name = &command.name;
    let mut admin = Admin::open_whole(context, name, true)?;
    let known = Known::ask(&mut admin)?;
    let members = admin.terms()?.charter.members;
    let mut recipients = BTreeMap::new();
    match &members {
        // Who owns a block writes there without being on the list.
        Members::Listed(devices) => recipients
            .extend(known.writers().chain(devices.iter().copied()).map(|device| (device, Kind::Write))),
        Members::Open if command.keep_known => {
            recipients.extend(known.writers().map(|device| (device, Kind::Write)))
        }
        Members::Open if command.keep.is_empty() => {
            return Err(Failure::new(
                FailureKind::Usage,
                format!(
                    "say who gets the new keys: --keep-known for all devices that have written, as `kilofs member {name} list` shows \
                     them, or --keep DEVICE"
                ),
            ));
        }
        Members::Open => {}
    }
    recipients.extend(known.recipients(&command.keep)?);
    renew(context, &mut admin, name, recipients, &known)
}

fn list(context: &Context, name: &Name) -> Outcome {
    let answer = Session::new(context, name, false)?.ask(Request::Members)?;
    context.output.answer(answer, |members: Vec<MemberSeen>| {
        let row = |member: &MemberSeen| {
            let role = match (member.listed, member.writes) {
                (true, _) => "member",
                (false, true) => "may write",
                (false, false) => "reads only",
            };
            vec![
                member.device.clone(),
                role.into(),
                match (member.time, member.wrote) {
                    (Some(time), _) => format!("last change {}", moment(time)),
                    // It came merged into what others made.
                    (None, true) => "changes at times not known here".into(),
                    (None, false) => "nothing yet".into(),
                },
                if member.this { "this device".into() } else { String::new() },
            ]
        };
        table(&members.iter().map(row).collect::<Vec<_>>())
    })
}

fn add(context: &Context, name: &Name, devices: &[String]) -> Outcome {
    let mut admin = Admin::open(context, name)?;
    let known = Known::ask(&mut admin)?;
    let added = known.named(devices)?;
    let own = admin.own_device();
    let members = admin.enact(|terms| {
        let mut listed = match &terms.charter.members {
            Members::Listed(devices) => devices.clone(),
            // Whoever makes the list is on it; who is forgotten can be added.
            Members::Open => [own].into(),
        };
        listed.extend(added.iter().copied());
        if listed.len() > MEMBERS_MAX {
            return Err(Failure::failed(format!("a database has at most {MEMBERS_MAX} members")));
        }
        terms.set_members(Members::Listed(listed.clone()))?;
        let added = added.iter().chain([&own]).map(ToString::to_string).collect();
        terms.listing = Listing { added, removed: Vec::new() };
        Ok(listed.len())
    })?;
    let done = json!({ "members": members });
    context.output.result(&done, |_| format!("{members} devices may write in {name}, and no others"))
}

fn demote(context: &Context, name: &Name, devices: &[String]) -> Outcome {
    let (demoted, remaining) = shut_out(&mut Admin::open(context, name)?, devices)?;
    let done = json!({
        "demoted": demoted.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "members": remaining.len(),
    });
    context.output.result(&done, |_| {
        let demoted: Vec<_> = demoted.iter().map(|device| short(&device.to_string())).collect();
        format!("{} may read {name} and not write in it; {} devices may", demoted.join(", "), remaining.len())
    })
}

/// Takes devices off the list of members. Returns these, and who remains.
fn shut_out(admin: &mut Admin<'_>, devices: &[String]) -> Result<(Vec<DeviceId>, Vec<DeviceId>), Failure> {
    let known = Known::ask(admin)?;
    let demoted = known.named(devices)?;
    let own = admin.own_device();
    if demoted.contains(&own) {
        let message = "this device is the admin's: it cannot shut itself out";
        return Err(Failure::new(FailureKind::Usage, message));
    }
    let remaining = admin.enact(|terms| {
        let mut listed = match &terms.charter.members {
            Members::Listed(devices) => devices.clone(),
            Members::Open => known.writers().chain([own]).collect(),
        };
        listed.retain(|device| !demoted.contains(device));
        terms.set_members(Members::Listed(listed.clone()))?;
        let removed = demoted.iter().map(ToString::to_string).collect();
        terms.listing = Listing { added: vec![own.to_string()], removed };
        Ok(listed)
    })?;
    Ok((demoted, remaining.into_iter().collect()))
}

fn remove(context: &Context, name: &Name, devices: &[String], keep: &[String]) -> Outcome {
    let mut admin = Admin::open_whole(context, name, true)?;
    let known = Known::ask(&mut admin)?;
    let kept = known.recipients(keep)?;
    let gone = known.named(devices)?;
    if let Some((device, _)) = kept.iter().find(|(device, _)| gone.contains(device)) {
        let message = format!("{device} cannot be removed and kept at once");
        return Err(Failure::new(FailureKind::Usage, message));
    }
    // First those who are online stop writing; then nobody who is left out reads what comes.
    let (_, remaining) = shut_out(&mut admin, devices)?;
    let owners = known.those(|member| member.owns).filter(|device| !gone.contains(device));
    let writers = owners.chain(remaining).map(|device| (device, Kind::Write));
    renew(context, &mut admin, name, writers.chain(kept).collect(), &known)
}

fn open(context: &Context, name: &Name) -> Outcome {
    Admin::open(context, name)?.enact(|terms| {
        terms.set_members(Members::Open)?;
        Ok(())
    })?;
    context
        .output
        .result(&json!({ "members": "open" }), |_| format!("whoever has a write link may write in {name}"))
}

fn renew(
    context: &Context,
    admin: &mut Admin<'_>,
    name: &Name,
    mut recipients: BTreeMap<DeviceId, Kind>,
    known: &Known,
) -> Outcome {
    recipients.insert(admin.own_device(), Kind::Write);
    let recipients: Vec<(DeviceId, Kind)> = recipients.into_iter().collect();
    let generation = admin.rotate(&recipients)?;
    let sync = Request::Sync { timeout_seconds: TELLING_SECONDS };
    let told = admin.session().ask_within(sync, Duration::from_secs_f64(TELLING_SECONDS + 5.0)).is_ok();
    let left_out: Vec<_> = known
        .those(|_| true)
        .filter(|device| recipients.iter().all(|(kept, _)| kept != device))
        .map(|device| device.to_string())
        .collect();
    let kept: Vec<_> = recipients
        .iter()
        .map(|(device, kind)| json!({ "device": device.to_string(), "capability": kind.to_string() }))
        .collect();
    let done = json!({ "generation": generation, "kept": kept, "left_out": left_out, "told": told });
    context.output.result(&done, |_| {
        let mut text = format!(
            "{name} has new keys; {} device(s) were given them and follow by themselves, this one among them.\n\
             Everybody else keeps what he had and sees nothing newer: links from before, devices that only read and mirrors\n\
             that were not named with --keep. Give them new links. What they had read before, they have.",
            recipients.len()
        );
        if !left_out.is_empty() {
            let short: Vec<_> = left_out.iter().map(|device| short(device)).collect();
            text.push_str(&format!("\nOf the devices that are known here these were left out: {}.", short.join(", ")));
        }
        if !told {
            text.push_str("\nThis could not be told yet; a mount, share or mirror of this device goes on trying.");
        }
        text
    })
}

/// The devices that are known here.
struct Known {
    own: DeviceId,
    devices: Vec<MemberSeen>,
}

impl Known {
    fn ask(admin: &mut Admin<'_>) -> Result<Known, Failure> {
        let devices = understood(admin.session().ask(Request::Members)?)?;
        Ok(Known { own: admin.own_device(), devices })
    }

    /// Those that have written, or have a block of their own, and may.
    fn writers(&self) -> impl Iterator<Item = DeviceId> {
        self.those(|member| member.writes && (member.wrote || member.owns || member.this))
    }

    fn those(&self, are: impl Fn(&MemberSeen) -> bool) -> impl Iterator<Item = DeviceId> {
        let those = self.devices.iter().filter(move |member| are(member));
        those.filter_map(|member| DeviceId::from_hex(&member.device))
    }

    /// The devices that a person means.
    fn named(&self, names: &[String]) -> Result<Vec<DeviceId>, Failure> {
        names.iter().map(|name| self.one(name)).collect()
    }

    fn one(&self, name: &str) -> Result<DeviceId, Failure> {
        let text: DeviceText =
            name.parse().map_err(|error: NotADevice| Failure::new(FailureKind::Usage, error.to_string()))?;
        match text.exact(self.own) {
            Some(device) => Ok(device),
            None => {
                let known = self.devices.iter().filter_map(|member| DeviceId::from_hex(&member.device));
                text.among(&known.collect())
            }
        }
    }

    /// Devices with what they may have.
    fn recipients(&self, names: &[String]) -> Result<Vec<(DeviceId, Kind)>, Failure> {
        let recipient = |text: &String| {
            let (name, kind) = match text.split_once(':') {
                None => (text.as_str(), Kind::Write),
                Some((name, "write")) => (name, Kind::Write),
                Some((name, "read")) => (name, Kind::Read),
                Some((name, "mirror")) => (name, Kind::Mirror),
                Some((_, other)) => {
                    let message = format!("a device is kept with :write, :read or :mirror, not :{other}");
                    return Err(Failure::new(FailureKind::Usage, message));
                }
            };
            Ok((self.one(name)?, kind))
        };
        names.iter().map(recipient).collect()
    }
}

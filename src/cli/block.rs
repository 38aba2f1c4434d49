//! `kilofs block`: directories with rules of their own.

use super::Outcome;
use super::context::Context;
use super::device::{DeviceText, NotADevice};
use super::enact::Admin;
use super::output::{bytes, shown, understood};
use super::paths;
use super::policy::{ensure_fitting, nobodys, of_whom, which};
use super::private;
use super::session::Session;
use super::status::blocks;
use crate::base::{Birth, BlockNumber, DeviceId};
use crate::daemon::allowance::ensure_room;
use crate::daemon::control::{Failure, FailureKind, Request};
use crate::daemon::home::Name;
use crate::daemon::size;
use crate::daemon::status::Status;
use crate::daemon::terms::Terms;
use crate::record::{BLOCKS_MAX, BlockCharter, Floor, Mode, Quota};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest list of paths that is read, in bytes: more than all blocks can have.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// Directories with rules of their own.
#[derive(Args)]
pub struct Block {
    /// The database
    #[arg(value_parser = Name::new)]
    name: Name,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make directories blocks, with all that is in them; each is made if it does not exist
    Add(New),
    /// Say how much a block may hold
    Quota {
        /// Its number, or its path from the database's root
        block: OsString,
        #[command(flatten)]
        limits: Limits,
    },
    /// List the blocks
    List,
    /// Make a block a plain directory again
    Remove {
        /// Its number, or its path from the database's root
        block: OsString,
        /// What is in it stays there, in the block around; without this it must be empty
        #[arg(long)]
        keep: bool,
    },
    /// Let devices read a private block
    Share(Readers),
    /// Let devices read nothing newer of a private block
    Unshare(Readers),
}

/// Devices that may or may not read a private block.
#[derive(Args)]
struct Readers {
    /// Its number, or its path from the database's root
    block: OsString,
    /// The devices: an id, 8 or more of its first digits, or self
    #[arg(long = "for", value_name = "DEVICE", required = true)]
    devices: Vec<DeviceText>,
}

/// What becomes a block, and how.
#[derive(Args)]
struct New {
    /// Paths from the database's root
    #[arg(value_name = "PATH", required_unless_present = "from")]
    paths: Vec<OsString>,
    /// Read more paths from FILE, one a line; - is standard input. In mode owner without --owner each is followed by a tab
    /// and its owner
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Who may write: rw (everybody with a write link), ro (nobody but the admin), owner (one device, and the admin) or
    /// append (everybody with a write link adds, nobody changes or removes). It is rw, and owner where the block is private
    #[arg(long)]
    mode: Option<Mode>,
    /// The device that owns it, in mode owner: its id, 8 or more of its first digits, or self
    #[arg(long, value_name = "DEVICE")]
    owner: Option<DeviceText>,
    /// What is in it can be read by its owner (this device without --owner), the devices of --for and the admin, and by nobody
    /// else; in modes owner and ro
    #[arg(long)]
    private: bool,
    /// A device that may read a private block: its id, 8 or more of its first digits, or self
    #[arg(long = "for", value_name = "DEVICE", requires = "private")]
    readers: Vec<DeviceText>,
    /// How much its files may hold together, such as 10G
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    quota_bytes: Option<u64>,
    /// How many files, directories and so on it may hold
    #[arg(long, value_name = "COUNT")]
    quota_files: Option<u64>,
}

/// What is to be changed of a quota.
#[derive(Args)]
#[group(required = true, multiple = true)]
struct Limits {
    /// How much its files may hold together, such as 10G, or none
    #[arg(long, value_name = "SIZE", value_parser = byte_limit)]
    bytes: Option<Limit>,
    /// How many files, directories and so on it may hold, or none
    #[arg(long, value_name = "COUNT", value_parser = file_limit)]
    files: Option<Limit>,
}

/// A limit, or that there is none.
#[derive(Clone, Copy)]
struct Limit(Option<u64>);

fn byte_limit(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { size::parse(text).map(|bytes| Limit(Some(bytes))) }
}

fn file_limit(text: &str) -> Result<Limit, String> {
    let count = text.parse().map_err(|_| format!("{text} is no number of files, nor none"));
    if text == "none" { Ok(Limit(None)) } else { count.map(|count| Limit(Some(count))) }
}

/// Runs `block`.
pub fn run(context: &Context, Block { name, action }: Block) -> Outcome {
    match action {
        Action::Add(new) => add(context, &name, new),
        Action::Quota { block, limits } => set_quota(context, &name, &block, &limits),
        Action::List => list(context, &name),
        Action::Remove { block, keep } => remove(context, &name, &block, keep),
        Action::Share(Readers { block, devices }) => private::share(context, &name, &block, &devices),
        Action::Unshare(Readers { block, devices }) => private::unshare(context, &name, &block, &devices),
    }
}

/// Makes blocks of directories, all in one policy.
fn add(context: &Context, name: &Name, new: New) -> Outcome {
    let New { paths: typed, from, mode, owner, private: hidden, readers, quota_bytes, quota_files } = new;
    let mode = mode.unwrap_or(if hidden { Mode::Owner } else { Mode::ReadWrite });
    ensure_fitting(mode, owner.as_ref())?;
    let quota = Quota { bytes: quota_bytes, files: quota_files };
    if hidden {
        private::ensure_mode(mode)?;
        if !quota.is_none() {
            return Err(private::no_quota());
        }
    }
    let single = from.is_none() && typed.len() == 1;
    let owner = match owner {
        None if hidden && mode == Mode::Owner && from.is_none() => Some(DeviceText::Own),
        owner => owner,
    };
    let each_its_own = mode == Mode::Owner && owner.is_none();
    if each_its_own && !typed.is_empty() {
        return Err(nobodys());
    }
    let lines = from.as_deref().map(lines_of).transpose()?.unwrap_or_default();
    let mut named = Vec::new();
    for line in &lines {
        named.push(if each_its_own { with_owner(line)? } else { (line.as_os_str(), None) });
    }
    let all = typed.iter().map(OsString::as_os_str).chain(named.iter().map(|(path, _)| *path));
    let paths = apart(all.map(paths::inside).collect::<Result<_, _>>()?)?;
    let mut admin = Admin::open(context, name)?;
    let terms = admin.terms()?;
    numbers_for(&terms, &paths)?;
    private::ensure_outside(&terms, &paths)?;
    let readers = readers.iter().map(|reader| admin.device(reader)).collect::<Result<BTreeSet<_>, _>>()?;
    let owners: Vec<Option<DeviceId>> = if each_its_own {
        let owner = |(_, owner): &(_, Option<DeviceText>)| {
            owner.as_ref().map(|owner| admin.device(owner)).transpose()
        };
        named.iter().map(owner).collect::<Result<_, _>>()?
    } else {
        let owner = owner.map(|owner| admin.device(&owner)).transpose()?;
        vec![owner; paths.len()]
    };
    let empty = admin.prepare(paths.iter().map(Vec::as_slice))?;
    if hidden && !empty {
        return Err(Failure::failed(
            "what is in a directory was readable for everybody: make an empty one private, and move things in",
        ));
    }
    let keyholder = admin.keyholder();
    let births = paths.iter().map(|_| random().map(Birth)).collect::<Result<Vec<_>, _>>()?;
    let change = |terms: &mut Terms| {
        let numbers = numbers_for(terms, &paths)?;
        if empty {
            terms.raise_around(paths.iter().map(Vec::as_slice))?;
        }
        for (((path, number), birth), owner) in paths.iter().zip(&numbers).zip(&births).zip(&owners) {
            terms.set_mode(*number, mode);
            let floor = Floor { counter: 0, root: None };
            let epoch = terms.epoch();
            let readers = readers.iter().copied().chain(*owner).collect();
            let private = hidden.then(|| keyholder.first(*number, *birth, &readers)).transpose()?;
            let path = path.clone();
            let block = BlockCharter { path, owner: *owner, birth: *birth, epoch, floor, quota, private };
            terms.charter.blocks.insert(*number, block);
        }
        Ok(numbers)
    };
    let numbers = if empty { admin.enact(change)? } else { admin.recut(change)? };
    let shown_path = |path: &[u8]| format!("/{}", shown(path));
    let added = |((path, number), owner): ((&Vec<u8>, &BlockNumber), &Option<DeviceId>)| {
        json!({
            "number": number.0,
            "path": shown_path(path),
            "mode": mode.to_string(),
            "owner": owner.map(|owner| owner.to_string()),
            "private": hidden,
            "quota_bytes": quota.bytes,
            "quota_files": quota.files,
        })
    };
    let mut all: Vec<Value> = paths.iter().zip(&numbers).zip(&owners).map(added).collect();
    let told = if single { all.remove(0) } else { Value::from(all) };
    let mode = match owners.first() {
        Some(owner) if !each_its_own => format!("{mode}{}", of_whom(*owner)),
        _ => mode.to_string(),
    };
    let mode = if hidden { format!("{mode}, private") } else { mode };
    context.output.result(&told, |_| match (paths.first(), numbers.first()) {
        (Some(path), Some(number)) if single => format!("{} is block {number}, {mode}", shown_path(path)),
        _ => format!("{} directories are blocks now, {mode}", paths.len()),
    })
}

/// A path and, behind the last tab, whose it is to be.
fn with_owner(line: &OsStr) -> Result<(&OsStr, Option<DeviceText>), Failure> {
    let bytes = line.as_bytes();
    let tab = bytes.iter().rposition(|byte| *byte == b'\t').ok_or_else(nobodys)?;
    let owner = str::from_utf8(&bytes[tab + 1..]).ok().and_then(|text| text.parse().ok());
    let owner: DeviceText = owner.ok_or_else(|| {
        Failure::new(FailureKind::Usage, format!("/{}: {NotADevice}", shown(&bytes[..tab])))
    })?;
    Ok((OsStr::from_bytes(&bytes[..tab]), Some(owner)))
}

/// The lines of a file.
fn lines_of(file: &Path) -> Result<Vec<OsString>, Failure> {
    let mut bytes = Vec::new();
    let input: io::Result<Box<dyn Read>> = match file.to_str() {
        Some("-") => Ok(Box::new(io::stdin().lock())),
        _ => File::open(file).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let read = input.and_then(|input| input.take(LIST_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| OsStr::from_bytes(line).to_owned()).collect())
}

/// Refuses the root, and paths of which one is or contains another.
fn apart(paths: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Failure> {
    let usage = |message: String| Err(Failure::new(FailureKind::Usage, message));
    let mut seen = HashSet::new();
    for path in &paths {
        if path.is_empty() {
            return usage("the database's root is block 0 already".into());
        }
        if !seen.insert(path.as_slice()) {
            return usage(format!("/{} is named twice", shown(path)));
        }
    }
    for path in &paths {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        if let Some(outer) = ends.map(|end| &path[..end]).find(|outer| seen.contains(outer)) {
            let (outer, inner) = (shown(outer), shown(path));
            return usage(format!("/{inner} lies in /{outer}: add /{outer} first, then what lies in it"));
        }
    }
    if paths.is_empty() {
        return usage("no path is named".into());
    }
    Ok(paths)
}

/// Numbers for new blocks, the lowest that no block has. A number is used again after its block was removed: its birth
/// tells the two apart.
fn numbers_for(terms: &Terms, paths: &[Vec<u8>]) -> Result<Vec<BlockNumber>, Failure> {
    let known: HashMap<&[u8], BlockNumber> =
        terms.charter.blocks.iter().map(|(number, block)| (block.path.as_slice(), *number)).collect();
    if let Some((path, number)) = paths.iter().find_map(|path| Some((path, known.get(path.as_slice())?))) {
        return Err(Failure::failed(format!("/{} is block {number} already", shown(path))));
    }
    let numbers = (1..BLOCKS_MAX).filter_map(|number| u16::try_from(number).ok().map(BlockNumber));
    let free = numbers.filter(|number| !terms.charter.blocks.contains_key(number));
    let numbers: Vec<BlockNumber> = free.take(paths.len()).collect();
    if numbers.len() < paths.len() {
        return Err(Failure::failed(format!(
            "a database has at most {BLOCKS_MAX} blocks, the root included: there is room for {} more; remove some first",
            numbers.len()
        )));
    }
    Ok(numbers)
}

/// Changes what a block may hold.
fn set_quota(context: &Context, name: &Name, block: &OsStr, limits: &Limits) -> Outcome {
    let mut admin = Admin::open(context, name)?;
    let terms = admin.terms()?;
    let number = which(&terms, block)?;
    if terms.charter.blocks.get(&number).is_some_and(|block| block.private.is_some()) {
        return Err(private::no_quota());
    }
    let held = admin.holds(number)?;
    let (number, path, quota) = admin.enact(|terms| {
        let number = which(terms, block)?;
        let path = terms.path(number).to_vec();
        let Some(charter) = terms.charter.blocks.get_mut(&number) else {
            return Err(Failure::failed(format!("there is no block {number} any more")));
        };
        let quota = Quota {
            bytes: limits.bytes.map_or(charter.quota.bytes, |limit| limit.0),
            files: limits.files.map_or(charter.quota.files, |limit| limit.0),
        };
        ensure_room(held, &quota)?;
        charter.quota = quota;
        Ok((number, path, quota))
    })?;
    let path = format!("/{}", shown(&path));
    let done = json!({
        "number": number.0,
        "path": path,
        "quota_bytes": quota.bytes,
        "quota_files": quota.files,
        "used_bytes": held.0,
        "used_files": held.1,
    });
    context.output.result(&done, |_| {
        let size = quota.bytes.map_or("any size".into(), bytes);
        let count = quota.files.map_or("any number of".into(), |files| files.to_string());
        let (held_bytes, held_files) = (bytes(held.0), held.1);
        format!(
            "block {number} ({path}) may hold {size} in {count} files; it holds {held_bytes} in {held_files}"
        )
    })
}

fn list(context: &Context, name: &Name) -> Outcome {
    let answer = Session::new(context, name, false)?.ask(Request::Status)?;
    let status: Status = understood(answer)?;
    context.output.result(&status.blocks, |list| blocks(list))
}

fn remove(context: &Context, name: &Name, block: &OsStr, keep: bool) -> Outcome {
    let mut admin = Admin::open(context, name)?;
    let terms = admin.terms()?;
    let (number, path) = removable(&terms, block)?;
    let hidden = terms.charter.blocks.get(&number).is_some_and(|block| block.private.is_some());
    if hidden && keep {
        return Err(Failure::failed(format!(
            "block {number} is private: what is in it cannot stay there for everybody; let its owner move it first"
        )));
    }
    let empty = admin.prepare([path.as_slice()])?;
    if !empty && !keep {
        return Err(Failure::failed(format!(
            "block {number} is not empty: move what is in it elsewhere first, or let it stay there with --keep"
        )));
    }
    let change = |terms: &mut Terms| {
        let (number, path) = removable(terms, block)?;
        terms.remove(number);
        Ok((number, path))
    };
    let (number, path) = if empty { admin.enact(change)? } else { admin.recut(change)? };
    let path = format!("/{}", shown(&path));
    let removed = json!({ "number": number.0, "path": path });
    context.output.result(&removed, |_| format!("{path} is no block any more"))
}

/// The number and path of a block that nothing keeps from being removed.
fn removable(terms: &Terms, block: &OsStr) -> Result<(BlockNumber, Vec<u8>), Failure> {
    let number = which(terms, block)?;
    if number == BlockNumber::ROOT {
        return Err(Failure::new(FailureKind::Usage, "block 0 is the database's root, which stays"));
    }
    let path = terms.path(number);
    let below = [path, b"/"].concat();
    if let Some((inner, _)) = terms.charter.blocks.iter().find(|(_, other)| other.path.starts_with(&below)) {
        return Err(Failure::failed(format!(
            "block {inner} lies inside block {number}: remove that one first"
        )));
    }
    Ok((number, path.to_vec()))
}

fn random() -> Result<[u8; Birth::BYTES], Failure> {
    let mut bytes = [0; Birth::BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}

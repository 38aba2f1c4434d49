//! The same system calls, drawn by chance, on a mount and on a tmpfs: results, errnos, listings, contents and attributes
//! are the same.
//!
//! Left out of the comparison: times, inode numbers, blocks, and the sizes of directories.
//! `KILOFS_DIFFERENTIAL_SEEDS` asks for more runs.

use super::world::World;
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags, SeekFrom, Stat, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

const SEEDS: u64 = 12;
const STEPS: usize = 2_500;
const FILE_BYTES_MAX: u64 = 400_000;
const NAMES: [&str; 8] = ["a", "b", "c", "p/a", "p/b", "q/c", "p/d/deep", "q/../p/z"];

struct Dice(u64);

impl Dice {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    fn name(&mut self) -> String {
        match self.below(60) {
            0 => "n".repeat(256),
            1 => "no/such/way".into(),
            2 => ".".into(),
            3 => "p/".into(),
            4..=6 => "p".into(),
            7 | 8 => "q".into(),
            9 | 10 => "p/d".into(),
            _ => NAMES[self.below(NAMES.len() as u64) as usize].into(),
        }
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.draw() as u8).collect()
    }

    fn offset(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => self.below(3_000),
            2 => self.below(20) * 16_384,
            _ => self.below(FILE_BYTES_MAX / 2),
        }
    }
}

/// A tmpfs, taken away when dropped.
struct Reference(tempfile::TempDir);

impl Reference {
    fn new() -> Reference {
        let directory = tempfile::tempdir().unwrap();
        rustix::mount::mount("reference", directory.path(), "tmpfs", MountFlags::empty(), c"size=256m")
            .unwrap();
        Reference(directory)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// One of the two sides: a directory and the files that are open in it.
struct Side {
    root: OwnedFd,
    open: BTreeMap<u64, OwnedFd>,
}

/// One call with all that was drawn for it.
#[derive(Clone, Debug)]
enum Call {
    Create(String, bool),
    MakeDirectory(String, u16),
    MakeNode(String),
    Symlink(String, String),
    Link(String, String),
    Unlink(String),
    RemoveDirectory(String),
    Rename(String, String, RenameFlags),
    Write(String, u64, Vec<u8>),
    Append(String, Vec<u8>),
    Truncate(String, u64),
    Punch(String, u64, u64),
    Zero(String, u64, u64),
    Allocate(String, u64, u64),
    Copy(String, u64, String, u64, usize),
    Seek(String, u64),
    Chmod(String, u16),
    SetXattr(String, String, Vec<u8>, XattrFlags),
    GetXattr(String, String),
    RemoveXattr(String, String),
    ReadLink(String),
    Stat(String),
    List(String),
    Open(u64, String),
    WriteOpen(u64, u64, Vec<u8>),
    ReadOpen(u64, u64, usize),
    TruncateOpen(u64, u64),
    StatOpen(u64),
    Close(u64),
    Sync,
}

fn draw(dice: &mut Dice) -> Call {
    let (one, other) = (dice.name(), dice.name());
    let flags = [RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE];
    let xattr = ["user.a", "user.b", "user.c"][dice.below(3) as usize].to_owned();
    let (handle, offset, bytes) = (dice.below(3), dice.offset(), 1 + dice.below(70_000));
    match dice.below(44) {
        0..=3 => Call::Create(one, dice.below(2) == 0),
        4..=6 => Call::MakeDirectory(one, [0o755, 0o700, 0o2775][dice.below(3) as usize]),
        7 => Call::MakeNode(one),
        8 | 9 => Call::Symlink(one, other),
        10 | 11 => Call::Link(one, other),
        12 | 13 => Call::Unlink(one),
        14 | 15 => Call::RemoveDirectory(one),
        16..=19 => Call::Rename(one, other, flags[dice.below(3) as usize]),
        20..=23 => Call::Write(one, offset, dice.bytes(bytes)),
        24 => Call::Append(one, dice.bytes(bytes / 10 + 1)),
        25 | 26 => Call::Truncate(one, dice.below(FILE_BYTES_MAX)),
        27 => Call::Punch(one, offset, bytes),
        28 => Call::Zero(one, offset, bytes),
        29 => Call::Allocate(one, offset, bytes),
        30 => Call::Copy(one, offset, other, dice.offset(), bytes as usize),
        31 => Call::Seek(one, offset),
        32 => Call::Chmod(one, dice.below(0o1000) as u16 | 0o700),
        33 => {
            let how = [XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE][dice.below(3) as usize];
            Call::SetXattr(one, xattr, dice.bytes(bytes / 40), how)
        }
        34 => Call::GetXattr(one, xattr),
        35 => Call::RemoveXattr(one, xattr),
        36 => Call::ReadLink(one),
        37 => Call::Stat(one),
        38 => Call::List(one),
        39 => Call::Open(handle, one),
        40 => Call::WriteOpen(handle, offset, dice.bytes(bytes)),
        41 => Call::ReadOpen(handle, offset, bytes as usize),
        42 => match dice.below(4) {
            0 => Call::TruncateOpen(handle, dice.below(FILE_BYTES_MAX)),
            1 => Call::Close(handle),
            _ => Call::StatOpen(handle),
        },
        _ => Call::Sync,
    }
}

/// What is compared of attributes.
fn shown(stat: Stat) -> String {
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let size = if file_type == FileType::Directory { 0 } else { stat.st_size };
    format!("{:o} {} {} {} {} {}", stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid, size, stat.st_rdev)
}

fn told<T: Debug>(result: Result<T, Errno>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(errno) => format!("{errno:?}"),
    }
}

impl Side {
    fn new(root: &Path) -> Side {
        let root = rustix::fs::open(root, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        Side { root, open: BTreeMap::new() }
    }

    fn file(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // A FIFO without a reader must not hold the test up.
        let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.root, path, flags, Mode::from(0o644))
    }

    fn regular(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let file = self.file(path, flags)?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            Ok(file)
        } else {
            Err(Errno::BADF)
        }
    }

    /// The path that reaches an entry through the process's own descriptor: for calls that take no directory.
    fn proc(&self, path: &str) -> PathBuf {
        use std::os::fd::AsRawFd;
        Path::new("/proc/self/fd").join(self.root.as_raw_fd().to_string()).join(path)
    }

    fn perform(&mut self, call: &Call) -> String {
        let root = self.root.as_fd();
        match call {
            Call::Create(path, exclusive) => {
                let only = if *exclusive { OFlags::EXCL } else { OFlags::empty() };
                told(self.file(path, OFlags::CREATE | OFlags::RDWR | only).map(|_| ()))
            }
            Call::MakeDirectory(path, mode) => {
                told(rustix::fs::mkdirat(root, path, Mode::from_raw_mode(u32::from(*mode))))
            }
            Call::MakeNode(path) => {
                told(rustix::fs::mknodat(root, path, FileType::Fifo, Mode::from(0o600), 0))
            }
            Call::Symlink(target, path) => told(rustix::fs::symlinkat(target, root, path)),
            Call::Link(from, to) => told(rustix::fs::linkat(root, from, root, to, AtFlags::empty())),
            Call::Unlink(path) => told(rustix::fs::unlinkat(root, path, AtFlags::empty())),
            Call::RemoveDirectory(path) => told(rustix::fs::unlinkat(root, path, AtFlags::REMOVEDIR)),
            Call::Rename(from, to, flags) => told(rustix::fs::renameat_with(root, from, root, to, *flags)),
            Call::Write(path, offset, bytes) => {
                let file = self.regular(path, OFlags::WRONLY);
                told(file.and_then(|file| rustix::io::pwrite(file, bytes, *offset)))
            }
            Call::Append(path, bytes) => {
                let file = self.regular(path, OFlags::WRONLY | OFlags::APPEND);
                told(file.and_then(|file| rustix::io::write(file, bytes)))
            }
            Call::Truncate(path, size) => {
                let file = self.regular(path, OFlags::WRONLY);
                told(file.and_then(|file| rustix::fs::ftruncate(file, *size)))
            }
            Call::Punch(path, offset, bytes) => {
                self.allocate(path, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, *offset, *bytes)
            }
            // A tmpfs cannot zero a range: there the same is done by hand.
            Call::Zero(path, offset, bytes) => {
                let file = self.regular(path, OFlags::WRONLY);
                let zeros = vec![0; *bytes as usize];
                told(file.and_then(|file| {
                    match rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, *offset, *bytes) {
                        Err(Errno::OPNOTSUPP) => rustix::io::pwrite(&file, &zeros, *offset).map(|_| ()),
                        other => other,
                    }
                }))
            }
            Call::Allocate(path, offset, bytes) => {
                self.allocate(path, FallocateFlags::empty(), *offset, *bytes)
            }
            Call::Copy(from, offset, to, to_offset, bytes) => {
                let files = self
                    .regular(from, OFlags::RDONLY)
                    .and_then(|from| Ok((from, self.regular(to, OFlags::WRONLY)?)));
                let (mut at, mut to_at) = (*offset, *to_offset);
                told(files.and_then(|(from, to)| {
                    rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut to_at), *bytes)
                }))
            }
            // Where holes are is each filesystem's own affair; that the end is the end is not.
            Call::Seek(path, offset) => {
                let file = self.regular(path, OFlags::RDONLY);
                told(file.and_then(|file| {
                    let size = rustix::fs::fstat(&file)?.st_size as u64;
                    let hole = rustix::fs::seek(&file, SeekFrom::Hole(*offset));
                    hole.map(|hole| hole <= size && hole >= *offset)
                }))
            }
            Call::Chmod(path, mode) => {
                let mode = Mode::from_raw_mode(u32::from(*mode));
                told(rustix::fs::chmodat(root, path, mode, AtFlags::empty()))
            }
            Call::SetXattr(path, name, value, how) => {
                told(rustix::fs::lsetxattr(self.proc(path), name, value, *how))
            }
            Call::GetXattr(path, name) => {
                let mut value = vec![0; 70_000];
                told(
                    rustix::fs::lgetxattr(self.proc(path), name, &mut value[..])
                        .map(|count| value[..count].to_vec()),
                )
            }
            Call::RemoveXattr(path, name) => told(rustix::fs::lremovexattr(self.proc(path), name)),
            Call::ReadLink(path) => told(rustix::fs::readlinkat(root, path, Vec::new())),
            Call::Stat(path) => told(rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW).map(shown)),
            Call::List(path) => told(self.list(path)),
            Call::Open(handle, path) => {
                let file = self.regular(path, OFlags::RDWR);
                let answer = told(file.as_ref().map(|_| ()).map_err(|errno| *errno));
                if let Ok(file) = file {
                    self.open.insert(*handle, file);
                }
                answer
            }
            Call::WriteOpen(handle, offset, bytes) => {
                self.with_open(*handle, |file| rustix::io::pwrite(file, bytes, *offset))
            }
            Call::ReadOpen(handle, offset, count) => self.with_open(*handle, |file| {
                let mut bytes = vec![0; *count];
                rustix::io::pread(file, &mut bytes[..], *offset).map(|count| digest(&bytes[..count]))
            }),
            Call::TruncateOpen(handle, size) => {
                self.with_open(*handle, |file| rustix::fs::ftruncate(file, *size))
            }
            Call::StatOpen(handle) => self.with_open(*handle, |file| rustix::fs::fstat(file).map(shown)),
            Call::Close(handle) => format!("{}", self.open.remove(handle).is_some()),
            Call::Sync => told(rustix::fs::fsync(root)),
        }
    }

    fn allocate(&self, path: &str, flags: FallocateFlags, offset: u64, bytes: u64) -> String {
        let file = self.regular(path, OFlags::WRONLY);
        told(file.and_then(|file| rustix::fs::fallocate(file, flags, offset, bytes)))
    }

    fn with_open<T: Debug>(&self, handle: u64, act: impl FnOnce(&OwnedFd) -> Result<T, Errno>) -> String {
        self.open.get(&handle).map_or_else(|| "closed".into(), |file| told(act(file)))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        let directory = self.file(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            names.push(format!("{} {:?}", entry.file_name().to_string_lossy(), entry.file_type()));
        }
        names.sort();
        Ok(names)
    }

    /// Everything that there is: names, attributes, contents, extended attributes.
    fn everything(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut left = vec![String::from(".")];
        while let Some(path) = left.pop() {
            let stat = rustix::fs::statat(&self.root, &path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            let kind = FileType::from_raw_mode(stat.st_mode);
            let what = match kind {
                FileType::Directory => {
                    for line in self.list(&path).unwrap() {
                        let name = line.split(' ').next().unwrap();
                        if name != "." && name != ".." {
                            left.push(format!("{path}/{name}"));
                        }
                    }
                    String::new()
                }
                FileType::Symlink => told(rustix::fs::readlinkat(&self.root, &path, Vec::new())),
                FileType::RegularFile => digest(&std::fs::read(self.proc(&path)).unwrap()),
                _ => String::new(),
            };
            let mut names = vec![0; 4_096];
            let count = rustix::fs::llistxattr(self.proc(&path), &mut names[..]).unwrap();
            let mut xattrs: Vec<String> = names[..count]
                .split(|byte| *byte == 0)
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .filter(|name| name.starts_with("user."))
                .collect();
            xattrs.sort();
            all.insert(path, format!("{} {what} {xattrs:?}", shown(stat)));
        }
        all
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("{} {}", bytes.len(), blake3::hash(bytes))
}

#[test]
fn a_mount_answers_as_a_tmpfs_does() {
    let asked = std::env::var("KILOFS_DIFFERENTIAL_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..asked.unwrap_or(SEEDS) {
        let Some(world) = World::new() else { return };
        let reference = Reference::new();
        let (mut real, mut wanted) = (Side::new(&world.path("")), Side::new(reference.0.path()));
        for side in [&real, &wanted] {
            rustix::fs::fchmod(&side.root, Mode::from(0o755)).unwrap();
            for name in ["p", "q"] {
                rustix::fs::mkdirat(&side.root, name, Mode::from(0o755)).unwrap();
            }
        }
        let mut dice = Dice(seed);
        let mut answers: BTreeMap<String, usize> = BTreeMap::new();
        for step in 0..STEPS {
            let call = draw(&mut dice);
            let (found, expected) = (real.perform(&call), wanted.perform(&call));
            assert!(
                found == expected,
                "seed {seed}, step {step}: {}: {found:.300} but a tmpfs says {expected:.300}",
                format!("{call:?}").chars().take(200).collect::<String>()
            );
            // What went well, or the error: a run that only fails says nothing.
            let error = expected.starts_with("Os {");
            *answers.entry(if error { expected } else { "done".into() }).or_default() += 1;
            if step % 250 == 249 {
                assert_eq!(real.everything(), wanted.everything(), "seed {seed}, step {step}");
            }
        }
        assert!(answers["done"] > STEPS / 8 && answers.len() > 8, "seed {seed}: {answers:?}");
    }
}

//! Directory trees: one like a source tree, and the comparison of two.

use super::harness::Dice;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Makes a tree like that of a program's source: 2,100 files in 120 directories, symlinks of all kinds, hard names, modes
/// and times to the nanosecond.
pub fn source_tree(root: &Path) {
    let mut dice = Dice::new(7);
    let mut directories = vec![root.to_path_buf()];
    for index in 0..120 {
        let parent = &directories[dice.below(directories.len() as u64) as usize];
        let directory = parent.join(format!("module_{index}"));
        std::fs::create_dir(&directory).unwrap();
        directories.push(directory);
    }
    for index in 0..2100 {
        let directory = &directories[dice.below(directories.len() as u64) as usize];
        let size = match dice.below(100) {
            0..5 => 0,
            5..80 => dice.below(8 << 10),
            80..99 => dice.below(64 << 10),
            _ => dice.below(1 << 20),
        };
        let file = directory.join(format!("file_{index}.rs"));
        std::fs::write(&file, dice.bytes(size as usize)).unwrap();
        let mode = [0o644, 0o600, 0o755, 0o444][dice.below(4) as usize];
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        let time = SystemTime::UNIX_EPOCH
            + Duration::new(1_500_000_000 + dice.below(1 << 27), dice.below(1 << 29) as u32);
        std::fs::File::open(&file).unwrap().set_modified(time).unwrap();
        if index % 40 == 0 {
            symlink(format!("file_{index}.rs"), directory.join(format!("link_{index}"))).unwrap();
        }
    }
    symlink("../nowhere/at all", root.join("dangling")).unwrap();
    symlink("/etc/hostname", root.join("absolute")).unwrap();
    for name in [" leading space", "naïve ☃.txt", "new\nline", "-rf", "quote'\"s", &"n".repeat(255)] {
        std::fs::write(root.join(name), name).unwrap();
    }
}

/// What `diff` does not look at, and the content too: type, mode, size, time, target, bytes.
#[derive(Debug, PartialEq)]
pub struct Entry {
    mode: u32,
    modified: (i64, i64),
    content: Vec<u8>,
}

/// Every entry below a directory by its path. Directories' sizes say nothing; their times do.
pub fn entries(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else if meta.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path).unwrap()
            };
            let entry = Entry { mode: meta.mode(), modified: (meta.mtime(), meta.mtime_nsec()), content };
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), entry);
        }
    }
    found
}

/// Fails with the first differing path.
#[track_caller]
pub fn assert_equal(one: &Path, other: &Path) {
    let (ones, others) = (entries(one), entries(other));
    assert_eq!(ones.keys().collect::<Vec<_>>(), others.keys().collect::<Vec<_>>());
    for (path, entry) in &ones {
        let twin = &others[path];
        let same = entry == twin;
        assert!(
            same,
            "{}: {:o} {:?} and {:o} {:?}",
            path.display(),
            entry.mode,
            entry.modified,
            twin.mode,
            twin.modified
        );
    }
}

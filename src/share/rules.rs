//! What is not shared: patterns in files named `.kilofsignore`, as in .gitignore, in any directory of the folder.

use super::base::Rel;
use super::folder::{Folder, join, split};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

const FILE: &[u8] = b".kilofsignore";
const GIT_FILE: &[u8] = b".gitignore";
/// More of such a file is not read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The patterns of all directories, read when they are first needed.
pub(super) struct Rules {
    git: bool,
    known: HashMap<Rel, Option<Arc<Gitignore>>>,
}

impl Rules {
    /// `git`: `.gitignore` counts too.
    pub fn new(git: bool) -> Rules {
        Rules { git, known: HashMap::new() }
    }

    /// Whether a change of this path changes the rules.
    pub fn is_rule(&self, path: &[u8]) -> bool {
        let (_, name) = split(path);
        name == FILE || self.git && name == GIT_FILE
    }

    /// The files were changed.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Whether a path, or a directory that it lies in, is left out.
    pub fn ignores(&mut self, folder: &Folder, path: &[u8], is_directory: bool) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let parents: Vec<usize> = ends.collect();
        parents.into_iter().any(|end| self.ignores_itself(folder, &path[..end], true))
            || self.ignores_itself(folder, path, is_directory)
    }

    /// The nearest directory that says something about it decides.
    fn ignores_itself(&mut self, folder: &Folder, path: &[u8], is_directory: bool) -> bool {
        let mut directory = split(path).0;
        loop {
            if let Some(patterns) = self.of(folder, directory) {
                let below = if directory.is_empty() { path } else { &path[directory.len() + 1..] };
                match patterns.matched(Path::new(OsStr::from_bytes(below)), is_directory) {
                    Match::Ignore(_) => return true,
                    Match::Whitelist(_) => return false,
                    Match::None => {}
                }
            }
            if directory.is_empty() {
                return false;
            }
            directory = split(directory).0;
        }
    }

    fn of(&mut self, folder: &Folder, directory: &[u8]) -> Option<Arc<Gitignore>> {
        if let Some(known) = self.known.get(directory) {
            return known.clone();
        }
        let mut builder = GitignoreBuilder::new("");
        let names = if self.git { &[GIT_FILE, FILE][..] } else { &[FILE][..] };
        let mut lines = 0;
        for name in names {
            let mut text = Vec::new();
            let Ok(file) = folder.read(&join(directory, name)) else { continue };
            if file.take(FILE_BYTES_MAX).read_to_end(&mut text).is_err() {
                continue;
            }
            for line in String::from_utf8_lossy(&text).lines() {
                lines += 1;
                if let Err(error) = builder.add_line(None, line) {
                    tracing::warn!(%error, line, "a pattern is not understood");
                }
            }
        }
        let built = if lines == 0 { None } else { builder.build().ok().map(Arc::new) };
        self.known.insert(directory.to_vec(), built.clone());
        built
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_nearest_file_decides_and_what_lies_in_an_ignored_directory_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        std::fs::create_dir_all(at("sub/deep")).unwrap();
        std::fs::write(at(".kilofsignore"), "*.o\n/build/\n!keep.o\n").unwrap();
        std::fs::write(at("sub/.kilofsignore"), "!special.o\nlocal\n").unwrap();
        std::fs::write(at(".gitignore"), "git-only\n").unwrap();
        let (folder, _) = Folder::open(directory.path()).unwrap();
        let mut rules = Rules::new(false);
        let mut is = |path: &str, is_directory| rules.ignores(&folder, path.as_bytes(), is_directory);
        for (path, is_directory) in [
            ("a.o", false),
            ("sub/a.o", false),
            ("build", true),
            ("build/x/y", false),
            ("sub/deep/local", false),
        ] {
            assert!(is(path, is_directory), "{path}");
        }
        for path in ["keep.o", "sub/special.o", "build", "local", "sub/build/x", "git-only"] {
            assert!(!is(path, false), "{path}");
        }
        let mut with_git = Rules::new(true);
        assert!(with_git.ignores(&folder, b"git-only", false));
        assert!(with_git.ignores(&folder, b"a.o", false));
    }
}

//! Paths inside a database, as a person types them.

use crate::daemon::control::{Failure, FailureKind};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const NAME_BYTES_MAX: usize = 255;

/// The bytes of a path from the database's root, without leading, double or trailing slashes; the root is empty.
pub fn inside(path: &OsStr) -> Result<Vec<u8>, Failure> {
    let names = path.as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let names: Vec<&[u8]> = names.collect();
    for name in &names {
        let problem = match *name {
            b".." => "'..' does not stand in a path inside a database",
            name if name.len() > NAME_BYTES_MAX => "a name has at most 255 bytes",
            name if name.contains(&0) => "a name has no NUL byte",
            _ => continue,
        };
        return Err(Failure::new(FailureKind::Usage, format!("{}: {problem}", path.display())));
    }
    Ok(names.join(&b'/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_has_one_form() {
        for (typed, path) in [("/a//b/", "a/b"), ("a/./b", "a/b"), ("/", ""), ("", ""), ("a", "a")] {
            assert_eq!(inside(OsStr::new(typed)).unwrap(), path.as_bytes(), "{typed}");
        }
        assert!(inside(OsStr::new("a/../b")).is_err());
        assert!(inside(OsStr::new(&"n".repeat(256))).is_err());
    }
}

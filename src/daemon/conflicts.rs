//! Conflict copies are found by their names, so that every device lists them, not only the one that merged.

use super::core::Inner;
use super::status::ConflictStatus;
use crate::tree::{Changes, Tree};

const MARK: &str = ".conflict-";

/// The device part of a conflict copy's name: `NAME.conflict-DEVICE8-YYYYMMDD-HHMMSS[-N][.EXT]`.
pub fn conflict_device(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let rest = &text[text.rfind(MARK)? + MARK.len()..];
    let mut parts = rest.splitn(3, '-');
    let (device, date) = (parts.next()?, parts.next()?);
    let time: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    let hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
    let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|c| c.is_ascii_digit());
    (device.len() == 8 && hex(device) && digits(date, 8) && digits(&time, 6)).then(|| device.to_owned())
}

/// Adds the conflict copies among changed names; says how many are new.
pub fn note_conflicts(inner: &mut Inner, tree: &Tree, changes: &Changes) -> usize {
    let mut new = 0;
    for (parent, name) in &changes.entries {
        let Some(device) = conflict_device(name) else { continue };
        let Some(directory) = tree.path_of(*parent) else { continue };
        let path = format!("{}/{}", String::from_utf8_lossy(&directory), String::from_utf8_lossy(name));
        let conflict = ConflictStatus { path: path.replace("//", "/"), device };
        if tree.resolve(conflict.path.as_bytes()).is_err() {
            continue;
        }
        new += usize::from(inner.state.conflicts.insert(conflict));
    }
    new
}

/// The conflict copies that still exist; those that do not are forgotten.
pub fn existing_conflicts(inner: &mut Inner, tree: &Tree) -> Vec<ConflictStatus> {
    inner.state.conflicts.retain(|conflict| tree.resolve(conflict.path.as_bytes()).is_ok());
    inner.state.conflicts.iter().cloned().collect()
}

/// The ending of a word for so many.
pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_exact_form_are_conflict_copies() {
        let device = |name: &str| conflict_device(name.as_bytes());
        assert_eq!(device("a.conflict-0123abcd-20260101-120000.txt").as_deref(), Some("0123abcd"));
        assert_eq!(device("noext.conflict-0123abcd-20260101-120000").as_deref(), Some("0123abcd"));
        assert_eq!(device("a.conflict-0123abcd-20260101-120000-2.txt").as_deref(), Some("0123abcd"));
        for other in
            ["a.txt", "a.conflict-x", "a.conflict-0123abcg-20260101-120000", "a.conflict-0123abcd-2026-1"]
        {
            assert_eq!(device(other), None, "{other}");
        }
    }
}

//! Why bytes were refused.

use crate::base::Malformed;

/// What is wrong with a record, or with something that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another database's, or damaged.
    #[error("the record does not open with this database's key")]
    Sealed,
    /// Made by a program that knows more than this one.
    #[error("format {0} is not known here: update kilofs")]
    Format(u8),
    /// Made by a program that knows more than this one.
    #[error("flags {0:#04x} are not known here: update kilofs")]
    Flags(u8),
    /// Not what the encoder would have written.
    #[error("the {0} is malformed")]
    Malformed(&'static str),
    /// Beyond a limit of the format.
    #[error("{what}: {count} are more than {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many fit.
        max: usize,
    },
    /// A block's path cannot be shown in a tree.
    #[error(
        "a block's path is not usable: no empty component, `.`, `..`, NUL, none above 255 bytes, not `.kilofs`"
    )]
    Path,
}

impl RecordError {
    /// Names what was being read.
    pub(super) fn in_a(what: &'static str) -> impl Fn(Malformed) -> RecordError {
        move |Malformed| RecordError::Malformed(what)
    }
}

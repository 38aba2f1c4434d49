//! What a database is made from, as words on paper; and words that stand for a passphrase.
//!
//! All keys of a new database are derived from 32 random bytes, the root. Written down they are 24 words (BIP 39, English), or a
//! link of the kind `recovery`: both give everything, for ever. No device keeps the root.

use super::capability::Capability;
use super::keys::{AdminKey, DatabaseKey};
use super::secret::{Context, Secret, random};
use bip39::{Language, Mnemonic};
use zeroize::Zeroizing;

/// How many words stand for a root.
pub const RECOVERY_WORDS: usize = 24;

/// A first policy exists wherever there is something to recover: none below it is accepted, and none is made.
const FIRST_POLICY: u32 = 1;

/// Why a text gave no root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Too few words, or too many.
    #[error("a recovery sheet has 24 words, and these are {0}")]
    Count(usize),
    /// A word that is not in the list; they are counted from one.
    #[error("word {0} is not one of the list: compare it with the sheet")]
    Unknown(usize),
    /// Each word is one of the list, and together they do not fit.
    #[error("a word is wrong or out of place: compare all of them with the sheet")]
    Checksum,
}

/// The root of a database's keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveryRoot(Secret);

impl RecoveryRoot {
    /// A fresh root.
    pub fn generate() -> RecoveryRoot {
        RecoveryRoot(Secret::random())
    }

    /// The root of known bytes.
    pub fn new(bytes: Secret) -> RecoveryRoot {
        RecoveryRoot(bytes)
    }

    /// Its bytes.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// Everything that a new database is.
    pub fn create(&self) -> Capability {
        let key = |context| self.0.derive(context, &[]);
        let admin = AdminKey::from_seed(key(Context::RecoveryAdmin).expose());
        let database = DatabaseKey::from_seed(key(Context::RecoveryDatabase).expose());
        Capability::create(&admin, &database, key(Context::RecoveryRead))
    }

    /// The same for a database that was created before.
    pub fn recover(&self) -> Capability {
        Capability { policy_counter: FIRST_POLICY, ..self.create() }
    }

    /// The root in words, one space between two.
    pub fn words(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, self.0.expose());
        joined(mnemonic.expect("BIP 39 takes 32 bytes").words())
    }

    /// Reads words. Case, numbers before them and what stands between them do no harm.
    pub fn from_words(text: &str) -> Result<RecoveryRoot, RecoveryError> {
        let text = plain_words(text);
        let count = text.split(' ').filter(|word| !word.is_empty()).count();
        if count != RECOVERY_WORDS {
            return Err(RecoveryError::Count(count));
        }
        let mnemonic =
            Mnemonic::parse_in_normalized(Language::English, &text).map_err(|error| match error {
                bip39::Error::UnknownWord(index) => RecoveryError::Unknown(index + 1),
                _ => RecoveryError::Checksum,
            })?;
        let (entropy, length) = mnemonic.to_entropy_array();
        let entropy = Zeroizing::new(entropy);
        let bytes = entropy[..length].try_into().map_err(|_| RecoveryError::Checksum)?;
        Ok(RecoveryRoot(Secret::new(bytes)))
    }
}

/// A passphrase of `count` words, each worth eleven bits.
pub fn passphrase(count: usize) -> Zeroizing<String> {
    let list = Language::English.word_list();
    // There are 2048 words, so two random bytes give each as often as any other.
    let index = |_| usize::from(u16::from_le_bytes(random())) % list.len();
    joined((0..count).map(index).map(|index| list[index]))
}

/// Words as they are meant: lower case, one space between two, nothing else.
pub(super) fn plain_words(text: &str) -> Zeroizing<String> {
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    for word in text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
        if !plain.is_empty() {
            plain.push(' ');
        }
        plain.extend(word.chars().map(|c| c.to_ascii_lowercase()));
    }
    plain
}

fn joined(words: impl Iterator<Item = &'static str>) -> Zeroizing<String> {
    // Sized ahead: a string that grows would leave a copy of the secret behind. No word has more than eight letters.
    let mut text = Zeroizing::new(String::with_capacity(RECOVERY_WORDS * 9));
    for word in words {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::Kind;

    #[test]
    fn words_survive_paper() {
        let root = RecoveryRoot::generate();
        let words = root.words();
        assert_eq!(words.split(' ').count(), RECOVERY_WORDS);
        assert_eq!(RecoveryRoot::from_words(&words), Ok(root.clone()));
        let numbered = words.split(' ').enumerate().map(|(n, word)| format!("{}. {word}\n", n + 1));
        let typed = numbered.collect::<String>().to_uppercase();
        assert_eq!(RecoveryRoot::from_words(&typed), Ok(root));
    }

    #[test]
    fn words_are_those_of_bip_39() {
        // The last vector of the reference implementation that has 24 words.
        let root = RecoveryRoot::new(Secret::new([0xff; 32]));
        assert_eq!(*root.words(), format!("{}vote", "zoo ".repeat(23)));
    }

    #[test]
    fn what_was_copied_wrong_is_said() {
        let words = RecoveryRoot::new(Secret::new([7; 32])).words();
        let mut list: Vec<&str> = words.split(' ').collect();
        assert_eq!(RecoveryRoot::from_words(&list[1..].join(" ")), Err(RecoveryError::Count(23)));
        assert_eq!(RecoveryRoot::from_words(""), Err(RecoveryError::Count(0)));
        list.swap(0, 1);
        assert_eq!(RecoveryRoot::from_words(&list.join(" ")), Err(RecoveryError::Checksum));
        list[4] = "kilofs";
        assert_eq!(RecoveryRoot::from_words(&list.join(" ")), Err(RecoveryError::Unknown(5)));
    }

    #[test]
    fn what_is_recovered_is_what_was_created() {
        let root = RecoveryRoot::generate();
        let (created, recovered) = (root.create(), root.recover());
        assert_eq!(recovered, Capability { policy_counter: 1, ..created.clone() });
        assert_eq!(recovered.kind(), Kind::Admin);
        let seeds = [created.read_secret, created.database_seed, created.admin_seed].map(Option::unwrap);
        assert!(seeds[0] != seeds[1] && seeds[1] != seeds[2] && seeds[0] != seeds[2]);
        assert!(seeds.iter().all(|seed| seed.expose() != root.expose()));
    }

    #[test]
    fn passphrases_are_words_of_the_list() {
        let (one, other) = (passphrase(6), passphrase(6));
        assert_ne!(*one, *other);
        let list = Language::English.word_list();
        assert!(one.split(' ').all(|word| list.contains(&word)));
        assert_eq!(one.split(' ').count(), 6);
    }
}

//! Vectors of what people keep and hand on: invitations, recovery sheets, keyrings with a key file.

use crate::format::Builder;
use crate::independent;
use crate::make::{Made, SALT, bad, good, keyring_inputs, keyring_plain, link_inputs, payload};
use kilofs::crypt::{Kind, Secret, link, recovery::RecoveryRoot};

const WORDS: &str = "zoo abandon legal winner thank year";
const EXPIRES: u64 = 1_800_000_000;
const KEY_FILE: &[u8] = b"any bytes, all of which count, 32 of them at least";

pub fn all() -> Vec<Made> {
    [invitations(), roots(), keyrings()].into_iter().flatten().collect()
}

fn invitations() -> Vec<Made> {
    let sealed =
        |kind: Kind, expires| independent::invite(kind.name(), WORDS, expires, &SALT, &payload(kind));
    let printed = |kind: Kind| independent::link(&format!("{kind}-invite"), 1, &sealed(kind, EXPIRES));
    let inputs =
        |text: &str, now: u64, words: &str| link_inputs(text).text("now", now).text("passphrase", words);
    let text = printed(Kind::Read);
    let refused = |name, note, payload: &[u8]| {
        let text = independent::link("read-invite", 1, payload);
        bad("invite", name, note, inputs(&text, EXPIRES - 1, WORDS))
    };
    let whole = sealed(Kind::Read, EXPIRES);
    let later = [&(EXPIRES + 1).to_le_bytes()[..], &whole[8..]].concat();
    let locked = independent::lock("read", WORDS, &SALT, &payload(Kind::Read));
    let as_invite = [&EXPIRES.to_le_bytes()[..], &locked].concat();
    let as_locked = independent::link("read-locked", 1, &whole[8..]);
    let typed = "  Zoo-abandon, LEGAL 4. winner  thank year.";
    vec![
        good("invite", "mirror", "to mirror", inputs(&printed(Kind::Mirror), 0, WORDS)),
        good("invite", "read", "in the last second", inputs(&text, EXPIRES - 1, WORDS)),
        good("invite", "write", "to change", inputs(&printed(Kind::Write), EXPIRES - 1, WORDS)),
        good("invite", "typed", "words as people type them", inputs(&text, EXPIRES - 1, typed)),
        bad("invite", "expired", "one second too late", inputs(&text, EXPIRES, WORDS)),
        bad("invite", "wrong-words", "a word is missing", inputs(&text, 0, "zoo abandon legal winner thank")),
        bad("invite", "as-locked", "a locked link has another seal", inputs(&as_locked, 0, WORDS)),
        refused("moved-end", "the end is covered by the seal", &later),
        refused("no-end", "a locked link with an end in front", &as_invite),
        refused("short-end", "seven bytes of an end", &whole[..7]),
        refused("short-salt", "a salt that is not whole", &whole[..8 + 15]),
    ]
}

fn roots() -> Vec<Made> {
    let words = |name, note, text: &str| good("recovery", name, note, Builder::default().text("words", text));
    let refused =
        |name, note, text: &str| bad("recovery", name, note, Builder::default().text("words", text));
    let link = |root: &[u8]| Builder::default().text("text", independent::link("recovery", 1, root));
    let ones = format!("{}vote", "zoo ".repeat(23));
    let sevens = "legal winner thank year wave sausage worth useful ".repeat(3);
    let sevens = format!("{}title", sevens.trim_end().strip_suffix("useful").expect("it ends so"));
    let printed = link::print_recovery(&RecoveryRoot::new(Secret::new([0x7f; 32])));
    assert_eq!(printed, independent::link("recovery", 1, &[0x7f; 32]));
    vec![
        words("zeros", "a published vector of BIP 39", &format!("{}art", "abandon ".repeat(23))),
        words("sevens", "a published vector of BIP 39", &sevens),
        words("ones", "a published vector of BIP 39", &ones),
        words("typed", "as people type them", &ones.to_uppercase().replace(' ', " - ")),
        good("recovery", "link", "the same as a link", link(&[0x7f; 32])),
        bad("recovery", "link-short", "31 bytes", link(&[0x7f; 31])),
        bad("recovery", "link-long", "33 bytes", link(&[0x7f; 33])),
        refused("few", "a word is missing", &"abandon ".repeat(23)),
        refused("unknown", "a word that is not in the list", &ones.replacen("zoo zoo", "zoo kilofs", 1)),
        refused("checksum", "the last word is another one", &ones.replace("vote", "zoo")),
        refused("no-words", "nothing that could be a word", "1 2 3"),
    ]
}

fn keyrings() -> Vec<Made> {
    let plain = keyring_plain(Kind::Read);
    let sealed =
        |passphrase: &str| independent::keyring_with_file(passphrase.as_bytes(), KEY_FILE, &SALT, &plain);
    let (alone, both) = (sealed(""), sealed("correct horse"));
    let inputs = |file: &[u8], passphrase: &str, key_file: &[u8]| {
        let inputs = keyring_inputs(file).hex("key file", key_file);
        if passphrase.is_empty() { inputs } else { inputs.text("passphrase", passphrase) }
    };
    let resummed = |name, note, at: usize, value: u8| {
        let mut body = both[..both.len() - 16].to_vec();
        body[at] = value;
        bad("keyring", name, note, inputs(&independent::summed(body), "correct horse", KEY_FILE))
    };
    let other = [KEY_FILE, b"."].concat();
    let missing = keyring_inputs(&both).text("passphrase", "correct horse");
    vec![
        good("keyring", "key-file", "with a key file", inputs(&alone, "", KEY_FILE)),
        good("keyring", "key-file-locked", "with both", inputs(&both, "correct horse", KEY_FILE)),
        bad("keyring", "key-file-other", "another key file", inputs(&both, "correct horse", &other)),
        bad("keyring", "key-file-missing", "no key file", missing),
        bad("keyring", "key-file-passphrase", "no passphrase", inputs(&both, "", KEY_FILE)),
        resummed("key-file-format-1", "the first format knows no key file", 8, 1),
        resummed("key-file-flag", "the second format without a key file", 9, 1),
        resummed("key-file-flag-exchanged", "the header is covered by the seal", 9, 2),
    ]
}

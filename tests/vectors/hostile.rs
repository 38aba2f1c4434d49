//! Vectors that must be refused, each for one reason. Where a seal or a checksum would catch the change first, it is
//! made anew over the changed content: by somebody who holds the key.

use crate::independent;
use crate::make::*;
use kilofs::base::{Birth, BlockNumber, DatabaseId, DeviceId, SessionId, Signature};
use kilofs::crypt::AdminKey;
use kilofs::crypt::link::Kind;
use kilofs::record::{BLOCKS_MAX, BlockEntry, Charter, Commit, Maker, Mode, SignedItem, Stamp, Vector};

pub fn all() -> Vec<Made> {
    let parts =
        [records(), policies(), items(), charters(), entries(), admissions(), commits(), links(), keyrings()];
    parts.into_iter().flatten().collect()
}

fn records() -> Vec<Made> {
    let modes = [Mode::ReadWrite, Mode::ReadOnly, Mode::Owner, Mode::Append, Mode::ReadOnly];
    let plain = plain_record(2, policy(3, &modes));
    let sealed = independent::seal_record(&RECORD_KEY, &plain);
    let raw = |name, note, sealed: &[u8]| bad("record", name, note, record_inputs(sealed));
    let resealed = |name, note, change: &dyn Fn(&mut Vec<u8>)| {
        let mut plain = plain.clone();
        change(&mut plain);
        raw(name, note, &independent::seal_record(&RECORD_KEY, &plain))
    };
    let flip = |at: usize| [&sealed[..at], &[sealed[at] ^ 1], &sealed[at + 1..]].concat();
    vec![
        raw("empty", "nothing at all", b""),
        raw("truncated", "one byte less", &sealed[..994]),
        raw("oversized", "one byte more", &[&sealed[..], &[0]].concat()),
        raw("damaged-nonce", "a bit of the nonce", &flip(0)),
        raw("damaged-content", "a bit of the ciphertext", &flip(24)),
        raw("damaged-tag", "a bit of the tag", &flip(994)),
        raw("foreign-key", "sealed with another key", &independent::seal_record(&[0x12; 32], &plain)),
        resealed("short-plain", "sealed by the key's holder, one byte less", &|plain| _ = plain.pop()),
        resealed("format", "a format of the future", &|plain| plain[0] = 2),
        resealed("format-zero", "a format that never was", &|plain| plain[0] = 0),
        resealed("flag", "a flag that nobody knows", &|plain| plain[1] = 0x80),
        resealed("no-block", "no block at all", &|plain| plain[6..8].fill(0)),
        resealed("too-many-blocks", "one block more than fits", &|plain| {
            plain[6..8].copy_from_slice(&(BLOCKS_MAX as u16 + 1).to_le_bytes());
        }),
        resealed("most-blocks", "65,535 blocks", &|plain| plain[6..8].fill(0xff)),
        resealed("fewer-blocks", "the modes of a block that is not counted", &|plain| plain[6] = 4),
        resealed("twin-versions", "one torrent twice", &|plain| plain.copy_within(8..28, 69)),
        resealed("gap", "a version behind an empty slot", &|plain| plain[8..69].fill(0)),
        resealed("stray-slot", "one byte in an unused slot", &|plain| plain[312] = 1),
        resealed("mode-padding", "bits behind the last mode", &|plain| plain[414] |= 0x40),
        resealed("padding", "the last byte of the padding", &|plain| plain[954] = 1),
        resealed("padding-first", "the first byte of the padding", &|plain| plain[415] = 1),
    ]
}

fn policies() -> Vec<Made> {
    let bytes =
        policy(7, &[Mode::ReadWrite, Mode::ReadOnly, Mode::Owner, Mode::Append, Mode::Append]).encode();
    let changed = |name, note, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        bad("policy", name, note, policy_inputs(&bytes))
    };
    vec![
        changed("truncated", "one byte less", &|bytes| _ = bytes.pop()),
        changed("oversized", "one byte more", &|bytes| bytes.push(0)),
        changed("no-block", "no block at all", &|bytes| {
            bytes.truncate(100);
            bytes.extend([0, 0]);
        }),
        changed("too-many-blocks", "one block more than fits a record", &|bytes| {
            bytes.truncate(100);
            bytes.extend((BLOCKS_MAX as u16 + 1).to_le_bytes());
            bytes.extend([0; 543]);
        }),
        changed("mode-padding", "bits behind the last mode", &|bytes| *bytes.last_mut().unwrap() |= 0x80),
    ]
}

fn items() -> Vec<Made> {
    let refused = |name, note, item: SignedItem| bad("item", name, note, item_inputs(&item));
    let mut changed = item();
    changed.value[994] ^= 1;
    let mut weak = item();
    weak.key.0 = [0; 32];
    weak.key.0[0] = 1;
    weak.signature = Signature([0; 64]);
    weak.signature.0[0] = 1;
    vec![
        refused("other-seq", "a signature made for another seq", SignedItem { seq: (1 << 40) + 1, ..item() }),
        refused("other-value", "a signature made for another value", changed),
        refused(
            "weak-key",
            "the neutral element as key: its signature fits every message under lax rules",
            weak,
        ),
    ]
}

fn charters() -> Vec<Made> {
    let raw = |name, note, bytes: &[u8]| {
        bad("charter", name, note, crate::format::Builder::default().hex("bytes", bytes))
    };
    let changed = |name, note, change: &dyn Fn(&mut Charter)| {
        let mut charter = charter();
        change(&mut charter);
        raw(name, note, &charter.encode())
    };
    let path = |name, note, path: &[u8]| {
        changed(name, note, &|charter| charter.blocks.get_mut(&BlockNumber(1)).unwrap().path = path.to_vec())
    };
    let bytes = charter().encode();
    let edited = |name, note, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        raw(name, note, &bytes)
    };
    let mut hidden = charter();
    hidden.blocks.get_mut(&BlockNumber(5)).unwrap().private = Some(private());
    let mut twice = hidden.encode();
    // The last block is the private one, and its second reader comes last, with an envelope of 80 bytes.
    let second = twice.len() - 112;
    twice.copy_within(second - 112..second - 80, second);
    // One link, one envelope and two readers behind their counts.
    let mut without = hidden.encode();
    without.truncate(without.len() - (1 + 48 + 80 + 1 + 2 * 112));
    *without.last_mut().unwrap() = 0;
    let far = |charter: &mut Charter| {
        let block = charter.blocks.remove(&BlockNumber(5)).unwrap();
        charter.blocks.insert(BlockNumber(BLOCKS_MAX as u16), block);
    };
    vec![
        raw("empty", "nothing at all", b""),
        raw("no-private-block", "of the format of private blocks, without any", &without),
        raw("readers-twice", "a reader of a private block comes twice", &twice),
        raw(
            "many-members",
            "2^63 members are announced",
            &[1, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
        ),
        edited("truncated", "one byte less", &|bytes| _ = bytes.pop()),
        edited("oversized", "one byte more", &|bytes| bytes.push(0)),
        edited("format", "a format of the future", &|bytes| bytes[0] = 4),
        edited("quotas-none", "the format of quotas, without room for any", &|bytes| bytes[0] = 2),
        edited("long-varint", "a count in a form that is longer than needed", &|bytes| {
            bytes[2] |= 0x80;
            bytes.insert(3, 0);
        }),
        edited("members-unsorted", "members in another order", &|bytes| bytes[3..67].rotate_left(32)),
        edited("member-twice", "one member twice", &|bytes| bytes.copy_within(3..35, 35)),
        edited("block-order", "block 1 calls itself block 3, before block 2", &|bytes| {
            // Members 67, count 1, block 0 (number 2, path 1, owner 1, birth 16, epoch 4, floor 9).
            assert_eq!(bytes[101..103], [1, 0]);
            bytes[101] = 3;
        }),
        changed("no-root", "no block 0", &|charter| _ = charter.blocks.remove(&BlockNumber::ROOT)),
        changed("number", "a block whose mode no record has room for", &far),
        path("path-empty", "a second root", b""),
        path("path-absolute", "a leading slash", b"/letters"),
        path("path-trailing", "a trailing slash", b"letters/"),
        path("path-dot", "a component .", b"letters/./a"),
        path("path-up", "a component ..", b"letters/../../etc"),
        path("path-nul", "a NUL", b"let\0ters"),
        path("path-long", "a component of 256 bytes", &[b'a'; 256]),
        path("path-reserved", "under the mount's own directory", b".kilofs/versions"),
        path("path-twice", "the path of another block", b"a b/.c"),
    ]
}

fn entries() -> Vec<Made> {
    let bytes = entry(11).signed(&database(), &device(1)).encode();
    let edited = |name, note, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        bad("entry", name, note, entry_inputs(Mode::ReadWrite, &bytes))
    };
    vec![
        edited("empty", "nothing at all", &|bytes| bytes.clear()),
        edited("truncated", "one byte less", &|bytes| _ = bytes.pop()),
        edited("oversized", "one byte more", &|bytes| bytes.push(0)),
        edited("format", "a format of the future", &|bytes| bytes[0] = 2),
        edited("three-parents", "three parents", &|bytes| bytes[31] = 3),
        edited("same-parents", "one parent twice", &|bytes| bytes.copy_within(32..64, 64)),
        edited("root-flag", "a root that is neither there nor not", &|bytes| bytes[96] = 2),
        edited("damaged-counter", "another counter than was signed", &|bytes| bytes[23] = 12),
        edited("damaged-parent", "another parent than was signed", &|bytes| bytes[32] ^= 1),
        edited("damaged-level", "another level than was signed", &|bytes| bytes[97] = 2),
        edited("damaged-root", "another root than was signed", &|bytes| bytes[98] ^= 1),
        edited("damaged-commitment", "another key commitment than was signed", &|bytes| bytes[130] ^= 1),
        edited("damaged-prefix", "another inode prefix than was signed", &|bytes| bytes[162] ^= 1),
        edited("damaged-signer", "another signer than signed", &|bytes| bytes[166] ^= 1),
        edited("damaged-signature", "a bit of the signature", &|bytes| *bytes.last_mut().unwrap() ^= 1),
    ]
}

fn admissions() -> Vec<Made> {
    let by = |entry: BlockEntry, n: u8| entry.signed(&database(), &device(n));
    let refused =
        |name, note, mode, entry: BlockEntry| bad("entry", name, note, entry_inputs(mode, &entry.encode()));
    let forged = BlockEntry { signer: DeviceId(admin().public().0), ..by(entry(11), 1) };
    let other_admin = entry(11).signed_by_admin(&database(), &AdminKey::from_seed(&[2; 32]));
    let elsewhere = entry(11).signed(&DatabaseId([9; 32]), &device(1));
    let rival = BlockEntry { root: None, ..floor_entry() };
    use Mode::{Append, Owner, ReadOnly, ReadWrite};
    vec![
        refused("stranger", "no member", ReadWrite, by(entry(11), 3)),
        refused("stranger-append", "no member, adding", Append, by(entry(11), 3)),
        refused("not-owner", "a member, in another's block", Owner, by(entry(11), 1)),
        refused("read-only", "a member, in a read-only block", ReadOnly, by(entry(11), 1)),
        refused("read-only-owner", "the owner, in a read-only block", ReadOnly, by(entry(11), 2)),
        refused("forged-admin", "a member in the admin's name", ReadOnly, forged),
        refused("other-admin", "the admin of another database", ReadOnly, other_admin),
        refused("other-database", "signed for another database", ReadWrite, elsewhere),
        refused("below-floor", "older than the floor", ReadWrite, by(entry(9), 1)),
        refused("beside-floor", "the floor's counter with another root", ReadWrite, by(entry(10), 1)),
        refused("emptied-floor", "the floor's counter with no root", ReadWrite, by(rival, 1)),
        refused(
            "admin-below-floor",
            "the admin, below the floor",
            ReadOnly,
            entry(9).signed_by_admin(&database(), &admin()),
        ),
        refused(
            "birth",
            "an earlier block of this number",
            ReadWrite,
            by(BlockEntry { birth: Birth([9; 16]), ..entry(11) }, 1),
        ),
        refused(
            "epoch",
            "an earlier key of this block",
            ReadWrite,
            by(BlockEntry { epoch: 1, ..entry(11) }, 1),
        ),
        refused(
            "floor-epoch",
            "the floor under another key",
            ReadWrite,
            BlockEntry { epoch: 1, ..floor_entry() },
        ),
    ]
}

fn commits() -> Vec<Made> {
    let bytes = commit().signed(&database(), &device(1)).encode();
    let edited = |name, note, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        bad("commit", name, note, commit_inputs(&bytes))
    };
    let signed = |name, note, commit: Commit| {
        bad("commit", name, note, commit_inputs(&commit.signed(&database(), &device(1)).encode()))
    };
    let future = |counter| Commit { vector: vector(&[(2, 7, 0x83), (1, counter, 0x84)]), ..commit() };
    // Another device's stamp, changed by somebody who signs the commit itself.
    let claiming = |change: &dyn Fn(&mut Maker, &mut Stamp)| {
        let (mut maker, mut stamp) = stamp(2, 7, 0x83);
        change(&mut maker, &mut stamp);
        let mut vector = Vector::default();
        vector.insert(maker, stamp);
        Commit { vector, ..commit() }
    };
    let elsewhere = commit().signed(&DatabaseId([9; 32]), &device(1)).encode();
    // The format 1, catalogue 43, charter 41, policy 4, parents 65, vector 1 + 2 × 152, lamport 8, time 8, device 32.
    vec![
        edited("empty", "nothing at all", &|bytes| bytes.clear()),
        edited("truncated", "one byte less", &|bytes| _ = bytes.pop()),
        edited("oversized", "one byte more", &|bytes| bytes.push(0)),
        edited("format", "a format of the future", &|bytes| bytes[0] = 3),
        edited("format-one", "the format in which nobody signed what is stood on", &|bytes| bytes[0] = 1),
        edited("catalogue-flag", "a catalogue that is neither there nor not", &|bytes| bytes[1] = 2),
        edited("three-parents", "three parents", &|bytes| bytes[89] = 3),
        edited("same-parents", "one parent twice", &|bytes| bytes.copy_within(90..122, 122)),
        edited("many-sessions", "2^28 makers are announced", &|bytes| {
            _ = bytes.splice(154..155, [0x80, 0x80, 0x80, 0x80, 1]);
        }),
        edited("vector-unsorted", "makers in another order", &|bytes| bytes[155..459].rotate_left(152)),
        edited("session-twice", "one maker twice", &|bytes| bytes.copy_within(155..203, 307)),
        edited("damaged-catalogue", "another catalogue than was signed", &|bytes| bytes[3] ^= 1),
        edited("damaged-place", "another place of the catalogue than was signed", &|bytes| bytes[35] ^= 1),
        edited("damaged-policy", "another policy than was signed", &|bytes| bytes[85] ^= 1),
        edited("damaged-lamport", "another Lamport counter than was signed", &|bytes| bytes[459] ^= 1),
        edited("damaged-device", "another device than signed", &|bytes| bytes[475] ^= 1),
        bad("commit", "other-database", "signed for another database", commit_inputs(&elsewhere)),
        signed("on-itself", "stands on itself", future(12)),
        signed("on-its-future", "stands on a later commit of its session", future(u64::MAX)),
        signed(
            "on-everything",
            "claims the last number of another maker",
            claiming(&|_, stamp| stamp.counter = u64::MAX),
        ),
        signed(
            "on-the-next",
            "claims the next number of another maker",
            claiming(&|_, stamp| stamp.counter += 1),
        ),
        signed(
            "on-another",
            "claims another commit under a number of another maker",
            claiming(&|_, stamp| stamp.digest.0[0] ^= 1),
        ),
        signed(
            "on-its-own-word",
            "another maker's number, signed by the device that claims it",
            claiming(&|maker, stamp| {
                *stamp = Stamp::sign(&database(), &device(1), maker.session, 8, stamp.digest)
            }),
        ),
        signed(
            "on-another-session",
            "a stamp of another session of that device",
            claiming(&|maker, _| maker.session = SessionId([9; 16])),
        ),
        signed(
            "on-another-database",
            "a stamp from another database",
            claiming(&|maker, stamp| {
                *stamp = Stamp::sign(&DatabaseId([9; 32]), &device(2), maker.session, 7, stamp.digest);
            }),
        ),
    ]
}

fn links() -> Vec<Made> {
    let good = independent::link("write", 1, &payload(Kind::Write));
    let text = |name, note, text: &str| bad("link", name, note, link_inputs(text));
    let made =
        |name, note, kind: &str, payload: &[u8]| text(name, note, &independent::link(kind, 1, payload));
    let locked_payload = independent::lock("write", "correct horse", &SALT, &payload(Kind::Write));
    let locked = independent::link("write-locked", 1, &locked_payload);
    let as_read = independent::link("read-locked", 1, &locked_payload);
    let with = |name, note, text: &str, passphrase: &str| {
        bad("link", name, note, link_inputs(text).text("passphrase", passphrase))
    };
    let mut long_varint = payload(Kind::Write);
    long_varint.truncate(96);
    long_varint.extend([0x81, 0x00, 0x01]);
    let mut large = payload(Kind::Write);
    large.truncate(96);
    large.extend([0x80, 0x80, 0x80, 0x80, 0x10, 0x01]);
    let mut negative = payload(Kind::Write);
    negative.truncate(96);
    negative.push(1);
    negative.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    let mut weak = payload(Kind::Read);
    weak[..32].fill(0);
    let bent = format!("{}{}{}", &good[..50], if &good[50..51] == "a" { "b" } else { "a" }, &good[51..]);
    let foreign = format!("{}1{}", &good[..70], &good[71..]);
    let swapped = format!("{}{}{}{}", &good[..60], &good[61..62], &good[60..61], &good[62..]);
    vec![
        text("other-scheme", "a magnet link", "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567"),
        text("scheme-alone", "nothing behind the scheme", "kilofs:"),
        text("unknown-kind", "a kind that nobody knows", &good.replace("write", "own")),
        text("empty-body", "nothing behind the kind", "kilofs:write:"),
        text("long", "more than anyone copies", &format!("kilofs:write:{}", "a".repeat(16 << 10))),
        text("mistyped", "one wrong character", &bent),
        text("swapped", "two characters exchanged", &swapped),
        text("foreign-character", "a character outside base32", &foreign),
        text("truncated", "the end was not copied", &good[..good.len() - 8]),
        text("padded", "base32 padding", &format!("{good}====")),
        text("other-kind", "the word was changed", &good.replace("write", "admin")),
        text("as-locked", "the word was changed", &good.replace("write", "write-locked")),
        text("format", "a format of the future", &independent::link("write", 2, &payload(Kind::Write))),
        made("short", "a right checksum over too few keys", "write", &payload(Kind::Write)[..95]),
        made(
            "trailing",
            "a right checksum over one byte more",
            "write",
            &[&payload(Kind::Write)[..], &[0]].concat(),
        ),
        made("long-varint", "a counter in a form that is longer than needed", "write", &long_varint),
        made("large-counter", "a policy counter above 32 bits", "write", &large),
        made("large-seq", "a seq above 63 bits", "write", &negative),
        made("weak-admin", "an admin key of small order", "read", &weak),
        made("locked-short", "a locked payload without a whole salt", "write-locked", &SALT[..15]),
        text("locked-unasked", "no passphrase was given", &locked),
        with("locked-wrong", "a wrong passphrase", &locked, "wrong horse"),
        with("locked-as-read", "a locked link under another kind", &as_read, "correct horse"),
    ]
}

fn keyrings() -> Vec<Made> {
    let plain = keyring_plain(Kind::Admin);
    let file = independent::keyring(b"correct horse", &SALT, &plain);
    let refused = |name, note, file: &[u8]| {
        bad("keyring", name, note, keyring_inputs(file).text("passphrase", "correct horse"))
    };
    let edited = |name, note, at: usize| {
        refused(name, note, &[&file[..at], &[file[at] ^ 1], &file[at + 1..]].concat())
    };
    let resummed = |name, note, at: usize, value: u8| {
        let mut body = file[..file.len() - 16].to_vec();
        body[at] = value;
        refused(name, note, &independent::summed(body))
    };
    let content =
        |name, note, plain: &[u8]| refused(name, note, &independent::keyring(b"correct horse", &SALT, plain));
    let mut certificate = plain.clone();
    let at = certificate.len() - 10;
    certificate[at] ^= 1;
    let wrong = keyring_inputs(&file).text("passphrase", "wrong horse");
    vec![
        bad("keyring", "wrong-passphrase", "a whole file, a wrong passphrase", wrong),
        bad("keyring", "no-passphrase", "a whole file, no passphrase", keyring_inputs(&file)),
        refused("empty", "nothing at all", b""),
        refused("truncated", "one byte less", &file[..file.len() - 1]),
        refused("oversized", "one byte more", &[&file[..], &[0]].concat()),
        edited("damaged-magic", "another kind of file", 0),
        edited("damaged-salt", "a bit of the salt", 22),
        edited("damaged-content", "a bit of the ciphertext", 70),
        edited("damaged-checksum", "a bit of the checksum", file.len() - 1),
        resummed("format", "a format of the future", 8, 3),
        resummed("flag", "a flag that nobody knows", 9, 4),
        resummed("memory", "more memory than a device has", 13, 0xff),
        resummed("passes", "more passes than anyone waits for", 17, 0xff),
        resummed("no-lanes", "no lane at all", 18, 0),
        resummed("flag-exchanged", "the header is covered by the seal", 9, 0),
        content("certificate", "the X25519 key is not certified", &certificate),
        content("kind", "a kind that nobody knows", &[&[4], &plain[1..]].concat()),
        content("trailing", "one byte more inside the seal", &[&plain[..], &[0]].concat()),
        content("name", "a name that is no text", &[&plain[..plain.len() - 1], &[0xff]].concat()),
    ]
}

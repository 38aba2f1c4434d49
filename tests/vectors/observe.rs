//! What the program makes of a vector's inputs, as lines.

use crate::format::{Builder, Lines, array, bytes, find, get, number};
use crate::{independent, neighbours, opened};
use data_encoding::HEXLOWER;
use kilofs::base::{Birth, BlockNumber, DatabaseId, Id, Locator, PublicKey, Signature};
use kilofs::crypt::keyring::{self, Factors, KeyFile};
use kilofs::crypt::recovery::RecoveryRoot;
use kilofs::crypt::seal::{BlobKind, SealKeys};
use kilofs::crypt::{Purpose, RecordKey, Secret, database_id, link};
use kilofs::record::{
    BlockEntry, Charter, Commit, Maker, Members, Policy, Record, RootRef, SignedItem, admit, content_root,
    genesis_charter,
};
use std::fmt::Debug;
use zeroize::Zeroizing;

/// The folders.
pub const KINDS: [&str; 19] = [
    "announcement",
    "channel",
    "charter",
    "commit",
    "content",
    "derive",
    "entry",
    "invite",
    "item",
    "keyring",
    "lifeline",
    "link",
    "message",
    "open",
    "own",
    "policy",
    "record",
    "recovery",
    "seal",
];

pub fn observe(kind: &str, inputs: &Lines) -> Lines {
    let builder = match kind {
        "channel" => neighbours::channel(inputs),
        "charter" => charter(inputs),
        "commit" => commit(inputs),
        "content" => content(inputs),
        "derive" => derive(inputs),
        "entry" => entry(inputs),
        "item" => item(inputs),
        "invite" => invitation(inputs),
        "keyring" => ring(inputs),
        "announcement" => crate::rotated::observe(inputs),
        "lifeline" => neighbours::lifeline(inputs),
        "link" => capability(inputs),
        "message" => neighbours::message(inputs),
        "open" => opened::observe(inputs),
        "own" => neighbours::sealed_own(inputs),
        "policy" => policy(inputs),
        "record" => record(inputs),
        "recovery" => root_of_all(inputs),
        "seal" => seal(inputs),
        other => panic!("no vectors are known of kind {other}"),
    };
    builder.0
}

fn accepted() -> Builder {
    Builder::default().text("expect", "accepted")
}

fn refused(error: impl Debug) -> Builder {
    Builder::default().text("expect", format!("refused {error:?}"))
}

fn database(inputs: &Lines) -> DatabaseId {
    database_id(&admin(inputs))
}

fn admin(inputs: &Lines) -> PublicKey {
    PublicKey(array(inputs, "admin"))
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn locator(locator: &Locator) -> String {
    format!("{} {} {}", locator.place.offset, locator.place.length, locator.id)
}

fn root(root: Option<&RootRef>) -> String {
    root.map_or("none".to_owned(), |root| format!("level {} {}", root.level, root.id))
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

fn record(inputs: &Lines) -> Builder {
    let key = array(inputs, "record key");
    let sealed = bytes(inputs, "sealed");
    let plain = independent::open_record(&key, &sealed);
    let record_key = RecordKey::new(Secret::new(key));
    match Record::decode(&record_key, &sealed) {
        Err(error) => refused(error),
        Ok(record) => {
            let plain = plain.expect("what one implementation opens, the other opens");
            let again = independent::open_record(&key, &record.encode_sealed(&record_key));
            assert_eq!(again.as_ref(), Some(&plain), "a record has one form");
            let mut out =
                accepted().hex("plain", &plain).text("time", record.time).text("flags", record.flags);
            for version in &record.versions {
                out = out.text("version", format!("{} {}", version.infohash, locator(&version.commit)));
            }
            describe_policy(out, &record.policy, inputs)
        }
    }
}

fn policy(inputs: &Lines) -> Builder {
    let encoded = bytes(inputs, "bytes");
    match Policy::decode(&encoded) {
        Err(error) => refused(error),
        Ok(policy) => {
            assert_eq!(policy.encode(), encoded, "a policy has one form");
            let out = describe_policy(accepted(), &policy, inputs).text("hash", policy.hash());
            match find(inputs, "other") {
                None => out,
                Some(other) => {
                    let other = Policy::decode(&HEXLOWER.decode(other.as_bytes()).unwrap()).unwrap();
                    out.text("supersedes other", yes(policy.supersedes(&other)))
                        .text("superseded by other", yes(other.supersedes(&policy)))
                }
            }
        }
    }
}

fn describe_policy(out: Builder, policy: &Policy, inputs: &Lines) -> Builder {
    // A record may have two thousand blocks: runs of one mode are counted.
    let mut runs: Vec<(String, usize)> = Vec::new();
    for mode in policy.modes.iter().map(ToString::to_string) {
        match runs.last_mut() {
            Some((last, count)) if *last == mode => *count += 1,
            _ => runs.push((mode, 1)),
        }
    }
    out.text("policy counter", policy.counter)
        .text("charter", policy.charter)
        .text("modes", list(runs.iter().map(|(mode, count)| format!("{mode}*{count}"))))
        .text("signed by the admin", yes(policy.verify(&database(inputs), &admin(inputs))))
}

fn item(inputs: &Lines) -> Builder {
    let item = SignedItem {
        key: PublicKey(array(inputs, "key")),
        seq: number(inputs, "seq"),
        value: bytes(inputs, "value"),
        signature: Signature(array(inputs, "signature")),
    };
    if item.verify() { accepted() } else { refused("signature") }
}

fn charter(inputs: &Lines) -> Builder {
    let encoded = bytes(inputs, "bytes");
    match Charter::decode(&encoded) {
        Err(error) => refused(error),
        Ok(charter) => {
            assert_eq!(charter.encode(), encoded, "a charter has one form");
            let mut out = accepted();
            out = match &charter.members {
                Members::Open => out.text("members", "open"),
                Members::Listed(devices) => out.text("members", list(devices)),
            };
            for (number, block) in &charter.blocks {
                let path = block.path.escape_ascii();
                let owner = block.owner.map_or("nobody".to_owned(), |owner| owner.to_string());
                let floor = block.floor.root.map_or("empty".to_owned(), |id| id.to_string());
                out = out.text("block", format!("{number} \"{path}\" owner {owner} birth {}", block.birth));
                out = out
                    .text("floor", format!("epoch {} counter {} {floor}", block.epoch, block.floor.counter));
                let limit = |limit: Option<u64>| limit.map_or("any".to_owned(), |limit| limit.to_string());
                if !block.quota.is_none() {
                    let (bytes, files) = (limit(block.quota.bytes), limit(block.quota.files));
                    out = out.text("quota", format!("bytes {bytes} files {files}"));
                }
            }
            let genesis =
                find(inputs, "database").map(|_| genesis_charter(&DatabaseId(array(inputs, "database"))));
            genesis.map_or(out.clone(), |genesis| out.text("is the genesis charter", yes(genesis == charter)))
        }
    }
}

fn entry(inputs: &Lines) -> Builder {
    let encoded = bytes(inputs, "bytes");
    let entry = match BlockEntry::decode(&encoded) {
        Err(error) => return refused(error),
        Ok(entry) => entry,
    };
    assert_eq!(entry.encode(), encoded, "an entry has one form");
    let charter = Charter::decode(&bytes(inputs, "charter")).unwrap();
    let (database, mode) = (database(inputs), get(inputs, "mode").parse().unwrap());
    let block = &charter.blocks[&entry.number];
    let verdict = admit(&entry, &database, mode, block, &charter.members, &admin(inputs));
    let out = match verdict {
        Ok(()) => accepted(),
        Err(refusal) => refused(refusal),
    };
    out.text("signature", yes(entry.signature_valid(&database)))
        .text("block", format!("{} birth {} epoch {}", entry.number, entry.birth, entry.epoch))
        .text("counter", entry.counter)
        .text("parents", list(&entry.parents))
        .text("root", root(entry.root.as_ref()))
        .text("commitment", entry.commitment)
        .text("inode prefix", entry.inode_prefix)
        .text("signer", entry.signer)
}

fn commit(inputs: &Lines) -> Builder {
    let encoded = bytes(inputs, "bytes");
    let commit = match Commit::decode(&encoded) {
        Err(error) => return refused(error),
        Ok(commit) => commit,
    };
    assert_eq!(commit.encode(), encoded, "a commit has one form");
    if !commit.verify(&database(inputs)) {
        return refused("signature");
    }
    let catalogue =
        commit.catalogue.map(|(root, place)| (root, format!("{} {}", place.offset, place.length)));
    let mut out = accepted()
        .text("catalogue", root(catalogue.as_ref().map(|(root, _)| root)))
        .text("catalogue place", catalogue.map_or("none".to_owned(), |(_, place)| place))
        .text("charter", locator(&commit.charter))
        .text("policy counter", commit.policy_counter)
        .text("parents", list(&commit.parents));
    for (maker, stamp) in commit.vector.iter() {
        let Maker { device, session } = maker;
        out = out.text("stands on", format!("{device} {session} {} {}", stamp.counter, stamp.digest));
    }
    out.text("lamport", commit.lamport)
        .text("time", commit.time)
        .text("device", commit.device)
        .text("session", format!("{} {}", commit.session, commit.counter))
        .text("digest", commit.stamp().digest)
}

fn content(inputs: &Lines) -> Builder {
    let block = |(_, value): &(String, String)| {
        let (number, id) = value.split_once(' ').unwrap();
        (BlockNumber(number.parse().unwrap()), Id::from_hex(id))
    };
    accepted().text("root", content_root(inputs.iter().map(block)))
}

fn derive(inputs: &Lines) -> Builder {
    let secret = Secret::new(array(inputs, "read secret"));
    let key = RecordKey::of(&secret);
    let day = number(inputs, "day");
    let expected = independent::derive("kilofs 1 2026 record", secret.expose(), &[]);
    assert_eq!(key.secret().expose(), &expected);
    accepted()
        .hex("record key", key.secret().expose())
        .text("rendezvous torrent", key.rendezvous(day, Purpose::Torrent))
        .text("rendezvous gossip", key.rendezvous(day, Purpose::Gossip))
}

fn capability(inputs: &Lines) -> Builder {
    let passphrase = || find(inputs, "passphrase").map(|text| Zeroizing::new(text.to_owned()));
    // What a line of a vector cannot show is written as an escape.
    let text = get(inputs, "text").replace("\\n", "\n").replace("\\t", "\t");
    match link::parse(&text, passphrase) {
        Err(error) => refused(error),
        Ok(capability) => {
            if find(inputs, "passphrase").is_none() && !text.contains('\n') {
                assert_eq!(link::print(&capability), text.to_lowercase(), "a link has one form");
            }
            describe_capability(accepted(), &capability)
        }
    }
}

fn invitation(inputs: &Lines) -> Builder {
    let passphrase = || find(inputs, "passphrase").map(|text| Zeroizing::new(text.to_owned()));
    match link::parse_at(get(inputs, "text"), number(inputs, "now"), passphrase) {
        Err(error) => refused(error),
        Ok(capability) => describe_capability(accepted(), &capability),
    }
}

fn root_of_all(inputs: &Lines) -> Builder {
    let Some(words) = find(inputs, "words") else {
        let parsed = link::parse(get(inputs, "text"), || None);
        return parsed.map_or_else(refused, |capability| describe_capability(accepted(), &capability));
    };
    match RecoveryRoot::from_words(words) {
        Err(error) => refused(error),
        Ok(root) => {
            let seed = |use_: &str| {
                independent::derive(&format!("kilofs 1 2026 recovery {use_}"), root.expose(), &[])
            };
            let capability = root.recover();
            let seeds = [&capability.admin_seed, &capability.database_seed, &capability.read_secret];
            let seeds = seeds.map(|seed| *seed.as_ref().unwrap().expose());
            assert_eq!(seeds, ["admin", "database", "read"].map(seed));
            let out = accepted().hex("root", root.expose()).text("words", &*root.words());
            describe_capability(out.text("link", link::print_recovery(&root)), &capability)
        }
    }
}

pub fn describe_capability(out: Builder, capability: &link::Capability) -> Builder {
    let secret =
        |secret: &Option<Secret>| secret.as_ref().map_or("none".to_owned(), |s| HEXLOWER.encode(s.expose()));
    let out = match &capability.one_block {
        None => out,
        Some(one) => {
            let keys = one.keys(capability.database_id(), one.number, &one.birth, one.epoch).unwrap();
            let catalogue = one.catalogue(capability.database_id()).commitment();
            out.text("block", one.number)
                .hex("birth", &one.birth.0)
                .text("epoch", one.epoch)
                .hex("block commitment", &keys.commitment().0)
                .hex("catalogue commitment", &catalogue.0)
        }
    };
    let out = out
        .text("kind", capability.kind())
        .text("database", capability.database_id())
        .text("admin public", capability.admin_public)
        .text("database public", capability.database_public)
        .hex("record key", capability.record_key.secret().expose())
        .text("read secret", secret(&capability.read_secret))
        .text("database seed", secret(&capability.database_seed))
        .text("admin seed", secret(&capability.admin_seed))
        .text("policy counter", capability.policy_counter)
        .text("seq", capability.seq);
    let older: Vec<String> = capability.older.iter().map(|key| HEXLOWER.encode(key.expose())).collect();
    if older.is_empty() { out } else { out.text("older", older.join(" ")) }
}

fn ring(inputs: &Lines) -> Builder {
    let file = bytes(inputs, "file");
    let key_file = find(inputs, "key file").map(|_| KeyFile::of(&bytes(inputs, "key file")).unwrap());
    let passphrase = find(inputs, "passphrase").unwrap_or("");
    match keyring::open(&file, &Factors { key_file, ..Factors::of_passphrase(passphrase) }) {
        Err(error) => refused(error),
        Ok(keyring) => describe_capability(accepted(), &keyring.capability)
            .text("needs a passphrase", yes(keyring::needs(&file).unwrap().passphrase))
            .text("needs a key file", yes(keyring::needs(&file).unwrap().key_file))
            .text("name", &keyring.name)
            .text("device", keyring.device.public())
            .hex("x25519 public", &keyring.x25519_public())
            .text("certificate", keyring.certificate),
    }
}

fn seal(inputs: &Lines) -> Builder {
    let (secret, database): ([u8; 32], [u8; 32]) = (array(inputs, "read secret"), array(inputs, "database"));
    let (block, birth, epoch) = (number(inputs, "block"), array(inputs, "birth"), number(inputs, "epoch"));
    let (read_secret, birth_id) = (Secret::new(secret), Birth(birth));
    let keys = SealKeys::for_block(&read_secret, DatabaseId(database), BlockNumber(block), &birth_id, epoch);
    let second = independent::Block::new(&secret, &database, block, &birth, epoch);
    assert_eq!(keys.commitment().0, second.commitment);
    assert_eq!(keys.boundary_key()[..], second.boundary[..16]);
    let plain = bytes(inputs, "plain");
    let mut sealed = Vec::new();
    let (id, other) = match get(inputs, "kind") {
        "chunk" => {
            let (data_id, index) = (number(inputs, "data id"), number(inputs, "index"));
            (keys.seal_chunk(data_id, index, &plain, &mut sealed), second.chunk(data_id, index, &plain))
        }
        "node" => {
            let (level, placements) = (number(inputs, "level"), bytes(inputs, "placements"));
            (keys.seal_node(level, &plain, &placements, &mut sealed), second.node(level, &plain, &placements))
        }
        "commit" => (keys.seal_blob(BlobKind::Commit, &plain, &mut sealed), second.blob(3, &plain)),
        "charter" => (keys.seal_blob(BlobKind::Charter, &plain, &mut sealed), second.blob(4, &plain)),
        other => panic!("nothing is sealed as {other}"),
    };
    assert_eq!((id.0, &sealed), (other.0, &other.1), "both implementations seal alike");
    accepted()
        .text("commitment", keys.commitment())
        .hex("boundary key", keys.boundary_key())
        .text("id", id)
        .hex("sealed", &sealed)
}

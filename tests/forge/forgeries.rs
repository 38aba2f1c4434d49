//! What the thief tries.

use super::stage::{Stage, Told};
use super::thief::rand;
use super::version::{DOCS, Forged, Ground, NOBODY};
use kilofs::base::{BlockNumber, Id, InfoHash, Inode, Locator, Place};
use kilofs::crypt::keys::AdminKey;
use kilofs::crypt::seal::BlobKind;
use kilofs::daemon::core::Listed;
use kilofs::map::{Edit, Map, NodeCache};
use kilofs::record::{Mode, Policy, RECORD_BYTES, VersionRef};
use kilofs::tree::inode::{FileType, InodeRecord};
use kilofs::tree::key::Key;
use kilofs::tree::value::DirEntry;
use kilofs::tree::{DraftSource, Head, NodeKind, Timestamp, Tree};
use std::sync::Arc;

const ROOT: BlockNumber = BlockNumber::ROOT;

/// What a person would do with the protected block: change, add, remove.
pub fn vandalise(tree: &Tree) {
    let docs = tree.resolve(b"docs").unwrap().inode;
    for name in ["text", "large"] {
        let file = tree.resolve(format!("docs/{name}").as_bytes()).unwrap().inode;
        tree.write(file, 0, b"what the thief wrote").unwrap();
    }
    tree.unlink(docs, b"empty").unwrap();
    add(tree, docs, b"added");
}

/// A new file.
pub fn add(tree: &Tree, directory: Inode, name: &[u8]) {
    let new = tree.make_node(directory, name, NodeKind::File, 0o666, NOBODY).unwrap();
    tree.write(new.inode, 0, &[7; 5000]).unwrap();
}

/// The version as it was told, before the versions that were there.
pub fn above(stage: &Stage, versions: &[VersionRef]) -> Vec<VersionRef> {
    let mut all = versions.to_vec();
    let told = stage.thief.record().versions.into_iter();
    all.extend(told.filter(|old| !versions.iter().any(|version| version.infohash == old.infohash)));
    all.truncate(5);
    all
}

/// Serves a version and puts it first in the record.
pub fn tell(stage: &Stage, forged: &Forged, policy: &Policy) -> Told {
    stage.thief.seed(&forged.metainfo, &forged.image);
    let seq = stage.thief.put(above(stage, &[forged.reference]), policy.clone());
    Told { seq, forged: vec![forged.reference.infohash], heals: true, refused: true, blinds: false }
}

/// A version whose protected block is vandalised, with whatever entry.
pub fn vandalised(stage: &Stage, entry: impl FnOnce(&Ground, &Head) -> Listed) -> Forged {
    let ground = stage.thief.ground();
    let head = stage.thief.rewritten(&ground, vandalise);
    let listed = entry(&ground, &head);
    let change = |entries: &mut std::collections::BTreeMap<_, _>| _ = entries.insert(DOCS, listed);
    stage.thief.version(&ground, &head.image, change, |_| {})
}

#[test]
fn an_entry_of_a_device_that_may_not_write() {
    Stage::new().outlives(|stage| {
        let forged = vandalised(stage, |ground, head| {
            stage.thief.entry(ground, head, DOCS, stage.thief.next_counter(ground, DOCS))
        });
        tell(stage, &forged, &stage.policy)
    });
}

#[test]
fn an_entry_with_an_old_or_an_absurd_counter() {
    let mut counters = [0, u64::MAX].into_iter();
    Stage::new().outlives(|stage| {
        let counter = counters.next().unwrap();
        let forged = vandalised(stage, |ground, head| stage.thief.entry(ground, head, DOCS, counter));
        tell(stage, &forged, &stage.policy)
    });
}

#[test]
fn an_entry_signed_by_another_admin_or_in_the_admins_name() {
    let mut names = [false, true].into_iter();
    Stage::new().outlives(|stage| {
        let thief = &stage.thief;
        let in_name = names.next().unwrap();
        let forged = vandalised(stage, |ground, head| {
            let mut listed = thief.entry(ground, head, DOCS, thief.next_counter(ground, DOCS));
            listed.entry = listed.entry.signed_by_admin(&thief.core.keys.database, &thief.admin);
            if in_name {
                listed.entry.signer.0 = thief.core.keys.admin_public.0;
            }
            listed
        });
        tell(stage, &forged, &stage.policy)
    });
}

#[test]
fn the_state_that_the_policy_fixed_with_other_bytes() {
    Stage::new().outlives(|stage| {
        let forged = vandalised(stage, |ground, head| {
            let listed = &ground.entries[&DOCS];
            let place = stage.thief.entry(ground, head, DOCS, 0).place;
            Listed { entry: listed.entry.clone(), place }
        });
        tell(stage, &forged, &stage.policy)
    });
}

#[test]
fn an_older_policy_with_a_newer_number() {
    Stage::new().outlives(|stage| {
        let thief = &stage.thief;
        let forged = vandalised(stage, |ground, head| {
            thief.entry(ground, head, DOCS, thief.next_counter(ground, DOCS))
        });
        Told { blinds: true, ..tell(stage, &forged, &stage.old_policy) }
    });
}

#[test]
fn the_old_record_replayed() {
    Stage::new().outlives(|stage| {
        let versions = stage.thief.record().versions;
        let replayed = versions[1..].to_vec();
        let forged = vec![replayed[0].infohash];
        let seq = stage.thief.put(replayed, stage.old_policy.clone());
        Told { seq, forged, heals: true, refused: false, blinds: true }
    });
}

#[test]
fn the_current_versions_under_an_older_policy() {
    Stage::new().outlives(|stage| {
        let seq = stage.thief.put(stage.thief.record().versions, stage.old_policy.clone());
        Told { seq, forged: Vec::new(), heals: true, refused: false, blinds: true }
    });
}

#[test]
fn a_policy_of_another_admin() {
    let mut counters = [0, 1_000].into_iter();
    Stage::new().outlives(|stage| {
        let thief = &stage.thief;
        let more = counters.next().unwrap();
        let forged = vandalised(stage, |ground, head| {
            thief.entry(ground, head, DOCS, thief.next_counter(ground, DOCS))
        });
        let keys = thief.core.keys.catalogue.as_ref().unwrap();
        let charter = keys.blob_id(BlobKind::Charter, &thief.ground().charter.encode());
        let sign = |admin: &AdminKey| {
            let modes = vec![Mode::ReadWrite; 2];
            Policy::sign(admin, &thief.core.keys.database, stage.policy.counter + more, charter, modes)
        };
        Told { refused: false, blinds: true, ..tell(stage, &forged, &sign(&thief.admin)) }
    });
}

#[test]
fn a_record_that_does_not_open() {
    let mut values = [rand::<RECORD_BYTES>().to_vec(), b"nothing".to_vec()].into_iter();
    Stage::new().outlives(|stage| {
        let seq = stage.thief.put_value(&values.next().unwrap());
        Told { seq, forged: Vec::new(), heals: true, refused: false, blinds: true }
    });
}

/// A version with the honest catalogue, that stands on the honest head.
fn faithful(stage: &Stage) -> (Ground, Forged) {
    let ground = stage.thief.ground();
    let forged = stage.thief.version(&ground, &ground.image, |_| {}, |_| {});
    (ground, forged)
}

#[test]
fn nodes_of_garbage_below_honest_entries() {
    Stage::new().outlives(|stage| {
        let (ground, honest) = faithful(stage);
        let root = honest.entries[&DOCS].root().unwrap();
        let places = stage.thief.places(&ground, &honest.image, DOCS, root);
        // The root node opens; what it leads to does not.
        let below: Vec<Place> = places.nodes.into_iter().filter(|place| *place != root.place).collect();
        assert!(!below.is_empty(), "the block is large enough to have nodes below its root");
        tell(stage, &stage.thief.garbled(&honest, &below), &stage.policy)
    });
}

#[test]
fn the_protected_root_node_of_garbage() {
    Stage::new().outlives(|stage| {
        let (_, honest) = faithful(stage);
        let place = honest.entries[&DOCS].place.unwrap();
        tell(stage, &stage.thief.garbled(&honest, &[place]), &stage.policy)
    });
}

#[test]
fn chunks_of_garbage_below_honest_entries() {
    Stage::new().outlives(|stage| {
        let (ground, honest) = faithful(stage);
        let root = honest.entries[&DOCS].root().unwrap();
        let places = stage.thief.places(&ground, &honest.image, DOCS, root);
        tell(stage, &stage.thief.garbled(&honest, &places.chunks), &stage.policy)
    });
}

#[test]
fn first_a_refused_entry_then_chunks_of_garbage() {
    Stage::new().outlives(|stage| {
        let thief = &stage.thief;
        let forged = vandalised(stage, |ground, head| {
            thief.entry(ground, head, DOCS, thief.next_counter(ground, DOCS))
        });
        let first = tell(stage, &forged, &stage.policy);
        let (ground, honest) = faithful(stage);
        let root = honest.entries[&DOCS].root().unwrap();
        let places = thief.places(&ground, &honest.image, DOCS, root);
        let mut second = tell(stage, &thief.garbled(&honest, &places.chunks), &stage.policy);
        second.forged.extend(first.forged);
        second
    });
}

#[test]
fn an_image_of_garbage() {
    Stage::new().outlives(|stage| {
        let (_, honest) = faithful(stage);
        let bytes: Vec<u8> = (0..honest.image.bytes()).map(|at| (at * 7 + at / 251) as u8).collect();
        let garbage = stage.thief.of_bytes(&honest, &bytes);
        Told { refused: false, ..tell(stage, &garbage, &stage.policy) }
    });
}

#[test]
fn a_commit_that_does_not_open() {
    Stage::new().outlives(|stage| {
        let (_, honest) = faithful(stage);
        let garbage = stage.thief.garbled(&honest, &[honest.reference.commit.place]);
        Told { refused: false, ..tell(stage, &garbage, &stage.policy) }
    });
}

#[test]
fn an_honest_torrent_with_a_commit_that_is_not_in_it() {
    let mut places =
        [Place { offset: 4096, length: 300 }, Place { offset: (1 << 48) - 1, length: 0xff_ffff }].into_iter();
    Stage::new().outlives(|stage| {
        let honest = stage.thief.record().versions;
        let commit = Locator { place: places.next().unwrap(), id: Id(rand()) };
        let mut versions = vec![VersionRef { commit, ..honest[0] }];
        versions.extend(&honest[1..]);
        let seq = stage.thief.put(versions, stage.policy.clone());
        Told { seq, forged: Vec::new(), heals: true, refused: false, blinds: false }
    });
}

#[test]
fn a_catalogue_that_leaves_the_block_out() {
    Stage::new().outlives(|stage| {
        let ground = stage.thief.ground();
        let change = |entries: &mut std::collections::BTreeMap<_, _>| _ = entries.remove(&DOCS);
        let forged = stage.thief.version(&ground, &ground.image, change, |_| {});
        tell(stage, &forged, &stage.policy)
    });
}

#[test]
fn an_empty_protected_block() {
    Stage::new().outlives(|stage| {
        let forged = vandalised(stage, |ground, head| {
            let mut listed = stage.thief.entry(ground, head, DOCS, stage.thief.next_counter(ground, DOCS));
            (listed.entry.root, listed.place) = (None, None);
            listed.entry =
                listed.entry.signed(&stage.thief.core.keys.database, &stage.thief.core.keys.device);
            listed
        });
        tell(stage, &forged, &stage.policy)
    });
}

#[test]
fn a_version_without_its_charter() {
    Stage::new().outlives(|stage| {
        let ground = stage.thief.ground();
        let forged = stage.thief.version(
            &ground,
            &ground.image,
            |_| {},
            |commit| commit.charter = Locator { place: commit.charter.place, id: Id(rand()) },
        );
        let nowhere = Place { offset: forged.image.bytes() + 5, length: 100 };
        let forged = stage.thief.version(
            &ground,
            &forged.image,
            |_| {},
            |commit| commit.charter = Locator { place: nowhere, id: commit.charter.id },
        );
        Told { refused: false, ..tell(stage, &forged, &stage.policy) }
    });
}

#[test]
fn an_open_block_whose_counter_is_at_its_end() {
    Stage::new().outlives(|stage| {
        let ground = stage.thief.ground();
        let head = stage.thief.rewritten(&ground, |tree| {
            tree.make_node(Inode(1), b"the-last", NodeKind::File, 0o666, NOBODY).map(drop).unwrap_or(());
        });
        let listed = stage.thief.entry(&ground, &head, ROOT, u64::MAX);
        let change = |entries: &mut std::collections::BTreeMap<_, _>| _ = entries.insert(ROOT, listed);
        let forged = stage.thief.version(&ground, &head.image, change, |_| {});
        Told { heals: false, refused: false, forged: Vec::new(), ..tell(stage, &forged, &stage.policy) }
    });
}

/// Changes a block's map past the tree that keeps it sound.
fn edited(stage: &Stage, ground: &Ground, edits: &[Edit]) -> Head {
    let thief = &stage.thief;
    let keys = thief.core.keys.block(ROOT, &ground.charter.blocks[&ROOT]).unwrap();
    let draft = Arc::new(thief.core.store.draft(&ground.image).unwrap());
    let nodes = NodeCache::new(0);
    let reader = DraftSource::new(draft.clone(), kilofs::image::Stream::Fresh);
    let mut sink = DraftSource::new(draft.clone(), kilofs::image::Stream::Fresh);
    let root =
        Map::new(&keys, &reader, &nodes).apply(ground.entries[&ROOT].root(), edits, &mut sink).unwrap();
    Head {
        image: draft.snapshot().unwrap(),
        roots: [(ROOT, root)].into(),
        generation: 0,
        changed: Default::default(),
        mark: Default::default(),
    }
}

fn plain_file(inode: Inode, content: &[u8]) -> InodeRecord {
    let mut record = InodeRecord::new(FileType::File, 0o666, Inode(1), Timestamp::default());
    record.size = content.len() as u64;
    record.data_id = inode.0;
    record.inline = Some(content.into());
    record
}

#[test]
fn inode_numbers_of_the_protected_block_in_an_open_one() {
    Stage::new().outlives(|stage| {
        let ground = stage.thief.ground();
        let tree = stage.thief.tree(&ground);
        let mut edits = Vec::new();
        for name in ["docs/text", "docs/large", "docs/many/file-7"] {
            let inode = tree.resolve(name.as_bytes()).unwrap().inode;
            let entry = DirEntry { inode, file_type: FileType::File };
            let alias = format!("alias-{}", name.replace('/', "-"));
            let key = Key::Entry(Inode(1), alias.as_bytes()).encode();
            edits.push(Edit { key, change: Some((entry.encode(), None)) });
            let record = plain_file(inode, b"under another's number");
            edits.push(Edit { key: Key::Inode(inode).encode(), change: Some((record.encode(), None)) });
        }
        edits.sort_by(|one, other| one.key.cmp(&other.key));
        let head = edited(stage, &ground, &edits);
        let listed = stage.thief.entry(&ground, &head, ROOT, stage.thief.next_counter(&ground, ROOT));
        let change = |entries: &mut std::collections::BTreeMap<_, _>| _ = entries.insert(ROOT, listed);
        let forged = stage.thief.version(&ground, &head.image, change, |_| {});
        Told { refused: false, ..tell(stage, &forged, &stage.policy) }
    });
}

#[test]
fn something_else_under_the_name_of_the_protected_block() {
    let mut kinds = [FileType::File, FileType::Symlink].into_iter();
    Stage::new().outlives(|stage| {
        let ground = stage.thief.ground();
        let kind = kinds.next().unwrap();
        let inode = Inode((0x7eef << 32) + 99 + u64::from(kind.code()));
        let entry = DirEntry { inode, file_type: kind };
        let name = |kind, value: &[u8]| Edit { key: kind, change: Some((value.into(), None)) };
        let mut record = plain_file(inode, b"no directory at all");
        let mut root = InodeRecord::decode(&stage.thief.value(&ground, ROOT, Key::Inode(Inode(1)))).unwrap();
        let there = stage.thief.value(&ground, ROOT, Key::Entry(Inode(1), b"docs"));
        let there = DirEntry::decode(&there).unwrap();
        let mut edits = vec![name(Key::Entry(Inode(1), b"docs").encode(), &entry.encode())];
        edits.push(Edit { key: Key::Inode(there.inode).encode(), change: None });
        if there.file_type == FileType::Directory {
            root.nlink -= 1;
            edits.push(name(Key::Inode(Inode(1)).encode(), &root.encode()));
        }
        if kind == FileType::Symlink {
            record = InodeRecord::new(kind, 0o777, Inode(1), Timestamp::default());
            record.size = 4;
            edits.push(name(Key::Link(inode).encode(), b"/tmp"));
        }
        edits.push(name(Key::Inode(inode).encode(), &record.encode()));
        edits.sort_by(|one, other| one.key.cmp(&other.key));
        let head = edited(stage, &ground, &edits);
        let listed = stage.thief.entry(&ground, &head, ROOT, stage.thief.next_counter(&ground, ROOT));
        let change = |entries: &mut std::collections::BTreeMap<_, _>| _ = entries.insert(ROOT, listed);
        let forged = stage.thief.version(&ground, &head.image, change, |_| {});
        Told { heals: false, refused: false, forged: Vec::new(), ..tell(stage, &forged, &stage.policy) }
    });
}

#[test]
fn versions_that_nobody_serves() {
    Stage::new().outlives(|stage| {
        let ground = stage.thief.ground();
        let nobody = |_| VersionRef { infohash: InfoHash(rand()), commit: ground.reference.commit };
        let versions: Vec<VersionRef> = (0..4).map(nobody).collect();
        let seq = stage.thief.put(above(stage, &versions), stage.policy.clone());
        Told {
            seq,
            forged: versions.iter().map(|version| version.infohash).collect(),
            heals: true,
            refused: false,
            blinds: false,
        }
    });
}

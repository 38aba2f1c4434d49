//! Private blocks, and a thief who holds the write key and the read secret, but no key of theirs.

use super::harness::{Device, NAME, World, await_agreement};
use super::process::wait_until;
use super::thief::Thief;
use super::version::{Forged, Ground};
use kilofs::base::{BlockNumber, DeviceId};
use kilofs::crypt::seal::BlobKind;
use kilofs::crypt::{Life, PrivateKeys};
use kilofs::daemon::core::Listed;
use kilofs::image::Stream;
use kilofs::record::{Policy, Private, VersionRef};
use kilofs::tree::{ReadTree, Tree};
use std::sync::Arc;

const DIARY: BlockNumber = BlockNumber(1);
const LENT: BlockNumber = BlockNumber(2);
const SECRET: &[u8] = b"what nobody else is to know";
const NAME_INSIDE: &str = "a-name-that-says-much";

/// `a` owns /diary, and lets the thief read /lent.
fn stage(world: &World) -> (Device, Device, Thief) {
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    a.json(&["block", NAME, "add", "/diary", "--private"]);
    a.write(&format!("diary/{NAME_INSIDE}"), &SECRET.repeat(3_000));
    a.write("plain", SECRET);
    a.sync();
    let thief = Thief::join(world, &a);
    a.json(&["block", NAME, "add", "/lent", "--private", "--for", &id_of(&thief).to_string()]);
    a.write("lent/file", b"for the thief too");
    a.sync();
    b.awaits("plain", SECRET);
    await_agreement(&[&a, &b]);
    thief.catch_up();
    (a, b, thief)
}

fn id_of(thief: &Thief) -> DeviceId {
    thief.core.keys.device.public()
}

fn private_of(ground: &Ground, number: BlockNumber) -> &Private {
    ground.charter.blocks[&number].private.as_ref().unwrap()
}

fn life(thief: &Thief, ground: &Ground, block: BlockNumber) -> Life {
    Life { database: thief.core.keys.database, block, birth: ground.charter.blocks[&block].birth }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// All that a file says, its attributes included.
fn all_of(tree: &Tree, path: &[u8]) -> Vec<u8> {
    let attr = tree.resolve(path).unwrap();
    let mut bytes = tree.read(attr.inode, 0, attr.size as usize).unwrap();
    for name in tree.list_xattr(attr.inode).unwrap() {
        bytes.extend(tree.get_xattr(attr.inode, &name).unwrap());
    }
    bytes
}

#[test]
fn a_thief_reads_nothing_of_a_private_block() {
    let world = World::new();
    let (_a, _b, thief) = stage(&world);
    let ground = thief.ground();
    let tree = thief.tree(&ground);
    assert!(holds(&all_of(&tree, b"plain"), SECRET), "what is not private is found by this search");
    let diary = tree.resolve(b"diary").unwrap().inode;
    let names = tree.read_dir(diary, 0).unwrap().into_iter().map(|item| item.name);
    let names: Vec<_> = names.filter(|name| name != b"." && name != b"..").collect();
    assert_eq!(names, [b"veil"]);
    let seen = all_of(&tree, b"diary/veil");
    assert!(seen.len() >= SECRET.len() * 3_000);
    assert!(!holds(&seen, SECRET) && !holds(&seen, NAME_INSIDE.as_bytes()));

    // What was sealed to it is the key of one block, in its own place.
    let (diary, lent) = (private_of(&ground, DIARY), private_of(&ground, LENT));
    let own = &lent.readers[&id_of(&thief)];
    let device = &thief.core.keys.device;
    assert!(PrivateKeys::open(device, life(&thief, &ground, LENT), own, &lent.links).is_ok());
    assert!(PrivateKeys::open(device, life(&thief, &ground, DIARY), own, &diary.links).is_err());
    for sealed in diary.readers.values().chain([&diary.admin]) {
        for block in [DIARY, LENT] {
            assert!(PrivateKeys::open(device, life(&thief, &ground, block), sealed, &diary.links).is_err());
        }
    }
    assert!(thief.core.keys.private(DIARY, &ground.charter.blocks[&DIARY]).is_none());
    assert!(thief.core.keys.private(LENT, &ground.charter.blocks[&LENT]).is_some());
}

/// Tells a forged version, and holds both devices to what was there.
fn outlives(a: &Device, b: &Device, thief: &Thief, forged: &Forged, policy: &Policy) {
    thief.seed(&forged.metainfo, &forged.image);
    let mut versions: Vec<VersionRef> = vec![forged.reference];
    versions.extend(thief.record().versions);
    versions.truncate(5);
    let seq = thief.put(versions, policy.clone());
    wait_until("an honest record takes the place of the forged one", || {
        thief.heard().is_some_and(|(now, record)| {
            now > seq && record.is_some_and(|record| record.versions[0] != forged.reference)
        })
    });
    b.write("alive", seq.to_string().as_bytes());
    a.awaits("alive", seq.to_string().as_bytes());
    await_agreement(&[a, b]);
    a.awaits(&format!("diary/{NAME_INSIDE}"), &SECRET.repeat(3_000));
    let readers = |device: &Device| device.status()["blocks"][1]["readers"].clone();
    assert_eq!(readers(a), readers(b));
    assert_eq!(readers(b).as_array().unwrap().len(), 1);
}

#[test]
fn a_private_block_written_by_a_thief() {
    let world = World::new();
    let (a, b, thief) = stage(&world);
    let ground = thief.ground();
    let head = thief.rewritten(&ground, |tree| {
        let veil = tree.resolve(b"diary/veil").unwrap().inode;
        tree.write(veil, 0, &[7; 20_000]).unwrap();
    });
    let entry = thief.entry(&ground, &head, DIARY, thief.next_counter(&ground, DIARY));
    let forged = thief.version(&ground, &head.image, |entries| _ = entries.insert(DIARY, entry), |_| {});
    outlives(&a, &b, &thief, &forged, &ground.policy);
}

#[test]
fn an_earlier_state_of_a_private_block_with_its_earlier_key() {
    let world = World::new();
    let (a, b, thief) = stage(&world);
    let old = thief.ground();
    a.json(&["block", NAME, "share", "/diary", "--for", &id_of(&thief).to_string()]);
    a.json(&["block", NAME, "unshare", "/diary", "--for", &id_of(&thief).to_string()]);
    a.write("diary/later", b"under the new key");
    a.sync();
    await_agreement(&[&a, &b]);
    thief.catch_up();
    let ground = thief.ground();
    assert_eq!(private_of(&ground, DIARY).links.len(), 1);
    let earlier: Listed = old.entries[&DIARY].clone();
    let forged = thief.version(&ground, &ground.image, |entries| _ = entries.insert(DIARY, earlier), |_| {});
    outlives(&a, &b, &thief, &forged, &ground.policy);
    a.awaits("diary/later", b"under the new key");
}

#[test]
fn readers_of_a_private_block_that_the_admin_never_named() {
    let world = World::new();
    let (a, b, thief) = stage(&world);
    let ground = thief.ground();
    let mut charter = ground.charter.clone();
    let lent = private_of(&ground, LENT).readers[&id_of(&thief)];
    let private = charter.blocks.get_mut(&DIARY).unwrap().private.as_mut().unwrap();
    private.readers.insert(id_of(&thief), lent);
    let (draft, keys) =
        (thief.core.store.draft(&ground.image).unwrap(), thief.core.keys.catalogue.as_ref().unwrap());
    let mut sealed = Vec::new();
    let id = keys.seal_blob(BlobKind::Charter, &charter.encode(), &mut sealed);
    let draft = Arc::new(draft);
    let place = draft.append(Stream::Fresh, &sealed).unwrap();
    let image = draft.snapshot().unwrap();
    let counter = ground.policy.counter + 1;
    let by_thief =
        Policy::sign(&thief.admin, &thief.core.keys.database, counter, id, ground.policy.modes.clone());
    for policy in [by_thief, Policy { charter: id, counter, ..ground.policy.clone() }] {
        let forged = thief.version(
            &ground,
            &image,
            |_| {},
            |commit| {
                commit.charter = kilofs::base::Locator { place, id };
                commit.policy_counter = counter;
            },
        );
        outlives(&a, &b, &thief, &forged, &policy);
    }
}

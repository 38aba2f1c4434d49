//! Rotations that are none, and one that ends a theft.

use super::harness::{Device, NAME, World, await_agreement};
use super::process::wait_until;
use super::thief::Thief;
use kilofs::base::DeviceId;
use kilofs::crypt::keys::{AdminKey, DatabaseKey};
use kilofs::crypt::{Capability, Kind, Secret};
use kilofs::daemon::core::now_seconds;
use kilofs::daemon::moves::{Announced, Followed};
use kilofs::net::gossip::{Message, Move};
use kilofs::record::{Announcement, Moved, Policy, SignedItem, sign_lifeline};
use kilofs::torrent::{carrier_info, infohash_of};
use std::time::Duration;

const HEARING: Duration = Duration::from_secs(3);

fn key(device: &Device) -> String {
    device.status()["key"].as_str().unwrap().to_owned()
}

/// New keys for some devices, announced by somebody who calls himself the admin.
fn announced(thief: &Thief, admin: &AdminKey, to: &[DeviceId]) -> Announced {
    let keys = &thief.core.keys;
    let ground = thief.ground();
    let fake = Capability::create(admin, &DatabaseKey::generate(), keys.read_secret().unwrap().clone());
    let next = fake.rotated(&DatabaseKey::generate(), Secret::random(), 99).unwrap();
    let policy = Policy::sign(admin, &keys.database, 99, ground.policy.charter, ground.policy.modes.clone());
    let to: Vec<_> = to.iter().map(|device| (*device, Kind::Write)).collect();
    let mut announcement = Announcement::new(&next, &to, &policy, &ground.charter).unwrap();
    announcement.database = keys.database;
    let content = announcement.encode();
    let info = carrier_info(&content);
    let digest = Announcement::digest(&content);
    let moved = Moved { generation: 1, infohash: infohash_of(&info), digest };
    let records = [keys.record.clone(), next.record_key];
    let item = sign_lifeline(admin, &records, Some(&moved), &policy, now_seconds());
    Announced { item, info }
}

#[test]
fn moves_that_the_admin_did_not_make_are_not_followed() {
    let world = World::new();
    let (a, b) = world.two_writers();
    let old_key = key(&a);
    let thief = Thief::join(&world, &a);
    let device = |device: &Device| DeviceId::from_hex(device.status()["device"].as_str().unwrap()).unwrap();
    let victims = [device(&a), device(&b), thief.core.keys.device.public()];
    let admin_public = thief.core.keys.admin_public;

    let own = announced(&thief, &thief.admin, &victims);
    // With the admin's name on it, and with the database key, which the thief has.
    let named = Announced { item: SignedItem { key: admin_public, ..own.item.clone() }, ..own.clone() };
    let database_key = thief.core.keys.database_key.as_ref().unwrap();
    let signed = SignedItem::sign(database_key, i64::MAX, own.item.value.clone());
    let by_database_key = Announced { item: signed.clone(), ..own.clone() };
    let both = Announced { item: SignedItem { key: admin_public, ..signed }, ..own.clone() };
    // The admin's own lifeline, which says nothing of a rotation, before an announcement.
    let mut lifeline = None;
    wait_until("the admin's lifeline is in the DHT", || {
        lifeline = thief.lifeline();
        lifeline.is_some()
    });
    let genuine = Announced { item: lifeline.unwrap(), ..own.clone() };
    let (gossip, _events) = thief.gossip();
    wait_until("the thief is among neighbours", || gossip.neighbours().len() >= 2);
    for forged in [own, named, by_database_key, both, genuine] {
        let moved = Move { item: forged.item.clone(), info: forged.info.clone() };
        assert!(gossip.tell(&Message::Moved(Box::new(moved)), None) >= 2);
        assert!(matches!(thief.core.follow(&forged).unwrap(), Followed::Nothing));
    }
    std::thread::sleep(HEARING);
    for device in [&a, &b] {
        assert_eq!(key(device), old_key);
        assert_eq!(device.status()["blocks"][0]["writable"], true);
    }
    drop(gossip);

    // A real one: the thief has nothing in it, and cannot make another of it.
    a.json(&["rotate", NAME, "--keep-known"]);
    wait_until("b follows", || key(&b) != old_key);
    let bytes = std::fs::read(a.home.join(format!("databases/{NAME}/moved"))).unwrap();
    let real = Announced::decode(&bytes).unwrap();
    let altered = announced(&thief, &thief.admin, &victims);
    let swapped = Announced { info: altered.info.clone(), ..real.clone() };
    assert!(matches!(thief.core.follow(&swapped).unwrap(), Followed::Nothing), "another announcement");
    let renamed = Announced { item: altered.item, ..real.clone() };
    assert!(matches!(thief.core.follow(&renamed).unwrap(), Followed::Nothing), "another lifeline");
    let renumbered = Announced { item: SignedItem { seq: 1 << 40, ..real.item.clone() }, ..real.clone() };
    assert!(matches!(thief.core.follow(&renumbered).unwrap(), Followed::Nothing), "another number");
    assert!(matches!(thief.core.follow(&real).unwrap(), Followed::LeftOut(_)));
    b.write("after", b"nobody else reads this");
    a.awaits("after", b"nobody else reads this");
}

#[test]
fn a_thief_who_outputs_everybody_is_outlived() {
    let world = World::new();
    let (a, b) = world.two_writers();
    let old_key = key(&a);
    let thief = Thief::join(&world, &a);
    thief.burn();
    wait_until("the last number has been heard", || a.log().contains("does not open"));
    a.write("unheard", b"no number follows that one");
    a.json(&["rotate", NAME, "--keep-known"]);
    wait_until("b follows", || key(&b) != old_key && key(&b) == key(&a));
    b.awaits("unheard", b"no number follows that one");
    b.write("after", b"alive");
    a.awaits("after", b"alive");
    await_agreement(&[&a, &b]);
    // Whatever he puts now lies where nobody looks.
    thief.burn();
    let late = world.joined("late", &a, "write");
    late.awaits("after", b"alive");
    late.awaits("text", b"by a");
    late.write("from-late", b"late");
    b.awaits("from-late", b"late");
}

/// Who holds the present keys passes on a real rotation that another one followed: nobody goes back to it, neither those who
/// are there nor one who was away for both and hears of the older one first.
#[test]
fn an_older_rotation_that_is_passed_on_leads_nobody_back() {
    let world = World::new();
    let a = world.creator("a");
    a.write("text", b"honest");
    a.sync();
    let b = world.joined("b", &a, "write");
    let away = world.joined("away", &a, "write");
    for (device, name) in [(&b, "from-b"), (&away, "from-away")] {
        device.awaits("text", b"honest");
        device.write(name, name.as_bytes());
        a.awaits(name, name.as_bytes());
    }
    await_agreement(&[&a, &b, &away]);
    away.umount();
    let moved = |device: &Device| device.home.join(format!("databases/{NAME}/moved"));
    let mut real = Vec::new();
    for round in 0..2u8 {
        let before = key(&b);
        a.json(&["rotate", NAME, "--keep-known"]);
        wait_until("b follows", || key(&b) != before && key(&b) == key(&a));
        a.write("round", &[round]);
        b.awaits("round", &[round]);
        real.push(std::fs::read(moved(&a)).unwrap());
    }
    let present = key(&a);
    let older = Announced::decode(&real[0]).unwrap();
    let thief = Thief::join(&world, &a);
    assert!(matches!(thief.core.follow(&older).unwrap(), Followed::Nothing));
    let (gossip, _events) = thief.gossip();
    wait_until("the thief is among neighbours", || gossip.neighbours().len() >= 2);
    let told = Move { item: older.item.clone(), info: older.info.clone() };
    assert!(gossip.tell(&Message::Moved(Box::new(told)), None) >= 2);
    std::thread::sleep(HEARING);
    for device in [&a, &b] {
        assert_eq!(key(device), present);
        assert_eq!(device.status()["blocks"][0]["writable"], true);
    }
    // As if the older one had been handed to it while it was away.
    std::fs::write(moved(&away), &real[0]).unwrap();
    away.mount();
    wait_until("who was away comes to the present keys", || key(&away) == present);
    away.awaits("round", &[1]);
    away.write("back", b"back");
    for device in [&a, &b] {
        device.awaits("back", b"back");
    }
    await_agreement(&[&a, &b, &away]);
    drop(gossip);
}

//! The command that hears of events, and the log that a person reads.

use super::harness::{Device, NAME, World};
use super::process::wait_until;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A command that writes down what it is told; where its lines and its sentences are.
fn hooked(world: &World, label: &str) -> (Device, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let device = world.device(label);
    let place = world.place(&format!("{label}-hook"));
    let script = place.join("told");
    let told = place.display();
    let text = format!(
        "#!/bin/sh\necho \"$1 $KILOFS_EVENT_KIND $KILOFS_EVENT_NAME $KILOFS_EVENT_PATH\" >> {told}/words\ncat >> {told}/events\n"
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(&device.home).unwrap();
    let config = format!("on-event = \"{} 'two words'\"\n", script.display());
    std::fs::write(device.home.join("config.toml"), config).unwrap();
    (device, place)
}

fn events(place: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(place.join("events")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_command_hears_of_conflicts_together_and_of_refusals() {
    let world = World::new();
    let (a, place) = hooked(&world, "a");
    a.create();
    a.mount();
    let b = world.device("b");
    b.join(&a.link("write"));
    b.mount();
    for name in ["ledger-1", "ledger-2"] {
        a.write(name, b"at first");
        b.awaits(name, b"at first");
    }
    // Both edit while neither hears of the other.
    b.umount();
    b.mount_with(&["--offline"]);
    for name in ["ledger-1", "ledger-2"] {
        b.write(name, b"by b");
        a.write(name, b"by a, which is longer");
    }
    a.sync();
    b.umount();
    b.mount();
    wait_until("both conflicts are told", || {
        events(&place)
            .iter()
            .filter(|event| event["kind"] == "conflict")
            .map(|event| event["count"].as_u64().unwrap())
            .sum::<u64>()
            == 2
    });
    assert!(a.log().contains("conflict: ") && !a.log().contains("ledger"), "{}", a.log());
    let event = &events(&place)[0];
    assert_eq!(event["name"], NAME);
    assert_eq!(event["mount"], a.mount.to_str().unwrap());
    let path = event["path"].as_str().unwrap();
    assert!(path.starts_with("/ledger-1.conflict-") || path.starts_with("/ledger-2.conflict-"), "{event}");
    let words = std::fs::read_to_string(place.join("words")).unwrap();
    assert!(words.starts_with(&format!("two words conflict {NAME} {path}")), "{words}");

    // What is edited where a newer policy forbids it is set aside here, and told.
    a.ok(&["block", NAME, "add", "rules", "--mode", "rw"]);
    a.sync();
    wait_until("b has the block", || b.status()["blocks"].as_array().unwrap().len() == 2);
    let (c, heard) = hooked(&world, "c");
    c.join(&a.link("write"));
    c.mount();
    wait_until("c has the block", || c.status()["blocks"].as_array().unwrap().len() == 2);
    c.umount();
    c.mount_with(&["--offline"]);
    c.write("rules/mine", b"too late");
    a.ok(&["policy", NAME, "set", "rules", "ro"]);
    a.sync();
    c.umount();
    c.mount();
    wait_until("the refusal is told", || events(&heard).iter().any(|event| event["kind"] == "refusal"));
    let told = events(&heard);
    let refusal = told.iter().find(|event| event["kind"] == "refusal").unwrap();
    assert_eq!(refusal["path"], "/rules");
    assert!(refusal["reason"].as_str().unwrap().contains(".kilofs/refused"), "{refusal}");
}

#[test]
fn a_command_that_does_not_exist_is_complained_of_once_and_harms_nothing() {
    let world = World::new();
    let a = world.device("a");
    std::fs::create_dir_all(&a.home).unwrap();
    std::fs::write(a.home.join("config.toml"), "on_event = '/no/such/program'\n").unwrap();
    a.create();
    a.mount();
    let b = world.joined("b", &a, "write");
    a.write("text", b"at first");
    b.awaits("text", b"at first");
    b.umount();
    b.mount_with(&["--offline"]);
    b.write("text", b"by b");
    a.write("text", b"by a, which is longer");
    a.sync();
    b.umount();
    b.mount();
    wait_until("it is complained of", || a.log().contains("on-event: /no/such/program"));
    wait_until("the conflict is there", || a.status()["conflicts"].as_array().unwrap().len() == 1);
    assert_eq!(a.log().matches("on-event:").count(), 1, "{}", a.log());
}

#[test]
fn the_log_reads_well() {
    let mut world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    a.write("from-a", b"one");
    b.awaits("from-a", b"one");
    b.write("from-b", b"two");
    a.awaits("from-b", b"two");
    wait_until("they are neighbours", || a.log().contains("is connected, 1 in all"));
    world.stop_dht();
    wait_until("the loss of the DHT is logged", || a.log().contains("no DHT node answers"));
    // It goes on being asked.
    std::thread::sleep(std::time::Duration::from_secs(6));
    world.start_dht();
    wait_until("and that it is back", || a.log().matches("the DHT answers").count() == 2);
    b.umount();
    wait_until("and that the neighbour is gone", || a.log().contains("is gone, 0 left"));
    let log = a.log();
    let maker = b.status()["device"].as_str().unwrap()[..8].to_owned();
    assert!(log.contains(&format!("changes of device {maker} taken: 1 name")), "{log}");
    assert!(!log.contains("from-a") && !log.contains("from-b"), "names stay out of the log: {log}");
    assert!(log.contains("is connected, 1 in all"), "{log}");
    assert_eq!(log.matches("no DHT node answers").count(), 1, "{log}");
    assert!(!log.contains("ERROR"), "{log}");
    assert!(log.lines().count() < 30, "one line for what a person cares for:\n{log}");
    for line in log.lines() {
        let (time, rest) = line.split_at(20);
        assert!(time.ends_with('Z') && !rest.contains("kilofs::"), "{line}");
    }
}

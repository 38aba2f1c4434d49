//! Devices that keep no connections to each other: the DHT says what is new, the swarm brings it.

use super::harness::{Device, Dice, World};
use super::process::wait_until;
use std::io::Write;
use std::time::Instant;

const MIB: usize = 1 << 20;
const ALONE: [&str; 4] = ["-v", "--no-neighbours", "--poll-interval", "2"];

/// Whether a line says that the machine wants something of these kinds done.
fn wants(line: &str, kinds: &[&str]) -> bool {
    kinds.iter().any(|kind| line.contains(&format!("effect={kind}")))
}

fn puts(device: &Device) -> usize {
    device.log().matches("record put into the DHT").count()
}

/// Has one device write and another read; how many looks at the record the reader began between the put and its fetch.
#[track_caller]
fn looks_for(content: &str, writer: &Device, reader: &Device) -> usize {
    let (before, at_first) = (puts(writer), reader.log().len());
    let closed = {
        writer.write("text", content.as_bytes());
        Instant::now()
    };
    wait_until("it is put", || puts(writer) > before);
    let (put, at_put) = (closed.elapsed(), reader.log().len());
    reader.awaits("text", content.as_bytes());
    let log = reader.log();
    let is_fetch = |line: &&str| wants(line, &["Fetch"]);
    let after: Vec<&str> = log[at_put..].lines().collect();
    // It may have been found before the other log told of the put, or of the last of several.
    let fetched_before = log[at_first..at_put].lines().any(|line| is_fetch(&line));
    let fetch = if fetched_before { Some(0) } else { after.iter().position(is_fetch) };
    let fetch = fetch.unwrap_or_else(|| panic!("nothing was fetched: {log}"));
    let looks = after[..fetch].iter().filter(|line| wants(line, &["Poll", "Glance"])).count();
    let readable = closed.elapsed();
    _ = writeln!(
        std::io::stderr(),
        "put {put:?} after the close, readable after {readable:?} and {looks} looks"
    );
    looks
}

#[test]
fn by_the_dht_alone_a_change_is_found_at_the_next_look() {
    let world = World::new();
    let [a, b] = ["a", "b"].map(|label| world.device(label));
    a.create();
    a.mount_with(&ALONE);
    a.write("text", b"the first");
    a.sync();
    b.join(&a.link("write"));
    b.mount_with(&ALONE);
    b.awaits("text", b"the first");
    for round in 0..6 {
        // Both ways in turn.
        let (writer, reader) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let content = format!("round {round}").repeat(round + 1);
        let looks = looks_for(&content, writer, reader);
        assert!(looks <= 1, "{looks} looks were needed: {}", reader.log());
    }
    // Much of it would come from neighbours, if there were any.
    let large = Dice::new(3).bytes(20 * MIB);
    a.write("large", &large);
    b.awaits("large", &large);
    for device in [&a, &b] {
        assert_eq!(device.status()["neighbours"], 0);
        assert!(!device.log().contains("effect=Tell"), "somebody was told");
    }
    b.umount();
    let refused = b.kilofs(&["mount", "shared", b.mount.to_str().unwrap(), "--on-demand", "--no-neighbours"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("files on demand come from neighbours"), "{refused:?}");
}

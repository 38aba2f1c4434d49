//! Devices on one local network.

use super::harness::World;
use super::process::wait_until;

#[test]
fn devices_of_one_network_need_no_dht() {
    let mut world = World::new();
    let [a, b] = ["a", "b"].map(|label| {
        let device = world.device(label);
        std::fs::create_dir_all(&device.home).unwrap();
        std::fs::write(device.home.join("config.toml"), "lan = true\n").unwrap();
        device
    });
    a.create();
    a.mount();
    a.write("text", b"over the cable");
    a.sync();
    // What the second is told to start from is gone before it looks.
    world.stop_dht();
    b.join(&a.link("write"));
    b.mount();
    wait_until("they have found each other", || {
        a.status()["neighbours"] == 1 && b.status()["neighbours"] == 1
    });
    b.awaits("text", b"over the cable");
}

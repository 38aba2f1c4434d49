//! What one change costs in worlds of growing size, in which everybody has about eight neighbours.

use super::world::{Event, Plan, World};

/// Prints a line for each size.
pub fn table(sizes: &[usize]) {
    println!("| devices | news a device and change | until all have it |");
    println!("|---:|---:|---:|");
    for size in sizes {
        let plan = Plan {
            seed: 7,
            devices: 2,
            readers: size - 2,
            changes: 0,
            trouble: 60_000,
            quiet: 200_000,
            poll: 30_000,
            loss: 0,
            faults: 0,
        };
        let mut world = World::new(plan);
        world.until(100_000).unwrap();
        let sent = world.news_sent;
        world.after(0, Event::Change(0));
        let began = world.now;
        let mut took = None;
        for step in 1..2_000 {
            world.until(began + step * 5).unwrap();
            if world.devices.iter().all(|device| device.held.content.has(0)) {
                took = Some(step * 5);
                break;
            }
        }
        world.until(began + 20_000).unwrap();
        let news = (world.news_sent - sent) as f64 / *size as f64;
        println!("| {size} | {news:.1} | {} |", took.map_or("not by news".into(), |ms| format!("{ms} ms")));
    }
}

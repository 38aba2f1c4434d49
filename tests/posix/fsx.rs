//! fsx: random operations on one file, every byte compared with a copy in memory.

use super::stage::{Stage, command, ran, said, tool};

/// All that the exerciser knows, so often as it matters; sizes pass the limits between inline data and chunks of both
/// sizes.
fn configuration(file_bytes: u32, operation_bytes: u32) -> String {
    format!(
        "flen = {file_bytes}
         [opsize]
         min = 0
         max = {operation_bytes}
         [weights]
         close_open = 5
         invalidate = 3
         mapread = 10
         mapwrite = 10
         read = 10
         write = 10
         truncate = 5
         fsync = 1
         fdatasync = 1
         posix_fallocate = 3
         punch_hole = 5
         sendfile = 5
         posix_fadvise = 2
         copy_file_range = 5"
    )
}

/// One file of up to some KiB, one of up to a MiB, one that passes 4 MiB, where chunks become larger.
const SIZES: [(u32, u32); 3] = [(24 << 10, 8 << 10), (1 << 20, 128 << 10), (6 << 20, 256 << 10)];

fn exercise(seeds: std::ops::Range<u64>, operations: u64) {
    let stage = Stage::new("");
    let exerciser = tool("fsx");
    std::thread::scope(|scope| {
        let running: Vec<_> = seeds
            .map(|seed| {
                let (file, operation) = SIZES[(seed % SIZES.len() as u64) as usize];
                let place = stage.home().join(format!("fsx-{seed}"));
                std::fs::create_dir(&place).unwrap();
                std::fs::write(place.join("fsx.toml"), configuration(file, operation)).unwrap();
                let mut command = command(&exerciser);
                command.arg("-f").arg(place.join("fsx.toml")).arg("-P").arg(&place);
                command.args(["-S", &seed.to_string(), "-N", &operations.to_string()]);
                command.arg(stage.path().join(format!("file-{seed}")));
                scope.spawn(move || (seed, ran(&mut command)))
            })
            .collect();
        for thread in running {
            let (seed, output) = thread.join().unwrap();
            assert!(output.status.success(), "seed {seed}: {}", said(&output));
        }
    });
    stage.end();
}

#[test]
fn eight_thousand_random_operations_each() {
    exercise(1..4, 8_000);
}

#[test]
#[ignore = "minutes; scripts/soak runs it"]
fn a_hundred_thousand_random_operations_each() {
    for first in [101, 103, 105, 107, 109] {
        exercise(first..first + 2, 100_000);
    }
}

//! What large files cost those who fetch them.

use super::harness::World;

const FILE_BYTES: usize = 64 << 20;

/// Bytes that do not compress and have no runs of zeros.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

#[test]
fn a_large_file_travels_with_three_percent_more_than_its_bytes_at_most() {
    let world = World::new();
    let a = world.creator("a");
    let content = noise(FILE_BYTES);
    a.write("large", &content);
    a.sync();
    let b = world.joined("b", &a, "read");
    b.awaits("large", &content);
    let fetched = b.status()["fetched_bytes"].as_u64().unwrap();
    assert!(fetched >= FILE_BYTES as u64, "{fetched}");
    assert!(fetched <= FILE_BYTES as u64 / 100 * 103, "{fetched}");
}

#[test]
fn pieces_of_another_length_do_not_bring_everything_again() {
    const FIRST_BYTES: usize = 16 << 20;
    let world = World::new();
    let a = world.creator("a");
    let content = noise(FILE_BYTES);
    a.write("large", &content[..FIRST_BYTES]);
    a.sync();
    let b = world.joined("b", &a, "read");
    b.awaits("large", &content[..FIRST_BYTES]);
    let before = b.status()["fetched_bytes"].as_u64().unwrap();
    // An image of 64 MiB and more has four times as long pieces as one of 16 MiB.
    let mut large = std::fs::OpenOptions::new().append(true).open(a.path("large")).unwrap();
    std::io::Write::write_all(&mut large, &content[FIRST_BYTES..]).unwrap();
    a.sync();
    b.awaits("large", &content);
    let fetched = b.status()["fetched_bytes"].as_u64().unwrap() - before;
    let added = (FILE_BYTES - FIRST_BYTES) as u64;
    assert!(fetched >= added && fetched <= added / 100 * 105, "{fetched} of {added}");
}

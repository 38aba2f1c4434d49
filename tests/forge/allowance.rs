//! Who holds the write key fills a block beyond its quota.

use super::forgeries::tell;
use super::harness::NAME;
use super::stage::{Stage, Told};
use super::version::{DOCS, NOBODY};
use kilofs::tree::NodeKind;

#[test]
fn a_block_filled_far_beyond_its_quota() {
    let limits = ["--bytes", "2M", "--files", "200"];
    let quota = |a: &super::harness::Device| {
        let set = a.json(&[&["block", NAME, "quota", "/docs"], &limits[..]].concat());
        assert_eq!((set["quota_bytes"].as_u64(), set["quota_files"].as_u64()), (Some(2 << 20), Some(200)));
    };
    // By bytes, and by files above that: who joins finds one below the other.
    Stage::under(|a, _| quota(a)).outlives(|stage| {
        let first = filled(stage, 5);
        let mut second = filled(stage, 300);
        second.forged.extend(first.forged);
        second
    });
}

/// Tells of the block with so many files more: few of a MiB each, or many empty ones.
fn filled(stage: &Stage, count: usize) -> Told {
    let thief = &stage.thief;
    let ground = thief.ground();
    let head = thief.rewritten(&ground, |tree| {
        let docs = tree.resolve(b"docs").unwrap().inode;
        for index in 0..count {
            let name = format!("fill-{index}");
            let file = tree.make_node(docs, name.as_bytes(), NodeKind::File, 0o666, NOBODY).unwrap();
            if count < 10 {
                tree.write(file.inode, 0, &vec![index as u8 + 1; 1 << 20]).unwrap();
            }
        }
    });
    let listed = thief.entry(&ground, &head, DOCS, thief.next_counter(&ground, DOCS));
    let change = |entries: &mut std::collections::BTreeMap<_, _>| _ = entries.insert(DOCS, listed);
    let forged = thief.version(&ground, &head.image, change, |_| {});
    tell(stage, &forged, &stage.policy)
}

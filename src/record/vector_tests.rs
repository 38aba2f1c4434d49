use super::*;

/// A maker without a key: what covers what does not look at signatures.
fn maker(n: u8) -> Maker {
    Maker { device: DeviceId([n; 32]), session: SessionId([n; 16]) }
}

fn stamp(counter: u64, digest: u8) -> Stamp {
    Stamp { counter, digest: Id([digest; 32]), signature: Signature([0; 64]) }
}

fn vector(items: &[(u8, u64, u8)]) -> Vector {
    Vector(items.iter().map(|(n, counter, digest)| (maker(*n), stamp(*counter, *digest))).collect())
}

#[test]
fn it_reaches_what_came_before() {
    let above = vector(&[(1, 7, 4), (2, 9, 5)]);
    let reaches = |n, counter, digest| above.reaches(&maker(n), &stamp(counter, digest), &Vector::default());
    assert!(reaches(1, 7, 4) && reaches(1, 6, 99) && reaches(2, 9, 5));
    assert!(!reaches(1, 8, 4) && !reaches(3, 0, 4), "not yet known");
    assert!(!reaches(1, 7, 99), "another commit that took the same number");
}

#[test]
fn a_session_belongs_to_a_device() {
    let above = vector(&[(1, 7, 4)]);
    let usurper = Maker { device: DeviceId([2; 32]), ..maker(1) };
    assert!(!above.reaches(&usurper, &stamp(1, 0), &Vector::default()));
}

#[test]
fn a_number_that_was_given_twice_hides_nobody_elses_commit() {
    // The thief (3) made 5 on nothing and another 4 on commit 9 of 1. Who stands on 5 does not stand on that.
    let above = vector(&[(1, 8, 8), (3, 5, 5)]);
    assert!(!above.reaches(&maker(3), &stamp(4, 44), &vector(&[(1, 9, 9)])));
    assert!(above.reaches(&maker(3), &stamp(4, 44), &vector(&[(1, 8, 8)])));
    assert!(!above.reaches(&maker(3), &stamp(4, 44), &vector(&[(2, 1, 1)])));
    // On that very one he stands with all that is below.
    assert!(above.reaches(&maker(3), &stamp(5, 5), &vector(&[(1, 9, 9)])));
}

#[test]
fn what_is_made_from_two_stands_on_both_whatever_their_order() {
    let (one, other) = (vector(&[(1, 3, 3), (3, 2, 2)]), vector(&[(1, 4, 4), (2, 1, 1)]));
    let parents = [(maker(5), stamp(1, 51), &one), (maker(6), stamp(8, 68), &other)];
    let above = Vector::above(parents.into_iter());
    assert_eq!(above, vector(&[(1, 4, 4), (2, 1, 1), (3, 2, 2), (5, 1, 51), (6, 8, 68)]));
    assert_eq!(above, Vector::above(parents.into_iter().rev()));
    for (maker, stamp, below) in parents {
        assert!(above.reaches(&maker, &stamp, below));
        assert!(!below.reaches(&maker, &stamp, below));
    }
}

#[test]
fn a_parent_counts_more_than_another_commit_of_its_number() {
    let hearsay = vector(&[(1, 7, 99)]);
    let parents = [(maker(1), stamp(7, 4), &Vector::default()), (maker(2), stamp(1, 1), &hearsay)];
    let above = Vector::above(parents.into_iter());
    assert_eq!(above.get(&maker(1)), Some(&stamp(7, 4)));
}

#[test]
fn a_flood_of_makers_leaves_room_for_who_is_there() {
    let crowd = |base: u32| {
        let item = |n: u32| {
            let mut device = [0; 32];
            device[..4].copy_from_slice(&n.to_be_bytes());
            (Maker { device: DeviceId(device), session: SessionId([0; 16]) }, stamp(1, 1))
        };
        Vector((base..base + VECTOR_MAKERS_MAX as u32).map(item).collect())
    };
    let (known, flood) = (vector(&[(200, 3, 3)]), crowd(0));
    let parents = [(maker(201), stamp(9, 9), &known), (maker(202), stamp(1, 1), &flood)];
    let above = Vector::above(parents.into_iter());
    assert!(above.iter().count() <= VECTOR_MAKERS_MAX);
    for (maker, stamp, below) in parents {
        assert!(above.reaches(&maker, &stamp, below));
    }
    assert!(above.get(&maker(200)).is_some());
    let next = Vector::above([(maker(203), stamp(1, 1), &above)].into_iter());
    assert!(next.iter().count() <= VECTOR_MAKERS_MAX && next.get(&maker(203)).is_some());
}

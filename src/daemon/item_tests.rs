#![allow(clippy::unwrap_used)]
use super::*;
use crate::base::{DatabaseId, Id, Signature};
use crate::daemon::control::Ground;
use crate::record::genesis_charter;

const OWN: u8 = 1;

fn device(number: u8) -> DeviceId {
    DeviceId([number; 32])
}

fn terms() -> Terms {
    let charter = genesis_charter(&DatabaseId([9; 32]));
    let policy = Policy {
        counter: 4,
        charter: Id([1; 32]),
        signature: Signature([0; 64]),
        modes: vec![Mode::ReadWrite],
    };
    Terms::of(Ground {
        policy_hex: HEXLOWER.encode(&policy.encode()),
        charter_hex: HEXLOWER.encode(&charter.encode()),
        blocks: Vec::new(),
        lifeline_hex: None,
    })
    .unwrap()
}

fn signed(terms: &Terms) -> (Policy, Charter) {
    let policy = Policy {
        counter: terms.counter + 1,
        charter: Id([1; 32]),
        signature: Signature([0; 64]),
        modes: terms.modes.clone(),
    };
    (policy, terms.charter.clone())
}

fn block(terms: &mut Terms, number: u16, path: &str, mode: Mode, birth: u8) {
    let root = terms.charter.blocks[&BlockNumber::ROOT].clone();
    let block = BlockCharter { path: path.into(), birth: Birth([birth; 16]), ..root };
    terms.charter.blocks.insert(BlockNumber(number), block);
    terms.set_mode(BlockNumber(number), mode);
}

fn between(before: &Terms, after: &Terms) -> Vec<Item> {
    let (before, after) = (signed(before), signed(after));
    changes((&before.0, &before.1), (&after.0, &after.1), &after_listing())
}

fn after_listing() -> Listing {
    Listing { added: vec![device(OWN).to_string()], removed: vec![device(3).to_string()] }
}

/// Everything that a policy can change: it is found, holds where it was made, does not hold before, and holds again once it
/// was made again on top of what somebody else changed.
#[test]
fn each_change_is_found_missing_and_made_again() {
    let mut before = terms();
    block(&mut before, 1, "docs", Mode::ReadWrite, 7);
    block(&mut before, 2, "old", Mode::ReadWrite, 8);
    let edit = |change: &dyn Fn(&mut Terms)| {
        let mut after = terms();
        after.charter = before.charter.clone();
        after.modes = before.modes.clone();
        change(&mut after);
        after
    };
    let all = [
        edit(&|terms| block(terms, 3, "new", Mode::ReadOnly, 9)),
        edit(&|terms| terms.remove(BlockNumber(2))),
        edit(&|terms| terms.set_rules(BlockNumber(1), Mode::Owner, Some(device(5))).unwrap()),
        edit(&|terms| {
            terms.charter.blocks.get_mut(&BlockNumber(1)).unwrap().quota.files = Some(10);
        }),
        edit(&|terms| terms.charter.members = Members::Listed([device(OWN), device(2)].into())),
    ];
    let rival = edit(&|terms| block(terms, 3, "rival", Mode::ReadWrite, 10));
    for after in &all {
        let items = between(&before, after);
        assert_eq!(items.len(), 1, "{items:?}");
        let item = &items[0];
        let holds = |terms: &Terms| item.in_force(&signed(terms).0, &terms.charter);
        assert!(holds(after), "{}", item.in_words());
        assert!(!holds(&before) && !holds(&rival), "{}", item.in_words());
        let mut again = terms();
        (again.charter, again.modes) = (rival.charter.clone(), rival.modes.clone());
        item.apply(&mut again).unwrap();
        assert!(holds(&again), "{}", item.in_words());
        again.charter.check().unwrap();
        let rivals = between(&before, &rival);
        let spoilt = rivals.iter().filter(|theirs| !theirs.in_force(&signed(&again).0, &again.charter));
        let spoilt: Vec<_> = spoilt.map(Item::in_words).collect();
        assert!(spoilt.is_empty(), "{} undoes {spoilt:?}", item.in_words());
    }
}

#[test]
fn who_was_taken_off_stays_off_and_who_was_added_stays() {
    let mut mine = terms();
    mine.charter.members = Members::Listed([device(OWN), device(2)].into());
    let items = between(&terms(), &mine);
    let mut theirs = terms();
    theirs.charter.members = Members::Listed([device(3), device(4)].into());
    items[0].apply(&mut theirs).unwrap();
    assert_eq!(theirs.charter.members, Members::Listed([device(OWN), device(4)].into()));
}

#[test]
fn of_two_changes_of_one_thing_the_later_one_counts() {
    let at = |edits: &[&dyn Fn(&mut Terms)]| {
        let mut steps = vec![terms()];
        for edit in edits {
            let mut next = terms();
            let last = steps.last().unwrap();
            (next.charter, next.modes) = (last.charter.clone(), last.modes.clone());
            edit(&mut next);
            steps.push(next);
        }
        let mut items = Vec::new();
        for pair in steps.windows(2) {
            between(&pair[0], &pair[1]).into_iter().for_each(|item| fold(&mut items, item));
        }
        let last = steps.last().unwrap();
        let (policy, charter) = signed(last);
        assert!(items.iter().all(|item| item.in_force(&policy, &charter)), "{items:?}");
        items
    };
    let set = |mode| move |terms: &mut Terms| terms.set_rules(BlockNumber(1), mode, None).unwrap();
    let add = |terms: &mut Terms| block(terms, 1, "docs", Mode::ReadWrite, 7);
    let limit = |terms: &mut Terms| {
        terms.charter.blocks.get_mut(&BlockNumber(1)).unwrap().quota.bytes = Some(1);
    };
    let list = |numbers: &'static [u8]| {
        move |terms: &mut Terms| {
            terms.charter.members = Members::Listed(numbers.iter().map(|number| device(*number)).collect());
        }
    };
    assert_eq!(at(&[&add, &set(Mode::ReadOnly), &limit]).len(), 1);
    assert!(matches!(at(&[&add, &|terms| terms.remove(BlockNumber(1))])[..], [Item::Plain(_)]));
    let rules = |terms: &mut Terms| terms.set_rules(BlockNumber::ROOT, Mode::ReadOnly, None).unwrap();
    let back = |terms: &mut Terms| terms.set_rules(BlockNumber::ROOT, Mode::ReadWrite, None).unwrap();
    assert_eq!(at(&[&rules, &back]).len(), 1);
    assert_eq!(at(&[&list(&[1, 2, 4]), &list(&[1, 2]), &list(&[1, 2, 4])]).len(), 3);
    assert_eq!(at(&[&list(&[1]), &|terms| terms.charter.members = Members::Open]), [Item::Open]);
}

//! The lifeline: a second BEP 44 item, under the admin key, that holds the policy in force. Whoever stole the database
//! key can replay old policies in records, but not here. It is sealed and shaped as a record that names no version, so
//! that DHT nodes learn nothing from it; its seq is the policy's counter.

use super::{Policy, Record, SignedItem};
use crate::base::{DatabaseId, PublicKey};
use crate::crypt::{AdminKey, DatabaseKey, RecordKey};

/// Signs the lifeline of a policy. `time` is in seconds since 1970 and decides nothing.
pub fn sign_lifeline(admin: &AdminKey, key: &RecordKey, policy: &Policy, time: u32) -> SignedItem {
    let record = Record { time, flags: 0, versions: Vec::new(), policy: policy.clone() };
    // The signature of an item is made the same way whatever the key is for; what it signs is told apart by its form.
    let signer = DatabaseKey::from_seed(admin.seed().expose());
    SignedItem::sign(&signer, i64::from(policy.counter), record.encode_sealed(key))
}

/// The policy of a lifeline; none where anything about it is not as an admin makes it.
pub fn open_lifeline(
    item: &SignedItem,
    admin: &PublicKey,
    key: &RecordKey,
    database: &DatabaseId,
) -> Option<Policy> {
    if item.key != *admin || !item.verify() {
        return None;
    }
    let record = Record::decode(key, &item.value).ok()?;
    let sound = record.versions.is_empty()
        && item.seq == i64::from(record.policy.counter)
        && record.policy.verify(database, admin);
    sound.then_some(record.policy)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::base::Id;
    use crate::crypt::{Secret, database_id};
    use crate::record::{Mode, RECORD_BYTES};

    #[test]
    fn only_the_admins_own_lifeline_opens() {
        let (admin, thief) = (AdminKey::generate(), AdminKey::generate());
        let key = RecordKey::of(&Secret::random());
        let database = database_id(&admin.public());
        let policy = Policy::sign(&admin, &database, 7, Id([1; 32]), vec![Mode::ReadOnly]);
        let item = sign_lifeline(&admin, &key, &policy, 1);
        let open = |item: &SignedItem| open_lifeline(item, &admin.public(), &key, &database);
        assert_eq!(item.value.len(), RECORD_BYTES);
        assert_eq!(open(&item), Some(policy.clone()));
        assert_eq!(open(&SignedItem { seq: 8, ..item.clone() }), None);
        assert_eq!(open(&sign_lifeline(&thief, &key, &policy, 1)), None);
        let forged = Policy::sign(&thief, &database, 9, Id([1; 32]), vec![Mode::ReadWrite]);
        assert_eq!(open(&sign_lifeline(&admin, &key, &forged, 1)), None);
        assert_eq!(open_lifeline(&item, &admin.public(), &RecordKey::of(&Secret::random()), &database), None);
    }
}

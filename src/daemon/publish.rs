//! Makes a version of the working head: entries signed, catalogue and commit sealed, dirty pieces hashed, all of it
//! durable. Telling others is the driver's.

use super::core::{Core, Inner, Listed, now_seconds, random};
use super::error::EngineError;
use super::genesis::charter_id;
use super::graft::{is_sparse, same_bytes};
use super::history::log_entry;
use super::join::only_grows;
use super::versions::Version;
use crate::base::{BlockNumber, Locator, PieceHashes, PieceLength, Place, SessionId};
use crate::crypt::seal::{BlobKind, SealKeys};
use crate::image::{Draft, Image, Stream, hash_pieces};
use crate::map::{Edit, Map, Root};
use crate::record::{BlockEntry, Charter, Commit, Maker, Policy, RootRef, VersionRef, next_counter};
use crate::torrent::Metainfo;
use crate::tree::{DraftSource, Held, Whole};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

const PARENTS_MAX: usize = 2;

/// A version that stands in the store and is ready to be seeded.
pub struct Made {
    /// Its torrent and commit.
    pub reference: VersionRef,
    /// Its metainfo.
    pub metainfo: Metainfo,
    /// Its bytes.
    pub image: Image,
    /// The version that it follows.
    pub base: Option<Version>,
}

impl Core {
    /// Publishes the working head. None where the record's newest version holds it already;
    /// [`EngineError::Withheld`] where it is to be tried again soon.
    pub fn publish(&self) -> Result<Option<Made>, EngineError> {
        let _work = self.work.lock();
        let tree = self.tree()?;
        if !self.keys.publishes() {
            return Err(EngineError::Capability("read"));
        }
        // What the head shows must stay in the draft until the version is made of both.
        let mut held = tree.hold();
        let whole = self.head_to_publish(&mut held)?;
        let head = &whole.head;
        let mut inner = self.inner();
        inner.waits = whole.waits;
        self.install(&mut inner, head);
        if inner.state.policy.counter == 0 || self.awaits_terms(&inner) {
            return Err(EngineError::NoPolicyYet);
        }
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let charter = charter_id(keys, &inner.state.charter);
        let entries = self.next_entries(&inner, &whole.roots)?;
        let policy_told = inner.heads.first().is_some_and(|(_, commit)| {
            commit.policy_counter == inner.state.policy.counter && commit.charter.id == charter
        }) && self.charter_told(&inner);
        let told: BTreeMap<_, _> = self.told_entries(&inner)?;
        if !inner.heads.is_empty() && policy_told && same_content(&entries, &told) {
            inner.published = Some(head.generation);
            inner.state.pending = whole.waits;
            return Ok(None);
        }
        let (image, commit, locator, catalogue) =
            self.seal_version(&mut inner, (&held, &whole), &entries, &told)?;
        let base = inner.state.head.and_then(|head| inner.versions.get(&head.infohash)).cloned();
        // Hashing a large first version takes long: nobody's fsync waits for it.
        drop(inner);
        drop(held);
        let metainfo = self.hash_version(base.as_ref(), &image)?;
        let mut inner = self.inner();
        let reference = VersionRef { infohash: metainfo.infohash(), commit: locator };
        let commit = Arc::new(commit);
        inner.state.counter_reserved += 1;
        inner.state.lamport = commit.lamport;
        inner.state.head = Some(reference);
        inner.heads = vec![(locator.id, commit.clone())];
        inner.catalogue = catalogue;
        inner.entries = entries;
        inner.spoilt.clear();
        inner.published = Some(head.generation);
        inner.state.pending = whole.waits || tree.generation() != head.generation;
        self.keep(
            &mut inner,
            Version { reference, time: now_seconds(), image: image.clone(), commit: Some(commit) },
        );
        self.cache.remember(&reference.infohash, &metainfo);
        self.save(&inner)?;
        drop(inner);
        self.weigh_published(&reference, &image);
        Core::count(&self.done.published);
        self.joins.publishes();
        Ok(Some(Made { reference, metainfo, image, base }))
    }

    /// Adds a version to the kept ones and lets go what is no longer of use.
    pub fn keep(&self, inner: &mut Inner, version: Version) {
        if let Some(commit) = &version.commit {
            self.cache.log_add(&log_entry(version.id(), commit));
        }
        let come = version.reference.infohash;
        inner.versions.add(version);
        let mut named: Vec<_> = self.named_versions(inner).iter().map(|version| version.infohash).collect();
        named.extend(inner.state.head.map(|head| head.infohash));
        // After a restart they are looked for among the kept ones.
        let stood_on =
            |version: &&Version| inner.heads.iter().any(|(id, _)| *id == version.reference.commit.id);
        named.extend(inner.versions.iter().filter(stood_on).map(|version| version.reference.infohash));
        let device = self.keys.device.public();
        let others =
            |version: &Version| version.commit.as_ref().is_some_and(|commit| commit.device != device);
        inner.versions.trim(&named, now_seconds(), others);
        // With the newest version here nothing else is going to be asked for.
        let newest = named.first() == Some(&come);
        inner.begun.retain(|infohash| *infohash != come && !newest);
        self.remember_kept(inner);
    }

    /// Forgets the piece hashes of what is not kept.
    pub(super) fn remember_kept(&self, inner: &Inner) {
        let kept = inner.versions.iter().map(|version| version.reference.infohash);
        self.cache.retain(&kept.chain(inner.begun.iter().map(|(infohash, _)| *infohash)).collect::<Vec<_>>());
    }

    /// The versions of the highest accepted record.
    pub fn named_versions(&self, inner: &Inner) -> Vec<VersionRef> {
        let Some(item) = &inner.state.accepted else { return Vec::new() };
        crate::record::Record::decode(&self.keys.record, &item.value)
            .map_or(Vec::new(), |record| record.versions)
    }

    /// The entry of each block as the next version has to carry it: the one in force where the content is the same,
    /// a newly signed one where this device changed it.
    pub fn next_entries(
        &self,
        inner: &Inner,
        roots: &BTreeMap<BlockNumber, Option<Root>>,
    ) -> Result<BTreeMap<BlockNumber, Listed>, EngineError> {
        let (policy, charter) = (&inner.state.policy, &inner.state.charter);
        let mut entries = BTreeMap::new();
        for (number, block) in &charter.blocks {
            let root = roots.get(number).copied().flatten();
            let known = inner.entries.get(number).filter(|listed| listed.entry.birth == block.birth);
            let id = root.map(|root| root.id);
            let known_id = known.and_then(|listed| listed.root()).map(|root| root.id);
            let counts =
                known.is_none_or(|listed| self.still_counts(policy, charter, *number, &listed.entry));
            if id == known_id && (known.is_some() || id.is_none()) && counts {
                if let Some(listed) = known {
                    entries.insert(
                        *number,
                        Listed { entry: listed.entry.clone(), place: root.map(|root| root.place) },
                    );
                }
                continue;
            }
            if (known.is_none() || !counts)
                && let Some(floor) = self.at_floor(*number, block, root)
            {
                entries.insert(*number, floor);
                continue;
            }
            // What stands on another ground than the floor is joined with that before it is signed.
            let unjoined = only_grows(policy, *number) && !counts;
            if unjoined || !self.may_write(policy, charter, *number) {
                // What stands in the tree was there before the policy changed; it is set aside elsewhere.
                if let Some(listed) = known {
                    entries.insert(*number, listed.clone());
                }
                continue;
            }
            let keys = self.keys.block(*number, block).ok_or(EngineError::Capability("mirror"))?;
            let counter = next_counter(known.map_or(0, |listed| listed.entry.counter), block.floor.counter);
            let entry = BlockEntry {
                number: *number,
                birth: block.birth,
                epoch: block.epoch,
                counter,
                parents: known_id.into_iter().collect(),
                root: root.map(|root| RootRef { level: root.level, id: root.id }),
                commitment: keys.commitment(),
                inode_prefix: self.tree()?.inode_prefix(),
                signer: self.keys.device.public(),
                signature: crate::base::Signature([0; 64]),
            };
            let entry = self.sign_entry(entry, policy, charter);
            entries.insert(*number, Listed { entry, place: root.map(|root| root.place) });
        }
        Ok(entries)
    }

    /// Signs with the device key, or, where the policy does not let that one write, with the admin key if this engine
    /// holds it.
    fn sign_entry(&self, entry: BlockEntry, policy: &Policy, charter: &Charter) -> BlockEntry {
        let allowed = self.allows(policy, charter, entry.number, &self.keys.device.public());
        match &self.keys.admin {
            Some(admin) if !allowed => entry.signed_by_admin(&self.keys.database, admin),
            _ => entry.signed(&self.keys.database, &self.keys.device),
        }
    }

    /// Whether the head version carries the charter that its commit names.
    fn charter_told(&self, inner: &Inner) -> bool {
        let head = inner.state.head.and_then(|head| inner.versions.get(&head.infohash));
        head.and_then(|version| Some((version, version.commit.as_ref()?))).is_some_and(|(version, commit)| {
            self.open_charter(&version.image, commit, &commit.charter.id).is_some()
        })
    }

    /// The entries of the head version's catalogue as they were published, refused ones among them.
    pub fn told_entries(&self, inner: &Inner) -> Result<BTreeMap<BlockNumber, Listed>, EngineError> {
        let Some(head) = inner.state.head.and_then(|head| inner.versions.get(&head.infohash)) else {
            return Ok(BTreeMap::new());
        };
        let Some(commit) = &head.commit else { return Ok(BTreeMap::new()) };
        Ok(self.open_catalogue(&head.image, commit)?.1)
    }

    /// Seals catalogue, charter and commit behind what the tree has already sealed.
    fn seal_version(
        &self,
        inner: &mut Inner,
        (held, whole): (&Held<'_>, &Whole),
        entries: &BTreeMap<BlockNumber, Listed>,
        told: &BTreeMap<BlockNumber, Listed>,
    ) -> Result<(Image, Commit, Locator, Option<Root>), EngineError> {
        let keys = self.keys.catalogue.as_ref().ok_or(EngineError::Capability("mirror"))?;
        let draft = held.draft();
        // The draft may have been begun from a state without what the last publication appended: that is not in it.
        let below = held.snapshot()?;
        let last = inner.state.head.and_then(|head| inner.versions.get(&head.infohash));
        let stands = |place: Place| last.is_some_and(|version| same_bytes(&version.image, &below, place));
        let catalogue = self.seal_catalogue(keys, &draft, inner.catalogue, (entries, told), &stands)?;
        let previous = last.and_then(|version| version.commit.clone());
        let charter = self.seal_charter(keys, &draft, inner, previous.as_deref(), &stands)?;
        let device = self.keys.device.public();
        // What stands on commits of this device first: where not all makers fit, others' are left out.
        let mut parents: Vec<&Commit> = inner.heads.iter().map(|(_, commit)| &**commit).collect();
        parents.sort_by_key(|commit| commit.device != device);
        let vector = Commit::vector_above(parents.into_iter());
        // This device signed a later number already, which the store knows nothing of: it is an older copy of itself.
        let own = Maker { device, session: inner.state.session };
        if vector.get(&own).is_some_and(|known| known.counter >= inner.state.counter_reserved) {
            inner.state.session = SessionId(random()?);
        }
        let lamport = inner.heads.iter().map(|(_, commit)| commit.lamport).max().unwrap_or(0);
        let commit = Commit {
            catalogue: catalogue.map(|root| (RootRef { level: root.level, id: root.id }, root.place)),
            charter,
            policy_counter: inner.state.policy.counter,
            parents: inner.heads.iter().take(PARENTS_MAX).map(|(id, _)| *id).collect(),
            vector,
            lamport: lamport.max(inner.state.lamport).saturating_add(1),
            time: i64::from(now_seconds()),
            device,
            session: inner.state.session,
            counter: inner.state.counter_reserved,
            signature: crate::base::Signature([0; 64]),
        }
        .signed(&self.keys.database, &self.keys.device);
        if let Some(old) = inner.state.head
            && stands(old.commit.place)
        {
            draft.free(old.commit.place);
        }
        let mut sealed = Vec::new();
        let id = keys.seal_blob(BlobKind::Commit, &commit.encode(), &mut sealed);
        let place = draft.append(Stream::Fresh, &sealed)?;
        Ok((whole.counted(held.snapshot()?), commit, Locator { place, id }, catalogue))
    }

    /// Applies the entries to the catalogue that the head version has.
    fn seal_catalogue(
        &self,
        keys: &SealKeys,
        draft: &Arc<Draft>,
        root: Option<Root>,
        (entries, told): (&BTreeMap<BlockNumber, Listed>, &BTreeMap<BlockNumber, Listed>),
        stands: &dyn Fn(Place) -> bool,
    ) -> Result<Option<Root>, EngineError> {
        let reader = DraftSource::new(draft.clone(), Stream::Fresh);
        let map = Map::new(keys, &reader, &self.nodes);
        let (nothing, mut all_stand) = (BTreeMap::new(), true);
        if root.is_some_and(|root| !stands(root.place))
            || map.each_node(root.as_ref(), &mut |place| all_stand &= stands(place)).is_err()
        {
            all_stand = false;
        }
        let (root, told) = if all_stand { (root, told) } else { (None, &nothing) };
        let mut changes: BTreeMap<BlockNumber, Option<&Listed>> = BTreeMap::new();
        changes
            .extend(told.keys().filter(|number| !entries.contains_key(number)).map(|number| (*number, None)));
        let moved = entries.iter().filter(|(number, listed)| told.get(number) != Some(listed));
        changes.extend(moved.map(|(number, listed)| (*number, Some(listed))));
        let edits: Vec<Edit> = changes
            .into_iter()
            .map(|(number, listed)| Edit {
                key: number.0.to_be_bytes().into(),
                change: listed.map(|listed| (listed.entry.encode().into(), listed.place)),
            })
            .collect();
        let mut source = DraftSource::new(draft.clone(), Stream::Fresh);
        let root = map.apply(root, &edits, &mut source)?;
        // The catalogue is small: its nodes leave a region as soon as little else is alive in it.
        // The roots of blocks, which its entries point to, are the tree's to move.
        let roots: HashSet<Place> = entries.values().filter_map(|listed| listed.place).collect();
        let sparse = |place: Place| !roots.contains(&place) && is_sparse(draft, place);
        let mut moving = source;
        match root {
            Some(root) => Ok(Some(map.relocate(root, &sparse, &mut moving)?)),
            None => Ok(None),
        }
    }

    /// The charter's place: where the previous commit has it, or a new one.
    fn seal_charter(
        &self,
        keys: &SealKeys,
        draft: &Arc<Draft>,
        inner: &Inner,
        previous: Option<&Commit>,
        stands: &dyn Fn(Place) -> bool,
    ) -> Result<Locator, EngineError> {
        let plain = inner.state.charter.encode();
        let mut sealed = Vec::new();
        let id = keys.seal_blob(BlobKind::Charter, &plain, &mut sealed);
        if let Some(commit) = previous.filter(|commit| stands(commit.charter.place)) {
            if commit.charter.id == id && !is_sparse(draft, commit.charter.place) {
                return Ok(commit.charter);
            }
            draft.free(commit.charter.place);
        }
        Ok(Locator { place: draft.append(Stream::Fresh, &sealed)?, id })
    }

    /// Hashes what changed since the nearest version that is kept.
    fn hash_version(&self, base: Option<&Version>, image: &Image) -> Result<Metainfo, EngineError> {
        let known = match base {
            Some(version) => Some((version, self.hashes_of(version)?)),
            None => None,
        };
        let bytes = image.bytes();
        let length = match &known {
            Some((_, hashes)) => hashes.length.adapted_to(bytes),
            None => PieceLength::for_image(bytes),
        };
        let base = known.as_ref().map(|(version, hashes)| (&version.image, hashes));
        let hashes = hash_pieces(&self.store, image, length, base, &self.hashing)?;
        Ok(Metainfo { hashes })
    }

    /// The hashes of a kept version in pieces of `length`, whatever its own have.
    pub fn hashes_at(&self, version: &Version, length: PieceLength) -> Result<PieceHashes, EngineError> {
        let known = self.hashes_of(version)?;
        if known.length == length {
            return Ok(known);
        }
        Ok(hash_pieces(&self.store, &version.image, length, None, &self.hashing)?)
    }

    /// The piece hashes of a kept version: from the cache, or computed anew if the cache lost them.
    pub fn hashes_of(&self, version: &Version) -> Result<PieceHashes, EngineError> {
        let infohash = version.reference.infohash;
        if let Some(hashes) = self.cache.hashes(&infohash) {
            return Ok(hashes);
        }
        let ideal = PieceLength::for_image(version.image.bytes()).log2();
        for log2 in [ideal, ideal.saturating_sub(1), ideal + 1] {
            let Some(length) = PieceLength::from_log2(log2) else { continue };
            let hashes = hash_pieces(&self.store, &version.image, length, None, &self.hashing)?;
            let metainfo = Metainfo { hashes };
            if metainfo.infohash() == infohash {
                self.cache.remember(&infohash, &metainfo);
                return Ok(metainfo.hashes);
            }
        }
        Err(EngineError::Other(format!(
            "version {infohash} in {} does not hash to its own name: run `kilofs fsck {}`",
            self.paths.store.display(),
            self.name
        )))
    }
}

/// Whether nothing has to be told. A root in another place was carried there: what was told below it was refused.
fn same_content(one: &BTreeMap<BlockNumber, Listed>, other: &BTreeMap<BlockNumber, Listed>) -> bool {
    one.len() == other.len() && one.iter().all(|(number, listed)| other.get(number) == Some(listed))
}

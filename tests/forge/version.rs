//! Versions that no honest device makes: any entries, any commit, any bytes, in a torrent that is consistent in itself.

use super::thief::Thief;
use kilofs::base::{BlockNumber, Locator, PieceHashes, PieceIndex, PieceLength, Place, Signature};
use kilofs::crypt::seal::BlobKind;
use kilofs::daemon::core::Listed;
use kilofs::image::{Counters, Image, Stream, hash_pieces};
use kilofs::map::{Edit, Map, NodeCache, Root};
use kilofs::record::{BlockEntry, Charter, Commit, Maker, Policy, RootRef, VersionRef};
use kilofs::torrent::Metainfo;
use kilofs::tree::key::Key;
use kilofs::tree::{BlockView, DraftSource, Head, ImageSource, Owner, Timestamp, Tree, TreeOptions};
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The protected block of every test.
pub const DOCS: BlockNumber = BlockNumber(1);
/// Who owns what the thief makes.
pub const NOBODY: Owner = Owner { uid: 0, gid: 0 };

/// The newest honest version, as the thief has it.
pub struct Ground {
    pub reference: VersionRef,
    pub image: Image,
    pub commit: Arc<Commit>,
    pub catalogue: Option<Root>,
    pub entries: BTreeMap<BlockNumber, Listed>,
    pub policy: Policy,
    pub charter: Charter,
}

/// A version, ready to be served.
#[derive(Clone)]
pub struct Forged {
    pub reference: VersionRef,
    pub metainfo: Metainfo,
    pub image: Image,
    /// What its catalogue says.
    pub entries: BTreeMap<BlockNumber, Listed>,
}

impl Thief {
    /// The version that forgeries start from.
    pub fn ground(&self) -> Ground {
        let inner = self.core.inner();
        let reference = inner.state.head.unwrap();
        let version = inner.versions.get(&reference.infohash).unwrap().clone();
        let (policy, charter) = (inner.state.policy.clone(), inner.state.charter.clone());
        drop(inner);
        let commit = version.commit.unwrap();
        let (catalogue, entries) = self.core.open_catalogue(&version.image, &commit).unwrap();
        Ground { reference, image: version.image, commit, catalogue, entries, policy, charter }
    }

    /// A tree in which everything may be written, on top of the ground.
    pub fn tree(&self, ground: &Ground) -> Tree {
        let view = |(number, block): (&BlockNumber, &kilofs::record::BlockCharter)| BlockView {
            number: *number,
            path: block.path.clone(),
            keys: self.core.keys.block(*number, block).unwrap(),
            root: ground.entries.get(number).and_then(Listed::root),
            writable: true,
            private: None,
            append: false,
        };
        let options = TreeOptions {
            inode_prefix: 0x7eef,
            cache_bytes: 16 << 20,
            dirty_bytes_max: 64 << 20,
            owner: NOBODY,
            mark: Default::default(),
            clock: Timestamp::default,
        };
        let views: Vec<_> = ground.charter.blocks.iter().map(view).collect();
        Tree::load(self.core.store.clone(), ground.image.clone(), views, options).unwrap()
    }

    /// The ground with changes in any block.
    pub fn rewritten(&self, ground: &Ground, change: impl FnOnce(&Tree)) -> Head {
        let tree = self.tree(ground);
        change(&tree);
        tree.flush().unwrap()
    }

    /// An entry for a root in `head`, signed by this device.
    pub fn entry(&self, ground: &Ground, head: &Head, number: BlockNumber, counter: u64) -> Listed {
        let block = &ground.charter.blocks[&number];
        let root = head.roots[&number];
        let known = ground.entries.get(&number).and_then(Listed::root);
        let entry = BlockEntry {
            number,
            birth: block.birth,
            epoch: block.epoch,
            counter,
            parents: known.map(|root| root.id).into_iter().collect(),
            root: root.map(|root| RootRef { level: root.level, id: root.id }),
            commitment: self.core.keys.block(number, block).unwrap().commitment(),
            inode_prefix: 0x7eef,
            signer: self.core.keys.device.public(),
            signature: Signature([0; 64]),
        };
        let entry = entry.signed(&self.core.keys.database, &self.core.keys.device);
        Listed { entry, place: root.map(|root| root.place) }
    }

    /// What a block's map holds under a key.
    pub fn value(&self, ground: &Ground, number: BlockNumber, key: Key<'_>) -> Box<[u8]> {
        let keys = self.core.keys.block(number, &ground.charter.blocks[&number]).unwrap();
        let source = ImageSource::new(&self.core.store, &ground.image);
        let nodes = NodeCache::new(0);
        let root = ground.entries[&number].root();
        Map::new(&keys, &source, &nodes).get(root.as_ref(), &key.encode()).unwrap().unwrap().value
    }

    /// The counter that the next honest entry of a block would have.
    pub fn next_counter(&self, ground: &Ground, number: BlockNumber) -> u64 {
        ground.entries[&number].entry.counter + 1
    }

    /// Seals a version on top of `image`: the ground's catalogue with other entries, a commit that says anything.
    pub fn version(
        &self,
        ground: &Ground,
        image: &Image,
        change: impl FnOnce(&mut BTreeMap<BlockNumber, Listed>),
        alter: impl FnOnce(&mut Commit),
    ) -> Forged {
        let keys = self.core.keys.catalogue.as_ref().unwrap();
        let draft = Arc::new(self.core.store.draft(image).unwrap());
        let mut entries = ground.entries.clone();
        change(&mut entries);
        let gone = ground.entries.keys().filter(|number| !entries.contains_key(number));
        let mut edits: BTreeMap<u16, Option<&Listed>> = gone.map(|number| (number.0, None)).collect();
        edits.extend(entries.iter().map(|(number, listed)| (number.0, Some(listed))));
        let edits: Vec<Edit> = edits
            .into_iter()
            .map(|(number, listed)| Edit {
                key: number.to_be_bytes().into(),
                change: listed.map(|listed| (listed.entry.encode().into(), listed.place)),
            })
            .collect();
        let nodes = NodeCache::new(0);
        let reader = DraftSource::new(draft.clone(), Stream::Fresh);
        let mut sink = DraftSource::new(draft.clone(), Stream::Fresh);
        let root = Map::new(keys, &reader, &nodes).apply(ground.catalogue, &edits, &mut sink).unwrap();
        let (above, above_id) = (&ground.commit, ground.reference.commit.id);
        let vector = Commit::vector_above([&**above].into_iter());
        let own = Maker { device: self.core.keys.device.public(), session: self.session };
        let counter = vector.get(&own).map_or(0, |known| known.counter) + 1;
        let mut commit = Commit {
            catalogue: root.map(|root| (RootRef { level: root.level, id: root.id }, root.place)),
            charter: above.charter,
            policy_counter: above.policy_counter,
            parents: vec![above_id],
            vector,
            lamport: above.lamport + 1,
            time: above.time,
            device: self.core.keys.device.public(),
            session: self.session,
            counter,
            signature: Signature([0; 64]),
        };
        alter(&mut commit);
        let commit = commit.signed(&self.core.keys.database, &self.core.keys.device);
        let mut sealed = Vec::new();
        let id = keys.seal_blob(BlobKind::Commit, &commit.encode(), &mut sealed);
        let place = draft.append(Stream::Fresh, &sealed).unwrap();
        let image = draft.snapshot().unwrap();
        let length = PieceLength::for_image(image.bytes());
        let hashes = hash_pieces(&self.core.store, &image, length, None, &Counters::default()).unwrap();
        let metainfo = Metainfo { hashes };
        let commit_locator = Locator { place, id };
        let reference = VersionRef { infohash: metainfo.infohash(), commit: commit_locator };
        Forged { reference, metainfo, image, entries }
    }

    /// The version with other bytes at some places, in a torrent that vouches for them.
    pub fn garbled(&self, version: &Forged, places: &[Place]) -> Forged {
        let mut bytes = vec![0; version.image.bytes() as usize];
        self.core.store.read(&version.image, 0, &mut bytes).unwrap();
        for place in places {
            let start = place.offset as usize;
            for byte in &mut bytes[start..start + place.length as usize] {
                *byte = !*byte;
            }
        }
        self.of_bytes(version, &bytes)
    }

    /// A version whose image has these bytes.
    pub fn of_bytes(&self, version: &Forged, bytes: &[u8]) -> Forged {
        let length = PieceLength::for_image(bytes.len() as u64);
        let pieces = bytes.chunks(length.bytes() as usize);
        let hashes = pieces.clone().map(|piece| Sha1::digest(piece).into()).collect();
        let hashes = PieceHashes { length, image_bytes: bytes.len() as u64, hashes };
        let incoming = self.core.store.incoming(hashes.clone(), &[]).unwrap();
        for (index, piece) in pieces.enumerate() {
            incoming.accept(PieceIndex(index as u32), piece).unwrap();
        }
        let metainfo = Metainfo { hashes };
        let reference = VersionRef { infohash: metainfo.infohash(), ..version.reference };
        Forged { reference, metainfo, image: incoming.finish().unwrap(), ..version.clone() }
    }

    /// Where a block's nodes and chunks lie in an image.
    pub fn places(&self, ground: &Ground, image: &Image, number: BlockNumber, root: Root) -> Places {
        let keys = self.core.keys.block(number, &ground.charter.blocks[&number]).unwrap();
        let source = ImageSource::new(&self.core.store, image);
        let nodes = NodeCache::new(0);
        let map = Map::new(&keys, &source, &nodes);
        let mut places = Places::default();
        map.walk::<kilofs::map::MapError>(Some(&root), &mut |visit| {
            match visit {
                kilofs::map::Visit::Node { place, .. } => places.nodes.push(place),
                kilofs::map::Visit::Entry(entry) => places.chunks.extend(entry.place),
            }
            Ok(kilofs::map::Descend::Yes)
        })
        .unwrap();
        places
    }
}

/// Where the objects of a block lie.
#[derive(Default)]
pub struct Places {
    pub nodes: Vec<Place>,
    pub chunks: Vec<Place>,
}

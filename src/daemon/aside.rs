//! Local edits that do not come in are kept whole. What is set aside at one moment shares one kept image, in which a list
//! says what it is; where there are many images, two become one. So their number is bounded, whatever the number of blocks
//! and moments.

use super::core::{Core, Inner, now_seconds};
use super::error::EngineError;
use super::graft::graft;
use super::label::{Label, get_root, put_root};
use super::status::RefusalStatus;
use crate::base::{BlockNumber, Id, Locator, Malformed, Reader, Writer};
use crate::crypt::LocalKind;
use crate::image::{Draft, Image, Kept, Stream};
use crate::map::Root;
use crate::record::{BLOCKS_MAX, CHARTER_BYTES_MAX, Charter, Members};
use crate::tree::{BlockView, ImageSource, ReadTree};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Beyond so many images two are made one.
const IMAGES_MAX: usize = 8;
const FORMAT: u8 = 1;
/// Moments in one image that are read at most: far more than there are days in a life.
const MOMENTS_MAX: usize = 1 << 16;

/// Edits of one block that do not come in, kept whole.
#[derive(Clone)]
pub struct SetAside {
    /// The block.
    pub block: BlockNumber,
    /// The root of its map with the edits.
    pub root: Option<Root>,
    /// When, in seconds since 1970.
    pub time: u32,
    /// The image that the root lies in.
    pub image: Image,
    /// What was fixed about the block then: it may be gone since, or its number be another's. Unknown where no list
    /// tells it.
    charter: Option<Arc<Charter>>,
    /// The last list in the image.
    list: Option<Locator>,
}

/// Blocks with the roots of their maps.
pub(super) type Lost = Vec<(BlockNumber, Option<Root>)>;

/// What is set aside, and told of it, before an attempt that may come to nothing.
pub(super) struct Before(Vec<SetAside>, std::collections::BTreeSet<RefusalStatus>);

impl SetAside {
    /// One that stands in the store without a list.
    pub(super) fn unlisted(block: BlockNumber, root: Option<Root>, time: u32, image: Image) -> SetAside {
        SetAside { block, root, time, image, charter: None, list: None }
    }

    /// What it is called under `.kilofs/refused`: of several of one block the newest bears its number, and the older ones
    /// are counted from the first.
    pub fn names(all: &[SetAside]) -> Vec<String> {
        let name = |(at, aside): (usize, &SetAside)| {
            let same = |other: &&SetAside| other.block == aside.block;
            let (before, after) =
                (all[..at].iter().filter(same).count(), all[at + 1..].iter().any(|o| same(&o)));
            if after { format!("{}.{}", aside.block, before + 1) } else { aside.block.to_string() }
        };
        all.iter().enumerate().map(name).collect()
    }

    /// What was fixed about the block then, where that is known.
    pub(super) fn charter(&self) -> Option<&Charter> {
        self.charter.as_deref()
    }

    /// Whether it is this state of the same block.
    fn is(&self, charter: &Charter, root: Option<Root>) -> bool {
        let birth = |charter: &Charter| charter.blocks.get(&self.block).map(|block| block.birth);
        let id = |root: Option<Root>| root.map(|root| root.id);
        self.charter.as_deref().is_some_and(|own| birth(own) == birth(charter)) && id(self.root) == id(root)
    }

    fn shares(&self, other: &SetAside) -> bool {
        self.list.is_some() && self.list == other.list && self.image.same(&other.image)
    }

    /// As the store is to keep all of them.
    pub(super) fn kept(all: &[SetAside]) -> Vec<Kept> {
        let groups = all.chunk_by(|one, other| one.shares(other));
        let label = |aside: &SetAside| match aside.list {
            Some(list) => Label::SetAsideList { list },
            None => Label::SetAside { block: aside.block, root: aside.root, time: aside.time },
        };
        let kept = |aside: &SetAside| Kept {
            label: crate::image::Label(label(aside).encode()),
            image: aside.image.clone(),
        };
        groups.map(|group| kept(&group[0])).collect()
    }
}

impl Inner {
    /// To come back to with [`Inner::forget_since`].
    pub(super) fn aside_before(&self) -> Before {
        Before(self.set_aside.clone(), self.state.refusals.clone())
    }

    /// Nothing was set aside since.
    pub(super) fn forget_since(&mut self, before: Before) {
        (self.set_aside, self.state.refusals) = (before.0, before.1);
    }
}

impl Core {
    /// Keeps states of this device's that do not come in, all in one image, and says why.
    pub(super) fn set_aside(
        &self,
        inner: &mut Inner,
        charter: &Charter,
        image: &Image,
        lost: Lost,
        why: &str,
    ) -> Result<(), EngineError> {
        let known = |(block, root): &(BlockNumber, Option<Root>)| {
            let last = inner.set_aside.iter().rev().find(|aside| aside.block == *block);
            last.is_some_and(|last| last.is(charter, *root))
        };
        let lost: Lost = lost.into_iter().filter(|lost| !known(lost)).collect();
        if lost.is_empty() {
            return Ok(());
        }
        self.make_room(inner);
        let draft = Arc::new(self.store.draft(image)?);
        let charter = Arc::new(about(charter, lost.iter().map(|(block, _)| *block)));
        let time = now_seconds();
        let list = self.write_list(&draft, None, (time, &charter), &lost)?;
        let image = draft.snapshot()?;
        for (block, _) in &lost {
            let path =
                charter.blocks.get(block).map(|block| String::from_utf8_lossy(&block.path).into_owned());
            tracing::warn!("what was edited here is set aside under .kilofs/refused/{block}: {why}");
            inner.state.refusals.insert(RefusalStatus {
                block: block.0,
                path: format!("/{}", path.unwrap_or_default()),
                kind: "local".into(),
                signer: None,
                reason: format!("{why}; its edits are under .kilofs/refused/{block}"),
            });
        }
        inner.set_aside.extend(lost.into_iter().map(|(block, root)| SetAside {
            block,
            root,
            time,
            image: image.clone(),
            charter: Some(charter.clone()),
            list: Some(list),
        }));
        Ok(())
    }

    fn write_list(
        &self,
        draft: &Draft,
        before: Option<Locator>,
        (time, charter): (u32, &Charter),
        lost: &[(BlockNumber, Option<Root>)],
    ) -> Result<Locator, EngineError> {
        let mut writer = Writer::new();
        writer.u8(FORMAT).u8(u8::from(before.is_some()));
        before.iter().for_each(|before| _ = writer.locator(before));
        writer.u32(time).bytes(&charter.encode()).varint(lost.len() as u64);
        for (block, root) in lost {
            writer.u16(block.0);
            put_root(&mut writer, root.as_ref());
        }
        let sealed = self.keys.local.seal_local(LocalKind::SetAside, &writer.0);
        let place = draft.append(Stream::Fresh, &sealed)?;
        Ok(Locator { place, id: Id(*blake3::hash(&sealed).as_bytes()) })
    }

    /// What the lists of an image tell, the oldest first.
    pub(super) fn read_lists(&self, image: &Image, list: Locator) -> Result<Vec<SetAside>, EngineError> {
        let mut moments = Vec::new();
        let mut next = Some(list);
        while let Some(at) = next {
            let sealed = ImageSource::new(&self.store, image).bytes(at.place)?;
            let told = self.keys.local.open_local(LocalKind::SetAside, &sealed).map_err(|_| Malformed);
            let told = told
                .and_then(|plain| read_list(&plain))
                .ok()
                .filter(|_| at.id.0 == *blake3::hash(&sealed).as_bytes() && moments.len() < MOMENTS_MAX);
            let (before, time, charter, lost) =
                told.ok_or_else(|| EngineError::Other("a list of what was set aside does not open".into()))?;
            next = before;
            let charter = Some(Arc::new(charter));
            let aside = |(block, root)| SetAside {
                block,
                root,
                time,
                image: image.clone(),
                charter: charter.clone(),
                list: Some(list),
            };
            moments.push(lost.into_iter().map(aside).collect::<Vec<_>>());
        }
        Ok(moments.into_iter().rev().flatten().collect())
    }

    /// Makes two images one while there are too many. What cannot be moved, since parts of it are not here, stays.
    fn make_room(&self, inner: &mut Inner) {
        loop {
            let groups: Vec<Vec<SetAside>> =
                inner.set_aside.chunk_by(|one, other| one.shares(other)).map(<[SetAside]>::to_vec).collect();
            if groups.len() < IMAGES_MAX {
                return;
            }
            let folded = groups.windows(2).enumerate().find_map(|(at, pair)| {
                let folded = self.fold(&inner.state.charter, &pair[0], &pair[1]);
                folded
                    .inspect_err(|error| tracing::debug!(%error, "what is set aside stays in two images"))
                    .ok()
                    .map(|folded| (at, folded))
            });
            let Some((at, folded)) = folded else { return };
            let others = |range: std::ops::Range<usize>| groups[range].concat();
            inner.set_aside = [others(0..at), folded, others(at + 2..groups.len())].concat();
        }
    }

    /// Carries what is set aside in a second image into a first one.
    fn fold(
        &self,
        present: &Charter,
        first: &[SetAside],
        second: &[SetAside],
    ) -> Result<Vec<SetAside>, EngineError> {
        let ground = &first[0].image;
        // What is alive in it is not known: nothing of it may be written over.
        let filled = ground.iter().map(|(index, region)| (index, region.fill)).collect();
        let draft = Arc::new(self.store.draft(&ground.with_live(&filled))?);
        let unknown = || EngineError::Other("it is not known any more what the block was".into());
        let mut all = first.to_vec();
        for aside in second {
            let charter = aside.charter.as_deref().unwrap_or(present);
            let block = charter.blocks.get(&aside.block).ok_or_else(unknown)?;
            let keys = self.keys.block(aside.block, block).ok_or_else(unknown)?;
            let carried = |root| graft(&self.store, &keys, self.tree_nodes(), &aside.image, root, &draft);
            all.push(SetAside { root: aside.root.map(carried).transpose()?, ..aside.clone() });
        }
        let mut list = None;
        for moment in all.chunk_by_mut(|one, other| one.charter == other.charter && one.time == other.time) {
            let charter = match &moment[0].charter {
                Some(charter) => charter.clone(),
                None if moment.iter().all(|aside| present.blocks.contains_key(&aside.block)) => {
                    Arc::new(about(present, moment.iter().map(|aside| aside.block)))
                }
                None => return Err(unknown()),
            };
            let lost: Lost = moment.iter().map(|aside| (aside.block, aside.root)).collect();
            list = Some(self.write_list(&draft, list, (moment[0].time, &charter), &lost)?);
            moment.iter_mut().for_each(|aside| aside.charter = Some(charter.clone()));
        }
        let image = draft.snapshot()?;
        all.iter_mut().for_each(|aside| (aside.image, aside.list) = (image.clone(), list));
        Ok(all)
    }

    /// The tree of edits that were set aside.
    pub(super) fn set_aside_tree(&self, aside: &SetAside) -> Result<Arc<dyn ReadTree>, EngineError> {
        let (policy, present) = {
            let inner = self.inner();
            (inner.state.policy.clone(), inner.state.charter.clone())
        };
        let charter = aside.charter.as_deref().unwrap_or(&present);
        let roots = BTreeMap::from([(aside.block, aside.root)]);
        let own = |view: &BlockView| view.number == aside.block || view.number == BlockNumber::ROOT;
        let views: Vec<_> = self.views(&policy, charter, &roots).open.into_iter().filter(own).collect();
        Ok(self.tree()?.snapshot(&aside.image, views)?)
    }
}

/// What a charter says of some blocks, and of the root.
fn about(charter: &Charter, blocks: impl Iterator<Item = BlockNumber>) -> Charter {
    let blocks = blocks.chain([BlockNumber::ROOT]);
    let blocks = blocks.filter_map(|number| Some((number, charter.blocks.get(&number)?.clone())));
    Charter { blocks: blocks.collect(), members: Members::Open }
}

type Told = (Option<Locator>, u32, Charter, Lost);

fn read_list(plain: &[u8]) -> Result<Told, Malformed> {
    let mut reader = Reader::new(plain);
    if reader.u8()? != FORMAT {
        return Err(Malformed);
    }
    let before = match reader.u8()? {
        0 => None,
        1 => Some(reader.locator()?),
        _ => return Err(Malformed),
    };
    let time = reader.u32()?;
    let charter = Charter::decode(reader.bytes(CHARTER_BYTES_MAX)?).map_err(|_| Malformed)?;
    let count = reader.bounded(BLOCKS_MAX)?;
    let lost = (0..count).map(|_| Ok((BlockNumber(reader.u16()?), get_root(&mut reader)?)));
    let lost = lost.collect::<Result<_, Malformed>>()?;
    reader.end()?;
    Ok((before, time, charter, lost))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::base::Inode;
    use crate::crypt::keyring::Keyring;
    use crate::crypt::recovery::RecoveryRoot;
    use crate::daemon::config::Options;
    use crate::daemon::genesis::initialise;
    use crate::daemon::home::{Home, Name};
    use crate::tree::{NodeKind, Owner};

    const MOMENTS: usize = 30;
    const ROOT: BlockNumber = BlockNumber::ROOT;
    const NOBODY: Owner = Owner { uid: 7, gid: 7 };

    fn content(moment: usize) -> Vec<u8> {
        // Enough that regions come and go.
        (0..200_000_u32).map(|at| (at % 251) as u8 ^ moment as u8).collect()
    }

    fn open(home: &Home, keyring: &Keyring) -> Core {
        let name = Name::new("shared").unwrap();
        let paths = home.database(&name);
        let kind = keyring.capability.kind();
        Core::open(name, paths, keyring.clone(), kind, Options::default().settle(), false).unwrap()
    }

    /// Many times all that a block held is set aside and taken away: the images stay few, and after a restart each state
    /// is there by its name, byte for byte.
    #[test]
    fn what_was_set_aside_at_many_moments_stays_in_few_images() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let paths = home.prepare(&Name::new("shared").unwrap()).unwrap();
        let keyring = Keyring::new(RecoveryRoot::generate().create(), "shared");
        initialise(&paths, &keyring).unwrap();
        let core = open(&home, &keyring);
        let tree = core.tree().unwrap().clone();
        for moment in 0..MOMENTS {
            let name = format!("made-{moment}").into_bytes();
            let made = tree.make_node(ROOT.root_inode(), &name, NodeKind::File, 0o644, NOBODY).unwrap();
            tree.write(made.inode, 0, &content(moment)).unwrap();
            if moment > 0 {
                tree.unlink(ROOT.root_inode(), format!("made-{}", moment - 1).as_bytes()).unwrap();
            }
            core.commit().unwrap();
            let head = tree.flush().unwrap();
            let mut inner = core.inner();
            let charter = inner.state.charter.clone();
            let lost = vec![(ROOT, head.roots[&ROOT])];
            core.set_aside(&mut inner, &charter, &head.image, lost.clone(), "a test").unwrap();
            core.set_aside(&mut inner, &charter, &head.image, lost, "the same again").unwrap();
            core.save(&inner).unwrap();
            assert!(SetAside::kept(&inner.set_aside).len() <= IMAGES_MAX, "at {moment}");
        }
        drop((tree, core));
        let core = open(&home, &keyring);
        let all = core.inner().set_aside.clone();
        assert_eq!(all.len(), MOMENTS, "what is the same is kept once");
        let names: Vec<_> = (1..MOMENTS).map(|number| format!("0.{number}")).chain(["0".into()]).collect();
        assert_eq!(SetAside::names(&all), names);
        for (moment, aside) in all.iter().enumerate() {
            let tree = core.set_aside_tree(aside).unwrap();
            let found = tree.lookup(Inode(1), format!("made-{moment}").as_bytes()).unwrap();
            assert_eq!(tree.read(found.inode, 0, 1 << 20).unwrap(), content(moment));
            assert!(moment == 0 || tree.lookup(Inode(1), format!("made-{}", moment - 1).as_bytes()).is_err());
        }
    }

    #[test]
    fn a_list_that_is_cut_short_is_none() {
        let mut charter = crate::record::genesis_charter(&crate::base::DatabaseId([1; 32]));
        charter.members = Members::Listed(Default::default());
        let mut writer = Writer::new();
        writer.u8(FORMAT).u8(0).u32(9).bytes(&about(&charter, [ROOT].into_iter()).encode()).varint(1).u16(0);
        put_root(&mut writer, None);
        let (before, time, told, lost) = read_list(&writer.0).unwrap();
        assert_eq!((before, time, told.members, lost), (None, 9, Members::Open, vec![(ROOT, None)]));
        for cut in 0..writer.0.len() {
            assert!(read_list(&writer.0[..cut]).is_err(), "cut at {cut}");
        }
        writer.u8(0);
        assert!(read_list(&writer.0).is_err());
    }
}

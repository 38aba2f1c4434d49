//! Pieces ↔ slots: what `librqbit` reads and writes, served from an image or from a version being fetched.
//!
//! `librqbit` writes bytes before it has checked their piece, and uploads without checking. So arriving bytes are
//! staged in memory and reach the version being fetched only as whole pieces that hash to what they must; and what is
//! uploaded comes from images, whose bytes never change.

use crate::base::{PieceIndex, PieceLength};
use crate::image::{Image, Incoming, Store, StoreError};
use crate::torrent::Metainfo;
use anyhow::{Context, ensure};
use librqbit::storage::filesystem::FilesystemStorageFactory;
use librqbit::storage::{BoxStorageFactory, StorageFactory, StorageFactoryExt, TorrentStorage};
use librqbit::{ManagedTorrentShared, TorrentMetadata};
use librqbit_core::lengths::ValidPieceIndex;
use parking_lot::{Mutex, RwLock};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Bytes of unfinished pieces that one torrent may hold in memory; beyond it the one longest untouched is dropped and
/// fetched again. More than the pieces that a full set of peers works on at once.
const STAGED_BYTES_MAX: usize = 256 << 20;

/// Where a torrent's bytes come from.
pub(super) enum Content {
    /// A whole version.
    Image(Arc<Store>, Image),
    /// A version being fetched.
    Incoming(Arc<Incoming>),
    /// A few bytes.
    Fixed(Vec<u8>),
}

/// How far a fetch is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Progress {
    /// Pieces accepted since the torrent was added.
    pub(super) pieces: u64,
    /// Nothing is missing.
    pub(super) complete: bool,
    /// A piece could not be stored; see [`Served::take_failure`].
    pub(super) failed: bool,
}

/// The bytes of one torrent.
pub(super) struct Served {
    length: PieceLength,
    image_bytes: u64,
    content: RwLock<Content>,
    staging: Mutex<Staging>,
    progress: watch::Sender<Progress>,
    failure: Mutex<Option<StoreError>>,
}

impl Served {
    pub(super) fn new(metainfo: &Metainfo, content: Content) -> Arc<Served> {
        let complete = match &content {
            Content::Image(store, image) => store.is_whole(image),
            Content::Incoming(incoming) => incoming.complete(),
            Content::Fixed(_) => true,
        };
        Served::of(metainfo.hashes.length, metainfo.hashes.image_bytes, complete, content)
    }

    /// A few bytes that are all there, in pieces of the shortest length.
    pub(super) fn fixed(bytes: Vec<u8>) -> Arc<Served> {
        Served::of(PieceLength::MIN, bytes.len() as u64, true, Content::Fixed(bytes))
    }

    fn of(length: PieceLength, image_bytes: u64, complete: bool, content: Content) -> Arc<Served> {
        Arc::new(Served {
            length,
            image_bytes,
            content: RwLock::new(content),
            staging: Mutex::default(),
            progress: watch::Sender::new(Progress { complete, ..Progress::default() }),
            failure: Mutex::default(),
        })
    }

    /// Serves the same bytes from another place.
    pub(super) fn replace(&self, content: Content) {
        *self.content.write() = content;
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(super) fn take_failure(&self) -> Option<StoreError> {
        self.failure.lock().take()
    }

    /// A factory for `librqbit` that hands out storages over these bytes.
    pub(super) fn factory(self: &Arc<Served>) -> BoxStorageFactory {
        Factory(self.clone()).boxed()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> anyhow::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).context("the offset overflows")?;
        ensure!(end <= self.image_bytes, "a read beyond the image");
        let (piece, within) = self.locate(offset);
        if let Some(staged) = self.staging.lock().pieces.get(&piece)
            && let Some(bytes) = staged.bytes.get(within..within + buffer.len())
        {
            buffer.copy_from_slice(bytes);
            return Ok(());
        }
        match &*self.content.read() {
            Content::Image(store, image) => store.read(image, offset, buffer)?,
            Content::Incoming(incoming) => incoming.read(offset, buffer)?,
            Content::Fixed(bytes) => {
                let start = usize::try_from(offset)?;
                let run = bytes.get(start..start + buffer.len()).context("a read beyond the bytes")?;
                buffer.copy_from_slice(run);
            }
        }
        Ok(())
    }

    fn stage(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let (piece, within) = self.locate(offset);
        let length =
            self.length.bytes().min(self.image_bytes.saturating_sub(self.length.start_of(piece))) as usize;
        ensure!(within + bytes.len() <= length, "a write beyond its piece");
        self.staging.lock().write(piece, length, within, bytes);
        Ok(())
    }

    fn promote(&self, piece: PieceIndex) {
        let Some(staged) = self.staging.lock().pieces.get(&piece).map(|staged| staged.bytes.clone()) else {
            return;
        };
        let Content::Incoming(incoming) = &*self.content.read() else { return };
        match incoming.accept(piece, &staged) {
            Ok(complete) => self.progress.send_modify(|progress| {
                progress.pieces += 1;
                progress.complete = complete;
            }),
            Err(error) => {
                self.failure.lock().get_or_insert(error);
                self.progress.send_modify(|progress| progress.failed = true);
            }
        }
        // Only now: until it is accepted, the piece can be read from here alone.
        self.staging.lock().remove(piece);
    }

    fn locate(&self, offset: u64) -> (PieceIndex, usize) {
        let piece = PieceIndex(u32::try_from(offset >> self.length.log2()).unwrap_or(u32::MAX));
        (piece, (offset - self.length.start_of(piece).min(offset)) as usize)
    }
}

/// Pieces that are arriving.
#[derive(Default)]
struct Staging {
    pieces: BTreeMap<PieceIndex, Staged>,
    bytes: usize,
    writes: u64,
}

struct Staged {
    bytes: Arc<Vec<u8>>,
    written: u64,
}

impl Staging {
    fn write(&mut self, piece: PieceIndex, length: usize, within: usize, bytes: &[u8]) {
        if !self.pieces.contains_key(&piece) {
            while self.bytes + length > STAGED_BYTES_MAX && self.drop_oldest() {}
            self.bytes += length;
        }
        self.writes += 1;
        let fresh = || Staged { bytes: Arc::new(vec![0; length]), written: 0 };
        let staged = self.pieces.entry(piece).or_insert_with(fresh);
        staged.written = self.writes;
        Arc::make_mut(&mut staged.bytes)[within..within + bytes.len()].copy_from_slice(bytes);
    }

    fn remove(&mut self, piece: PieceIndex) {
        if let Some(staged) = self.pieces.remove(&piece) {
            self.bytes -= staged.bytes.len();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.pieces.iter().min_by_key(|(_, staged)| staged.written).map(|(piece, _)| *piece);
        oldest.inspect(|piece| self.remove(*piece)).is_some()
    }
}

#[derive(Clone)]
struct Factory(Arc<Served>);

impl StorageFactory for Factory {
    type Storage = Access;

    fn create(&self, _: &ManagedTorrentShared, _: &TorrentMetadata) -> anyhow::Result<Access> {
        Ok(Access(RwLock::new(Some(self.0.clone()))))
    }

    /// Answers for the file storage: `librqbit` takes a known bitfield only for that one.
    fn is_type_id(&self, id: TypeId) -> bool {
        id == TypeId::of::<FilesystemStorageFactory>()
    }

    fn clone_box(&self) -> BoxStorageFactory {
        self.clone().boxed()
    }
}

/// What one life of a torrent in the session holds; empty once the next life has taken over.
struct Access(RwLock<Option<Arc<Served>>>);

impl Access {
    fn served(&self) -> anyhow::Result<Arc<Served>> {
        self.0.read().clone().context("the torrent has been removed")
    }
}

impl TorrentStorage for Access {
    fn init(&mut self, _: &ManagedTorrentShared, _: &TorrentMetadata) -> anyhow::Result<()> {
        Ok(())
    }

    fn pread_exact(&self, _: usize, offset: u64, buffer: &mut [u8]) -> anyhow::Result<()> {
        self.served()?.read(offset, buffer)
    }

    fn pwrite_all(&self, _: usize, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.served()?.stage(offset, bytes)
    }

    fn remove_file(&self, _: usize, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    fn remove_directory_if_empty(&self, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    fn ensure_file_length(&self, _: usize, _: u64) -> anyhow::Result<()> {
        Ok(())
    }

    fn take(&self) -> anyhow::Result<Box<dyn TorrentStorage>> {
        Ok(Box::new(Access(RwLock::new(self.0.write().take()))))
    }

    fn on_piece_completed(&self, piece: ValidPieceIndex) -> anyhow::Result<()> {
        self.served()?.promote(PieceIndex(piece.get()));
        Ok(())
    }
}

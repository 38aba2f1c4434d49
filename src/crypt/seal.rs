//! Sealing of a block's objects: chunks of files, nodes of maps, and blobs (commit, charter).
//!
//! Deterministic authenticated encryption in the manner of SIV: id and nonce are keyed hashes of everything that goes
//! in, so no random source is needed, whichever of several writers seals, and an untouched object keeps its bytes. An
//! object's id covers its logical content; a node's placements are authenticated beside it and may change without it.

use super::cipher::{Cipher, NONCE_BYTES, Nonce, TAG_BYTES};
use super::locked::Locked;
use super::secret::{Context, Secret};
use crate::base::{Birth, BlockNumber, DatabaseId, Id};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How much longer a sealed node is than its two sections: nonce, length of the logical section, tag.
pub const NODE_OVERHEAD: usize = NONCE_BYTES + LENGTH_BYTES + TAG_BYTES;
/// How much longer a sealed blob is than its plaintext: nonce and tag.
pub const BLOB_OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;

const LENGTH_BYTES: usize = 4;
const FORMAT: u8 = 1;
const CHUNK: u8 = 1;
const NODE: u8 = 2;

/// What did not open: wrong key, wrong place, wrong content or damage. It does not say which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed bytes do not open")]
pub struct Tampered;

/// Where an object belongs: part of the associated data of everything sealed there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// The database.
    pub database: DatabaseId,
    /// The block, or [`BlockNumber::CATALOGUE`].
    pub block: BlockNumber,
    /// The incarnation of the block's key.
    pub epoch: u32,
}

/// An object that is neither chunk nor node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlobKind {
    /// The root of a version.
    Commit = 3,
    /// What the admin fixed.
    Charter = 4,
    /// Where the content of a private block begins.
    Veil = 5,
}

/// A sealed thing that never leaves its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalKind {
    /// The device's own state, inside the store.
    State = 1,
    /// What an image keeps that was set aside.
    SetAside = 2,
    /// What its admin changed, in a file beside the keyring.
    Changes = 3,
}

/// A node's two sections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenNode {
    /// Keys, values, ids of children: what the node's id covers.
    pub logical: Vec<u8>,
    /// Where the children lie: authenticated, outside the id.
    pub placements: Vec<u8>,
}

/// The key of a block that every reader of the database can open: what its [`SealKeys`] are made from.
pub(super) fn block_key(
    read_secret: &Secret,
    database: DatabaseId,
    block: BlockNumber,
    birth: &Birth,
    epoch: u32,
) -> Secret {
    let parts = [&database.0[..], &block.0.to_le_bytes(), &birth.0, &epoch.to_le_bytes()];
    read_secret.derive(Context::Block, &parts)
}

/// The keys of one block. Cheap to clone.
#[derive(Clone)]
pub struct SealKeys(Arc<Locked<Keys>>);

struct Keys {
    scope: Scope,
    cipher: Cipher,
    nonce: Secret,
    id: Secret,
    boundary: Zeroizing<[u8; 16]>,
    commitment: Id,
    /// Those of earlier epochs, the latest first: they open what was sealed then, and seal nothing new.
    older: Vec<SealKeys>,
}

impl SealKeys {
    /// Keys of a block whose own key is `block_key`.
    pub fn new(block_key: &Secret, scope: Scope) -> SealKeys {
        SealKeys::after(block_key, scope, Vec::new())
    }

    /// Keys of a block that had others before. Where nodes end is decided as it was at first, or a map of several epochs would
    /// have no one form.
    fn after(block_key: &Secret, scope: Scope, older: Vec<SealKeys>) -> SealKeys {
        let key = |context| block_key.derive(context, &[]);
        let mut boundary = Zeroizing::new([0; 16]);
        match older.last() {
            Some(first) => *boundary = *first.boundary_key(),
            None => boundary.copy_from_slice(&key(Context::BlockBoundary).expose()[..16]),
        }
        let place = [&scope.database.0[..], &scope.block.0.to_le_bytes(), &scope.epoch.to_le_bytes()];
        SealKeys(Arc::new(Locked::new(Keys {
            scope,
            cipher: Cipher::new(&key(Context::BlockEncryption)),
            nonce: key(Context::BlockNonce),
            id: key(Context::BlockId),
            boundary,
            commitment: Id(*block_key.derive(Context::BlockCommitment, &place).expose()),
            older,
        })))
    }

    /// Keys of a block that every reader of the database can open.
    pub fn for_block(
        read_secret: &Secret,
        database: DatabaseId,
        block: BlockNumber,
        birth: &Birth,
        epoch: u32,
    ) -> SealKeys {
        SealKeys::new(
            &block_key(read_secret, database, block, birth, epoch),
            Scope { database, block, epoch },
        )
    }

    /// Keys of a block under the last of these secrets, which open what was sealed under the ones before it. The number of a
    /// secret is the epoch that it seals. None without any.
    pub fn of_generations(
        read_secrets: &[Secret],
        database: DatabaseId,
        block: BlockNumber,
        birth: &Birth,
    ) -> Option<SealKeys> {
        let key = |(epoch, secret)| block_key(secret, database, block, birth, epoch);
        let keys: Vec<Secret> = (0..).zip(read_secrets).map(key).collect();
        SealKeys::of_epochs(&keys, database, block)
    }

    /// Keys of a block of which these are the keys of all epochs, the first one first. None without any.
    pub(super) fn of_epochs(keys: &[Secret], database: DatabaseId, block: BlockNumber) -> Option<SealKeys> {
        let (last, before) = keys.split_last()?;
        let scope = |epoch| Scope { database, block, epoch };
        let older = (0..).zip(before).map(|(epoch, key)| SealKeys::new(key, scope(epoch)));
        let mut older: Vec<SealKeys> = older.collect();
        older.reverse();
        Some(SealKeys::after(last, scope(u32::try_from(before.len()).ok()?), older))
    }

    /// Keys of what is inside a private block, whose own keys these are, the first epoch's first. None without any.
    pub(super) fn of_private(
        keys: &[Secret],
        database: DatabaseId,
        block: BlockNumber,
        birth: &Birth,
    ) -> Option<SealKeys> {
        let mut made: Vec<SealKeys> = Vec::new();
        for (epoch, key) in (0..).zip(keys) {
            let parts = [&database.0[..], &block.0.to_le_bytes(), &birth.0, &u32::to_le_bytes(epoch)];
            let key = key.derive(Context::Private, &parts);
            let older = made.iter().rev().cloned().collect();
            made.push(SealKeys::after(&key, Scope { database, block, epoch }, older));
        }
        made.pop()
    }

    /// Keys of catalogue, charter and commits.
    pub fn catalogue(read_secret: &Secret, database: DatabaseId) -> SealKeys {
        SealKeys::for_block(read_secret, database, BlockNumber::CATALOGUE, &Birth([0; 16]), 0)
    }

    /// The same under the last of several secrets.
    pub fn catalogue_of(read_secrets: &[Secret], database: DatabaseId) -> Option<SealKeys> {
        SealKeys::of_generations(read_secrets, database, BlockNumber::CATALOGUE, &Birth([0; 16]))
    }

    /// These keys, then those of earlier epochs.
    fn epochs(&self) -> impl Iterator<Item = &SealKeys> {
        std::iter::once(self).chain(&self.0.older)
    }

    /// Decides where a map's nodes end (SipHash-2-4).
    pub fn boundary_key(&self) -> &[u8; 16] {
        &self.0.boundary
    }

    /// Tells that two hold the same key, and nothing about it. A block's entry signs it, because a tag alone does not
    /// bind its key.
    pub fn commitment(&self) -> Id {
        self.0.commitment
    }

    /// The id of a file's chunk.
    pub fn chunk_id(&self, data_id: u64, index: u64, plain: &[u8]) -> Id {
        let header = self.header(CHUNK, 0, [data_id, index], plain.len());
        self.id(&header, plain)
    }

    /// Appends a file's chunk, encrypted to its own length, so that regions hold a whole number of chunks. It needs no tag:
    /// its nonce is the beginning of its id, and the id, which the map holds, is a keyed hash over all that goes in.
    pub fn seal_chunk(&self, data_id: u64, index: u64, plain: &[u8], out: &mut Vec<u8>) -> Id {
        let header = self.header(CHUNK, 0, [data_id, index], plain.len());
        let id = self.id(&header, plain);
        let start = out.len();
        out.extend_from_slice(plain);
        self.0.cipher.mask(&nonce_of(&id.0), &mut out[start..]);
        id
    }

    /// Opens a file's chunk: the id must agree.
    pub fn open_chunk(&self, data_id: u64, index: u64, id: &Id, sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
        self.open_chunk_in_place(data_id, index, id, sealed.to_vec())
    }

    /// Opens a file's chunk in the vector that its sealed bytes came in.
    pub fn open_chunk_in_place(
        &self,
        data_id: u64,
        index: u64,
        id: &Id,
        mut sealed: Vec<u8>,
    ) -> Result<Vec<u8>, Tampered> {
        self.open_chunk_where_it_lies(data_id, index, id, &mut sealed)?;
        Ok(sealed)
    }

    /// Opens a file's chunk in the bytes where it lies. On an error they are zeros: nothing is shown that was not checked.
    pub fn open_chunk_where_it_lies(
        &self,
        data_id: u64,
        index: u64,
        id: &Id,
        sealed: &mut [u8],
    ) -> Result<(), Tampered> {
        for keys in self.epochs() {
            let header = keys.header(CHUNK, 0, [data_id, index], sealed.len());
            keys.0.cipher.mask(&nonce_of(&id.0), sealed);
            if keys.id(&header, sealed) == *id {
                return Ok(());
            }
            // Twice masked is as it was.
            keys.0.cipher.mask(&nonce_of(&id.0), sealed);
        }
        sealed.fill(0);
        Err(Tampered)
    }

    /// The id of a map's node.
    pub fn node_id(&self, level: u8, logical: &[u8]) -> Id {
        let header = self.header(NODE, level, [0, 0], logical.len());
        self.id(&header, logical)
    }

    /// Appends nonce ‖ ciphertext ‖ tag of a map's node.
    pub fn seal_node(&self, level: u8, logical: &[u8], placements: &[u8], out: &mut Vec<u8>) -> Id {
        let header = self.header(NODE, level, [0, 0], logical.len());
        let length = u32::try_from(logical.len()).expect("a node is far below 4 GiB").to_le_bytes();
        let nonce = self.nonce(&header, &[logical, placements]);
        self.0.cipher.seal_with_nonce(&nonce, header.associated(), &[&length, logical, placements], out);
        self.id(&header, logical)
    }

    /// Appends a node of this id with other placements, under the key of the epoch that it has its id from: what is moved is
    /// not new.
    pub fn reseal_node(
        &self,
        id: &Id,
        level: u8,
        logical: &[u8],
        placements: &[u8],
        out: &mut Vec<u8>,
    ) -> Id {
        let keys = self.epochs().find(|keys| keys.node_id(level, logical) == *id);
        keys.unwrap_or(self).seal_node(level, logical, placements, out)
    }

    /// Opens a map's node: tag, id and nonce must agree. The nonce names the placements too: whoever holds the keys and
    /// used it for others would show devices with a warm cache something else than those without.
    pub fn open_node(&self, level: u8, id: &Id, sealed: &[u8]) -> Result<OpenNode, Tampered> {
        self.epochs().find_map(|keys| keys.open_own_node(level, id, sealed).ok()).ok_or(Tampered)
    }

    fn open_own_node(&self, level: u8, id: &Id, sealed: &[u8]) -> Result<OpenNode, Tampered> {
        let header = self.header(NODE, level, [0, 0], 0);
        let mut plain = self.0.cipher.open_with_nonce(header.associated(), sealed).ok_or(Tampered)?;
        let length = *plain.first_chunk::<LENGTH_BYTES>().ok_or(Tampered)?;
        let end = LENGTH_BYTES.checked_add(u32::from_le_bytes(length) as usize).ok_or(Tampered)?;
        if end > plain.len() {
            return Err(Tampered);
        }
        let placements = plain.split_off(end);
        plain.drain(..LENGTH_BYTES);
        let header = self.header(NODE, level, [0, 0], plain.len());
        let nonce = self.nonce(&header, &[&plain, &placements]);
        let opens = self.id(&header, &plain) == *id && sealed.starts_with(&nonce);
        if opens { Ok(OpenNode { logical: plain, placements }) } else { Err(Tampered) }
    }

    /// The id of a blob.
    pub fn blob_id(&self, kind: BlobKind, plain: &[u8]) -> Id {
        let header = self.header(kind as u8, 0, [0, 0], plain.len());
        self.id(&header, plain)
    }

    /// Appends nonce ‖ ciphertext ‖ tag of a blob.
    pub fn seal_blob(&self, kind: BlobKind, plain: &[u8], out: &mut Vec<u8>) -> Id {
        let header = self.header(kind as u8, 0, [0, 0], plain.len());
        let nonce = self.nonce(&header, &[plain]);
        self.0.cipher.seal_with_nonce(&nonce, header.associated(), &[plain], out);
        self.id(&header, plain)
    }

    /// Opens a blob: tag, id and nonce must agree.
    pub fn open_blob(&self, kind: BlobKind, id: &Id, sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
        self.epochs().find_map(|keys| keys.open_own_blob(kind, id, sealed).ok()).ok_or(Tampered)
    }

    fn open_own_blob(&self, kind: BlobKind, id: &Id, sealed: &[u8]) -> Result<Vec<u8>, Tampered> {
        let header = self.header(kind as u8, 0, [0, 0], 0);
        let plain = self.0.cipher.open_with_nonce(header.associated(), sealed).ok_or(Tampered)?;
        let header = self.header(kind as u8, 0, [0, 0], plain.len());
        let opens = self.id(&header, &plain) == *id && sealed.starts_with(&self.nonce(&header, &[&plain]));
        if opens { Ok(plain) } else { Err(Tampered) }
    }

    fn header(&self, kind: u8, level: u8, context: [u64; 2], length: usize) -> Header {
        let Scope { database, block, epoch } = self.0.scope;
        let mut header = [0; Header::BYTES];
        header[0] = FORMAT;
        header[1..33].copy_from_slice(&database.0);
        header[33..35].copy_from_slice(&block.0.to_le_bytes());
        header[35..39].copy_from_slice(&epoch.to_le_bytes());
        header[39] = kind;
        header[40] = level;
        header[41..49].copy_from_slice(&context[0].to_le_bytes());
        header[49..57].copy_from_slice(&context[1].to_le_bytes());
        header[57..].copy_from_slice(&(length as u64).to_le_bytes());
        Header(header)
    }

    fn id(&self, header: &Header, content: &[u8]) -> Id {
        Id(*header.hash(&self.0.id, &[content]).as_bytes())
    }

    fn nonce(&self, header: &Header, content: &[&[u8]]) -> Nonce {
        nonce_of(header.hash(&self.0.nonce, content).as_bytes())
    }
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKeys({:?})", self.0.scope)
    }
}

/// What goes into an id besides the content: format 1, database id 32, block 2, epoch 4, kind 1 (these are the
/// associated data of the cipher too), level 1, context 16 (data id and index of a chunk), length 8.
struct Header([u8; Self::BYTES]);

impl Header {
    const BYTES: usize = 65;
    const ASSOCIATED_BYTES: usize = 40;

    fn associated(&self) -> &[u8] {
        &self.0[..Self::ASSOCIATED_BYTES]
    }

    /// Content first, then the header: as it has one length for all kinds, no two inputs read the same, and the
    /// content stays aligned to BLAKE3's chunks, which halves the hashing time of 16 KiB.
    fn hash(&self, key: &Secret, content: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(key.expose());
        for part in content {
            hasher.update(part);
        }
        hasher.update(&self.0);
        hasher.finalize()
    }
}

fn nonce_of(hash: &[u8; 32]) -> Nonce {
    *hash.first_chunk().expect("a hash is longer than a nonce")
}

const _: () = assert!(CHUNK != NODE && (BlobKind::Commit as u8) > NODE && (BlobKind::Charter as u8) > NODE);

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;

//! What the size of a file's chunks costs: seals, appends and maps as a tree does, at several sizes. Prints a Markdown
//! table.
//!
//!     chunks DIRECTORY        a store is made there, and removed; take a tmpfs

use kilofs::base::{BlockNumber, DatabaseId, Id, Inode};
use kilofs::crypt::{Scope, SealKeys, Secret};
use kilofs::image::{Draft, FileDisk, Image, Store, Stream};
use kilofs::map::{Edit, Fetch as _, Map, NodeCache, Root};
use kilofs::tree::DraftSource;
use kilofs::tree::key::Key;
use kilofs::tree::value::{chunk_id, chunk_value};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const FILE: Inode = Inode(1 << 32);
const FILE_BYTES: usize = 64 << 20;
const PAGE_BYTES: usize = 4096;
const READS: usize = 4000;
const OVERWRITES: usize = 2000;
/// Overwrites that one commit takes together.
const BATCH: usize = 100;
const SIZES: [usize; 5] = [4 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10];
/// The sizes take turns so often; of each time the shortest counts, for others work on this machine too.
const ROUNDS: usize = 5;

struct Bench {
    keys: SealKeys,
    cache: NodeCache,
    draft: Arc<Draft>,
    root: Option<Root>,
    chunk_bytes: usize,
    seed: u64,
}

impl Bench {
    fn new(path: &Path, chunk_bytes: usize) -> anyhow::Result<Bench> {
        let database = DatabaseId([1; 32]);
        let scope = Scope { database, block: BlockNumber::ROOT, epoch: 0 };
        let store = Store::create(Arc::new(FileDisk::create(path)?), database)?;
        Ok(Bench {
            keys: SealKeys::new(&Secret::new([2; 32]), scope),
            cache: NodeCache::new(64 << 20),
            draft: Arc::new(store.draft(&Image::empty(&store))?),
            root: None,
            chunk_bytes,
            seed: 3,
        })
    }

    fn draw(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % below
    }

    fn source(&self) -> DraftSource {
        DraftSource::new(self.draft.clone(), Stream::Fresh)
    }

    fn seal(&self, index: usize, plain: &[u8]) -> anyhow::Result<Edit> {
        let mut sealed = Vec::new();
        let id = self.keys.seal_chunk(FILE.0, index as u64, plain, &mut sealed);
        let place = self.draft.append(Stream::Fresh, &sealed)?;
        let key = Key::Chunk(FILE, index as u64).encode();
        Ok(Edit { key, change: Some((chunk_value(&id), Some(place))) })
    }

    fn apply(&mut self, edits: &[Edit]) -> anyhow::Result<()> {
        let (source, mut sink) = (self.source(), self.source());
        self.root = Map::new(&self.keys, &source, &self.cache).apply(self.root, edits, &mut sink)?;
        Ok(())
    }

    fn open(&self, index: usize) -> anyhow::Result<Vec<u8>> {
        let source = self.source();
        let map = Map::new(&self.keys, &source, &self.cache);
        let entry = map.get(self.root.as_ref(), &Key::Chunk(FILE, index as u64).encode())?;
        let entry = entry.ok_or_else(|| anyhow::anyhow!("chunk {index} is not there"))?;
        let place = entry.place.ok_or_else(|| anyhow::anyhow!("chunk {index} lies nowhere"))?;
        let id: Id = chunk_id(&entry.value).map_err(|_| anyhow::anyhow!("not a chunk"))?;
        let opened = self.keys.open_chunk_in_place(FILE.0, index as u64, &id, source.fetch(place)?);
        opened.map_err(|_| anyhow::anyhow!("chunk {index} does not open"))
    }

    fn write_all(&mut self, data: &[u8]) -> anyhow::Result<()> {
        let sealed = data.chunks(self.chunk_bytes).enumerate().map(|(index, plain)| self.seal(index, plain));
        let edits = sealed.collect::<anyhow::Result<Vec<Edit>>>()?;
        self.apply(&edits)?;
        self.draft.snapshot()?;
        Ok(())
    }

    fn read_all(&self) -> anyhow::Result<usize> {
        (0..FILE_BYTES / self.chunk_bytes).try_fold(0, |sum, index| Ok(sum + self.open(index)?.len()))
    }

    fn overwrite(&mut self) -> anyhow::Result<()> {
        let pages = self.chunk_bytes / PAGE_BYTES;
        for _ in 0..OVERWRITES / BATCH {
            let mut edits = Vec::new();
            for _ in 0..BATCH {
                let page = self.draw(FILE_BYTES / PAGE_BYTES);
                let (index, at) = (page / pages, page % pages * PAGE_BYTES);
                // A page that is all of its chunk needs nothing that was there.
                let mut plain = if pages > 1 { self.open(index)? } else { vec![0; PAGE_BYTES] };
                plain[at..at + PAGE_BYTES].fill(self.seed as u8 | 1);
                edits.push(self.seal(index, &plain)?);
            }
            edits.reverse();
            edits.sort_by(|a, b| a.key.cmp(&b.key));
            edits.dedup_by(|a, b| a.key == b.key);
            self.apply(&edits)?;
        }
        self.draft.snapshot()?;
        Ok(())
    }

    fn node_bytes(&self) -> anyhow::Result<u64> {
        let source = self.source();
        let mut bytes = 0;
        Map::new(&self.keys, &source, &self.cache)
            .each_node(self.root.as_ref(), &mut |place| bytes += u64::from(place.length))?;
        Ok(bytes)
    }
}

/// Seconds that `action` takes.
fn timed(action: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    action()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds, and what does not depend on luck.
#[derive(Clone, Copy)]
struct Figures {
    write: f64,
    read: f64,
    cold: f64,
    overwrite: f64,
    /// Bytes appended by an overwrite.
    appended: f64,
    /// Bytes of nodes for a byte of data.
    nodes: f64,
}

impl Figures {
    fn or_better(self, other: Figures) -> Figures {
        Figures {
            write: self.write.min(other.write),
            read: self.read.min(other.read),
            cold: self.cold.min(other.cold),
            overwrite: self.overwrite.min(other.overwrite),
            ..self
        }
    }

    fn row(&self, chunk_bytes: usize) -> String {
        let mib = (FILE_BYTES >> 20) as f64;
        format!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.2} |",
            chunk_bytes >> 10,
            self.cold / READS as f64 * 1e6,
            self.overwrite / OVERWRITES as f64 * 1e6,
            mib / self.write,
            mib / self.read,
            self.appended / 1024.0,
            self.nodes * 100.0
        )
    }
}

fn measure(path: &Path, chunk_bytes: usize, data: &[u8]) -> anyhow::Result<Figures> {
    let mut bench = Bench::new(path, chunk_bytes)?;
    let write = timed(|| bench.write_all(data))?;
    let nodes = bench.node_bytes()? as f64 / FILE_BYTES as f64;
    let read = timed(|| bench.read_all().map(|bytes| assert_eq!(bytes, FILE_BYTES)))?;
    let cold = timed(|| {
        for _ in 0..READS {
            let index = bench.draw(FILE_BYTES / chunk_bytes);
            bench.open(index)?;
        }
        Ok(())
    })?;
    let before = bench.draft.snapshot()?.filled_bytes();
    let overwrite = timed(|| bench.overwrite())?;
    let appended = (bench.draft.snapshot()?.filled_bytes() - before) as f64 / OVERWRITES as f64;
    Ok(Figures { write, read, cold, overwrite, appended, nodes })
}

fn main() -> anyhow::Result<()> {
    let directory = std::env::args_os().nth(1).ok_or_else(|| anyhow::anyhow!("usage: chunks DIRECTORY"))?;
    let path = Path::new(&directory).join("kilofs-chunks");
    let data: Vec<u8> =
        (0..FILE_BYTES as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut best: [Option<Figures>; SIZES.len()] = [None; SIZES.len()];
    for _ in 0..ROUNDS {
        for (chunk_bytes, best) in SIZES.into_iter().zip(&mut best) {
            let figures = measure(&path, chunk_bytes, &data);
            std::fs::remove_file(&path)?;
            let figures = figures?;
            *best = Some(best.map_or(figures, |best| best.or_better(figures)));
        }
    }
    let mut out = std::io::stdout();
    writeln!(
        out,
        "| chunk KiB | cold 4 KiB read µs | 4 KiB overwrite µs | write MiB/s | read MiB/s | KiB appended by an overwrite | metadata % |"
    )?;
    writeln!(out, "|---:|---:|---:|---:|---:|---:|---:|")?;
    for (chunk_bytes, figures) in SIZES.into_iter().zip(best) {
        if let Some(figures) = figures {
            writeln!(out, "{}", figures.row(chunk_bytes))?;
        }
    }
    Ok(())
}

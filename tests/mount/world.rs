//! A tree in memory with a mount in front of it, and a second device that changes it from behind.

use kilofs::base::{BlockNumber, DatabaseId, Inode, Place};
use kilofs::crypt::{Scope, SealKeys, Secret};
use kilofs::fuse::{Host, MountOptions, Mounted, Provenance, Reading, RefusedEntry, VersionEntry, mount};
use kilofs::image::{Image, MemoryDisk, Store};
use kilofs::tree::{
    BlockView, Changes, Head, Mark, NodeKind, Owner, ReadTree, SetAttr, Timestamp, Tree, TreeError,
    TreeOptions,
};
use parking_lot::Mutex;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longer than anything here takes.
pub const SOON: Duration = Duration::from_secs(20);
/// The block that some tests add, and where it hangs.
pub const SIDE_BLOCK: BlockNumber = BlockNumber(7);
const SIDE_PATH: &[u8] = b"side/block";
const DATABASE: DatabaseId = DatabaseId([9; 32]);
const NOBODY: u32 = 65534;

/// An engine that counts.
#[derive(Default)]
pub struct TestHost {
    pub persisted: AtomicUsize,
    pub mutations: AtomicUsize,
    /// Newest first.
    pub versions: Mutex<Vec<Arc<dyn ReadTree>>>,
    pub refused: Mutex<Vec<Arc<dyn ReadTree>>>,
}

impl Host for TestHost {
    fn persist(&self) -> Result<(), TreeError> {
        self.persisted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn mutated(&self) {
        self.mutations.fetch_add(1, Ordering::Relaxed);
    }

    fn fault(&self, _: Place, _: Option<Reading>, _: Instant, then: Box<dyn FnOnce(bool) + Send>) {
        then(false);
    }

    fn status(&self) -> String {
        format!("{{\"mutations\":{}}}", self.mutations.load(Ordering::Relaxed))
    }

    fn conflicts(&self) -> String {
        "a.conflict\n".into()
    }

    fn versions(&self) -> Vec<VersionEntry> {
        let versions = self.versions.lock();
        let entry =
            |(index, tree): (u32, &Arc<dyn ReadTree>)| VersionEntry { index, tree: Some(tree.clone()) };
        (1..).zip(versions.iter()).map(entry).collect()
    }

    fn refused(&self) -> Vec<RefusedEntry> {
        let root = BlockNumber::ROOT.root_inode();
        let entry = |tree: &Arc<dyn ReadTree>| RefusedEntry {
            name: SIDE_BLOCK.to_string(),
            root,
            tree: tree.clone(),
        };
        self.refused.lock().iter().map(entry).collect()
    }

    fn provenance(&self, _: Inode) -> Option<Provenance> {
        let (mode, version) = ("rw".into(), "ab".into());
        Some(Provenance { block: BlockNumber::ROOT, mode, version, author: String::new() })
    }
}

/// A mounted tree.
pub struct World {
    pub tree: Arc<Tree>,
    pub host: Arc<TestHost>,
    pub mounted: Option<Mounted>,
    dir: tempfile::TempDir,
    store: Arc<Store>,
    blocks: Mutex<Vec<BlockView>>,
    sessions: AtomicU32,
}

fn clock() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() }
}

fn options(inode_prefix: u32) -> TreeOptions {
    let owner = Owner { uid: 0, gid: 0 };
    TreeOptions {
        inode_prefix,
        cache_bytes: 8 << 20,
        dirty_bytes_max: 8 << 20,
        owner,
        mark: Mark::default(),
        clock,
    }
}

fn block(number: BlockNumber, path: &[u8]) -> BlockView {
    let secret = Secret::new([number.0 as u8 + 1; 32]);
    let keys = SealKeys::new(&secret, Scope { database: DATABASE, block: number, epoch: 0 });
    BlockView { number, path: path.to_vec(), keys, root: None, writable: true, append: false, private: None }
}

fn load(blocks: Vec<BlockView>) -> (Arc<Store>, Arc<Tree>) {
    let store = Store::create(Arc::new(MemoryDisk::new()), DATABASE).unwrap();
    let tree = Tree::load(store.clone(), Image::empty(&store), blocks, options(1)).unwrap();
    (store, Arc::new(tree))
}

/// An empty tree and its engine.
pub fn trees() -> (Arc<Tree>, Arc<TestHost>) {
    (load(vec![block(BlockNumber::ROOT, b"")]).1, Arc::default())
}

impl World {
    /// Only root block, no options; `None` where nothing can be mounted.
    pub fn new() -> Option<World> {
        World::with("")
    }

    /// With mount options.
    pub fn with(words: &str) -> Option<World> {
        World::start(vec![block(BlockNumber::ROOT, b"")], words)
    }

    /// With a second block at `side/block`.
    pub fn with_side_block() -> Option<World> {
        World::start(vec![block(BlockNumber::ROOT, b""), block(SIDE_BLOCK, SIDE_PATH)], "")
    }

    fn start(blocks: Vec<BlockView>, words: &str) -> Option<World> {
        let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
        if device.is_err() || !rustix::process::geteuid().is_root() {
            return None;
        }
        let (store, tree) = load(blocks.clone());
        let dir = tempfile::tempdir().unwrap();
        let host = Arc::new(TestHost::default());
        let mut options = MountOptions::new("test");
        options.parse(words).unwrap();
        let mounted = Some(mount(tree.clone(), host.clone(), dir.path(), &options).unwrap());
        let (blocks, sessions) = (Mutex::new(blocks), AtomicU32::new(2));
        Some(World { tree, host, mounted, dir, store, blocks, sessions })
    }

    /// Where `name` is in the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The mount.
    pub fn mounted(&self) -> &Mounted {
        self.mounted.as_ref().unwrap()
    }

    /// Lets another device edit, adopts what it made, and waits until the kernel knows.
    pub fn remote(&self, edit: impl FnOnce(&Tree)) {
        let changes = self.edited(edit);
        self.mounted().notify(changes);
        assert!(self.mounted().settle(SOON));
    }

    /// The same without telling the kernel.
    pub fn edited(&self, edit: impl FnOnce(&Tree)) -> Changes {
        let own = self.tree.flush().unwrap();
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let image = own.image.clone();
        let views = self.views(&own);
        let other = Tree::load(self.store.clone(), image, views, options(session)).unwrap();
        edit(&other);
        let made = other.flush().unwrap();
        let views = self.views(&made);
        self.tree.adopt(self.tree.generation(), made, views).unwrap()
    }

    /// The blocks at a head's roots.
    fn views(&self, head: &Head) -> Vec<BlockView> {
        let at = |block: &BlockView| BlockView { root: head.roots[&block.number], ..block.clone() };
        self.blocks.lock().iter().map(at).collect()
    }

    /// The tree as it is now, read-only.
    pub fn snapshot(&self) -> Arc<dyn ReadTree> {
        let head = self.tree.flush().unwrap();
        self.tree.snapshot(&head.image, self.views(&head)).unwrap()
    }

    /// Puts the present tree among the versions, as the newest.
    pub fn keep_version(&self) {
        let version = self.snapshot();
        self.host.versions.lock().insert(0, version);
    }

    /// Changes the policy of the root block, and waits until the kernel knows.
    pub fn set_writable(&self, writable: bool) {
        self.set_block_writable(BlockNumber::ROOT, writable);
    }

    /// Changes the policy of a block, and waits until the kernel knows.
    pub fn set_block_writable(&self, number: BlockNumber, writable: bool) {
        for block in self.blocks.lock().iter_mut().filter(|block| block.number == number) {
            block.writable = writable;
        }
        let changes = self.tree.set_writable(&[(number, writable)]);
        self.mounted().notify(changes);
        assert!(self.mounted().settle(SOON));
    }

    /// What the tree has at a path, past the kernel.
    pub fn stored(&self, path: &str) -> Vec<u8> {
        const ALL: usize = 64 << 20;
        self.tree.read(find(&self.tree, path), 0, ALL).unwrap()
    }

    /// Runs a shell script as an ordinary user, with `$FILE`; whether it succeeded.
    pub fn as_nobody(&self, script: &str, file: &Path) -> bool {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).env("FILE", file).uid(NOBODY).gid(NOBODY).stderr(Stdio::null());
        shell.status().unwrap().success()
    }

    /// Waits for something that happens soon.
    pub fn wait_until(&self, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < SOON, "it did not happen");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The inode at a path.
pub fn find(tree: &Tree, path: &str) -> Inode {
    tree.resolve(path.as_bytes()).unwrap().inode
}

/// Replaces a file's content.
pub fn overwrite(tree: &Tree, path: &str, data: &[u8]) {
    let inode = find(tree, path);
    tree.set_attr(inode, SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    tree.write(inode, 0, data).unwrap();
}

/// Makes a file.
pub fn make(tree: &Tree, dir: &str, name: &str, data: &[u8]) {
    let made =
        tree.make_node(find(tree, dir), name.as_bytes(), NodeKind::File, 0o644, Owner::default()).unwrap();
    tree.write(made.inode, 0, data).unwrap();
}

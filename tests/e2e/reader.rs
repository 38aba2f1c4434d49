//! A second reader, in Python and written from kilofs(5) alone (`tests/reader`), finds in what is published all that a
//! mount shows, and takes nothing that was tampered with.

use super::harness::{Device, Dice, NAME, World};
use super::interop::ask;
use super::process::{Done, PATIENCE, run, run_within};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reader");

/// Runs the second reader in a directory.
fn read(directory: &Path, arguments: &[&str]) -> Done {
    let python = std::env::var_os("KILOFS_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.arg(READER).args(arguments).current_dir(directory).env("PYTHONDONTWRITEBYTECODE", "1");
    run_within(&mut command, b"", PATIENCE * 2)
}

/// A published database, and what the second reader is given of it.
struct Published {
    world: World,
    device: Device,
    /// Where the files below lie.
    place: PathBuf,
}

impl Published {
    fn new(fill: impl FnOnce(&Device)) -> Published {
        let world = World::new();
        let device = world.creator("a");
        fill(&device);
        device.sync();
        let place = world.place("reader");
        let published = Published { world, device, place };
        fs::write(published.file("link"), published.device.link("read")).unwrap();
        published.fetch_items("items");
        published
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Record and lifeline as the DHT has them.
    fn fetch_items(&self, name: &str) {
        let items = self.read(&["items", "link", &self.world.bootstrap()]).expect("items");
        fs::write(self.file(name), items).unwrap();
    }

    /// The image of the newest version, as libtorrent downloads it.
    fn download(&self) -> PathBuf {
        let status = self.device.status();
        let infohash = status["versions"][0]["infohash"].as_str().unwrap();
        let listen = status["listen"].as_str().unwrap();
        let torrent = ask(&["download", infohash, listen, self.place.to_str().unwrap()]);
        assert_eq!(torrent["complete"], true);
        self.file("database")
    }

    fn store(&self) -> PathBuf {
        self.device.home.join(format!("databases/{NAME}/database"))
    }

    fn read(&self, arguments: &[&str]) -> Done {
        read(&self.place, arguments)
    }

    /// The reader must end with exactly this complaint.
    #[track_caller]
    fn refuses(&self, arguments: &[&str], complaint: &str) {
        let done = self.read(arguments);
        assert_eq!(
            (done.code, done.err.trim()),
            (Some(1), format!("reader: {complaint}").as_str()),
            "{arguments:?}"
        );
        assert_eq!(done.out, "", "{arguments:?}");
    }
}

/// What can be seen of one path: all of it must be the same on both sides.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    kind: fs::FileType,
    mode: u32,
    links: u64,
    modified: (i64, i64),
    /// Of a file its bytes, of a link its target.
    content: Vec<u8>,
    /// The first path of the same inode.
    first: PathBuf,
}

/// Everything below a directory and the directory itself, by path. `mask` says which bits of a mode count.
fn everything(root: &Path, mask: impl Fn(&Path) -> u32) -> BTreeMap<PathBuf, Seen> {
    let (mut found, mut open, mut numbers) = (BTreeMap::new(), vec![root.to_owned()], BTreeMap::new());
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if kind.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if kind.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let inside = path.strip_prefix(root).unwrap().to_owned();
        let seen = Seen {
            kind,
            mode: metadata.mode() & mask(&inside),
            // Those of a directory are up to where it lies.
            links: if kind.is_dir() { 0 } else { metadata.nlink() },
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            first: PathBuf::new(),
        };
        numbers.entry(metadata.ino()).or_insert_with(Vec::new).push(inside.clone());
        found.insert(inside, seen);
    }
    for mut paths in numbers.into_values() {
        paths.sort();
        paths.iter().for_each(|path| found.get_mut(path).unwrap().first = paths[0].clone());
    }
    found
}

/// A bit of everything that a database can hold.
fn fill(device: &Device) {
    let mut dice = Dice::new(5);
    // Inline up to 1024 bytes; chunks of 16 KiB; chunks of 64 KiB in what has 4 MiB at first.
    for size in [0, 1, 1024, 1025, 16_383, 16_384, 16_385, 4_194_304, 5_000_123] {
        device.write(&format!("{size} bytes"), &dice.bytes(size));
    }
    let sparse = File::create(device.path("sparse")).unwrap();
    sparse.write_all_at(b"in the middle", 3_000_000).unwrap();
    sparse.set_len(9_000_000).unwrap();
    File::create(device.path("hole")).unwrap().set_len(70_000).unwrap();
    symlink("a target/that is not there", device.path("link")).unwrap();
    symlink("x".repeat(4000), device.path("long link")).unwrap();
    fs::hard_link(device.path("1 bytes"), device.path("another name")).unwrap();
    let deep = "d/".repeat(60);
    fs::create_dir_all(device.path(&deep)).unwrap();
    device.write(&format!("{deep}file"), b"deep");
    for name in ["é中文😀", "new\nline", &"n".repeat(255)] {
        device.write(name, name.as_bytes());
    }
    // More nodes than one, on more levels than one.
    fs::create_dir(device.path("many")).unwrap();
    (0..1500).for_each(|n| device.write(&format!("many/{n}"), &dice.bytes(n % 40)));
    fs::set_permissions(device.path("16384 bytes"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::set_permissions(device.path("many"), PermissionsExt::from_mode(0o1770)).unwrap();
    run("touch", &["-d", "1969-12-31 23:59:58.25 UTC", "1025 bytes"], &device.mount);
    run("setfattr", &["-n", "user.note", "-v", "kept", "1 bytes"], &device.mount);

    fs::create_dir(device.path("above")).unwrap();
    for path in ["docs", "above/inner", "new/way"] {
        device.ok(&["block", NAME, "add", path]);
    }
    device.write("docs/text", b"read-only");
    device.write("above/inner/text", b"in a block in a directory");
    device.ok(&["policy", NAME, "set", "docs", "ro"]);
}

#[test]
fn a_second_reader_sees_what_a_mount_shows() {
    let published = Published::new(fill);
    let shown = everything(&published.device.mount, |_| 0o7777);
    assert!(shown.len() > 1580, "{}", shown.len());
    // A mount shows no write bits where its device may not write.
    let mask = |inside: &Path| if inside.starts_with("docs") { 0o7555 } else { 0o7777 };
    for (from, directory) in
        [(published.download(), "from the torrent"), (published.store(), "from the store")]
    {
        let from = from.to_str().unwrap();
        published.read(&["extract", "link", "items", from, directory]).expect(directory);
        let read = everything(&published.file(directory), mask);
        let paths = |all: &BTreeMap<PathBuf, Seen>| all.keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(&read), paths(&shown), "{directory}");
        for (path, seen) in &read {
            assert!(
                *seen == shown[path],
                "{directory}: {path:?}: {:?}",
                (seen.mode, seen.links, seen.modified)
            );
        }
        let listed = published.read(&["list", "link", "items", from]).expect("list");
        let lines: Vec<serde_json::Value> =
            listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), shown.len());
        let line = |path: &str| lines.iter().find(|line| line["path"] == path).unwrap();
        assert_eq!(line("docs/text")["block"], 1);
        assert_eq!(line("another name")["xattrs"]["user.note"], "6b657074", "{listed}");
        assert_eq!(line("another name")["inode"], line("1 bytes")["inode"]);
    }
}

/// A copy of a file in which a bit of one byte differs.
fn flipped(file: &Path, at: u64, to: PathBuf) -> String {
    let mut bytes = fs::read(file).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1;
    fs::write(&to, bytes).unwrap();
    to.to_str().unwrap().to_owned()
}

/// Where the store has what lies at an offset of the image.
fn in_store(store: &Path, image: &Path, offset: u64) -> u64 {
    let mut wanted = [0; 64];
    File::open(image).unwrap().read_exact_at(&mut wanted, offset).unwrap();
    let store = fs::read(store).unwrap();
    store.windows(wanted.len()).position(|window| window == wanted).unwrap() as u64
}

#[test]
fn a_second_reader_takes_nothing_that_was_tampered_with() {
    let published = Published::new(|device| {
        device.write("big", &Dice::new(6).bytes(3 << 20));
        device.write("small", b"text");
    });
    let (image, store) = (published.download(), published.store());
    let (image, store) = (image.as_path(), store.as_path());
    let versions = published.read(&["versions", "link", "items"]).expect("versions");
    let commit: u64 = versions.split_whitespace().nth(1).unwrap().parse().unwrap();

    // Of the torrent any byte counts, those of no file too.
    let last = fs::metadata(image).unwrap().len() - 1;
    for at in [0, 1 << 20, commit, last] {
        let bad = flipped(image, at, published.file("bad"));
        published
            .refuses(&["list", "link", "items", &bad], "the image: no version of the record has these bytes");
    }
    // A store says itself what it holds: there it is the seals that tell.
    let bad = flipped(store, in_store(store, image, commit + 30), published.file("bad"));
    published.refuses(&["list", "link", "items", &bad], "the commit: does not open");
    let bad = flipped(store, in_store(store, image, (1 << 20) + 999), published.file("bad"));
    let done = published.read(&["extract", "link", "items", &bad, "never"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains(": chunk ") && done.err.contains(": its id is another"), "{done:?}");

    let items = fs::read_to_string(published.file("items")).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&items).unwrap();
    for (item, what) in [("record", "the record"), ("lifeline", "the lifeline")] {
        for field in ["value", "signature"] {
            let good = parsed[item][field].as_str().unwrap();
            let other = if good.starts_with('0') { "1" } else { "0" };
            fs::write(published.file("bad"), items.replacen(good, &format!("{other}{}", &good[1..]), 1))
                .unwrap();
            published.refuses(&["versions", "link", "bad"], &format!("{what}: the signature is not right"));
        }
    }

    let link = fs::read_to_string(published.file("link")).unwrap();
    let (head, tail) = link.trim().split_at(40);
    let other = if tail.starts_with('a') { "b" } else { "a" };
    fs::write(published.file("mistyped"), format!("{head}{other}{}", &tail[1..])).unwrap();
    published.refuses(&["versions", "mistyped", "items"], "the link: mistyped");
    let stranger = published.world.creator("stranger");
    fs::write(published.file("strange"), stranger.link("read")).unwrap();
    published.refuses(&["versions", "strange", "items"], "the record: the signature is not right");
    fs::write(published.file("mirror"), published.device.link("mirror")).unwrap();
    let image = image.to_str().unwrap();
    published.refuses(&["list", "mirror", "items", image], "the link: one for mirrors opens no version");

    // A link knows the record that was newest when it was made.
    published.device.write("small", b"later");
    published.device.sync();
    fs::write(published.file("newer"), published.device.link("read")).unwrap();
    let seq = &parsed["record"]["seq"];
    published.refuses(
        &["versions", "newer", "items"],
        &format!("the record: number {seq} is older than the link"),
    );
    published.fetch_items("newer items");
    published.read(&["list", "newer", "newer items", store.to_str().unwrap()]).expect("what is newest");
}

/// What was written under the old keys and under the new ones, with a new link; with an old one a clear word.
#[test]
fn a_second_reader_reads_what_has_moved_to_new_keys() {
    let published = Published::new(|device| {
        fill(device);
        device.write("changes", &Dice::new(7).bytes(100_000));
    });
    let device = &published.device;
    let before = published.download();
    let image = before.to_str().unwrap();
    published.read(&["list", "link", "items", image]).expect("before the rotation");
    for round in 0..2u8 {
        device.json(&["rotate", NAME, "--keep-known"]);
        device.write(&format!("after {round}"), &[round; 40_000]);
        let bytes = File::options().write(true).open(device.path("changes")).unwrap();
        bytes.write_all_at(&[round; 20_000], 30_000 * u64::from(round)).unwrap();
        drop(bytes);
        device.write("above/inner/text", &[round; 50]);
        device.sync();
    }
    fs::write(published.file("new link"), device.link("read")).unwrap();
    let items = published.read(&["items", "new link", &published.world.bootstrap()]).expect("items");
    fs::write(published.file("new items"), items).unwrap();
    fs::remove_file(&before).unwrap();
    let shown = everything(&device.mount, |_| 0o7777);
    let mask = |inside: &Path| if inside.starts_with("docs") { 0o7555 } else { 0o7777 };
    for (from, directory) in
        [(published.download(), "from the torrent"), (published.store(), "from the store")]
    {
        let from = from.to_str().unwrap();
        published.read(&["extract", "new link", "new items", from, directory]).expect(directory);
        assert!(everything(&published.file(directory), mask) == shown, "{directory}");
    }
    let moved = "the link: the database has moved to new keys since it was made; ask for a new link";
    published.fetch_items("old items");
    published.refuses(&["versions", "link", "old items"], moved);
    fs::write(published.file("mirror"), device.link("mirror")).unwrap();
    published.read(&["versions", "mirror", "new items"]).expect("with the keys of a mirror");
}

#[test]
fn a_second_reader_takes_and_refuses_what_the_vectors_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let said = read(&folder, &["vectors", "."]).expect("vectors");
    let count: BTreeMap<String, usize> = serde_json::from_str(&said).unwrap();
    let kinds: Vec<&str> = count.keys().map(String::as_str).collect();
    assert_eq!(
        kinds,
        ["announcement", "charter", "commit", "entry", "item", "lifeline", "link", "open", "record", "seal"]
    );
    for (kind, count) in &count {
        assert_eq!(*count, fs::read_dir(folder.join(kind)).unwrap().count(), "{kind}");
    }
}

#[test]
fn what_is_inside_a_private_block_is_read_with_a_device_key_and_not_without() {
    let mut dice = Dice::new(9);
    let (small, large) = (dice.bytes(700), dice.bytes(5_000_000));
    let inside = |root: &Path| everything(&root.join("diary"), |_| 0o777);
    let published = Published::new(|device| {
        device.json(&["block", NAME, "add", "/diary", "--private"]);
        fs::create_dir_all(device.path("diary/below/it")).unwrap();
        device.write("diary/below/small", &small);
        device.write("diary/large", &large);
        symlink("below/small", device.path("diary/link")).unwrap();
        fs::hard_link(device.path("diary/large"), device.path("diary/below/again")).unwrap();
        (0..90).for_each(|n| device.write(&format!("diary/below/it/{n}"), &small[n..]));
        // Two keys: what was written before a reader left, and after.
        device.sync();
        let other = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
        device.json(&["block", NAME, "share", "/diary", "--for", other]);
        assert_eq!(device.json(&["block", NAME, "unshare", "/diary", "--for", other])["new_key"], true);
        device.write("diary/later", &small);
    });
    published.download();
    let keyring = fs::read(published.device.home.join(format!("databases/{NAME}/keyring"))).unwrap();
    let keyring =
        kilofs::crypt::keyring::open(&keyring, &kilofs::crypt::keyring::Factors::default()).unwrap();
    let seed: String = keyring.device.seed().expose().iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(published.file("seed"), seed).unwrap();
    published.read(&["private", "link", "items", "database", "with", "seed"]).expect("private");
    assert_eq!(inside(&published.file("with")), inside(&published.device.mount));
    published.read(&["extract", "link", "items", "database", "without"]).expect("extract");
    assert_eq!(inside(&published.file("without")).len(), 1, "a directory with nothing in it");
    fs::write(published.file("seed"), "07".repeat(32)).unwrap();
    published.read(&["private", "link", "items", "database", "stranger", "seed"]).expect("private");
    assert_eq!(inside(&published.file("stranger")).len(), 1);
}

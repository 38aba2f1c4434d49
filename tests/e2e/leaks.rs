//! What must not be readable is not: in the store, the caches, the log, the list of processes.

use super::harness::{BINARY, Device, NAME, World};
use super::process::{PATIENCE, run_within, wait_until};
use kilofs::crypt::keyring::{self, Factors};
use kilofs::crypt::link;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Strings that appear nowhere but in what is protected.
const CONTENT: &str = "Quixotic zephyrs vex bold jackdaws";
const FILE: &str = "unmistakable-file-name";
const DIRECTORY: &str = "unmistakable-directory";
const ATTRIBUTE: &str = "unmistakable-attribute";
const TARGET: &str = "unmistakable-target";
const PASSPHRASE: &str = "correct horse battery staple";

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.symlink_metadata().unwrap().file_type() {
                kind if kind.is_dir() => open.push(path),
                kind if kind.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    found
}

#[track_caller]
fn assert_absent(secrets: &[Vec<u8>], place: &str, bytes: &[u8]) {
    for secret in secrets {
        let found = bytes.windows(secret.len()).any(|window| window == secret);
        assert!(!found, "{place} holds {}", String::from_utf8_lossy(secret));
    }
}

#[track_caller]
fn assert_nothing_leaks(device: &Device, secrets: &[Vec<u8>]) {
    let found = files(&device.home);
    assert!(found.iter().any(|file| file.ends_with("database")), "{found:?}");
    for file in found {
        let bytes = std::fs::read(&file).unwrap();
        assert_absent(secrets, &file.display().to_string(), &bytes);
        let name = file.to_string_lossy().into_owned();
        assert_absent(secrets, &format!("the name of {name}"), name.as_bytes());
    }
}

#[track_caller]
fn assert_process_tells_nothing(pid: u32, secrets: &[Vec<u8>]) {
    for what in ["cmdline", "environ", "comm"] {
        // Where this is not root, the system shows less of a process that has shut itself.
        let bytes = match std::fs::read(format!("/proc/{pid}/{what}")) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => continue,
            read => read.unwrap(),
        };
        assert_absent(secrets, &format!("/proc/{pid}/{what}"), &bytes);
    }
}

/// The secrets of a link, raw and as text.
fn secrets_of(text: &str) -> Vec<Vec<u8>> {
    let capability = link::parse(text, || None).unwrap();
    let raw = [&capability.read_secret, &capability.database_seed, &capability.admin_seed];
    let mut secrets: Vec<Vec<u8>> =
        raw.into_iter().flatten().map(|secret| secret.expose().to_vec()).collect();
    let hexadecimal: Vec<Vec<u8>> =
        secrets.iter().map(|secret| data_encoding::HEXLOWER.encode(secret).into_bytes()).collect();
    secrets.extend(hexadecimal);
    secrets.push(text.trim().rsplit(':').next().unwrap().as_bytes().to_vec());
    secrets
}

#[test]
fn nothing_readable_lies_around() {
    let world = World::new();
    let a = world.device("a");
    let passphrase_file = world.place("secrets").join("passphrase");
    std::fs::write(&passphrase_file, format!("{PASSPHRASE}\n")).unwrap();
    let unlock = ["--passphrase-file", passphrase_file.to_str().unwrap()];
    let network = ["--bootstrap", &world.bootstrap(), "--listen", "127.0.0.1:0", "--poll-interval", "0.5"];
    a.ok(&[&["create", NAME], &unlock[..], &network[..]].concat());
    a.mount_with(&[&unlock[..], &["-vv"]].concat());

    std::fs::create_dir(a.path(DIRECTORY)).unwrap();
    a.write(&format!("{DIRECTORY}/{FILE}"), CONTENT.as_bytes());
    a.write(&format!("{DIRECTORY}/{FILE}-large"), CONTENT.repeat(50_000).as_bytes());
    std::os::unix::fs::symlink(TARGET, a.path("link")).unwrap();
    let attributed = a.path(&format!("{DIRECTORY}/{FILE}"));
    rustix::fs::setxattr(
        &attributed,
        format!("user.{ATTRIBUTE}"),
        CONTENT.as_bytes(),
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    a.sync();

    let admin = a.ok(&[&["link", NAME, "--admin"], &unlock[..]].concat());
    let write = a.ok(&[&["link", NAME, "--write"], &unlock[..]].concat());
    let mirror_link = a.ok(&[&["link", NAME, "--mirror"], &unlock[..]].concat());
    let mut secrets: Vec<Vec<u8>> = [CONTENT, FILE, DIRECTORY, ATTRIBUTE, TARGET, PASSPHRASE]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
    secrets.extend(secrets_of(&admin));
    secrets.extend(secrets_of(&write));

    let mirror = world.device("mirror");
    mirror.join(&mirror_link);
    mirror.mirror();
    wait_until("the mirror has the newest version", || mirror.status()["versions"][0]["complete"] == true);
    assert_process_tells_nothing(a.pid(), &secrets);
    assert_process_tells_nothing(mirror.pid(), &secrets);
    assert!(a.log().len() > 100, "the log at debug level should say something");
    a.umount();
    mirror.end_mirror();
    assert_nothing_leaks(&a, &secrets);
    assert_nothing_leaks(&mirror, &secrets);

    let sealed = std::fs::read(mirror.home.join(format!("databases/{NAME}/keyring"))).unwrap();
    let held = keyring::open(&sealed, &Factors::default()).unwrap().capability;
    assert!(held.read_secret.is_none() && held.database_seed.is_none() && held.admin_seed.is_none());
}

#[test]
fn a_wrong_passphrase_or_link_is_one_clear_line() {
    let world = World::new();
    let a = world.device("a");
    let (right, wrong) = (world.place("secrets").join("right"), world.place("secrets").join("wrong"));
    std::fs::write(&right, PASSPHRASE).unwrap();
    std::fs::write(&wrong, "something else").unwrap();
    a.ok(&["create", NAME, "--passphrase-file", right.to_str().unwrap(), "--offline"]);
    let mount = a.mount.to_str().unwrap();
    for arguments in [&["mount", NAME, mount][..], &["link", NAME, "--write"], &["status", NAME]] {
        for flags in [&["--passphrase-file", wrong.to_str().unwrap()][..], &["--no-passphrase"]] {
            let refused = a.kilofs(&[arguments, flags].concat());
            assert_eq!(refused.code, Some(5), "{arguments:?} {flags:?}: {refused:?}");
            assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
            assert_eq!(refused.out, "");
        }
    }
    let link = a.ok(&["link", NAME, "--write", "--passphrase-file", right.to_str().unwrap()]);
    let mistyped = link.replace(':', ";");
    let mut altered = link.trim().to_owned().into_bytes();
    let last = altered.len() - 9;
    altered[last] = if altered[last] == b'a' { b'b' } else { b'a' };
    for bad in ["", "hello", &mistyped, std::str::from_utf8(&altered).unwrap()] {
        let b = world.device("b");
        let mut command = b.command(&["join", NAME, "--no-passphrase", "--offline"]);
        let refused = run_within(&mut command, bad.as_bytes(), PATIENCE);
        assert_eq!(refused.code, Some(5), "{bad:?}: {refused:?}");
        assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
        assert!(!b.home.join("databases").join(NAME).join("keyring").exists());
    }
}

#[test]
fn a_locked_link_opens_with_its_passphrase_only() {
    let world = World::new();
    let a = world.device("a");
    a.ok(&["create", NAME, "--no-passphrase", "--offline"]);
    let lock = world.place("secrets").join("lock");
    std::fs::write(&lock, PASSPHRASE).unwrap();
    let locked = a.ok(&["link", NAME, "--write", "--link-passphrase-file", lock.to_str().unwrap()]);
    assert_eq!(locked.lines().count(), 1);
    let other = world.place("secrets").join("other");
    std::fs::write(&other, "something else").unwrap();
    for (file, code) in [(&other, 5), (&lock, 0)] {
        let b = world.device("b");
        let flags =
            ["join", NAME, "--no-passphrase", "--offline", "--link-passphrase-file", file.to_str().unwrap()];
        let joined = run_within(&mut b.command(&flags), locked.as_bytes(), PATIENCE);
        assert_eq!(joined.code, Some(code), "{joined:?}");
    }
}

#[test]
fn a_link_is_not_taken_from_the_arguments() {
    let mut command = Command::new(BINARY);
    let refused = run_within(command.args(["join", NAME, "kilofs:write:abc"]), b"", PATIENCE);
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn the_keyring_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let a = world.creator("a");
    a.write("x", b"x");
    a.sync();
    for file in files(&a.home) {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        let reachable = file
            .ancestors()
            .skip(1)
            .take_while(|directory| directory.starts_with(&a.home))
            .all(|directory| std::fs::metadata(directory).unwrap().permissions().mode() & 0o077 != 0);
        assert!(mode & 0o077 == 0 || !reachable, "{} can be read by others", file.display());
    }
    let keyring = a.home.join(format!("databases/{NAME}/keyring"));
    assert_eq!(std::fs::metadata(keyring).unwrap().permissions().mode() & 0o777, 0o600);
}

//! Keys at rest: what opens a keyring, how that is changed, and that no moment of a change loses it.

use super::harness::{Device, NAME, World};
use super::process::{PATIENCE, run_within, wait_until};
use super::terminal::Terminal;
use std::path::{Path, PathBuf};

const OLD: &str = "correct horse battery staple";
const NEW: &str = "quixotic zephyrs vex bold jackdaws";

/// Files with what the tests say.
struct Secrets(PathBuf);

impl Secrets {
    fn of(world: &World) -> Secrets {
        let secrets = Secrets(world.place("secrets"));
        for (name, text) in
            [("old", OLD), ("new", NEW), ("key", &"k".repeat(40)), ("other-key", &"o".repeat(40))]
        {
            std::fs::write(secrets.0.join(name), text).unwrap();
        }
        secrets
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

fn create(device: &Device, flags: &[&str]) {
    device.ok(&[&["create", NAME, "--offline"], flags].concat());
}

/// Whether the keyring opens with these flags.
#[track_caller]
fn opens(device: &Device, flags: &[&str]) -> bool {
    let done = device.kilofs(&[&["link", NAME, "--read"], flags].concat());
    match done.code {
        Some(0) => true,
        Some(5) => {
            assert_eq!(done.err.lines().count(), 1, "{done:?}");
            false
        }
        _ => panic!("{done:?}"),
    }
}

#[test]
fn a_passphrase_is_changed_removed_and_set_again() {
    let world = World::new();
    let secrets = Secrets::of(&world);
    let a = world.device("a");
    let (old, new) = (secrets.path("old"), secrets.path("new"));
    let (with_old, with_new) = (["--passphrase-file", &old], ["--passphrase-file", &new]);
    create(&a, &with_old);

    let wrong = a.kilofs(&[&["passphrase", NAME, "--new-passphrase-file", &old], &with_new[..]].concat());
    assert_eq!((wrong.code, wrong.err.lines().count()), (Some(5), 1), "{wrong:?}");
    assert!(opens(&a, &with_old));

    let changed = a.json(&[&["passphrase", NAME, "--new-passphrase-file", &new], &with_old[..]].concat());
    assert_eq!((&changed["passphrase"], &changed["key_file"]), (&true.into(), &false.into()));
    assert!(opens(&a, &with_new) && !opens(&a, &with_old));

    let removed = a.kilofs(&[&["passphrase", NAME, "--no-passphrase"], &with_new[..]].concat());
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert!(removed.err.contains("warning") && removed.err.contains("lie open in"), "{removed:?}");
    assert!(opens(&a, &[]) && opens(&a, &["--no-passphrase"]));

    a.ok(&["passphrase", NAME, "--new-passphrase-file", &old]);
    assert!(opens(&a, &with_old) && !opens(&a, &["--no-passphrase"]));
}

#[test]
fn a_person_changes_it_at_the_terminal() {
    let world = World::new();
    let secrets = Secrets::of(&world);
    let a = world.device("a");
    create(&a, &["--passphrase-file", &secrets.path("old")]);
    let line = format!("{} --home {} passphrase {NAME}", super::harness::BINARY, a.home.display());
    let terminal = Terminal::run(&world, (100, 20), &line);
    for (question, answer) in
        [("Passphrase for shared:", OLD), ("New passphrase for shared:", NEW), ("Once more:", NEW)]
    {
        terminal.awaits(&[question]);
        terminal.types(answer);
    }
    let text = terminal.awaits(&["left with 0"]);
    assert!(text.contains("opens with a passphrase from now on"), "{text}");
    assert!(!text.contains(OLD) && !text.contains(NEW), "{text}");
    assert!(opens(&a, &["--passphrase-file", &secrets.path("new")]));

    let terminal = Terminal::run(&world, (100, 20), &format!("{line} --no-passphrase"));
    terminal.awaits(&["Passphrase for shared:"]);
    terminal.types(NEW);
    terminal.awaits(&["lie open in", "Type yes to go on:"]);
    terminal.types("no");
    terminal.awaits(&["nothing was done", "left with 1"]);
    assert!(opens(&a, &["--passphrase-file", &secrets.path("new")]));
}

#[test]
fn a_key_file_stands_beside_the_passphrase_or_instead_of_it() {
    let world = World::new();
    let secrets = Secrets::of(&world);
    let a = world.device("a");
    let (old, key, other) = (secrets.path("old"), secrets.path("key"), secrets.path("other-key"));
    create(&a, &["--passphrase-file", &old, "--key-file", &key]);
    assert!(opens(&a, &["--passphrase-file", &old, "--key-file", &key]));
    for flags in [&["--passphrase-file", &old][..], &["--passphrase-file", &old, "--key-file", &other]] {
        assert!(!opens(&a, flags), "{flags:?}");
    }
    // The configured one does as well.
    let config = a.home.join("config.toml");
    std::fs::write(&config, format!("key-file = '{key}'")).unwrap();
    assert!(opens(&a, &["--passphrase-file", &old]));

    a.ok(&["passphrase", NAME, "--no-passphrase", "--passphrase-file", &old]);
    assert!(opens(&a, &[]), "the key file alone");
    std::fs::remove_file(&config).unwrap();
    assert!(!opens(&a, &[]) && !opens(&a, &["--key-file", &other]) && opens(&a, &["--key-file", &key]));

    a.ok(&["passphrase", NAME, "--key-file", &key, "--new-key-file", &other]);
    assert!(opens(&a, &["--key-file", &other]) && !opens(&a, &["--key-file", &key]));
    a.ok(&["passphrase", NAME, "--key-file", &other, "--no-key-file"]);
    assert!(opens(&a, &[]));
    assert_eq!(a.kilofs(&["passphrase", NAME, "--key-file", &key]).code, Some(2), "it does not add one");
    let short = secrets.path("short");
    std::fs::write(&short, "too short").unwrap();
    assert_eq!(a.kilofs(&["passphrase", NAME, "--new-key-file", &short]).code, Some(2));
}

#[test]
fn commands_and_credentials_answer_for_a_person() {
    let world = World::new();
    let secrets = Secrets::of(&world);
    let a = world.device("a");
    let old = secrets.path("old");
    create(&a, &["--passphrase-file", &old]);
    let configure = |command: &str| {
        std::fs::write(a.home.join("config.toml"), format!("passphrase-command = {command}")).unwrap();
    };
    configure(&format!("['cat', '{old}']"));
    assert!(opens(&a, &[]));
    configure(&format!("['cat', '{}']", secrets.path("new")));
    assert!(!opens(&a, &[]));
    configure("['sh', '-c', 'echo the safe is shut >&2; exit 3']");
    let failed = a.kilofs(&["link", NAME, "--read"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.err.contains("exit status: 3") && failed.err.contains("the safe is shut"), "{failed:?}");

    // A service of systemd gets a directory of files instead, which goes first.
    let credentials = world.place("credentials");
    std::fs::copy(&old, credentials.join(format!("kilofs-passphrase-{NAME}"))).unwrap();
    let mut command = a.command(&["link", NAME, "--read"]);
    let done = run_within(command.env("CREDENTIALS_DIRECTORY", &credentials), b"", PATIENCE);
    assert_eq!(done.code, Some(0), "{done:?}");
    a.ok(&["passphrase", NAME, "--passphrase-file", &old, "--new-key-file", &secrets.path("key")]);
    std::fs::copy(secrets.path("key"), credentials.join("kilofs-key-file")).unwrap();
    let mut command = a.command(&["link", NAME, "--read"]);
    let done = run_within(command.env("CREDENTIALS_DIRECTORY", &credentials), b"", PATIENCE);
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn the_kernel_keeps_the_key_until_it_is_locked_or_changed() {
    let world = World::new();
    let secrets = Secrets::of(&world);
    let a = world.device("a");
    let (old, new) = (secrets.path("old"), secrets.path("new"));
    create(&a, &["--passphrase-file", &old]);
    let unlock = ["unlock", NAME, "--passphrase-file", &old];
    let first = a.kilofs(&[&unlock[..], &["--timeout", "10m"]].concat());
    if first.err.contains("does not let programs keep keys") {
        return; // A container without the kernel's keys; the refusal is what can be seen here.
    }
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(opens(&a, &[]));
    a.mount();
    let locked = a.json(&["lock", NAME]);
    assert_eq!((&locked["was_unlocked"], &locked["engine_runs"]), (&true.into(), &true.into()));
    a.write("goes-on", b"with the keys that the engine has");
    a.umount();
    // Without a terminal there is nobody to ask.
    assert_eq!(a.kilofs(&["link", NAME, "--read"]).code, Some(2));
    assert_eq!(a.json(&["lock", NAME])["was_unlocked"], false);

    a.ok(&unlock);
    assert!(!opens(&a, &["--passphrase-file", &new]), "a flag is tried, not passed over");
    a.ok(&["passphrase", NAME, "--passphrase-file", &old, "--new-passphrase-file", &new]);
    assert_eq!(a.kilofs(&["link", NAME, "--read"]).code, Some(2), "what was kept opens nothing now");
    a.ok(&["unlock", NAME, "--passphrase-file", &new, "--timeout", "1s"]);
    wait_until("the time is over", || a.kilofs(&["link", NAME, "--read"]).code == Some(2));
}

/// The passphrase that opens the keyring, of the two.
fn opening(device: &Device, secrets: &Secrets) -> &'static str {
    let with = |name| opens(device, &["--passphrase-file", &secrets.path(name)]);
    match (with("old"), with("new")) {
        (true, false) => "old",
        (false, true) => "new",
        both => panic!("opens with old and new: {both:?}"),
    }
}

#[test]
fn a_change_that_is_killed_leaves_the_old_keyring_or_the_new_one() {
    let world = World::new();
    let secrets = Secrets::of(&world);
    let a = world.device("a");
    create(&a, &["--passphrase-file", &secrets.path("old")]);
    let directory = a.home.join("databases").join(NAME);
    let left = |step: &dyn Fn(&Path)| step(&directory.join("keyring.next"));
    // What a process leaves that dies before it has put the new one in place: nothing, half of it, all of it.
    let whole = std::fs::read(directory.join("keyring")).unwrap();
    for bytes in [&whole[..0], &whole[..whole.len() / 2], &whole] {
        left(&|next| std::fs::write(next, bytes).unwrap());
        assert_eq!(opening(&a, &secrets), "old");
    }
    let mut now = "old";
    for round in 0..12u64 {
        let next = if now == "old" { "new" } else { "old" };
        let (from, to) = (secrets.path(now), secrets.path(next));
        let arguments = ["passphrase", NAME, "--passphrase-file", &from, "--new-passphrase-file", &to];
        let mut child = a.command(&arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
        // At other moments each time; which, is for the machine to say.
        std::thread::sleep(std::time::Duration::from_millis(round * 60));
        child.kill().unwrap();
        child.wait().unwrap();
        now = opening(&a, &secrets);
    }
    let (from, to) = (secrets.path(now), secrets.path("key"));
    a.ok(&["passphrase", NAME, "--passphrase-file", &from, "--new-passphrase-file", &to]);
    assert!(opens(&a, &["--passphrase-file", &to]));
    left(&|next| assert!(!next.exists()));
}

//! Invitations, and what is left when all devices are lost.

use super::harness::{BINARY, Device, NAME, World};
use super::process::{Done, PATIENCE, run_within, wait_until};
use super::terminal::Terminal;
use kilofs::crypt::Kind;
use kilofs::crypt::link;
use std::path::Path;
use zeroize::Zeroizing;

fn join(device: &Device, text: &str, flags: &[&str]) -> Done {
    let arguments = [&["join", NAME, "--no-passphrase", "--offline"], flags].concat();
    run_within(&mut device.command(&arguments), text.as_bytes(), PATIENCE)
}

/// What a camera reads in a PNG image.
fn read_code(file: &Path) -> String {
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(std::fs::File::open(file).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let light = |x: usize, y: usize| pixels[y * info.line_size + x / 8] & (0x80 >> (x % 8)) != 0;
    let grey = |x, y| if light(x, y) { 255 } else { 0 };
    let mut image =
        rqrr::PreparedImage::prepare_from_greyscale(info.width as usize, info.height as usize, grey);
    image.detect_grids()[0].decode().unwrap().1
}

#[test]
fn an_invitation_opens_with_its_words_only() {
    let world = World::new();
    let a = world.device("a");
    a.ok(&["create", NAME, "--no-passphrase", "--offline"]);
    let png = world.place("secrets").join("code.png");
    let png_text = png.to_str().unwrap();
    let made = a.kilofs(&["invite", NAME, "--read", "--qr", "--png", png_text]);
    assert_eq!(made.code, Some(0), "{made:?}");
    // The link alone on standard output, under its code; the words alone on standard error.
    let text = made.out.lines().last().unwrap();
    let words = made.err.lines().map(str::trim).find(|line| line.split(' ').count() == 6).unwrap().to_owned();
    assert!(made.out.contains('█') && text.starts_with("kilofs:read-invite:"), "{made:?}");
    assert!(!made.out.contains(&words) && !made.err.contains(text), "{made:?}");
    assert_eq!(read_code(&png).to_lowercase(), text);
    assert_eq!(
        a.kilofs(&["invite", NAME, "--read", "--png", png_text]).code,
        Some(1),
        "nothing is written over"
    );

    let file = |name: &str, content: &str| {
        let file = world.place("secrets").join(name);
        std::fs::write(&file, content).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (right, wrong) =
        (file("right", &words), file("wrong", "abandon abandon abandon abandon abandon abandon"));
    let b = world.device("b");
    let refused = join(&b, text, &["--link-passphrase-file", &wrong]);
    assert_eq!((refused.code, refused.err.lines().count()), (Some(5), 1), "{refused:?}");
    assert!(!b.home.join("databases").join(NAME).join("keyring").exists());
    let joined = join(&b, &read_code(&png), &["--link-passphrase-file", &right]);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    assert_eq!(b.status()["capability"], "read");
    assert_eq!(b.kilofs(&["invite", NAME, "--write"]).code, Some(4), "a reader cannot invite writers");
}

#[test]
fn join_asks_a_person_for_the_words() {
    let world = World::new();
    let a = world.device("a");
    a.ok(&["create", NAME, "--no-passphrase", "--offline"]);
    let invited = a.json(&["invite", NAME, "--write", "--expires", "12h"]);
    let b = world.device("b");
    let file = world.place("secrets").join("link");
    std::fs::write(&file, invited["link"].as_str().unwrap()).unwrap();
    let line = format!(
        "{BINARY} --home {} join {NAME} --no-passphrase --offline --link-file {}",
        b.home.display(),
        file.display()
    );
    let terminal = Terminal::run(&world, (100, 20), &line);
    terminal.awaits(&["Passphrase of the link:"]);
    terminal.types(&invited["passphrase"].as_str().unwrap().replace(' ', "-").to_uppercase());
    terminal.awaits(&["joined with a write link", "left with 0"]);
}

#[test]
fn an_invitation_that_is_over_is_refused_before_its_words_are_asked_for() {
    let world = World::new();
    let a = world.device("a");
    a.ok(&["create", NAME, "--no-passphrase", "--offline"]);
    let plain = link::parse(&a.link("write"), || None).unwrap();
    assert_eq!(plain.kind(), Kind::Write);
    let text = Zeroizing::new(link::print_invite(&plain, "zoo zoo zoo", 1_000_000_000));
    let b = world.device("b");
    let refused = join(&b, &text, &[]);
    assert_eq!((refused.code, refused.err.lines().count()), (Some(5), 1), "{refused:?}");
    assert!(refused.err.contains("expired") && refused.err.contains("2001-09-09 01:46:40"), "{refused:?}");
}

#[test]
fn a_recovery_sheet_gives_everything_back() {
    let world = World::new();
    let a = world.device("a");
    let sheet = world.place("secrets").join("sheet.txt");
    let network = ["--bootstrap", &world.bootstrap(), "--listen", "127.0.0.1:0", "--poll-interval", "0.5"];
    let create = ["create", NAME, "--no-passphrase", "--recovery", sheet.to_str().unwrap()];
    a.ok(&[&create[..], &network].concat());
    a.mount();
    a.write("will", b"to my cat");
    a.ok(&["block", NAME, "add", "/rules", "--mode", "ro"]);
    a.sync();
    let mirror = world.device("mirror");
    mirror.join(&a.link("mirror"));
    mirror.mirror();
    wait_until("the mirror has all", || mirror.status()["versions"][0]["complete"] == true);
    a.umount();
    std::fs::remove_dir_all(&a.home).unwrap();

    let text = std::fs::read_to_string(&sheet).unwrap();
    let mut numbered: Vec<(u32, &str)> = Vec::new();
    let all: Vec<&str> = text.split_whitespace().collect();
    for pair in all.windows(2) {
        numbered.extend(pair[0].strip_suffix('.').and_then(|n| Some((n.parse().ok()?, pair[1]))));
    }
    numbered.sort_unstable();
    let words = numbered.iter().map(|(_, word)| *word).collect::<Vec<_>>().join("\n");
    let b = world.device("b");
    let arguments = [&["join", NAME, "--no-passphrase", "--recovery-words"], &network[..]].concat();
    let wrong = words.replacen(numbered[3].1, "kilofs", 1);
    let refused = run_within(&mut b.command(&arguments), wrong.as_bytes(), PATIENCE);
    assert_eq!((refused.code, refused.err.lines().count()), (Some(5), 1), "{refused:?}");
    run_within(&mut b.command(&arguments), words.as_bytes(), PATIENCE).expect("join");
    b.mount_with(&["-o", "admin"]);
    b.awaits("will", b"to my cat");
    // Everything: the policy too, and what only the admin may write.
    wait_until("the block is known", || b.path("rules").is_dir());
    b.write("rules/first", b"be kind");
    b.ok(&["policy", NAME, "set", "/rules", "rw"]);
    b.sync();

    // The line under the words does the same.
    let c = world.device("c");
    c.join(text.lines().find(|line| line.starts_with("kilofs:recovery:")).unwrap());
    c.mount();
    c.awaits("rules/first", b"be kind");
    assert_eq!(c.status()["capability"], "admin");
}

#[test]
fn a_sheet_is_written_once_and_for_a_database_that_is_made() {
    let world = World::new();
    let a = world.device("a");
    let sheet = world.place("secrets").join("sheet.html");
    let create = ["create", NAME, "--no-passphrase", "--offline", "--recovery"];
    let at = |file: &Path| a.kilofs(&[&create[..], &[file.to_str().unwrap()]].concat());
    assert_eq!(at(&sheet.with_extension("png")).code, Some(2));
    std::fs::write(&sheet, "another sheet").unwrap();
    assert_eq!(at(&sheet).code, Some(1));
    assert_eq!(std::fs::read_to_string(&sheet).unwrap(), "another sheet");
    std::fs::remove_file(&sheet).unwrap();
    assert_eq!(at(&sheet).code, Some(0));
    let page = std::fs::read_to_string(&sheet).unwrap();
    assert!(page.contains("<h1>shared</h1>") && page.contains("<svg"), "{page}");
    std::fs::remove_file(&sheet).unwrap();
    assert_eq!(at(&sheet).code, Some(1), "there is one of that name");
    assert!(!sheet.exists());
}

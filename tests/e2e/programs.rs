//! Programs that people use, at two mounts at once: each sees at one what the other did at the other.

use super::harness::{Device, World, await_agreement};
use super::process::{PATIENCE, run, run_within, wait_until};
use super::trees;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

fn two(world: &World) -> (Device, Device) {
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    await_agreement(&[&a, &b]);
    (a, b)
}

#[track_caller]
fn assert_no_conflicts(devices: &[&Device]) {
    await_agreement(devices);
    for device in devices {
        assert_eq!(device.status()["conflicts"].as_array().unwrap().len(), 0, "{}", device.status());
    }
    trees::assert_equal(&devices[0].mount, &devices[1].mount);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn two_push_and_pull_through_a_bare_repository() {
    let world = World::new();
    let (a, b) = two(&world);
    run("git", &["init", "-q", "--bare", "-b", "main", "bare.git"], &a.mount);
    wait_until("the repository arrives", || {
        b.path("bare.git/HEAD").exists() && b.path("bare.git/refs").is_dir()
    });
    await_agreement(&[&a, &b]);
    let work = [("a", &a), ("b", &b)].map(|(name, device)| {
        let place = world.place(&format!("work-{name}"));
        run("git", &["clone", "-q", text(&device.path("bare.git")), "clone"], &place);
        (name, device, place.join("clone"))
    });
    run("git", &["checkout", "-q", "-B", "main"], &work[0].2);
    run("git", &["checkout", "-q", "-B", "main"], &work[1].2);
    let mut last = String::new();
    for round in 0..6 {
        let (name, device, clone) = &work[round % 2];
        if !last.is_empty() {
            wait_until("what the other pushed is here", || {
                let mut command = Command::new("git");
                command.args(["rev-parse", "main"]).current_dir(device.path("bare.git"));
                run_within(&mut command, b"", PATIENCE).out.trim() == last
            });
            run("git", &["pull", "-q", "--ff-only", "origin", "main"], clone);
        }
        trees::source_tree(&world.place(&format!("work-{name}/clone/round-{round}")));
        run("git", &["add", "-A"], clone);
        run("git", &["commit", "-q", "-m", &format!("round {round} by {name}")], clone);
        run("git", &["push", "-q", "origin", "main"], clone);
        last = run("git", &["rev-parse", "main"], clone).trim().to_owned();
    }
    assert_no_conflicts(&[&a, &b]);
    for device in [&a, &b] {
        run("git", &["fsck", "--full", "--strict"], &device.path("bare.git"));
        assert_eq!(run("git", &["rev-list", "--count", "main"], &device.path("bare.git")).trim(), "6");
    }
}

#[test]
fn a_database_written_at_one_is_read_at_the_other() {
    const ROWS: usize = 60;
    let world = World::new();
    let (a, b) = two(&world);
    let make = "CREATE TABLE rows (id INTEGER PRIMARY KEY, copy INTEGER, filler TEXT);";
    run("sqlite3", &["rows.db", make], &a.mount);
    wait_until("it arrives", || b.path("rows.db").exists());
    let (done, end) = (AtomicBool::new(false), Instant::now() + 2 * PATIENCE);
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut most) = (0, 0);
            while !done.load(Ordering::Relaxed) && Instant::now() < end {
                let mut command = Command::new("sqlite3");
                let sum = "SELECT count(*), count(CASE WHEN id = copy THEN 1 END) FROM rows";
                command.args(["-readonly", "rows.db", sum]).current_dir(&b.mount);
                let read = run_within(&mut command, b"", PATIENCE);
                // What came in the middle of a transaction, or of this query, is refused by sqlite, not shown.
                if read.code != Some(0) {
                    continue;
                }
                let (all, good) = read.out.trim().split_once('|').unwrap();
                assert_eq!(all, good, "a row that nobody wrote");
                most = most.max(all.parse::<usize>().unwrap());
                reads += 1;
            }
            assert!(most <= ROWS);
            reads
        });
        for row in 1..=ROWS {
            let insert = format!("INSERT INTO rows VALUES ({row}, {row}, hex(randomblob(700)));");
            run("sqlite3", &["rows.db", &insert], &a.mount);
        }
        wait_until("all rows are at the other", || {
            let mut command = Command::new("sqlite3");
            command.args(["-readonly", "rows.db", "SELECT count(*) FROM rows"]).current_dir(&b.mount);
            run_within(&mut command, b"", PATIENCE).out.trim() == ROWS.to_string()
        });
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads > 0);
    assert_eq!(b.status()["counters"]["published"], 0, "who only reads has nothing to say");
    assert_no_conflicts(&[&a, &b]);
    for device in [&a, &b] {
        assert_eq!(run("sqlite3", &["rows.db", "PRAGMA integrity_check"], &device.mount).trim(), "ok");
    }
}

#[test]
fn five_thousand_files_are_unpacked_and_copied_back() {
    const FILES: usize = 5_000;
    // Without it rsync takes times within one second for the same: to a directory that was filled in the second in which
    // the source was made it gives none.
    const EXACT: &str = "--modify-window=-1";
    let world = World::new();
    let (a, b) = two(&world);
    let source = world.place("source");
    for number in 0..FILES {
        let directory = source.join(format!("{:02}", number % 50));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("file{number}")), format!("{number}").repeat(number % 97))
            .unwrap();
    }
    let work = world.place("work");
    run("tar", &["--format=posix", "-cf", "all.tar", "-C", text(&source), "."], &work);
    std::fs::create_dir(a.path("unpacked")).unwrap();
    std::thread::scope(|scope| {
        // The other one is at work too, in another place.
        let synced =
            scope.spawn(|| run("rsync", &["-a", EXACT, &format!("{}/", text(&source)), "synced"], &b.mount));
        run("tar", &["-xpf", text(&work.join("all.tar")), "-C", text(&a.path("unpacked"))], &work);
        synced.join().unwrap();
    });
    assert_no_conflicts(&[&a, &b]);
    // Each goes back from the device that did not write it.
    run("cp", &["-a", text(&b.path("unpacked")), "unpacked"], &work);
    trees::assert_equal(&source, &work.join("unpacked"));
    let (from, to) = (format!("{}/", text(&source)), a.path("synced"));
    let again = ["-ai", EXACT, "--delete", &from, text(&to)];
    assert_eq!(run("rsync", &again, &work), "", "a second rsync, at the other device, finds nothing to do");
    // And all of it goes away again.
    std::fs::remove_dir_all(a.path("unpacked")).unwrap();
    std::fs::remove_dir_all(b.path("synced")).unwrap();
    assert_no_conflicts(&[&a, &b]);
    assert_eq!(std::fs::read_dir(&b.mount).unwrap().count(), 0);
}

#[test]
fn editors_take_turns() {
    let world = World::new();
    let (a, b) = two(&world);
    a.write("text", b"one\n");
    b.awaits("text", b"one\n");
    let gone = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    let mut expected = "one\n".to_owned();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let seen =
                    [&a, &b].map(|device| std::fs::metadata(device.path("text")).is_ok_and(|m| m.len() > 0));
                // The editor's own device may see it in between.
                if !seen[0] && !seen[1] {
                    gone.store(true, Ordering::Relaxed);
                }
            }
        });
        for round in 0..6 {
            let (device, other) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let line = format!("round {round}");
            // An office program's lock is seen at the other device, and goes.
            device.write(".~lock.text#", b"somebody,host,time");
            other.awaits(".~lock.text#", b"somebody,host,time");
            match round % 3 {
                0 => {
                    let put = format!("normal Go{line}");
                    run("vim", &["-Nu", "NONE", "-es", "-c", &put, "-c", "wq", "text"], &device.mount);
                }
                1 => {
                    let save = format!(
                        "(progn (find-file \"text\") (setq create-lockfiles t make-backup-files nil) \
                         (goto-char (point-max)) (insert \"{line}\\n\") (save-buffer))"
                    );
                    run("emacs", &["--batch", "--quick", "--eval", &save], &device.mount);
                }
                _ => {
                    run("cp", &["-p", "text", "text.new"], &device.mount);
                    run(
                        "sh",
                        &["-c", &format!("echo '{line}' >> text.new; mv text.new text")],
                        &device.mount,
                    );
                }
            }
            std::fs::remove_file(device.path(".~lock.text#")).unwrap();
            expected += &format!("{line}\n");
            other.awaits("text", expected.as_bytes());
            wait_until("the lock is gone", || !other.path(".~lock.text#").exists());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(!gone.load(Ordering::Relaxed), "the text was nowhere for a moment");
    assert_no_conflicts(&[&a, &b]);
    let names: Vec<_> =
        std::fs::read_dir(&b.mount).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["text"], "swap files and locks are gone");
}

#[test]
fn what_is_built_at_one_is_up_to_date_at_the_other() {
    const PARTS: usize = 12;
    let world = World::new();
    let (a, b) = two(&world);
    std::fs::create_dir(a.path("src")).unwrap();
    let (mut declared, mut called) = (String::new(), String::new());
    for part in 0..PARTS {
        declared += &format!("int part{part}(void);\n");
        called += &format!(" + part{part}()");
        let source = format!("#include \"all.h\"\nint part{part}(void) {{ return {part}; }}\n");
        a.write(&format!("src/part{part}.c"), source.as_bytes());
    }
    a.write("src/all.h", declared.as_bytes());
    let main = format!(
        "#include <stdio.h>\n#include \"all.h\"\nint main(void) {{ printf(\"%d\\n\", 0{called}); }}\n"
    );
    a.write("src/main.c", main.as_bytes());
    a.write(
        "src/Makefile",
        b"sum: $(patsubst %.c,%.o,$(wildcard *.c))\n\tcc -o $@ $^\n%.o: %.c all.h\n\tcc -c -o $@ $<\n",
    );
    let make = |device: &Device, arguments: &[&str]| run("make", arguments, &device.path("src"));
    make(&a, &["-j2"]);
    assert_no_conflicts(&[&a, &b]);
    make(&b, &["-q"]);
    assert_eq!(run("./sum", &[], &b.path("src")).trim(), (0..PARTS).sum::<usize>().to_string());
    b.write("src/part3.c", b"#include \"all.h\"\nint part3(void) { return 1000; }\n");
    make(&b, &["-j2"]);
    assert_no_conflicts(&[&a, &b]);
    make(&a, &["-q"]);
    assert_eq!(run("./sum", &[], &a.path("src")).trim(), (997 + (0..PARTS).sum::<usize>()).to_string());
}

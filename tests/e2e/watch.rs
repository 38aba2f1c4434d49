//! The live view, seen as a person does: in a terminal of tmux, of which the text is read back.

use super::harness::{BINARY, Device, NAME, World};
use super::process::PATIENCE;
use super::terminal::Terminal;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

fn view(device: &Device, rest: &str) -> String {
    format!("{BINARY} --home {} status {rest} --watch --interval 0.2", device.home.display())
}

#[test]
fn the_live_view_shows_what_happens_and_gives_the_terminal_back() {
    let world = World::new();
    let a = world.creator("a");
    let b = world.joined("b", &a, "write");
    a.write("from a \x1b[31mred", b"one");
    b.awaits("from a \x1b[31mred", b"one");
    b.write("from-b", b"two");
    a.awaits("from-b", b"two");
    let maker = b.status()["device"].as_str().unwrap()[..8].to_owned();

    let terminal = Terminal::run(&world, (100, 40), &view(&a, NAME));
    let text =
        terminal.awaits(&["shared (admin)", "all published", "1 neighbour", "Who wrote what", "/from-b"]);
    assert!(text.contains("/from a \\u{1b}[31mred"), "{text}");
    assert!(text.lines().any(|line| line.contains(&maker) && line.contains("/from-b")), "{text}");
    assert!(text.lines().any(|line| line.contains("this device") && line.contains("/from a")), "{text}");
    assert!(terminal.coloured().contains("\x1b[32m"), "what is well is green");
    b.write("later", b"three");
    terminal.awaits(&["/later"]);

    terminal.tmux(&["resize-window", "-x", "50", "-y", "15"]);
    let text = terminal.awaits(&["more lines"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() <= 15 && lines[0].starts_with("shared (admin)"), "{text}");
    assert!(lines.last().unwrap().starts_with("q quit"), "{text}");
    terminal.keys("Space");
    terminal.awaits(&["Neighbours"]);
    terminal.tmux(&["resize-window", "-x", "100", "-y", "40"]);

    a.kill9();
    terminal.awaits(&["no engine for", "no engine runs"]);
    a.mount();
    terminal.awaits(&["live", "mounted at", "1 neighbour"]);

    terminal.keys("q");
    let text = terminal.awaits(&["left with 0", "icanon"]);
    assert!(text.contains(" icanon") && text.contains(" echo "), "{text}");
    assert!(!text.contains("Who wrote what"), "the other screen is left: {text}");
}

#[test]
fn all_databases_without_colours_and_a_signal_gives_the_terminal_back() {
    let world = World::new();
    let a = world.creator("a");
    a.ok(&["create", "other", "--no-passphrase", "--offline"]);
    let terminal = Terminal::run(&world, (80, 24), &format!("NO_COLOR=1 {}", view(&a, "")));
    terminal.awaits(&[
        "kilofs, 2 databases",
        "shared  mounted at",
        "other   no engine runs",
        "all published",
    ]);
    assert!(!terminal.coloured().contains("\x1b[3"), "NO_COLOR is heeded");
    terminal.keys("Down");
    terminal.keys("Enter");
    terminal.awaits(&["shared (admin)"]);
    terminal.keys("Escape");
    terminal.awaits(&["kilofs, 2 databases"]);
    let pid = terminal.tmux(&["list-panes", "-F", "#{pane_pid}"]);
    let child = Command::new("pkill").args(["-TERM", "-P", pid.trim(), "kilofs"]).status().unwrap();
    assert!(child.success());
    let text = terminal.awaits(&["left with", " icanon"]);
    assert!(text.contains(" echo "), "{text}");
}

/// `--watch --json`, line by line; ended with the test.
struct Lines {
    child: Child,
    lines: Receiver<Value>,
}

impl Lines {
    fn of(device: &Device) -> Lines {
        let mut command = device.command(&["status", NAME, "--watch", "--interval", "0.2", "--json"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let pipe = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Lines { child, lines }
    }

    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line says {what}"));
            if is_so(&line) {
                return line;
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn a_script_gets_one_object_a_line_at_each_change() {
    let world = World::new();
    let a = world.creator("a");
    let lines = Lines::of(&a);
    let first = lines.until("that all is published", |line| line["published"] == true);
    a.write("text", b"new");
    let changed =
        lines.until("the new content", |line| line["root"] != first["root"] && line["published"] == true);
    assert_eq!(changed["name"], NAME);
    assert_eq!(changed["versions"][0]["device"], changed["device"]);
    a.kill9();
    let gone = lines.until("that the engine is gone", |line| line["pid"].is_null());
    assert_eq!(gone["root"], changed["root"], "what is known is not forgotten");
    a.mount();
    lines.until("that it is back", |line| line["pid"] == a.pid());
}

#[test]
fn without_a_terminal_the_view_says_so() {
    let world = World::new();
    let a = world.device("a");
    a.create();
    let done = a.kilofs(&["status", NAME, "--watch"]);
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.err.contains("--json"), "{done:?}");
    assert_eq!(a.kilofs(&["status", "--interval", "1"]).code, Some(2), "an interval of nothing");
    assert_eq!(a.kilofs(&["status", "--watch", "--interval", "0"]).code, Some(2));
}

//! A terminal of tmux, of which the text is read back: what a person sees and types.

use super::harness::World;
use super::process::{PATIENCE, run_within, wait_until};
use std::path::PathBuf;
use std::process::Command;

/// A terminal of its own, ended with the test.
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Runs a line of shell in a terminal of so many columns and rows. What it leaves behind stays readable.
    pub fn run(world: &World, (columns, rows): (usize, usize), line: &str) -> Terminal {
        let terminal = Terminal { socket: world.place("tmux").join("socket") };
        let line = format!("{line}; echo left with $?; stty -a; sleep 1000");
        let (columns, rows) = (columns.to_string(), rows.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, &line]);
        terminal
    }

    #[track_caller]
    pub fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(arguments).env_remove("TMUX").env("LC_ALL", "C.UTF-8");
        run_within(&mut command, b"", PATIENCE).expect("tmux")
    }

    pub fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The text with its colours.
    pub fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    #[track_caller]
    pub fn awaits(&self, parts: &[&str]) -> String {
        let mut text = String::new();
        wait_until(&format!("the screen shows {parts:?}"), || {
            text = self.text();
            parts.iter().all(|part| text.contains(part))
        });
        text
    }

    pub fn keys(&self, keys: &str) {
        self.tmux(&["send-keys", keys]);
    }

    /// Types a line.
    pub fn types(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.keys("Enter");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

//! Lines of a live view: text in a few tones, cut to a width.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What a piece of text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// Of less interest.
    Dim,
    /// A heading.
    Bold,
    /// As it should be.
    Good,
    /// Not as it should be yet.
    Warn,
    /// Something to look at.
    Bad,
    /// What is chosen.
    Chosen,
}

impl Tone {
    /// The code of ECMA-48 (SGR).
    fn code(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Dim => "\x1b[2m",
            Tone::Bold => "\x1b[1m",
            Tone::Good => "\x1b[32m",
            Tone::Warn => "\x1b[33m",
            Tone::Bad => "\x1b[31;1m",
            Tone::Chosen => "\x1b[7m",
        }
    }
}

/// One line. Its text has to be harmless for a terminal already.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Line(Vec<(Tone, String)>);

impl Line {
    /// A line of one piece.
    pub fn of(tone: Tone, text: impl Into<String>) -> Line {
        Line(vec![(tone, text.into())])
    }

    /// The same with another piece behind.
    pub fn and(mut self, tone: Tone, text: impl Into<String>) -> Line {
        self.0.push((tone, text.into()));
        self
    }

    /// The same with another piece at the right edge, if both have room.
    pub fn right(self, width: usize, tone: Tone, text: &str) -> Line {
        let used: usize = self.0.iter().map(|(_, piece)| piece.width()).sum();
        match width.checked_sub(used + text.width()) {
            Some(gap) if gap > 0 => self.and(Tone::Plain, " ".repeat(gap)).and(tone, text),
            _ => self,
        }
    }

    /// The text without tones.
    #[cfg(test)]
    pub fn plain(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// What to write to a terminal: never wider than `width` columns.
    pub fn render(&self, width: usize, colours: bool) -> String {
        let whole: usize = self.0.iter().map(|(_, piece)| piece.width()).sum();
        let mut left = if whole > width { width.saturating_sub(1) } else { width };
        let mut text = String::new();
        for (tone, piece) in &self.0 {
            let code = if colours { tone.code() } else { "" };
            let mut part = String::new();
            for character in piece.chars() {
                let columns = character.width().unwrap_or(0);
                let Some(rest) = left.checked_sub(columns) else {
                    left = 0;
                    break;
                };
                left = rest;
                part.push(character);
            }
            if part.is_empty() {
                continue;
            }
            text.push_str(code);
            text.push_str(&part);
            if !code.is_empty() {
                text.push_str("\x1b[0m");
            }
        }
        if whole > width && width > 0 {
            text.push('…');
        }
        text
    }
}

/// A bar of `cells` characters.
pub fn bar(done: u64, total: u64, cells: usize) -> String {
    let share = if total == 0 { 1.0 } else { done.min(total) as f64 / total as f64 };
    let full = (share * cells as f64) as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(cells - full.min(cells)))
}

/// Text padded to a number of columns, or cut to it.
pub fn column(text: &str, columns: usize) -> String {
    let cut = Line::of(Tone::Plain, text).render(columns, false);
    let gap = columns.saturating_sub(cut.width());
    cut + &" ".repeat(gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_never_wider_than_its_terminal() {
        let line = Line::of(Tone::Bold, "日本語").and(Tone::Bad, "abc");
        assert_eq!(line.render(9, false), "日本語abc");
        assert_eq!(line.render(8, false), "日本語a…");
        assert_eq!(line.render(4, false), "日…", "half a character is none");
        assert_eq!(line.render(0, false), "");
        assert_eq!(line.render(3, true), "\x1b[1m日\x1b[0m…");
    }

    #[test]
    fn bars_and_columns() {
        assert_eq!(bar(0, 10, 4), "[----]");
        assert_eq!(bar(5, 10, 4), "[##--]");
        assert_eq!(bar(20, 10, 4), "[####]");
        assert_eq!(bar(0, 0, 2), "[##]");
        assert_eq!(column("日本", 5), "日本 ");
        assert_eq!(column("abcdef", 4), "abc…");
    }
}

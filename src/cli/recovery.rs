//! The recovery sheet: what a database is made from, as words and as a code, on a page to be printed and put away.

use super::code::{Code, write_private};
use super::output::moment;
use crate::base::DatabaseId;
use crate::crypt::link;
use crate::crypt::recovery::RecoveryRoot;
use crate::daemon::control::{Failure, FailureKind};
use crate::daemon::core::now_seconds;
use crate::daemon::home::Name;
use std::path::Path;
use zeroize::Zeroizing;

const PAGE: &str = include_str!("recovery.html");
const COLUMNS: usize = 4;

/// The two forms of a sheet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Plain text.
    Text,
    /// A page for a browser.
    Page,
}

impl Form {
    /// As the name of the file says.
    pub fn of(file: &Path) -> Result<Form, Failure> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("html" | "htm") => Ok(Form::Page),
            Some("txt") => Ok(Form::Text),
            _ => Err(Failure::new(
                FailureKind::Usage,
                format!(
                    "a recovery sheet is a page (FILE.html) or plain text (FILE.txt), not {}",
                    file.display()
                ),
            )),
        }
    }
}

/// Writes the sheet of a database.
pub fn write(file: &Path, name: &Name, database: &DatabaseId, root: &RecoveryRoot) -> Result<(), Failure> {
    let form = Form::of(file)?;
    let date = moment(i64::from(now_seconds()));
    let date = date.split(' ').next().unwrap_or_default();
    let sheet = sheet(form, name, database, root, date)?;
    write_private(file, sheet.as_bytes())
}

fn sheet(
    form: Form,
    name: &Name,
    database: &DatabaseId,
    root: &RecoveryRoot,
    date: &str,
) -> Result<Zeroizing<String>, Failure> {
    let words = root.words();
    let link = Zeroizing::new(link::print_recovery(root));
    let code = Code::of(&link)?;
    let database = &database.to_string()[..16];
    let filled = match form {
        Form::Page => {
            let items: Zeroizing<String> =
                Zeroizing::new(words.split(' ').map(|word| format!("<li>{word}</li>")).collect());
            let filling = [
                ("NAME", name.as_str()),
                ("DATE", date),
                ("DATABASE", database),
                ("WORDS", &items),
                ("CODE", &code.svg()),
                ("LINK", &link),
            ];
            filled(PAGE, &filling)
        }
        Form::Text => Zeroizing::new(format!(
            "kilofs recovery sheet: {name}\n\
             made {date}, database {database}\n\n\
             WHOEVER HAS THIS SHEET HAS EVERYTHING: reads, changes, and decides who may.\n\
             Print it, put it where you keep documents, delete the file.\n\n\
             {}\n\
             When all devices are lost, on a new one:\n\n\
             \x20   kilofs join {name} --recovery-words     and type the words in their order\n\
             \x20   kilofs join {name}                      and give the line below, or what the code reads as\n\n\
             The content comes from a mirror or another device that still has it.\n\n\
             {}\n\n{}",
            *table(&words),
            *link,
            code.paper()
        )),
    };
    Ok(filled)
}

/// The page with what stands between the signs `{{` and `}}` put in.
fn filled(page: &str, filling: &[(&str, &str)]) -> Zeroizing<String> {
    let size = page.len() + filling.iter().map(|(_, value)| value.len()).sum::<usize>() * 4;
    let mut text = Zeroizing::new(String::with_capacity(size));
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let (key, after) = after.split_once("}}").unwrap_or((after, ""));
        text.push_str(filling.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value));
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Numbered words, down the columns.
fn table(words: &str) -> Zeroizing<String> {
    let words: Vec<&str> = words.split(' ').collect();
    let rows = words.len().div_ceil(COLUMNS);
    let mut text = Zeroizing::new(String::with_capacity(words.len() * 16));
    for row in 0..rows {
        for n in (row..words.len()).step_by(rows) {
            let gap = if n + rows < words.len() { 10 } else { 0 };
            text.push_str(&format!("{:>4}. {:<gap$}", n + 1, words[n]));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::Secret;

    fn made(form: Form) -> (RecoveryRoot, Zeroizing<String>) {
        let root = RecoveryRoot::new(Secret::new([0x5a; 32]));
        let name = Name::new("notes").unwrap();
        let sheet = sheet(form, &name, &root.create().database_id(), &root, "2026-01-02").unwrap();
        (root, sheet)
    }

    #[test]
    fn the_words_of_the_text_can_be_typed_in_as_they_stand_by_number() {
        let (root, sheet) = made(Form::Text);
        let mut numbered: Vec<(usize, &str)> = Vec::new();
        let words: Vec<&str> = sheet.split_whitespace().collect();
        for pair in words.windows(2) {
            if let Some(Ok(n)) = pair[0].strip_suffix('.').map(str::parse) {
                numbered.push((n, pair[1]));
            }
        }
        numbered.sort_unstable();
        let typed = numbered.iter().map(|(_, word)| *word).collect::<Vec<_>>().join(" ");
        assert_eq!(RecoveryRoot::from_words(&typed), Ok(root.clone()));
        let line = sheet.lines().find(|line| line.starts_with("kilofs:recovery:")).unwrap();
        assert_eq!(link::parse(line, || None), Ok(root.recover()));
        assert!(sheet.lines().all(|line| line.chars().count() <= 96), "it fits a page");
    }

    #[test]
    fn the_page_holds_the_same_and_asks_nobody_for_anything() {
        let (root, page) = made(Form::Page);
        let words: String = page
            .split("<li>")
            .skip(1)
            .map(|item| item.split("</li>").next().unwrap())
            .fold(String::new(), |text, word| text + word + " ");
        assert_eq!(RecoveryRoot::from_words(&words), Ok(root.clone()));
        assert!(page.contains(&link::print_recovery(&root)) && page.contains("<svg"));
        assert!(!page.contains("{{") && !page.contains("}}"));
        let without_namespace = page.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http:", "https:", "<script", "<link", "@import", "url("] {
            assert!(!without_namespace.contains(outside), "{outside}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        for (file, form) in
            [("a.html", Some(Form::Page)), ("a.b.txt", Some(Form::Text)), ("a.png", None), ("a", None)]
        {
            assert_eq!(Form::of(Path::new(file)).ok(), form, "{file}");
        }
    }
}

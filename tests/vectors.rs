//! Golden and hostile vectors: files under `tests/vectors/KIND/`, checked against this program and, where keys are at
//! work, against a second implementation in `independent.rs`.
//!
//! A file has a comment, what goes in, a line `---`, and what must come out. `KILOFS_WRITE_VECTORS=1` writes them all
//! afresh; a change of what comes out of an old one is a change of the format.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "vectors/format.rs"]
mod format;
#[path = "vectors/hostile.rs"]
mod hostile;
#[path = "vectors/independent.rs"]
mod independent;
#[path = "vectors/make.rs"]
mod make;
#[path = "vectors/neighbours.rs"]
mod neighbours;
#[path = "vectors/observe.rs"]
mod observe;
#[path = "vectors/opened.rs"]
mod opened;
#[path = "vectors/rotated.rs"]
mod rotated;
#[path = "vectors/secrets.rs"]
mod secrets;

use format::Vector;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn kind_of(path: &Path) -> String {
    path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()
}

fn files() -> Vec<PathBuf> {
    let folders =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut files: Vec<PathBuf> =
        folders.flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_vector_comes_out_as_written() {
    if std::env::var_os("KILOFS_WRITE_VECTORS").is_some() {
        write();
    }
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for file in files() {
        let vector = Vector::parse(&fs::read_to_string(&file).unwrap());
        let kind = kind_of(&file);
        let seen = observe::observe(&kind, &vector.inputs);
        assert_eq!(seen, vector.outputs, "{}", file.display());
        *count.entry(kind).or_default() += 1;
    }
    let kinds: Vec<&str> = count.keys().map(String::as_str).collect();
    assert_eq!(kinds, observe::KINDS);
}

/// What goes in is encoded, sealed and signed here as it was when the files were written.
#[test]
fn the_generator_still_makes_these_files() {
    if std::env::var_os("KILOFS_WRITE_VECTORS").is_some() {
        return;
    }
    let made = make::all();
    assert_eq!(made.len(), files().len(), "a file without a maker, or two vectors of one name");
    for made in made {
        let file = folder().join(made.kind).join(made.name).with_extension("txt");
        let vector = Vector::parse(&fs::read_to_string(&file).unwrap());
        assert_eq!((vector.note.as_str(), &vector.inputs), (made.note, &made.inputs), "{}", file.display());
        assert_eq!(vector.outputs[0].1 == "accepted", made.good, "{}", file.display());
    }
}

fn write() {
    for made in make::all() {
        let outputs = observe::observe(made.kind, &made.inputs);
        let accepted = outputs.first().is_some_and(|(_, value)| value == "accepted");
        assert_eq!(accepted, made.good, "{}/{}: {outputs:?}", made.kind, made.name);
        let directory = folder().join(made.kind);
        fs::create_dir_all(&directory).unwrap();
        let vector = Vector { note: made.note.to_owned(), inputs: made.inputs, outputs };
        fs::write(directory.join(made.name).with_extension("txt"), vector.print()).unwrap();
    }
}

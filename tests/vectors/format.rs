//! The text form of a vector: `# note`, `key: value` lines, `---`, `key: value` lines.

use data_encoding::HEXLOWER;

/// Keys and values, in order; a key may come twice.
pub type Lines = Vec<(String, String)>;

/// One vector.
pub struct Vector {
    /// What it shows.
    pub note: String,
    /// What goes in.
    pub inputs: Lines,
    /// What comes out.
    pub outputs: Lines,
}

impl Vector {
    pub fn parse(text: &str) -> Vector {
        let (head, tail) = text.split_once("---\n").expect("a vector has a line ---");
        let (note, inputs) = head.split_once('\n').expect("a vector begins with a note");
        Vector { note: note.trim_start_matches("# ").to_owned(), inputs: lines(inputs), outputs: lines(tail) }
    }

    pub fn print(&self) -> String {
        let print =
            |lines: &Lines| lines.iter().map(|(key, value)| format!("{key}: {value}\n")).collect::<String>();
        format!("# {}\n{}---\n{}", self.note, print(&self.inputs), print(&self.outputs))
    }
}

fn lines(text: &str) -> Lines {
    let split = |line: &str| {
        let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("not a line of a vector: {line}"));
        (key.to_owned(), value.to_owned())
    };
    text.lines().map(split).collect()
}

/// Builds lines.
#[derive(Default, Clone)]
pub struct Builder(pub Lines);

impl Builder {
    pub fn text(mut self, key: &str, value: impl ToString) -> Builder {
        self.0.push((key.to_owned(), value.to_string()));
        self
    }

    pub fn hex(self, key: &str, bytes: &[u8]) -> Builder {
        self.text(key, HEXLOWER.encode(bytes))
    }
}

/// The value of a key.
pub fn get<'a>(lines: &'a Lines, key: &str) -> &'a str {
    find(lines, key).unwrap_or_else(|| panic!("no {key} in the vector"))
}

/// The value of a key, if it is there.
pub fn find<'a>(lines: &'a Lines, key: &str) -> Option<&'a str> {
    lines.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// The bytes of a key.
pub fn bytes(lines: &Lines, key: &str) -> Vec<u8> {
    HEXLOWER.decode(get(lines, key).as_bytes()).unwrap()
}

/// The bytes of a key as an array.
pub fn array<const N: usize>(lines: &Lines, key: &str) -> [u8; N] {
    bytes(lines, key).try_into().unwrap()
}

/// The number of a key.
pub fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(lines: &Lines, key: &str) -> T {
    get(lines, key).parse().unwrap()
}

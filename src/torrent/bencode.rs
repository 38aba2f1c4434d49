//! As much of bencoding (BEP 3) as a single-file torrent needs. Only the canonical form is read.

/// Deepest nesting that is skipped; torrents in the wild have three levels.
const DEPTH_MAX: usize = 16;

/// Appends an integer.
pub(super) fn write_integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(format!("i{value}e").as_bytes());
}

/// Appends a string.
pub(super) fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

/// Takes values off bencoded bytes; `None` means that they are not what was asked for.
pub(super) struct Bencoded<'a>(pub(super) &'a [u8]);

impl<'a> Bencoded<'a> {
    /// One given byte.
    pub(super) fn token(&mut self, token: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        (*first == token).then_some(())
    }

    /// A string.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number(b':')?).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }

    /// An integer that is not negative.
    pub(super) fn integer(&mut self) -> Option<u64> {
        self.token(b'i')?;
        self.number(b'e')
    }

    /// One value of any kind: its bytes.
    pub(super) fn value(&mut self) -> Option<&'a [u8]> {
        let before = self.0;
        self.skip(0)?;
        Some(&before[..before.len() - self.0.len()])
    }

    /// Decimal digits without leading zeros, up to `end`.
    fn number(&mut self, end: u8) -> Option<u64> {
        let count = self.0.iter().take(21).position(|byte| *byte == end)?;
        let (digits, rest) = self.0.split_at(count);
        self.0 = &rest[1..];
        let regular =
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && (digits[0] != b'0' || count == 1);
        regular.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
    }

    fn skip(&mut self, depth: usize) -> Option<()> {
        match self.0.first()? {
            b'0'..=b'9' => self.string().map(drop),
            b'i' => {
                self.token(b'i')?;
                if self.0.first() == Some(&b'-') {
                    self.token(b'-')?;
                    return (self.number(b'e')? != 0).then_some(());
                }
                self.number(b'e').map(drop)
            }
            _ if depth == DEPTH_MAX => None,
            b'l' => {
                self.token(b'l')?;
                while self.0.first()? != &b'e' {
                    self.skip(depth + 1)?;
                }
                self.token(b'e')
            }
            b'd' => {
                self.token(b'd')?;
                while self.0.first()? != &b'e' {
                    self.string()?;
                    self.skip(depth + 1)?;
                }
                self.token(b'e')
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_canonical_values_are_read() {
        for good in ["i0e", "i-1e", "0:", "4:spam", "le", "d1:ai1e1:bl2:xxi7eee"] {
            let mut reader = Bencoded(good.as_bytes());
            assert_eq!(reader.value(), Some(good.as_bytes()), "{good}");
            assert!(reader.0.is_empty());
        }
        let deep = "l".repeat(100_000);
        for bad in [
            "",
            "i",
            "ie",
            "i-0e",
            "i01e",
            "i+1e",
            "i99999999999999999999e",
            "5:spam",
            "01:a",
            ":",
            "l",
            "d1:a",
            "di1ei1ee",
            &deep,
        ] {
            assert_eq!(Bencoded(bad.as_bytes()).value(), None, "{bad}");
        }
    }
}

//! Sizes as people write them: a number of bytes, with or without K, M, G or T behind it.

use serde::{Deserialize, Deserializer};

/// The bytes of a text such as `500M` or `20GiB`; powers of 1024.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text} is no size: it is a number of bytes above 0, such as 500M or 20G");
    let (digits, shift) = match text.trim_end_matches(['i', 'B']).char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Bytes(u64),
    Text(String),
}

/// Reads a number of bytes or a text for [`parse`].
pub fn optional<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<Given>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Given::Bytes(bytes)) => Ok(Some(bytes)),
        Some(Given::Text(text)) => parse(&text).map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        for (text, bytes) in
            [("1", 1), ("500K", 500 << 10), ("2MiB", 2 << 20), ("3g", 3 << 30), ("1TB", 1 << 40)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "K", "-1", "0", "1.5M", "99999999999999T", "Mi5"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

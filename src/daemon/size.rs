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

/// Neighbours and swarm share a limit of rate, and a request of BitTorrent is 16 KiB: a lower one could not be kept.
pub const RATE_MIN: u32 = 32 << 10;

/// The bytes a second of a limit such as `500K` or `2M`.
pub fn rate(text: &str) -> Result<u32, String> {
    let bytes = parse(text)
        .map_err(|_| format!("{text} is no rate: it is a number of bytes per second, such as 500K or 2M"))?;
    let least = u64::from(RATE_MIN);
    match u32::try_from(bytes) {
        Ok(rate) if bytes >= least => Ok(rate),
        Ok(_) => Err(format!("a limit of {bytes} bytes per second could not be kept: 32K is the least")),
        Err(_) => Err(format!("a limit of rate is {} bytes per second at most", u32::MAX)),
    }
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

/// Reads a number of bytes a second or a text for [`rate`].
pub fn optional_rate<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let text = match Option::<Given>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Given::Bytes(bytes)) => bytes.to_string(),
        Some(Given::Text(text)) => text,
    };
    rate(&text).map(Some).map_err(serde::de::Error::custom)
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

    #[test]
    fn a_limit_that_could_not_be_kept_is_refused() {
        for (text, bytes) in [("32K", 32 << 10), ("500K", 500 << 10), ("2M", 2 << 20), ("40000", 40_000)] {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
        for (bad, word) in [("31K", "32K is the least"), ("1", "32K"), ("0", "no rate"), ("4G", "at most")] {
            assert!(rate(bad).is_err_and(|said| said.contains(word)), "{bad}");
        }
    }
}

//! The one binary codec: little-endian integers, LEB128 varints in their shortest form, length-prefixed bytes.
//! A decoder that reaches the end with bytes left over, or meets a form that the encoder would not have chosen, refuses.

use super::ids::{Id, Locator, Place};

/// Bytes that no encoder of ours would have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed encoding")]
pub struct Malformed;

/// Appends values to a byte vector.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// An empty writer.
    pub fn new() -> Writer {
        Writer(Vec::new())
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    /// An unsigned LEB128.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8)
    }

    /// Bytes without a length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes behind their length as a varint.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).raw(bytes)
    }

    /// A place: offset 6, length 3.
    pub fn place(&mut self, place: Place) -> &mut Self {
        debug_assert!(place.offset >> 48 == 0 && place.length >> 24 == 0);
        self.raw(&place.offset.to_le_bytes()[..6]).raw(&place.length.to_le_bytes()[..3])
    }

    /// A locator: place 9, id 32.
    pub fn locator(&mut self, locator: &Locator) -> &mut Self {
        self.place(locator.place).raw(&locator.id.0)
    }
}

/// Takes values off a byte slice; every method fails with [`Malformed`] instead of reading past the end.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader over all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.0.len()
    }

    /// The next `count` bytes.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.raw(N)?.try_into().map_err(|_| Malformed)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// An unsigned LEB128 in its shortest form.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// A varint that must be at most `max`: a count or a length that somebody else chose.
    pub fn bounded(&mut self, max: usize) -> Result<usize, Malformed> {
        let value = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        if value > max { Err(Malformed) } else { Ok(value) }
    }

    /// Bytes behind their length; the length must be at most `max`.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let length = self.bounded(max)?;
        self.raw(length)
    }

    /// A place: offset 6, length 3.
    pub fn place(&mut self) -> Result<Place, Malformed> {
        let (mut offset, mut length) = ([0; 8], [0; 4]);
        offset[..6].copy_from_slice(self.raw(6)?);
        length[..3].copy_from_slice(self.raw(3)?);
        Ok(Place { offset: u64::from_le_bytes(offset), length: u32::from_le_bytes(length) })
    }

    /// A locator: place 9, id 32.
    pub fn locator(&mut self) -> Result<Locator, Malformed> {
        Ok(Locator { place: self.place()?, id: Id(self.array()?) })
    }

    /// Ends the reading: anything left over is malformed.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut writer = Writer::new();
            writer.varint(value);
            let mut reader = Reader::new(&writer.0);
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.end(), Ok(()));
        }
        for long in [&[0x80, 0x00][..], &[0xff, 0x00], &[0xff; 11], &[0x80; 10], &[0x80]] {
            assert_eq!(Reader::new(long).varint(), Err(Malformed), "{long:?}");
        }
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_allocated() {
        let mut writer = Writer::new();
        writer.varint(1 << 40);
        assert_eq!(Reader::new(&writer.0).bytes(1 << 20), Err(Malformed));
    }
}

//! The signed item under which the DHT keeps the record (BEP 44, mutable, without salt).

use super::value::RECORD_BYTES;
use crate::base::{Malformed, PublicKey, Reader, Signature, Writer};
use crate::crypt::{DatabaseKey, verify};

/// A BEP 44 item, as it was signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedItem {
    /// Under which key it lies.
    pub key: PublicKey,
    /// Only grows.
    pub seq: i64,
    /// The value, without its bencoding.
    pub value: Vec<u8>,
    /// The key's signature over seq and value.
    pub signature: Signature,
}

impl SignedItem {
    /// Signs a value.
    pub fn sign(key: &DatabaseKey, seq: i64, value: Vec<u8>) -> SignedItem {
        let signature = key.sign(&signed_bytes(seq, &value));
        SignedItem { key: key.public(), seq, value, signature }
    }

    /// The item as files and pipes hold it: key, seq, signature, value.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(&self.key.0).u64(self.seq as u64).raw(&self.signature.0).bytes(&self.value);
        writer.0
    }

    /// Reads what [`SignedItem::encode`] wrote; the signature is still to be verified.
    pub fn decode(bytes: &[u8]) -> Result<SignedItem, Malformed> {
        let mut reader = Reader::new(bytes);
        let key = PublicKey(reader.array()?);
        let seq = reader.u64()? as i64;
        let signature = Signature(reader.array()?);
        let value = reader.bytes(RECORD_BYTES)?.to_vec();
        reader.end()?;
        Ok(SignedItem { key, seq, value, signature })
    }

    /// Whether the signature is the key's.
    pub fn verify(&self) -> bool {
        verify(&self.key.0, &signed_bytes(self.seq, &self.value), &self.signature)
    }
}

/// What BEP 44 signs: seq and value as they stand, bencoded, in the dictionary of a `put`.
fn signed_bytes(seq: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = format!("3:seqi{seq}e1:v{}:", value.len()).into_bytes();
    bytes.extend_from_slice(value);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_signature_is_that_of_bep_44() {
        let signature = concat!(
            "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff",
            "1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01"
        );
        let item = SignedItem {
            key: PublicKey::from_hex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548")
                .unwrap(),
            seq: 1,
            value: b"Hello World!".to_vec(),
            signature: Signature::from_hex(signature).unwrap(),
        };
        assert_eq!(signed_bytes(item.seq, &item.value), b"3:seqi1e1:v12:Hello World!");
        assert!(item.verify());
        assert!(!SignedItem { seq: 2, ..item.clone() }.verify());
        assert!(!SignedItem { value: b"Hello World?".to_vec(), ..item }.verify());
    }

    #[test]
    fn own_signatures_verify() {
        let key = DatabaseKey::generate();
        for seq in [0, 1, i64::MAX] {
            assert!(SignedItem::sign(&key, seq, vec![0; 995]).verify());
        }
    }
}

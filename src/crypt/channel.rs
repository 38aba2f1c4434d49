//! A connection between two holders of one secret: X25519 (RFC 7748) with fresh keys on both sides, mixed with the
//! shared secret, then XChaCha20-Poly1305 under a key for each direction and counted nonces.
//!
//! Who does not hold the secret gets no answer, learns nothing, and cannot replay what it overheard: every session has
//! keys of its own, and each side's first sealed frame proves that it made them.

use super::cipher::{Cipher, NONCE_BYTES, Nonce, TAG_BYTES};
use super::secret::{Context, Secret};
use x25519_dalek::{PublicKey, StaticSecret};

/// Bytes of each of the two messages that open a channel: a fresh public key and its proof.
pub const GREETING_BYTES: usize = 64;
/// How much longer a sealed frame is than its content.
pub const FRAME_OVERHEAD: usize = TAG_BYTES;

/// One of the two messages that open a channel.
pub type Greeting = [u8; GREETING_BYTES];

/// The side that dials, while it waits for an answer.
pub struct Dialer {
    private: StaticSecret,
    public: [u8; 32],
}

/// Seals what is sent, in order.
pub struct Sealer {
    cipher: Cipher,
    count: u64,
}

/// Opens what arrives, in order.
pub struct Opener {
    cipher: Cipher,
    count: u64,
}

impl Dialer {
    /// The first message, to be sent as it is.
    pub fn greet(shared: &Secret) -> (Dialer, Greeting) {
        Dialer::greet_with(shared, &Secret::random())
    }

    /// The same with a key that the caller drew: vectors need known ones. No two channels may have one.
    pub fn greet_with(shared: &Secret, private: &Secret) -> (Dialer, Greeting) {
        let (private, public) = pair(private);
        (Dialer { private, public }, greeting(shared, b"dial", &public, &[]))
    }

    /// The channel, if the answer comes from a holder of the secret.
    pub fn finish(self, shared: &Secret, answer: &Greeting) -> Option<(Sealer, Opener)> {
        let theirs = proven(shared, b"answer", answer, &self.public)?;
        let (dialed, answered) = session(shared, &self.private, &theirs, &self.public, &theirs)?;
        Some((Sealer::new(&dialed), Opener::new(&answered)))
    }
}

/// Answers a first message, if it comes from a holder of the secret.
pub fn answer(shared: &Secret, first: &Greeting) -> Option<(Greeting, Sealer, Opener)> {
    answer_with(shared, first, &Secret::random())
}

/// The same with a key that the caller drew, as in [`Dialer::greet_with`].
pub fn answer_with(
    shared: &Secret,
    first: &Greeting,
    private: &Secret,
) -> Option<(Greeting, Sealer, Opener)> {
    let theirs = proven(shared, b"dial", first, &[])?;
    let (private, public) = pair(private);
    let (dialed, answered) = session(shared, &private, &theirs, &theirs, &public)?;
    Some((greeting(shared, b"answer", &public, &theirs), Sealer::new(&answered), Opener::new(&dialed)))
}

fn pair(private: &Secret) -> (StaticSecret, [u8; 32]) {
    let private = StaticSecret::from(*private.expose());
    let public = PublicKey::from(&private).to_bytes();
    (private, public)
}

fn greeting(shared: &Secret, role: &[u8], public: &[u8; 32], other: &[u8]) -> Greeting {
    let proof = shared.derive(Context::ChannelProof, &[role, public, other]);
    let mut message = [0; GREETING_BYTES];
    message[..32].copy_from_slice(public);
    message[32..].copy_from_slice(proof.expose());
    message
}

fn proven(shared: &Secret, role: &[u8], message: &Greeting, other: &[u8]) -> Option<[u8; 32]> {
    let (public, proof) = message.split_first_chunk::<32>()?;
    let proof = Secret::new(proof.try_into().ok()?);
    (shared.derive(Context::ChannelProof, &[role, public, other]) == proof).then_some(*public)
}

/// The keys of both directions: the dialer's, then the other's.
fn session(
    shared: &Secret,
    private: &StaticSecret,
    theirs: &[u8; 32],
    dialed: &[u8; 32],
    answered: &[u8; 32],
) -> Option<(Secret, Secret)> {
    let agreed = private.diffie_hellman(&PublicKey::from(*theirs));
    let agreed = agreed.was_contributory().then_some(agreed)?;
    let key =
        |side: &[u8]| shared.derive(Context::ChannelSession, &[side, agreed.as_bytes(), dialed, answered]);
    Some((key(b"dial"), key(b"answer")))
}

fn nonce(count: &mut u64) -> Nonce {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..8].copy_from_slice(&count.to_le_bytes());
    *count += 1;
    nonce
}

impl Sealer {
    fn new(key: &Secret) -> Sealer {
        Sealer { cipher: Cipher::new(key), count: 0 }
    }

    /// Appends the sealed frame to `out`.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(plain);
        self.cipher.seal_tail(&nonce(&mut self.count), &[], out, start);
    }
}

impl Opener {
    fn new(key: &Secret) -> Opener {
        Opener { cipher: Cipher::new(key), count: 0 }
    }

    /// The content of the next frame; none if anything about it or its order was changed.
    pub fn open(&mut self, sealed: Vec<u8>) -> Option<Vec<u8>> {
        self.cipher.open_in_place(&nonce(&mut self.count), &[], sealed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn connect(one: &Secret, other: &Secret) -> Option<[(Sealer, Opener); 2]> {
        let (dialer, first) = Dialer::greet(one);
        let (second, sealer, opener) = answer(other, &first)?;
        Some([dialer.finish(one, &second)?, (sealer, opener)])
    }

    #[test]
    fn holders_of_the_secret_understand_each_other() {
        let shared = Secret::new([7; 32]);
        let [mut a, mut b] = connect(&shared, &shared).unwrap();
        for round in 0..3u8 {
            let mut sealed = Vec::new();
            a.0.seal(&[round; 100], &mut sealed);
            assert_eq!(sealed.len(), 100 + FRAME_OVERHEAD);
            assert_eq!(b.1.open(sealed), Some(vec![round; 100]));
            let mut sealed = Vec::new();
            b.0.seal(b"back", &mut sealed);
            assert_eq!(a.1.open(sealed), Some(b"back".to_vec()));
        }
    }

    #[test]
    fn an_outsider_gets_no_answer() {
        assert!(connect(&Secret::new([7; 32]), &Secret::new([8; 32])).is_none());
        let shared = Secret::new([7; 32]);
        let (_, mut first) = Dialer::greet(&shared);
        first[3] ^= 1;
        assert!(answer(&shared, &first).is_none());
        let (dialer, first) = Dialer::greet(&shared);
        let (mut second, ..) = answer(&shared, &first).unwrap();
        second[40] ^= 1;
        assert!(dialer.finish(&shared, &second).is_none());
    }

    #[test]
    fn a_replayed_greeting_leads_nowhere() {
        let shared = Secret::new([7; 32]);
        let (dialer, first) = Dialer::greet(&shared);
        let (second, ..) = answer(&shared, &first).unwrap();
        let (mut sealer, _) = dialer.finish(&shared, &second).unwrap();
        let mut overheard = Vec::new();
        sealer.seal(b"news", &mut overheard);
        let (_, _, mut opener) = answer(&shared, &first).unwrap();
        assert_eq!(opener.open(overheard), None);
    }

    #[test]
    fn frames_are_opened_in_order_and_whole() {
        let shared = Secret::new([7; 32]);
        let [mut a, mut b] = connect(&shared, &shared).unwrap();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        a.0.seal(b"one", &mut one);
        a.0.seal(b"two", &mut two);
        assert_eq!(b.1.open(two), None);
        let [mut a, mut b] = connect(&shared, &shared).unwrap();
        let mut one = Vec::new();
        a.0.seal(b"one", &mut one);
        one[0] ^= 1;
        assert_eq!(b.1.open(one), None);
    }
}

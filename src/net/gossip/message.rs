//! What neighbours tell each other: the bytes of every message. All that has a length has a limit.

use crate::base::{InfoHash, Malformed, PieceHash, PieceIndex, PieceLength, Reader, Writer};
use crate::record::SignedItem;
use std::net::{IpAddr, SocketAddr};

/// Bytes of content that one message may carry.
pub const NEWS_BYTES_MAX: usize = 4 << 20;
/// Pieces that a difference may name; beyond it only the record is told.
pub const PIECES_MAX: usize = 10_000;
/// Runs of bytes that a difference may carry.
const SPANS_MAX: usize = 10_000;
/// Addresses that are told at a time.
pub const ADDRESSES_MAX: usize = 32;
const ITEM_BYTES_MAX: usize = 1_200;
/// Addresses of its own that a device tells; one with more tells the first ones.
pub const OWN_MAX: usize = 8;
/// The kind of [`Message::Own`].
const OWN: u8 = 32;
/// Pieces that are asked for at a time, or named as lacking.
pub const ASKED_MAX: usize = 256;
/// Bytes of a piece that one message carries: what is said meanwhile waits behind no more.
pub const RUN_BYTES_MAX: usize = 256 << 10;
/// The kinds of [`Message::Ask`], [`Message::Piece`] and [`Message::Lack`].
const ASK: u8 = 33;
const PIECE: u8 = 34;
const LACK: u8 = 35;
const KEEPS: u8 = 36;
/// The kind of [`Message::Moved`].
const MOVED: u8 = 37;
/// The longest info dictionary with the announcement of a rotation.
const ANNOUNCEMENT_BYTES_MAX: usize = (3 << 20) + 256;
/// Versions that one message says are kept; a record names five.
const KEEPS_MAX: usize = 8;
/// The longest message.
pub const MESSAGE_BYTES_MAX: usize = NEWS_BYTES_MAX + PIECES_MAX * 24 + SPANS_MAX * 12 + 4_096;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first of each side.
    Hello(Hello),
    /// A record, and how its newest version differs from an older one.
    News(Box<News>),
    /// The sender can serve all of a version now.
    Have(InfoHash),
    /// Other neighbours of the sender.
    Addresses(Vec<SocketAddr>),
    /// The sender lacks the base of a difference and has these versions.
    Want {
        /// The version that it wants.
        infohash: InfoHash,
        /// What it has.
        bases: Vec<InfoHash>,
    },
    /// The record of this number was put back into the DHT.
    Kept(i64),
    /// Nothing but a sign of life, and asks for one.
    Ping,
    /// Answers a ping.
    Pong,
    /// Where else the sender can be reached.
    Own(Vec<SocketAddr>),
    /// The sender wants pieces of a version.
    Ask(Pieces),
    /// A part of a piece that was asked for; the runs of a piece come in order.
    Piece(Run),
    /// The sender does not have pieces that it was asked for, or not now.
    Lack(Pieces),
    /// The sender has all of these versions and gives nothing of them up to save room; of others that is not so.
    Keeps(Vec<InfoHash>),
    /// The database moved to other keys.
    Moved(Box<Move>),
}

/// What says so, and what leads there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The lifeline.
    pub item: SignedItem,
    /// The info dictionary that it names.
    pub info: Vec<u8>,
}

/// Pieces of a version by their numbers: ascending, at least one, at most [`ASKED_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// The version's torrent.
    pub infohash: InfoHash,
    /// Which of its pieces.
    pub pieces: Vec<PieceIndex>,
}

/// A run of one piece's bytes: at least one, at most [`RUN_BYTES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The version's torrent.
    pub infohash: InfoHash,
    /// Which of its pieces.
    pub piece: PieceIndex,
    /// Where in the piece the run begins, in bytes.
    pub offset: u32,
    /// What stands there.
    pub bytes: Vec<u8>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Drawn at each start: tells two connections of one neighbour, and one to oneself.
    pub id: [u8; 16],
    /// Where it listens for neighbours.
    pub gossip_port: u16,
    /// Where it listens for peers.
    pub torrent_port: u16,
}

/// A record and what it brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The signed record.
    pub item: SignedItem,
    /// How its newest version differs from one that the receiver may have.
    pub delta: Option<Delta>,
}

/// A version as a difference to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The torrent that it is a difference to.
    pub base: InfoHash,
    /// The torrent that it leads to.
    pub infohash: InfoHash,
    /// Length of the image in bytes.
    pub image_bytes: u64,
    /// Its piece length: the base's too.
    pub length: PieceLength,
    /// Hashes of the pieces that differ, ascending.
    pub pieces: Vec<(PieceIndex, PieceHash)>,
    /// Bytes that differ, ascending by offset; none where there are too many.
    pub spans: Vec<(u64, Vec<u8>)>,
}

impl Delta {
    /// Whether the bytes come along.
    pub fn carries_bytes(&self) -> bool {
        !self.spans.is_empty() || self.pieces.is_empty()
    }
}

impl Message {
    /// The message as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Message::Hello(hello) => {
                writer.u8(0).raw(&hello.id).u16(hello.gossip_port).u16(hello.torrent_port);
            }
            Message::News(news) => {
                writer.u8(1).bytes(&news.item.encode());
                match &news.delta {
                    None => _ = writer.u8(0),
                    Some(delta) => {
                        writer.u8(1);
                        delta.encode(&mut writer);
                    }
                }
            }
            Message::Have(infohash) => _ = writer.u8(2).raw(&infohash.0),
            Message::Addresses(addresses) => {
                writer.u8(3);
                put_addresses(&mut writer, addresses);
            }
            Message::Want { infohash, bases } => {
                writer.u8(4).raw(&infohash.0).varint(bases.len() as u64);
                bases.iter().for_each(|base| _ = writer.raw(&base.0));
            }
            Message::Kept(seq) => _ = writer.u8(5).u64(*seq as u64),
            Message::Ping => _ = writer.u8(6),
            Message::Pong => _ = writer.u8(7),
            Message::Own(addresses) => {
                writer.u8(OWN);
                put_addresses(&mut writer, addresses);
            }
            Message::Ask(asked) => asked.encode(writer.u8(ASK)),
            Message::Piece(run) => {
                writer.u8(PIECE).raw(&run.infohash.0).u32(run.piece.0).u32(run.offset).bytes(&run.bytes);
            }
            Message::Lack(lacking) => lacking.encode(writer.u8(LACK)),
            Message::Moved(moved) => _ = writer.u8(MOVED).bytes(&moved.item.encode()).bytes(&moved.info),
            Message::Keeps(kept) => {
                writer.u8(KEEPS).varint(kept.len() as u64);
                kept.iter().for_each(|infohash| _ = writer.raw(&infohash.0));
            }
        }
        writer.0
    }

    /// Reads a message. None for a kind that a later kilofs may add.
    pub fn decode(bytes: &[u8]) -> Result<Option<Message>, Malformed> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            0 => Message::Hello(Hello {
                id: reader.array()?,
                gossip_port: reader.u16()?,
                torrent_port: reader.u16()?,
            }),
            1 => {
                let item = SignedItem::decode(reader.bytes(ITEM_BYTES_MAX)?)?;
                let delta = match reader.u8()? {
                    0 => None,
                    1 => Some(Delta::decode(&mut reader)?),
                    _ => return Err(Malformed),
                };
                Message::News(Box::new(News { item, delta }))
            }
            2 => Message::Have(InfoHash(reader.array()?)),
            3 => Message::Addresses(get_addresses(&mut reader, ADDRESSES_MAX)?),
            4 => {
                let infohash = InfoHash(reader.array()?);
                let count = reader.bounded(ADDRESSES_MAX)?;
                let bases = (0..count).map(|_| Ok(InfoHash(reader.array()?)));
                Message::Want { infohash, bases: bases.collect::<Result<_, Malformed>>()? }
            }
            5 => Message::Kept(reader.u64()? as i64),
            6 => Message::Ping,
            7 => Message::Pong,
            OWN => Message::Own(get_addresses(&mut reader, OWN_MAX)?),
            ASK => Message::Ask(Pieces::decode(&mut reader)?),
            PIECE => Message::Piece(Run::decode(&mut reader)?),
            LACK => Message::Lack(Pieces::decode(&mut reader)?),
            MOVED => {
                let item = SignedItem::decode(reader.bytes(ITEM_BYTES_MAX)?)?;
                let info = reader.bytes(ANNOUNCEMENT_BYTES_MAX)?.to_vec();
                Message::Moved(Box::new(Move { item, info }))
            }
            KEEPS => {
                let count = reader.bounded(KEEPS_MAX)?;
                let kept = (0..count).map(|_| Ok(InfoHash(reader.array()?)));
                Message::Keeps(kept.collect::<Result<_, Malformed>>()?)
            }
            _ => return Ok(None),
        };
        reader.end()?;
        Ok(Some(message))
    }
}

impl Pieces {
    fn encode(&self, writer: &mut Writer) {
        writer.raw(&self.infohash.0).varint(self.pieces.len() as u64);
        self.pieces.iter().for_each(|piece| _ = writer.u32(piece.0));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Pieces, Malformed> {
        let infohash = InfoHash(reader.array()?);
        let count = reader.bounded(ASKED_MAX)?;
        let pieces = (0..count).map(|_| Ok(PieceIndex(reader.u32()?))).collect::<Result<Vec<_>, _>>()?;
        let ascending = !pieces.is_empty() && pieces.is_sorted_by(|one, next| one < next);
        if ascending { Ok(Pieces { infohash, pieces }) } else { Err(Malformed) }
    }
}

impl Run {
    fn decode(reader: &mut Reader<'_>) -> Result<Run, Malformed> {
        let (infohash, piece) = (InfoHash(reader.array()?), PieceIndex(reader.u32()?));
        let (offset, bytes) = (reader.u32()?, reader.bytes(RUN_BYTES_MAX)?.to_vec());
        let fits = u64::from(offset) + bytes.len() as u64 <= PieceLength::MAX.bytes();
        if bytes.is_empty() || !fits {
            return Err(Malformed);
        }
        Ok(Run { infohash, piece, offset, bytes })
    }
}

fn put_addresses(writer: &mut Writer, addresses: &[SocketAddr]) {
    writer.varint(addresses.len() as u64);
    for address in addresses {
        match address.ip() {
            IpAddr::V4(ip) => writer.u8(4).raw(&ip.octets()),
            IpAddr::V6(ip) => writer.u8(6).raw(&ip.octets()),
        };
        writer.u16(address.port());
    }
}

fn get_addresses(reader: &mut Reader<'_>, max: usize) -> Result<Vec<SocketAddr>, Malformed> {
    let count = reader.bounded(max)?;
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let ip = match reader.u8()? {
            4 => IpAddr::from(reader.array::<4>()?),
            6 => IpAddr::from(reader.array::<16>()?),
            _ => return Err(Malformed),
        };
        addresses.push(SocketAddr::new(ip, reader.u16()?));
    }
    Ok(addresses)
}

impl Delta {
    fn encode(&self, writer: &mut Writer) {
        writer.raw(&self.base.0).raw(&self.infohash.0).u64(self.image_bytes).u8(self.length.log2());
        writer.varint(self.pieces.len() as u64);
        for (piece, hash) in &self.pieces {
            writer.u32(piece.0).raw(hash);
        }
        writer.varint(self.spans.len() as u64);
        for (offset, bytes) in &self.spans {
            writer.u64(*offset).bytes(bytes);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Delta, Malformed> {
        let (base, infohash) = (InfoHash(reader.array()?), InfoHash(reader.array()?));
        let image_bytes = reader.u64()?;
        let length = PieceLength::from_log2(reader.u8()?).ok_or(Malformed)?;
        let count = reader.bounded(PIECES_MAX)?;
        let mut pieces: Vec<(PieceIndex, PieceHash)> = Vec::with_capacity(count);
        for _ in 0..count {
            let piece = PieceIndex(reader.u32()?);
            if pieces.last().is_some_and(|(last, _)| *last >= piece) {
                return Err(Malformed);
            }
            pieces.push((piece, reader.array()?));
        }
        let count = reader.bounded(SPANS_MAX)?;
        let (mut spans, mut end) = (Vec::with_capacity(count), 0);
        for _ in 0..count {
            let offset = reader.u64()?;
            let bytes = reader.bytes(NEWS_BYTES_MAX)?.to_vec();
            if offset < end {
                return Err(Malformed);
            }
            end =
                offset.checked_add(bytes.len() as u64).filter(|end| *end <= image_bytes).ok_or(Malformed)?;
            spans.push((offset, bytes));
        }
        Ok(Delta { base, infohash, image_bytes, length, pieces, spans })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypt::DatabaseKey;

    fn messages() -> Vec<Message> {
        let delta = Delta {
            base: InfoHash([1; 20]),
            infohash: InfoHash([2; 20]),
            image_bytes: 2 << 20,
            length: PieceLength::from_log2(16).unwrap(),
            pieces: vec![(PieceIndex(3), [4; 20]), (PieceIndex(9), [5; 20])],
            spans: vec![(196_700, vec![6; 300]), (600_000, vec![7; 5])],
        };
        let item = SignedItem::sign(&DatabaseKey::generate(), 7, vec![1; 995]);
        vec![
            Message::Hello(Hello { id: [9; 16], gossip_port: 1, torrent_port: 2 }),
            Message::News(Box::new(News { item: item.clone(), delta: None })),
            Message::News(Box::new(News { item, delta: Some(delta) })),
            Message::Have(InfoHash([8; 20])),
            Message::Addresses(vec!["127.0.0.1:5".parse().unwrap(), "[::1]:6".parse().unwrap()]),
            Message::Want { infohash: InfoHash([1; 20]), bases: vec![InfoHash([2; 20])] },
            Message::Kept(-1),
            Message::Ping,
            Message::Pong,
            Message::Own(vec!["192.0.2.7:5".parse().unwrap(), "[fd00::2]:6".parse().unwrap()]),
            Message::Ask(pieces(&[3, 9, 300])),
            Message::Piece(run(16_384, vec![5; 20])),
            Message::Lack(pieces(&[0])),
            Message::Keeps(vec![InfoHash([8; 20]), InfoHash([9; 20])]),
        ]
    }

    fn pieces(numbers: &[u32]) -> Pieces {
        let pieces = numbers.iter().copied().map(PieceIndex).collect();
        Pieces { infohash: InfoHash([1; 20]), pieces }
    }

    fn run(offset: u32, bytes: Vec<u8>) -> Run {
        Run { infohash: InfoHash([1; 20]), piece: PieceIndex(7), offset, bytes }
    }

    #[test]
    fn every_message_is_read_as_it_was_written() {
        for message in messages() {
            assert_eq!(Message::decode(&message.encode()), Ok(Some(message)));
        }
        assert_eq!(Message::decode(&[200, 1, 2, 3]), Ok(None), "a kind of a later kilofs");
    }

    #[test]
    fn cut_and_padded_messages_are_refused() {
        for message in messages() {
            let bytes = message.encode();
            for end in 0..bytes.len() {
                assert_eq!(Message::decode(&bytes[..end]), Err(Malformed), "{message:?} cut at {end}");
            }
            assert_eq!(Message::decode(&[&bytes[..], &[0]].concat()), Err(Malformed));
        }
    }

    #[test]
    fn differences_out_of_order_or_beyond_the_image_are_refused() {
        let Message::News(news) = &messages()[2] else { panic!() };
        let with = |change: &dyn Fn(&mut Delta)| {
            let mut news = news.clone();
            change(news.delta.as_mut().unwrap());
            Message::decode(&Message::News(news).encode())
        };
        assert!(with(&|_| {}).is_ok());
        assert_eq!(with(&|delta| delta.pieces.reverse()), Err(Malformed));
        assert_eq!(with(&|delta| delta.spans.reverse()), Err(Malformed));
        assert_eq!(with(&|delta| delta.spans[1].0 = 196_900), Err(Malformed), "they overlap");
        assert_eq!(with(&|delta| delta.spans[1].0 = u64::MAX - 1), Err(Malformed));
        assert_eq!(with(&|delta| delta.image_bytes = 600_004), Err(Malformed));
    }

    #[test]
    fn pieces_out_of_order_and_runs_beyond_a_piece_are_refused() {
        let read = |message: Message| Message::decode(&message.encode());
        let most: Vec<u32> = (0..ASKED_MAX as u32).collect();
        assert!(read(Message::Ask(pieces(&most))).is_ok());
        let more: Vec<u32> = (0..=ASKED_MAX as u32).collect();
        for wrong in [&more[..], &[], &[4, 4], &[4, 3]] {
            assert_eq!(read(Message::Ask(pieces(wrong))), Err(Malformed), "{wrong:?}");
            assert_eq!(read(Message::Lack(pieces(wrong))), Err(Malformed), "{wrong:?}");
        }
        let longest = PieceLength::MAX.bytes() as u32;
        assert!(read(Message::Piece(run(longest - 20, vec![1; 20]))).is_ok());
        assert!(read(Message::Piece(run(0, vec![1; RUN_BYTES_MAX]))).is_ok());
        let wrong = [(0, 0), (longest - 19, 20), (u32::MAX, 2), (0, RUN_BYTES_MAX + 1)];
        for (offset, bytes) in wrong {
            assert_eq!(read(Message::Piece(run(offset, vec![1; bytes]))), Err(Malformed), "{offset} {bytes}");
        }
    }
}

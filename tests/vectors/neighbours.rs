//! Vectors of what stands beside the record: the lifeline, what neighbours say to each other and how it is sealed, what a
//! device seals for itself. Makers first, what the program makes of them behind.

use crate::format::{Builder, Lines, array, bytes, get, number};
use crate::independent;
use crate::make::{Made, READ_SECRET, RECORD_KEY, admin, bad, database, good, item, plain_record, policy};
use kilofs::base::{InfoHash, PieceIndex, PieceLength, PublicKey, Signature};
use kilofs::crypt::channel::{Dialer, Greeting, answer_with};
use kilofs::crypt::log_key::LogKey;
use kilofs::crypt::{AdminKey, DatabaseKey, LocalKind, RecordKey, Secret};
use kilofs::net::gossip::{Delta, Message, News, Pieces, Run};
use kilofs::record::{Mode, Policy, SignedItem};

pub fn all() -> Vec<Made> {
    [lifelines(), channels(), messages(), asks(), own()].into_iter().flatten().collect()
}

fn lifelines() -> Vec<Made> {
    let sign = |seed: u8, seq: i64, value: Vec<u8>| {
        let SignedItem { key, value, signature, .. } =
            SignedItem::sign(&DatabaseKey::from_seed(&[seed; 32]), seq, value);
        Builder::default()
            .hex("record key", &RECORD_KEY)
            .hex("admin", &admin().public().0)
            .text("key", key)
            .text("seq", seq)
            .hex("value", &value)
            .text("signature", signature)
    };
    let value = |versions, policy: &Policy| {
        independent::seal_record(&RECORD_KEY, &plain_record(versions, policy.clone()))
    };
    let seven = policy(7, &[Mode::ReadWrite, Mode::ReadOnly]);
    let thief = AdminKey::from_seed(&[2; 32]);
    let stolen = Policy::sign(&thief, &database(), 9, seven.charter, vec![Mode::ReadWrite]);
    let mut damaged = value(0, &seven);
    damaged[500] ^= 1;
    vec![
        good("lifeline", "policy", "as the admin signs it", sign(1, 7, value(0, &seven))),
        bad("lifeline", "version", "it names a version", sign(1, 7, value(1, &seven))),
        bad("lifeline", "seq", "its number is not the policy's", sign(1, 8, value(0, &seven))),
        bad("lifeline", "other-key", "under another key than the admin's", sign(2, 7, value(0, &seven))),
        bad("lifeline", "other-policy", "a policy that another admin signed", sign(1, 9, value(0, &stolen))),
        bad("lifeline", "damaged", "a bit of the ciphertext, signed", sign(1, 7, damaged)),
    ]
}

/// Private keys of who dials and who answers.
const PRIVATE: [[u8; 32]; 2] = [[0x61; 32], [0x62; 32]];

fn hello(id: u8) -> Vec<u8> {
    [&[0], &[id; 16][..], &6882u16.to_le_bytes(), &6881u16.to_le_bytes()].concat()
}

fn channels() -> Vec<Made> {
    let (greetings, sessions) = independent::channel(&RECORD_KEY, PRIVATE);
    let inputs = |greetings: &[[u8; 64]; 2], frames: [Vec<u8>; 2]| {
        Builder::default()
            .hex("record key", &RECORD_KEY)
            .hex("dialler", &PRIVATE[0])
            .hex("answerer", &PRIVATE[1])
            .hex("greeting", &greetings[0])
            .hex("answer", &greetings[1])
            .hex("first frame", &frames[0])
            .hex("frame back", &frames[1])
    };
    let frames =
        || [independent::frame(&sessions[0], 0, &hello(1)), independent::frame(&sessions[1], 0, &hello(2))];
    let greeted = |name, note, side: usize, change: &dyn Fn(&mut [u8; 64])| {
        let mut greetings = greetings;
        change(&mut greetings[side]);
        bad("channel", name, note, inputs(&greetings, frames()))
    };
    let (strangers, _) = independent::channel(&[0x12; 32], PRIVATE);
    let replayed = [strangers[0], greetings[1]];
    let [first, back] = frames();
    let second = independent::frame(&sessions[0], 1, &hello(1));
    vec![
        good("channel", "hello", "both sides greet and say hello", inputs(&greetings, frames())),
        bad("channel", "stranger", "who dials does not hold the key", inputs(&replayed, frames())),
        greeted("greeting-key", "a bit of the dialler's public key", 0, &|greeting| greeting[3] ^= 1),
        greeted("answer-proof", "a bit of the answer's proof", 1, &|greeting| greeting[40] ^= 1),
        bad("channel", "skipped", "the second frame comes first", inputs(&greetings, [second, back.clone()])),
        bad("channel", "reflected", "a frame that its sender gets back", inputs(&greetings, [back, first])),
    ]
}

fn messages() -> Vec<Made> {
    let delta = Delta {
        base: InfoHash([1; 20]),
        infohash: InfoHash([2; 20]),
        image_bytes: 2 << 20,
        length: PieceLength::from_log2(16).unwrap(),
        pieces: vec![(PieceIndex(3), [4; 20]), (PieceIndex(9), [5; 20])],
        spans: vec![(196_700, vec![6; 30]), (600_000, vec![7; 5])],
    };
    let news = |delta| Message::News(Box::new(News { item: item(), delta }));
    let addresses = || vec!["192.0.2.7:5".parse().unwrap(), "[2001:db8::1]:6".parse().unwrap()];
    let inputs = |bytes: &[u8]| Builder::default().hex("bytes", bytes);
    let said = |name, note, message: &Message| good("message", name, note, inputs(&message.encode()));
    let full = news(Some(delta.clone()));
    let changed = |name, note, change: &dyn Fn(&mut Delta)| {
        let mut delta = delta.clone();
        change(&mut delta);
        bad("message", name, note, inputs(&news(Some(delta)).encode()))
    };
    let want = Message::Want { infohash: InfoHash([1; 20]), bases: vec![InfoHash([2; 20])] };
    vec![
        good("message", "hello", "the first of each side", inputs(&hello(9))),
        said("record", "a record alone", &news(None)),
        said("difference", "a record and what changed", &full),
        said("have", "a version that is here", &Message::Have(InfoHash([8; 20]))),
        said("addresses", "neighbours", &Message::Addresses(addresses())),
        said("want", "a version, and what it may be a difference to", &want),
        said("kept", "a record that was put back", &Message::Kept(70_000)),
        said("ping", "nothing", &Message::Ping),
        said("pong", "nothing either", &Message::Pong),
        said("own", "where else the sender is", &Message::Own(addresses())),
        good("message", "later-kind", "of a later version: passed over", inputs(&[200, 1, 2])),
        bad("message", "empty", "not even a kind", inputs(b"")),
        bad("message", "hello-short", "one byte less", inputs(&hello(9)[..20])),
        bad("message", "hello-long", "one byte more", inputs(&[&hello(9)[..], &[0]].concat())),
        bad("message", "address-kind", "an address of no family", inputs(&[3, 1, 5, 1, 2, 3, 4, 5, 0])),
        bad("message", "addresses-many", "33 addresses", inputs(&[&[3, 33][..], &[4; 33 * 7]].concat())),
        changed("pieces-unsorted", "pieces that do not ascend", &|delta| delta.pieces.reverse()),
        changed("runs-unsorted", "runs that do not ascend", &|delta| delta.spans.reverse()),
        changed("runs-overlap", "runs that overlap", &|delta| delta.spans[1].0 = 196_720),
        changed("beyond", "a run beyond the image", &|delta| delta.image_bytes = 600_004),
    ]
}

fn asks() -> Vec<Made> {
    let inputs = |message: &Message| Builder::default().hex("bytes", &message.encode());
    let pieces = |numbers: &[u32]| Pieces {
        infohash: InfoHash([1; 20]),
        pieces: numbers.iter().copied().map(PieceIndex).collect(),
    };
    let ask = |numbers: &[u32]| inputs(&Message::Ask(pieces(numbers)));
    let run = |offset, bytes: &[u8]| {
        inputs(&Message::Piece(Run {
            infohash: InfoHash([1; 20]),
            piece: PieceIndex(9),
            offset,
            bytes: bytes.to_vec(),
        }))
    };
    let most: Vec<u32> = (0..257).collect();
    vec![
        good("message", "ask", "pieces that are wanted", ask(&[3, 9, 300])),
        good("message", "run", "a part of a piece", run(70_000, &[6; 30])),
        good("message", "lack", "pieces that are not here", inputs(&Message::Lack(pieces(&[9])))),
        good(
            "message",
            "keeps",
            "versions that the sender gives nothing of up",
            inputs(&Message::Keeps(vec![InfoHash([8; 20]), InfoHash([9; 20])])),
        ),
        bad("message", "ask-nothing", "no piece", ask(&[])),
        bad("message", "ask-unsorted", "pieces that do not ascend", ask(&[9, 3])),
        bad("message", "ask-twice", "one piece twice", ask(&[9, 9])),
        bad("message", "ask-many", "257 pieces", ask(&most)),
        bad("message", "run-empty", "a run of nothing", run(0, b"")),
        bad("message", "run-beyond", "a run beyond the longest piece", run(u32::MAX, &[6; 30])),
    ]
}

fn own() -> Vec<Made> {
    let inputs = |name: &str, sealed: &[u8]| {
        Builder::default().hex("read secret", &READ_SECRET).text("use", name).hex("sealed", sealed)
    };
    let seal = |name: &str| independent::seal_own(name, &READ_SECRET, b"what it keeps");
    vec![
        good("own", "local-state", "the state in a store", inputs("local state", &seal("local state"))),
        good("own", "intent-log", "a batch of the intent log", inputs("intent log", &seal("intent log"))),
        bad("own", "exchanged", "a batch in the state's place", inputs("local state", &seal("intent log"))),
    ]
}

fn accepted() -> Builder {
    Builder::default().text("expect", "accepted")
}

fn refused(reason: &str) -> Builder {
    Builder::default().text("expect", format!("refused {reason}"))
}

pub fn lifeline(inputs: &Lines) -> Builder {
    let item = SignedItem {
        key: PublicKey(array(inputs, "key")),
        seq: number(inputs, "seq"),
        value: bytes(inputs, "value"),
        signature: Signature(array(inputs, "signature")),
    };
    crate::rotated::lifeline(inputs, &item)
}

/// The program on both sides: each makes its own greeting, which must be the vector's where nothing was changed, takes
/// the other's from the vector, and opens the frame that came.
pub fn channel(inputs: &Lines) -> Builder {
    let shared = RecordKey::new(Secret::new(array(inputs, "record key"))).gossip_secret();
    let [dialler, answerer] = ["dialler", "answerer"].map(|side| Secret::new(array(inputs, side)));
    let (greeting, answer): (Greeting, Greeting) = (array(inputs, "greeting"), array(inputs, "answer"));
    let (dialer, made) = Dialer::greet_with(&shared, &dialler);
    let Some((made_back, _, mut opener)) = answer_with(&shared, &greeting, &answerer) else {
        return refused("greeting");
    };
    assert_eq!(made, greeting, "what proves itself is what the key's holder makes");
    let Some((_, mut back_opener)) = dialer.finish(&shared, &answer) else { return refused("answer") };
    assert_eq!(made_back, answer);
    let mut out = accepted();
    for (name, opener) in [("first frame", &mut opener), ("frame back", &mut back_opener)] {
        let frame = bytes(inputs, name);
        let (length, sealed) = frame.split_first_chunk().unwrap();
        assert_eq!(u32::from_le_bytes(*length) as usize, sealed.len());
        match opener.open(sealed.to_vec()) {
            Some(plain) => out = out.hex(name, &plain),
            None => return refused(name),
        }
    }
    out
}

pub fn message(inputs: &Lines) -> Builder {
    let encoded = bytes(inputs, "bytes");
    let message = match Message::decode(&encoded) {
        Err(_) => return refused("message"),
        Ok(None) => return accepted().text("kind", "unknown"),
        Ok(Some(message)) => message,
    };
    assert_eq!(message.encode(), encoded, "a message has one form");
    let list = |addresses: &[std::net::SocketAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    match message {
        Message::Hello(hello) => accepted()
            .text("kind", "hello")
            .hex("id", &hello.id)
            .text("gossip port", hello.gossip_port)
            .text("torrent port", hello.torrent_port),
        Message::News(news) => {
            let out = accepted().text("kind", "news").text("seq", news.item.seq);
            news.delta.map_or(out.clone(), |delta| describe_delta(out, &delta))
        }
        Message::Have(infohash) => accepted().text("kind", "have").text("infohash", infohash),
        Message::Addresses(found) => accepted().text("kind", "addresses").text("addresses", list(&found)),
        Message::Want { infohash, bases } => {
            bases.iter().fold(accepted().text("kind", "want").text("infohash", infohash), |out, base| {
                out.text("base", base)
            })
        }
        Message::Kept(seq) => accepted().text("kind", "kept").text("seq", seq),
        Message::Ping => accepted().text("kind", "ping"),
        Message::Pong => accepted().text("kind", "pong"),
        Message::Own(found) => accepted().text("kind", "own").text("addresses", list(&found)),
        Message::Ask(asked) => describe_pieces("ask", &asked),
        Message::Piece(run) => accepted()
            .text("kind", "run")
            .text("infohash", run.infohash)
            .text("piece", run.piece.0)
            .hex(&format!("run at {}", run.offset), &run.bytes),
        Message::Lack(lacking) => describe_pieces("lack", &lacking),
        Message::Moved(moved) => {
            accepted().text("kind", "moved").text("seq", moved.item.seq).hex("info", &moved.info)
        }
        Message::Keeps(kept) => {
            kept.iter().fold(accepted().text("kind", "keeps"), |out, infohash| out.text("infohash", infohash))
        }
    }
}

fn describe_pieces(kind: &str, pieces: &Pieces) -> Builder {
    let out = accepted().text("kind", kind).text("infohash", pieces.infohash);
    pieces.pieces.iter().fold(out, |out, piece| out.text("piece", piece.0))
}

fn describe_delta(out: Builder, delta: &Delta) -> Builder {
    let mut out = out
        .text("base", delta.base)
        .text("infohash", delta.infohash)
        .text("image bytes", delta.image_bytes)
        .text("piece length", delta.length.bytes());
    for (piece, hash) in &delta.pieces {
        out = out.text("piece", format!("{} {}", piece.0, InfoHash(*hash)));
    }
    for (offset, bytes) in &delta.spans {
        out = out.hex(&format!("run at {offset}"), bytes);
    }
    out
}

pub fn sealed_own(inputs: &Lines) -> Builder {
    let (secret, sealed) = (Secret::new(array(inputs, "read secret")), bytes(inputs, "sealed"));
    let opened = match get(inputs, "use") {
        "local state" => RecordKey::of(&secret).open_local(LocalKind::State, &sealed),
        _ => LogKey::of(&secret).open(&sealed),
    };
    match opened {
        Ok(plain) => accepted().hex("plain", &plain),
        Err(_) => refused("seal"),
    }
}

//! A peer that has nothing but an info dictionary, and lies about it (BEP 9, BEP 10).

use super::thief::Thief;
use kilofs::base::InfoHash;
use sha1::{Digest, Sha1};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::spawn;
use std::time::Duration;

const PIECE_BYTES: usize = 16 << 10;
const EXTENDED: u8 = 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves `info` to whoever asks, claiming it to be `claimed` bytes long. Returns its infohash.
pub fn serve(thief: &Thief, info: Vec<u8>, claimed: usize) -> InfoHash {
    let infohash = InfoHash(Sha1::digest(&info).into());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    thief.announce(listener.local_addr().unwrap().port());
    let info = Arc::new(info);
    // It ends with the test's process: until then it waits for whoever comes.
    spawn(move || {
        for stream in listener.incoming().flatten() {
            let info = info.clone();
            spawn(move || _ = converse(stream, infohash, &info, claimed));
        }
    });
    infohash
}

fn converse(mut stream: TcpStream, infohash: InfoHash, info: &[u8], claimed: usize) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut hello = [0; 68];
    stream.read_exact(&mut hello)?;
    if hello[28..48] != infohash.0 {
        return Ok(());
    }
    let reserved = [0, 0, 0, 0, 0, 0x10, 0, 0];
    stream.write_all(
        &[b"\x13BitTorrent protocol", &reserved[..], &infohash.0, b"-LI0000-lielielielie"].concat(),
    )?;
    send(&mut stream, 0, format!("d1:md11:ut_metadatai3ee13:metadata_sizei{claimed}ee").as_bytes())?;
    let mut theirs = 1;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; (u32::from_be_bytes(length) as usize).min(1 << 20)];
        stream.read_exact(&mut message)?;
        let [EXTENDED, id, body @ ..] = message.as_slice() else { continue };
        if *id == 0 {
            theirs = number_after(body, b"11:ut_metadatai").unwrap_or(1) as u8;
        } else if let Some(piece) = number_after(body, b"5:piecei") {
            let from = (piece * PIECE_BYTES).min(info.len());
            let part = &info[from..(from + PIECE_BYTES).min(info.len())];
            let head = format!("d8:msg_typei1e5:piecei{piece}e10:total_sizei{claimed}ee");
            send(&mut stream, theirs, &[head.as_bytes(), part].concat())?;
        }
    }
}

fn send(stream: &mut TcpStream, id: u8, body: &[u8]) -> std::io::Result<()> {
    let length = (body.len() as u32 + 2).to_be_bytes();
    stream.write_all(&[&length[..], &[EXTENDED, id], body].concat())
}

fn number_after(body: &[u8], key: &[u8]) -> Option<usize> {
    let start = body.windows(key.len()).position(|window| window == key)? + key.len();
    let digits: Vec<u8> = body[start..].iter().copied().take_while(u8::is_ascii_digit).collect();
    String::from_utf8(digits).ok()?.parse().ok()
}

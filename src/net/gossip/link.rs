//! One connection: greeting, sealed frames, deadlines.
//!
//! On the wire each frame is its length (u32, little endian) and that many sealed bytes. A neighbour that sends faster
//! than it may is not dropped but read more slowly. Deadlines are for bytes to move at all: the longest frames take minutes
//! over a slow line or under a limit.

use super::message::{MESSAGE_BYTES_MAX, Message, RUN_BYTES_MAX};
use super::pace::{Allowance, Pace};
use crate::crypt::Secret;
use crate::crypt::channel::{Dialer, FRAME_OVERHEAD, GREETING_BYTES, Opener, Sealer, answer};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{sleep, timeout};

/// How long a greeting may take.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// A neighbour that sends nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A neighbour that takes nothing for so long is gone.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Messages that are longer are held back by their bytes alone.
const SHORT_BYTES_MAX: usize = 8 << 10;
/// A neighbour may send so many messages at once, and so many a second.
const BURST_MESSAGES: f64 = 1_000.0;
const MESSAGES_A_SECOND: f64 = 200.0;
/// The same in bytes that nobody asked for.
const BURST_BYTES: f64 = 64.0 * 1_048_576.0;
const BYTES_A_SECOND: f64 = 32.0 * 1_048_576.0;

/// Room that is made for a frame before any of it has arrived, in bytes.
const READY_BYTES: usize = RUN_BYTES_MAX + 1_024;

/// What is read from a connection.
pub(super) struct Incoming {
    stream: OwnedReadHalf,
    opener: Opener,
    bytes: Allowance,
    messages: Allowance,
    pace: Arc<Pace>,
    burdens: Burdens,
    /// Of the message that was read last.
    burden: Option<Burden>,
}

/// How many long messages are arriving or wait to be heard; clones share the count.
#[derive(Clone, Debug, Default)]
pub(super) struct Burdens(Arc<AtomicUsize>);

impl Burdens {
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn begin(&self) -> Burden {
        self.0.fetch_add(1, Ordering::Relaxed);
        Burden(self.clone())
    }
}

/// A long message, from its first byte until whoever holds this lets it go.
#[derive(Debug)]
pub struct Burden(Burdens);

impl Drop for Burden {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is written to a connection.
pub(super) struct Outgoing {
    stream: OwnedWriteHalf,
    sealer: Sealer,
    frame: Vec<u8>,
    pace: Arc<Pace>,
}

/// What all connections have in common.
#[derive(Clone)]
pub(super) struct Shared {
    /// How fast they may be read.
    pub down: Arc<Pace>,
    /// How fast they may be written to.
    pub up: Arc<Pace>,
    pub burdens: Burdens,
}

/// Opens a channel over a connection that was dialled.
pub(super) async fn dial(
    mut stream: TcpStream,
    secret: &Secret,
    shared: Shared,
) -> io::Result<(Incoming, Outgoing)> {
    stream.set_nodelay(true)?;
    let (dialer, first) = Dialer::greet(secret);
    let mut second = [0; GREETING_BYTES];
    let greeting = async {
        stream.write_all(&first).await?;
        stream.read_exact(&mut second).await
    };
    timeout(GREETING_DEADLINE, greeting).await??;
    let (sealer, opener) = dialer.finish(secret, &second).ok_or_else(stranger)?;
    Ok(split(stream, sealer, opener, shared))
}

/// Opens a channel over a connection that was accepted.
pub(super) async fn accept(
    mut stream: TcpStream,
    secret: &Secret,
    shared: Shared,
) -> io::Result<(Incoming, Outgoing)> {
    stream.set_nodelay(true)?;
    let mut first = [0; GREETING_BYTES];
    timeout(GREETING_DEADLINE, stream.read_exact(&mut first)).await??;
    let (second, sealer, opener) = answer(secret, &first).ok_or_else(stranger)?;
    timeout(GREETING_DEADLINE, stream.write_all(&second)).await??;
    Ok(split(stream, sealer, opener, shared))
}

fn split(stream: TcpStream, sealer: Sealer, opener: Opener, shared: Shared) -> (Incoming, Outgoing) {
    let Shared { down, up, burdens } = shared;
    let (reading, writing) = stream.into_split();
    let incoming = Incoming {
        stream: reading,
        opener,
        bytes: Allowance::full(BYTES_A_SECOND, BURST_BYTES),
        messages: Allowance::full(MESSAGES_A_SECOND, BURST_MESSAGES),
        pace: down,
        burdens,
        burden: None,
    };
    (incoming, Outgoing { stream: writing, sealer, frame: Vec::new(), pace: up })
}

fn stranger() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "it does not know this database")
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a malformed message")
}

impl Incoming {
    /// The next message; none for a kind that is not known.
    pub(super) async fn read(&mut self) -> io::Result<Option<Message>> {
        self.next(true).await
    }

    /// The first message, which waits for no limit: all that is under way before it may last longer than a greeting.
    pub(super) async fn greeting(&mut self) -> io::Result<Option<Message>> {
        self.next(false).await
    }

    /// What the last message weighs, if it was a long one: to be kept until it has been heard.
    pub(super) fn burden(&mut self) -> Option<Burden> {
        self.burden.take()
    }

    async fn next(&mut self, waits: bool) -> io::Result<Option<Message>> {
        let length = timeout(SILENCE_MAX, self.stream.read_u32_le()).await?? as usize;
        if !(FRAME_OVERHEAD..=MESSAGE_BYTES_MAX + FRAME_OVERHEAD).contains(&length) {
            return Err(malformed());
        }
        self.pace.note(4);
        self.burden = (length > READY_BYTES).then(|| self.burdens.begin());
        // Memory follows what has arrived, not what was announced.
        let mut sealed = Vec::with_capacity(length.min(READY_BYTES));
        while sealed.len() < length {
            let step = (length - sealed.len()).min(self.pace.step());
            let mut rest = (&mut self.stream).take(step as u64);
            let read = timeout(SILENCE_MAX, rest.read_buf(&mut sealed)).await??;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if waits {
                self.pace.pass(read).await;
            } else {
                self.pace.note(read);
            }
        }
        let plain = self.opener.open(sealed).ok_or_else(malformed)?;
        let message = Message::decode(&plain).map_err(|_| malformed())?;
        let wait = self.hold(matches!(message, Some(Message::Piece(_))), length);
        // Even to sleep for no time at all lasts until the next millisecond.
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(message)
    }

    /// How long a message is held back besides. A piece was asked for, or who sends it is parted from.
    fn hold(&mut self, is_piece: bool, bytes: usize) -> Duration {
        let mut wait = if is_piece { Duration::ZERO } else { self.bytes.spend(bytes) };
        if bytes <= SHORT_BYTES_MAX {
            wait = wait.max(self.messages.spend(1));
        }
        wait
    }
}

impl Outgoing {
    /// Sends an encoded message, at the pace that is set for all.
    pub(super) async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        self.put(message, true).await
    }

    /// Sends the first message, as [`Incoming::greeting`] reads it.
    pub(super) async fn greet(&mut self, message: &[u8]) -> io::Result<()> {
        self.put(message, false).await
    }

    async fn put(&mut self, message: &[u8], waits: bool) -> io::Result<()> {
        self.frame.clear();
        self.frame.extend_from_slice(&((message.len() + FRAME_OVERHEAD) as u32).to_le_bytes());
        self.sealer.seal(message, &mut self.frame);
        let mut rest = &self.frame[..];
        while !rest.is_empty() {
            let step = rest.len().min(self.pace.step());
            let written = timeout(WRITE_DEADLINE, self.stream.write(&rest[..step])).await??;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[written..];
            if waits {
                self.pace.pass(written).await;
            } else {
                self.pace.note(written);
            }
        }
        if self.frame.capacity() > 1 << 20 {
            self.frame = Vec::new();
        }
        Ok(())
    }
}

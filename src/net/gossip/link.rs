//! One connection: greeting, sealed frames, deadlines.
//!
//! On the wire each frame is its length (u32, little endian) and that many sealed bytes. A neighbour that sends faster
//! than it may is not dropped but read more slowly.

use super::message::{MESSAGE_BYTES_MAX, Message, RUN_BYTES_MAX};
use crate::crypt::Secret;
use crate::crypt::channel::{Dialer, FRAME_OVERHEAD, GREETING_BYTES, Opener, Sealer, answer};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout};

/// How long a greeting may take.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// A neighbour that sends nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A frame that cannot be written in this time is the last.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Longer than this nobody is made to wait for one message.
const WAIT_MAX: Duration = Duration::from_secs(20);
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

/// The limit that somebody set for all connections together.
pub(super) type Limit = Option<Arc<Mutex<Allowance>>>;

/// What is read from a connection.
pub(super) struct Incoming {
    stream: OwnedReadHalf,
    opener: Opener,
    bytes: Allowance,
    messages: Allowance,
    limit: Limit,
}

/// How much may pass without waiting, of bytes or of messages.
pub(super) struct Allowance {
    left: f64,
    burst: f64,
    a_second: f64,
    at: Instant,
}

/// What is written to a connection.
pub(super) struct Outgoing {
    stream: OwnedWriteHalf,
    sealer: Sealer,
    frame: Vec<u8>,
}

/// Opens a channel over a connection that was dialled.
pub(super) async fn dial(
    mut stream: TcpStream,
    shared: &Secret,
    limit: Limit,
) -> io::Result<(Incoming, Outgoing)> {
    stream.set_nodelay(true)?;
    let (dialer, first) = Dialer::greet(shared);
    let mut second = [0; GREETING_BYTES];
    let greeting = async {
        stream.write_all(&first).await?;
        stream.read_exact(&mut second).await
    };
    timeout(GREETING_DEADLINE, greeting).await??;
    let (sealer, opener) = dialer.finish(shared, &second).ok_or_else(stranger)?;
    Ok(split(stream, sealer, opener, limit))
}

/// Opens a channel over a connection that was accepted.
pub(super) async fn accept(
    mut stream: TcpStream,
    shared: &Secret,
    limit: Limit,
) -> io::Result<(Incoming, Outgoing)> {
    stream.set_nodelay(true)?;
    let mut first = [0; GREETING_BYTES];
    timeout(GREETING_DEADLINE, stream.read_exact(&mut first)).await??;
    let (second, sealer, opener) = answer(shared, &first).ok_or_else(stranger)?;
    timeout(GREETING_DEADLINE, stream.write_all(&second)).await??;
    Ok(split(stream, sealer, opener, limit))
}

fn split(stream: TcpStream, sealer: Sealer, opener: Opener, limit: Limit) -> (Incoming, Outgoing) {
    let (reading, writing) = stream.into_split();
    let incoming = Incoming {
        stream: reading,
        opener,
        bytes: Allowance::full(BYTES_A_SECOND, BURST_BYTES),
        messages: Allowance::full(MESSAGES_A_SECOND, BURST_MESSAGES),
        limit,
    };
    (incoming, Outgoing { stream: writing, sealer, frame: Vec::new() })
}

fn stranger() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "it does not know this database")
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a malformed message")
}

impl Incoming {
    /// The next message and the bytes that it took; none for a kind that is not known.
    pub(super) async fn read(&mut self) -> io::Result<(Option<Message>, usize)> {
        let length = timeout(SILENCE_MAX, self.stream.read_u32_le()).await?? as usize;
        if !(FRAME_OVERHEAD..=MESSAGE_BYTES_MAX + FRAME_OVERHEAD).contains(&length) {
            return Err(malformed());
        }
        // Memory follows what has arrived, not what was announced.
        let mut sealed = Vec::with_capacity(length.min(READY_BYTES));
        let mut rest = (&mut self.stream).take(length as u64);
        let read = timeout(SILENCE_MAX, rest.read_to_end(&mut sealed)).await??;
        if read != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let plain = self.opener.open(sealed).ok_or_else(malformed)?;
        let message = Message::decode(&plain).map_err(|_| malformed())?;
        let wait = self.hold(matches!(message, Some(Message::Piece(_))), length);
        // Even to sleep for no time at all lasts until the next millisecond.
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok((message, length + 4))
    }

    /// How long a message is held back. A piece was asked for, or who sends it is parted from: only a limit that somebody
    /// set holds it back.
    fn hold(&mut self, is_piece: bool, bytes: usize) -> Duration {
        let mut wait = self.limit.as_ref().map_or(Duration::ZERO, |limit| limit.lock().spend(bytes));
        if !is_piece {
            wait = wait.max(self.bytes.spend(bytes));
        }
        if bytes <= SHORT_BYTES_MAX {
            wait = wait.max(self.messages.spend(1));
        }
        wait
    }
}

impl Outgoing {
    /// Sends an encoded message; returns the bytes that it took.
    pub(super) async fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.frame.clear();
        self.frame.extend_from_slice(&((message.len() + FRAME_OVERHEAD) as u32).to_le_bytes());
        self.sealer.seal(message, &mut self.frame);
        timeout(WRITE_DEADLINE, self.stream.write_all(&self.frame)).await??;
        let written = self.frame.len();
        if self.frame.capacity() > 1 << 20 {
            self.frame = Vec::new();
        }
        Ok(written)
    }
}

impl Allowance {
    /// An allowance that is used up by nobody yet.
    fn full(a_second: f64, burst: f64) -> Allowance {
        Allowance { left: burst, burst, a_second, at: Instant::now() }
    }

    /// The same for a limit in bytes a second, shared by all connections.
    pub(super) fn of(limit: Option<u32>) -> Limit {
        let limit = limit.map(|limit| f64::from(limit.max(1)))?;
        Some(Arc::new(Mutex::new(Allowance::full(limit, limit))))
    }

    /// Another limit from now on.
    pub(super) fn renew(&mut self, a_second: u32) {
        let a_second = f64::from(a_second.max(1));
        (self.a_second, self.burst) = (a_second, a_second);
        self.left = self.left.min(a_second);
    }

    /// Takes from it; returns how long to wait before that may be passed.
    pub(super) fn spend(&mut self, count: usize) -> Duration {
        let passed = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        self.left = (self.left + passed * self.a_second).min(self.burst) - count as f64;
        Duration::from_secs_f64((-self.left / self.a_second).clamp(0.0, WAIT_MAX.as_secs_f64()))
    }
}

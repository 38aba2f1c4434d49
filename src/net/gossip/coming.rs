//! How connections come about: who dials is let in, and who is due is dialled.

use super::link;
use super::neighbours::{Inner, NEIGHBOURS_MAX};
use super::own::canonical;
use std::sync::Weak;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// Connections that have not greeted yet.
const GREETING_MAX: usize = 64;
const DIAL_PERIOD: Duration = Duration::from_millis(250);
/// Between two attempts to accept where the system has nothing left to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Lets neighbours in.
pub(super) async fn accept_all(inner: Weak<Inner>, listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Some(inner) = inner.upgrade() else { return };
        match accepted {
            Ok((stream, from)) => {
                let from = canonical(from);
                {
                    let mut state = inner.state.lock();
                    if state.greeting >= GREETING_MAX || state.neighbours.len() >= NEIGHBOURS_MAX {
                        continue;
                    }
                    state.greeting += 1;
                }
                tokio::spawn(async move {
                    let secret = inner.secret.lock().clone();
                    let linked = link::accept(stream, &secret, inner.shared()).await;
                    let ended = match linked {
                        Ok(link) => inner.clone().converse(link, from, false).await,
                        Err(error) => {
                            inner.state.lock().greeting -= 1;
                            Err(error)
                        }
                    };
                    if let Err(error) = ended {
                        tracing::debug!(%from, %error, "a connection ended");
                    }
                });
            }
            // Out of file descriptors, mostly: wait rather than spin.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Dials who is due, again and again.
pub(super) async fn dial_all(inner: Weak<Inner>, stop: CancellationToken) {
    let mut tick = interval(DIAL_PERIOD);
    loop {
        let Some(strong) = inner.upgrade() else { return };
        tokio::select! {
            _ = tick.tick() => {}
            () = strong.wake.notified() => {}
            () = stop.cancelled() => return,
        }
        for address in strong.due() {
            tokio::spawn(strong.clone().dial(address));
        }
    }
}

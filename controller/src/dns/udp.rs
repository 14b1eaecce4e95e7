//! The UDP half of the responder: one task a socket, which answers what has come in and never waits for a send.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::Manner;
use super::desk::Desk;
use super::limit::{Limiter, Verdict};
use super::zone::Zone;
use crate::door::stopped;

/// The longest query that is read: one with a name and EDNS options has a few hundred bytes. What is cut off cannot be read.
const MAX_QUERY: usize = 1500;
/// Queries that are answered before other tasks have their turn.
const BATCH: usize = 64;
/// The rest after an error of the socket, so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers what comes in at `socket`, until `stop` says so or its sender is gone.
pub(super) async fn serve(
    socket: UdpSocket,
    desk: Desk,
    limiter: Limiter,
    mut stop: watch::Receiver<bool>,
) {
    let limited = ["referred", "dropped"].map(|outcome| desk.limited(outcome));
    let mut datagrams = Datagrams {
        socket,
        desk,
        limiter,
        limited,
        begun: Instant::now(),
        query: [0; MAX_QUERY],
        answer: Vec::with_capacity(MAX_QUERY),
    };
    loop {
        tokio::select! {
            ready = datagrams.socket.readable() => {
                if ready.is_ok() && datagrams.batch().is_ok() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            () = stopped(&mut stop) => return,
        }
    }
}

/// One socket, with all that an answer on it takes.
struct Datagrams {
    socket: UdpSocket,
    desk: Desk,
    limiter: Limiter,
    /// Those sent to TCP, and those dropped.
    limited: [IntCounter; 2],
    begun: Instant,
    query: [u8; MAX_QUERY],
    answer: Vec<u8>,
}

impl Datagrams {
    /// Answers what has come in, up to [`BATCH`] queries, all from one zone.
    fn batch(&mut self) -> io::Result<()> {
        let zone: Arc<Zone> = self.desk.zone();
        let now = self.begun.elapsed();
        for _ in 0..BATCH {
            match self.socket.try_recv_from(&mut self.query) {
                Ok((length, asker)) => self.answer(&zone, length, asker, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(%error, "receiving DNS queries failed");
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, zone: &Zone, length: usize, asker: SocketAddr, now: Duration) {
        let [referred, dropped] = &self.limited;
        let manner = match self.limiter.judge(asker.ip(), now) {
            Verdict::Answer => Manner::Datagram,
            Verdict::Refer => {
                referred.inc();
                Manner::Refer
            }
            Verdict::Drop => {
                dropped.inc();
                return;
            }
        };
        let query = &self.query[..length];
        let desk = &self.desk;
        if !desk.answer(zone, query, manner, &mut self.answer) {
            return;
        }
        // The asker asks again: a full socket buffer is not worth waiting for, and port 0 cannot be sent to.
        if self.socket.try_send_to(&self.answer, asker).is_err() {
            desk.unanswered("unsent");
        }
    }
}

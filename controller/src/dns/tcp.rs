//! The TCP half of the responder, RFC 7766: for those whose answers do not fit into a datagram, or who have been sent here.
//! Connections are bounded in number, in time and in what they may ask.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::Manner;
use super::desk::Desk;
use crate::door::Door;

/// The listener in logs and metrics.
pub(super) const NAME: &str = "dns";
/// Connections of one listener at a time, and those of one address among them.
pub(super) const BOUNDS: (usize, usize) = (512, 32);
/// Queries of one connection.
const MAX_QUERIES: usize = 256;
/// The longest query: one with a name and EDNS options has a few hundred bytes.
const MAX_QUERY: usize = 1500;
/// The longest rest between two queries, and for one to come or an answer to go.
const REST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection lives at most.
const LIFETIME: Duration = Duration::from_secs(60);

/// Answers on the connections that come in by `door`, until `stop` says so or its sender is gone.
pub(super) async fn serve(door: Door, desk: Desk, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Some((stream, asker, seat)) = door.next(&mut connections, &mut stop).await {
        let desk = desk.clone();
        connections.spawn(async move {
            let ended = timeout(LIFETIME, answer_all(stream, desk)).await;
            if let Ok(Err(error)) = ended {
                tracing::debug!(listener = NAME, %asker, %error, "connection ended");
            }
            drop(seat);
        });
    }
}

/// Answers one query after the other, in their order.
async fn answer_all(mut stream: TcpStream, desk: Desk) -> io::Result<()> {
    // Answers are whole; waiting to fill a segment only delays them.
    drop(stream.set_nodelay(true));
    let (mut query, mut answer, mut framed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..MAX_QUERIES {
        if !timeout(REST_TIMEOUT, read(&mut stream, &mut query)).await?? {
            desk.unanswered("long");
            return Ok(());
        }
        let zone = desk.zone();
        if !desk.answer(&zone, &query, Manner::Stream, &mut answer) {
            return Ok(());
        }
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        framed.clear();
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&answer);
        timeout(REST_TIMEOUT, stream.write_all(&framed)).await??;
    }
    Ok(())
}

/// Reads the next query; returns whether it is short enough to be one.
async fn read(stream: &mut TcpStream, query: &mut Vec<u8>) -> io::Result<bool> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUERY {
        return Ok(false);
    }
    query.resize(length, 0);
    stream.read_exact(query).await?;
    Ok(true)
}

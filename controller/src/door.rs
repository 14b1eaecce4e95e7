//! Where TCP connections come in, for every listener alike: so many at a time, and so many of one address.
//!
//! It owns the listening socket and counts who is inside. What is said on a connection is not its business.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::seats::{Seat, Seats};

/// The loop's rest after a failed accept (descriptors are used up), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket with its bounds.
#[derive(Debug)]
pub(crate) struct Door {
    name: &'static str,
    listener: TcpListener,
    most: usize,
    seats: Seats,
    metrics: Arc<Metrics>,
}

impl Door {
    /// A door that lets `most` connections in at a time, `of_one_address` from the same place; `name` is the listener's in
    /// logs and metrics.
    pub(crate) fn new(
        name: &'static str,
        listener: TcpListener,
        (most, of_one_address): (usize, usize),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            name,
            listener,
            most,
            seats: Seats::new(of_one_address),
            metrics,
        }
    }

    /// The next connection, with the seat that it holds; `None` when `stop` says so or its sender is gone. Meanwhile takes
    /// those that ended out of `connections`, which are the ones inside.
    pub(crate) async fn next(
        &self,
        connections: &mut JoinSet<()>,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<(TcpStream, SocketAddr, Seat)> {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = stopped(stop) => return None,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(listener = self.name, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let seat = self.seats.take(from.ip());
            match seat.filter(|_| connections.len() < self.most) {
                Some(seat) => return Some((stream, from, seat)),
                None => self.metrics.connection_refused(self.name),
            }
        }
    }
}

/// Waits for the word to stop, or for the end of whoever could say it.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

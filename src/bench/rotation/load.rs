//! The clients: they come at a steady rate, and each does what a call does with its allocation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use turnfleet_proto::credentials::{EphemeralCredential, SharedSecret, mint};

use super::client::Caller;
use super::operator::Operator;
use super::tally::{Granted, Tally, reason};
use crate::bench::as_float;
use crate::credentials::unix_now;

/// One client of so many has a credential of the pinned secret.
pub(super) const PINNED_EVERY: u64 = 10;
/// One of so many stays until the end.
const STAYS_EVERY: u64 = 100;
/// How often clients come; as many at a time as are due.
const TICK: Duration = Duration::from_millis(5);
/// Clients that may wait for their allocation at a time; while they do, no others come.
const MAX_WAITING: usize = 4096;
/// For credentials of the pinned secret, in seconds.
const PINNED_TTL: u64 = 600;

/// What every client knows.
pub(super) struct Load {
    pub(super) operator: Operator,
    pub(super) relays: Vec<SocketAddr>,
    pub(super) pinned: SharedSecret,
    pub(super) hold: Duration,
    pub(super) tally: Tally,
    /// Clients that have come.
    come: AtomicU64,
}

impl Load {
    pub(super) fn new(
        operator: Operator,
        relays: Vec<SocketAddr>,
        pinned: SharedSecret,
        hold: Duration,
    ) -> Self {
        Self {
            operator,
            relays,
            pinned,
            hold,
            tally: Tally::default(),
            come: AtomicU64::new(0),
        }
    }

    /// How many clients have come.
    pub(super) fn come(&self) -> u64 {
        self.come.load(Ordering::Relaxed)
    }

    /// Lets `rate` clients a second come until `end` turns true, and waits until all but those that stay have gone. Says how
    /// long they came for.
    pub(super) async fn run(
        self: Arc<Self>,
        rate: u32,
        mut end: watch::Receiver<bool>,
    ) -> Duration {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        let mut ticks = interval(TICK);
        // Clients that did not come because others waited; they do not come later.
        let mut missed = 0.0;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = end.wait_for(|end| *end) => break,
            }
            let due = began.elapsed().as_secs_f64() * f64::from(rate) - missed;
            let mut room = MAX_WAITING.saturating_sub(self.tally.waiting());
            while as_float(self.come()) < due {
                if room == 0 {
                    missed += due - as_float(self.come());
                    break;
                }
                room -= 1;
                let number = self.come.fetch_add(1, Ordering::Relaxed);
                self.tally.comes(number);
                clients.spawn(Arc::clone(&self).serve(number));
            }
            while clients.try_join_next().is_some() {}
        }
        let came_for = began.elapsed();
        while clients.join_next().await.is_some() {}
        came_for
    }

    /// One client, from its credential to its end.
    async fn serve(self: Arc<Self>, number: u64) {
        let caller = self.allocate(number).await;
        let Some(mut caller) = caller else { return };
        let stays = number.is_multiple_of(STAYS_EVERY);
        sleep(self.hold).await;
        if !self.tally.refreshed(caller.refresh().await) {
            return;
        }
        if stays {
            self.tally.stays(caller);
        } else {
            self.tally.refreshed(caller.end().await);
        }
    }

    async fn allocate(&self, number: u64) -> Option<Caller> {
        let pinned = number % PINNED_EVERY == PINNED_EVERY - 1;
        let (mut granted, mut served) = (None, None);
        match self.credential(number, pinned).await {
            Err(error) => self.tally.failed(&format!("credential: {error:#}")),
            Ok((credential, relays)) => {
                let place = usize::try_from(number / PINNED_EVERY).unwrap_or(0) % relays.len();
                let began = Instant::now();
                match Caller::allocate(relays[place], &credential).await {
                    Err(error) => self.tally.failed(&format!("socket: {error}")),
                    Ok(attempt) => match attempt.result {
                        Err(why) => {
                            let whose = if pinned { "pinned " } else { "" };
                            let what = format!("{whose}Allocate: {}", reason(why));
                            self.tally.failed(&what);
                        }
                        Ok(caller) => {
                            granted = Some(Granted {
                                pinned,
                                took: began.elapsed(),
                                occupied_ports: attempt.occupied_ports,
                            });
                            served = Some(caller);
                        }
                    },
                }
            }
        }
        self.tally.served(number, granted);
        served
    }

    async fn credential(
        &self,
        number: u64,
        pinned: bool,
    ) -> Result<(EphemeralCredential, Vec<SocketAddr>)> {
        if pinned {
            let user = format!("@bench{number}:example.org");
            let credential = mint(&self.pinned, &user, unix_now()? + PINNED_TTL);
            Ok((credential, self.relays.clone()))
        } else {
            self.operator.credential(&format!("bench{number}")).await
        }
    }
}

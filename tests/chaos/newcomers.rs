//! Clients that come while things happen: each wants an allocation, with a credential that a homeserver made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Credential;
use crate::figures::millis;
use crate::fleet::{Fleet, SECRET, caller};

/// How long a client waits for its allocation.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two clients.
const PACE: Duration = Duration::from_millis(20);

/// They come, one after the other, to every relay in turn.
pub(crate) struct Newcomers {
    thread: JoinHandle<Served>,
    over: Arc<AtomicBool>,
}

/// How they were served.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) granted: usize,
    /// Which relay did not grant an allocation, and what it said.
    pub(crate) failed: Vec<String>,
    pub(crate) slowest: Duration,
}

impl Newcomers {
    /// Lets them come to relays with the numbers in `relays`.
    pub(crate) fn to(fleet: &Fleet<'_>, relays: impl Iterator<Item = usize>) -> Self {
        let servers: Vec<SocketAddr> = relays.map(|relay| fleet.relays[relay].server).collect();
        let over = Arc::<AtomicBool>::default();
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut served = Served::default();
            for (number, server) in servers.iter().cycle().enumerate() {
                if told.load(Ordering::Relaxed) && number >= servers.len() {
                    break;
                }
                served.come(*server, number);
                std::thread::park_timeout(PACE);
            }
            served
        });
        Self { thread, over }
    }

    /// Stops them, when each relay has seen at least one.
    #[track_caller]
    pub(crate) fn stop(self) -> Served {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Served {
    fn come(&mut self, server: SocketAddr, number: usize) {
        let begun = Instant::now();
        let user = format!("@newcomer{number}:example.org");
        let mut caller = caller(server, &Credential::synapse(SECRET, &user));
        match caller.try_allocate(PATIENCE) {
            Some(Ok(_)) => self.granted += 1,
            other => self.failed.push(format!("{server}: {other:?}")),
        }
        self.slowest = self.slowest.max(begun.elapsed());
        // A port that another one gets while this allocation lives would be refused for that.
        let _ = caller.end();
    }

    /// All of them were served.
    #[track_caller]
    pub(crate) fn assert_all(&self) {
        assert!(self.granted > 0 && self.failed.is_empty(), "{self:?}");
    }

    pub(crate) fn figures(&self) -> Value {
        json!({
            "granted": self.granted,
            "failed": self.failed.len(),
            "slowest_ms": millis(self.slowest),
        })
    }
}

//! A certificate authority that speaks ACME (RFC 8555), for tests: it looks for the answers to its challenges by real connections,
//! and signs what it is asked for. One thread a request, everything in memory, gone with the value.
//!
//! What tests change about it is in [`Manner`]; what it saw is in [`Seen`].

mod https;
mod issue;
mod jose;
mod state;
mod validation;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use issue::Issuer;
use state::State;

/// How the authority behaves.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// Where it looks for answers, whatever the name leads to.
    pub(crate) place: SocketAddr,
    /// The challenges that it offers.
    pub(crate) offers: &'static [&'static str],
    /// How long ago certificates began.
    pub(crate) backdate: Duration,
    /// How long they are good for, from then on.
    pub(crate) life: Duration,
    /// The kind of problem that every order meets; none where it takes orders.
    pub(crate) refuses: Option<&'static str>,
    /// Whether it puts off looking for answers.
    pub(crate) waits: bool,
    /// Whether it takes every answer unseen.
    pub(crate) believes: bool,
}

/// What the authority saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) accounts: usize,
    pub(crate) orders: usize,
    /// Answers that it was told to look for.
    pub(crate) asked: usize,
    /// Answers that were right, and wrong.
    pub(crate) right: usize,
    pub(crate) wrong: usize,
    pub(crate) certificates: usize,
}

/// A running authority.
pub(crate) struct Authority {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Authority {
    /// One that looks for answers at `place`, and whose own certificate is in the file `root`: the roots of what it signs, too.
    pub(crate) fn start(root: &Path, place: SocketAddr) -> Self {
        let issuer = Issuer::new();
        std::fs::write(root, issuer.pem()).unwrap();
        let tls = https::server_config(&issuer);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let manner = Manner {
            place,
            offers: &["tls-alpn-01", "http-01"],
            backdate: Duration::from_secs(60),
            life: Duration::from_secs(90 * 86_400),
            refuses: None,
            waits: false,
            believes: false,
        };
        let base = format!("https://localhost:{}", address.port());
        let state = Arc::new(Mutex::new(State::new(base, issuer, manner)));
        let over = Arc::new(AtomicBool::new(false));
        let (shared, ends) = (Arc::clone(&state), Arc::clone(&over));
        let accepting = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (shared, tls) = (Arc::clone(&shared), Arc::clone(&tls));
                thread::spawn(move || {
                    https::serve(stream, tls, |request| state::answer(&shared, request))
                });
            }
        });
        Self {
            address,
            state,
            over,
            accepting: Some(accepting),
        }
    }

    /// The URL of its directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/directory", self.address.port())
    }

    /// What it saw up to now.
    pub(crate) fn seen(&self) -> Seen {
        self.state().seen
    }

    /// Behaves otherwise from here on.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.state().manner);
        // Whoever was put off is looked at now.
        state::look_again(&self.state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // The thread that accepts sees that it is over.
        let _ = std::net::TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

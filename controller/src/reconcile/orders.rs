//! What a node is told beside its policy, whenever there is something to tell.

use tokio::sync::watch;

/// The orders of one session.
#[derive(Debug)]
pub struct Orders {
    credential: watch::Receiver<Option<String>>,
    kill: watch::Receiver<bool>,
    redirect: watch::Receiver<Option<String>>,
    time: watch::Receiver<Option<u64>>,
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Use this credential from the next session on.
    Credential(String),
    /// End.
    Kill,
    /// Go to this controller; any other one where it is empty.
    Redirect(String),
    /// Judge by this time, in Unix seconds.
    Time(u64),
}

/// Gives the orders of one session.
#[derive(Debug)]
pub(super) struct Orderer {
    credential: watch::Sender<Option<String>>,
    kill: watch::Sender<bool>,
    redirect: watch::Sender<Option<String>>,
    time: watch::Sender<Option<u64>>,
}

impl Orderer {
    /// The two ends. `kill` is an order from before the session.
    pub(super) fn new(kill: bool) -> (Self, Orders) {
        let (credential, credentials) = watch::channel(None);
        let (redirect, redirects) = watch::channel(None);
        let (time, times) = watch::channel(None);
        let (kill_sender, mut kills) = watch::channel(kill);
        if kill {
            kills.mark_changed();
        }
        let orderer = Self {
            credential,
            kill: kill_sender,
            redirect,
            time,
        };
        let orders = Orders {
            credential: credentials,
            kill: kills,
            redirect: redirects,
            time: times,
        };
        (orderer, orders)
    }

    /// Whether this session has been given a credential.
    pub(super) fn has_credential(&self) -> bool {
        self.credential.borrow().is_some()
    }

    pub(super) fn credential(&self, credential: String) {
        self.credential.send_replace(Some(credential));
    }

    /// Orders the end, where that is not ordered yet.
    pub(super) fn kill(&self) {
        self.kill
            .send_if_modified(|kill| !std::mem::replace(kill, true));
    }

    pub(super) fn redirect(&self, endpoint: String) {
        self.redirect.send_replace(Some(endpoint));
    }

    pub(super) fn time(&self, unix: u64) {
        self.time.send_replace(Some(unix));
    }
}

impl Orders {
    /// Waits for the next order; for ever where none comes. May be dropped at any point without losing one.
    pub async fn next(&mut self) -> Order {
        loop {
            tokio::select! {
                Ok(()) = self.kill.changed() => {
                    if *self.kill.borrow_and_update() {
                        return Order::Kill;
                    }
                }
                Ok(()) = self.credential.changed() => {
                    if let Some(credential) = self.credential.borrow_and_update().clone() {
                        return Order::Credential(credential);
                    }
                }
                Ok(()) = self.redirect.changed() => {
                    if let Some(endpoint) = self.redirect.borrow_and_update().clone() {
                        return Order::Redirect(endpoint);
                    }
                }
                Ok(()) = self.time.changed() => {
                    if let Some(unix) = *self.time.borrow_and_update() {
                        return Order::Time(unix);
                    }
                }
                // The session's end is told by its policy.
                else => std::future::pending().await,
            }
        }
    }
}

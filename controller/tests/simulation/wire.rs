//! The network between one relay and one controller: messages in order, late, held back while the way is cut, and a
//! connection that both ends give up when nothing has come through for long.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::chance::Chance;

/// What the keepalives of a connection take to notice that the other end does not answer.
const KEEPALIVE: Duration = Duration::from_secs(6);

/// The way between two places. Clones are the same way.
#[derive(Clone)]
pub(crate) struct Wire(Rc<WireState>);

struct WireState {
    /// How many faults cut it at this moment, and since when it is cut.
    cuts: Cell<u32>,
    since: Cell<Option<Instant>>,
    healed: Cell<Instant>,
    changed: Notify,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self(Rc::new(WireState {
            cuts: Cell::default(),
            since: Cell::default(),
            healed: Cell::new(Instant::now()),
            changed: Notify::new(),
        }))
    }

    pub(crate) fn cut(&self) {
        self.0.cuts.set(self.0.cuts.get() + 1);
        if self.0.since.get().is_none() {
            self.0.since.set(Some(Instant::now()));
        }
        self.0.changed.notify_waiters();
    }

    pub(crate) fn heal(&self) {
        self.0.cuts.set(self.0.cuts.get().saturating_sub(1));
        if self.0.cuts.get() == 0 {
            self.0.since.set(None);
            self.0.healed.set(Instant::now());
        }
        self.0.changed.notify_waiters();
    }

    /// Since when nothing has cut it.
    pub(crate) fn quiet_since(&self) -> Instant {
        match self.is_cut() {
            true => Instant::now(),
            false => self.0.healed.get(),
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.0.cuts.get() > 0
    }
}

/// One direction of a connection.
pub(crate) struct Pipe<T>(Rc<PipeState<T>>);

impl<T> Clone for Pipe<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct PipeState<T> {
    wire: Wire,
    chance: RefCell<Chance>,
    queue: RefCell<VecDeque<(Instant, Option<T>)>>,
    closed: Cell<bool>,
    changed: Notify,
}

/// The other end has closed the connection, or does not answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl<T> Pipe<T> {
    pub(crate) fn new(wire: &Wire, chance: Chance) -> Self {
        Self(Rc::new(PipeState {
            wire: wire.clone(),
            chance: RefCell::new(chance),
            queue: RefCell::default(),
            closed: Cell::new(false),
            changed: Notify::new(),
        }))
    }

    pub(crate) fn send(&self, message: T) {
        self.push(Some(message));
    }

    /// Ends this direction, behind what was sent.
    pub(crate) fn close(&self) {
        if !self.0.closed.replace(true) {
            self.push(None);
        }
    }

    fn push(&self, message: Option<T>) {
        let mut queue = self.0.queue.borrow_mut();
        let arrives = Instant::now() + self.0.chance.borrow_mut().millis(1, 20);
        let after = queue.back().map_or(arrives, |(before, _)| *before);
        queue.push_back((arrives.max(after), message));
        self.0.changed.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Messages on their way.
    pub(crate) fn len(&self) -> usize {
        self.0.queue.borrow().len()
    }

    /// The next message. May be dropped at any point without losing one.
    pub(crate) async fn receive(&self) -> Result<T, Closed> {
        loop {
            let arrival = self.0.changed.notified();
            let healing = self.0.wire.0.changed.notified();
            tokio::pin!(arrival, healing);
            arrival.as_mut().enable();
            healing.as_mut().enable();
            let due = match self.0.wire.0.since.get() {
                Some(since) if since + KEEPALIVE <= Instant::now() => return Err(Closed),
                Some(since) => Some(since + KEEPALIVE),
                None => match self.take_due() {
                    Ok(Some(message)) => return message.ok_or(Closed),
                    Ok(None) => None,
                    Err(due) => Some(due),
                },
            };
            let timer = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = arrival => {}
                () = healing => {}
                () = timer => {}
            }
        }
    }

    /// What has arrived; otherwise when the next message will.
    fn take_due(&self) -> Result<Option<Option<T>>, Instant> {
        let mut queue = self.0.queue.borrow_mut();
        match queue.front() {
            None => Ok(None),
            Some((due, _)) if *due > Instant::now() => Err(*due),
            Some((_, None)) => Ok(Some(None)),
            Some(_) => Ok(queue.pop_front().map(|(_, message)| message)),
        }
    }
}

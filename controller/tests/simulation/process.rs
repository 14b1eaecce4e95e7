//! A process of the simulated fleet: it can be stopped like by SIGSTOP, and killed with all its tasks.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A process. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Process(Rc<ProcessState>);

#[derive(Default)]
struct ProcessState {
    stopped: Cell<bool>,
    /// Since when it has not been stopped.
    resumed: Cell<Option<Instant>>,
    sleepers: RefCell<Vec<Waker>>,
    tasks: RefCell<Vec<AbortHandle>>,
    /// Above so many tasks those that have ended are forgotten.
    crowd: Cell<usize>,
}

impl Default for Process {
    fn default() -> Self {
        let state = ProcessState::default();
        state.resumed.set(Some(Instant::now()));
        Self(Rc::new(state))
    }
}

impl Process {
    /// Runs `task` as a part of the process.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let state = Rc::clone(&self.0);
        let handle = tokio::task::spawn_local(async move {
            let mut task = pin!(task);
            std::future::poll_fn(|context| {
                if state.stopped.get() {
                    state.sleepers.borrow_mut().push(context.waker().clone());
                    return Poll::Pending;
                }
                task.as_mut().poll(context)
            })
            .await;
        });
        let mut tasks = self.0.tasks.borrow_mut();
        tasks.push(handle.abort_handle());
        if tasks.len() > self.0.crowd.get() {
            tasks.retain(|task| !task.is_finished());
            self.0.crowd.set(2 * tasks.len() + 16);
        }
    }

    /// SIGSTOP: nothing runs until [`Self::resume`].
    pub(crate) fn stop(&self) {
        self.0.stopped.set(true);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.0.stopped.set(false);
        self.0.resumed.set(Some(Instant::now()));
        for sleeper in self.0.sleepers.take() {
            sleeper.wake();
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.stopped.get()
    }

    /// Since when it has run without being stopped; `None` while it is stopped.
    pub(crate) fn resumed(&self) -> Option<Instant> {
        (!self.is_stopped()).then(|| self.0.resumed.get())?
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        for task in self.0.tasks.take() {
            task.abort();
        }
    }
}

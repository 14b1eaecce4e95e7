//! What ends a command: the signals of the operator, and the end of the process that started it.

use std::io::Read as _;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over from their default action, which ends the process.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Ends this process as soon as its standard input ends.
///
/// The process that started it holds the other end of the pipe and never writes: the operating system closes it when that
/// process ends, however it ends. A thread of its own exits at once, so that nothing which hangs can keep the child alive.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn end_with_standard_input() -> anyhow::Result<()> {
    let watch = || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(read) if read > 0) {}
        std::process::exit(0);
    };
    let thread = std::thread::Builder::new().name("parent-watch".to_owned());
    thread.spawn(watch).context("cannot start a thread")?;
    Ok(())
}

//! Relays as processes of their own: starts them, notices when one ends, and ends them all.
//!
//! Each child holds the reading end of a pipe as its standard input. Nothing is written to it: the operating system closes
//! the other end when this process ends, even by SIGKILL, and the child ends with it. A child that ends by itself is not
//! started again; its configuration file is there for whoever wants to.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context as _;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::telemetry::{DEFAULT_FILTER, LogArgs};

/// The relays that this process has started.
#[derive(Debug)]
pub(crate) struct Children {
    running: JoinSet<Ended>,
    stop: watch::Sender<bool>,
}

/// A child that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The name of its node.
    pub(crate) name: String,
    /// The file with which it can be started again.
    pub(crate) config: PathBuf,
    /// How it ended, where that is known.
    pub(crate) status: Option<ExitStatus>,
}

impl Children {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            running: JoinSet::new(),
            stop: watch::Sender::new(false),
        }
    }

    /// Starts the relay that `config` describes and returns its process id.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn start(
        &mut self,
        name: &str,
        config: &Path,
        log: &LogArgs,
    ) -> anyhow::Result<u32> {
        let program = std::env::current_exe().context("cannot find the program of this process")?;
        let mut command = Command::new(program);
        // What is meant for this process is not meant for its children: their file says everything.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text == "NOTIFY_SOCKET" || name_text.starts_with("TURNFLEET_") {
                command.env_remove(&name);
            }
        }
        let traced = log.otlp_endpoint.iter();
        let traced = traced.flat_map(|endpoint| ["--otlp-endpoint", endpoint.as_str()]);
        let mut child = command
            .args(["relay", "--end-with-stdin", "--config"])
            .arg(config)
            .args(["--log", log.filter.as_deref().unwrap_or(DEFAULT_FILTER)])
            .args(["--log-format", log.log_format.unwrap_or_default().name()])
            .args(traced)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C reaches the whole group of a terminal: this process alone answers it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child
            .id()
            .with_context(|| format!("{name} ended as soon as it was started"))?;
        // Waiting for a child closes its standard input, unless it is taken out before.
        let pipe = child.stdin.take();
        let stop = self.stop.subscribe();
        let (name, config) = (name.to_owned(), config.to_owned());
        self.running.spawn(async move {
            let status = until_the_end(&mut child, stop).await;
            drop(pipe);
            Ended {
                name,
                config,
                status,
            }
        });
        Ok(pid)
    }

    /// Waits until a child ends. Never resolves when there is none.
    pub(crate) async fn next_end(&mut self) -> Ended {
        loop {
            match self.running.join_next().await {
                Some(Ok(ended)) => return ended,
                Some(Err(error)) => tracing::error!(%error, "a relay is no longer watched"),
                None => std::future::pending().await,
            }
        }
    }

    /// Ends all children at once, and returns when they have ended.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.running.join_next().await.is_some() {}
    }
}

async fn until_the_end(child: &mut Child, mut stop: watch::Receiver<bool>) -> Option<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status.ok(),
        _ = stop.wait_for(|stop| *stop) => {}
    }
    // The relay's own stop would wait for clients; this one is to be at once.
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "a relay cannot be ended");
    }
    None
}

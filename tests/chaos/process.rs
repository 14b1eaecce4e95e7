//! A process of the fleet: started, killed, stopped, continued and started again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::tools::eventually;

/// For anything that has no bound of its own.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// One process and the command that it is started by. It ends with the value.
pub(crate) struct Process {
    command: Command,
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, whose standard error goes into the file `log`.
    #[track_caller]
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let mut process = Self {
            command,
            child: None,
            log,
        };
        process.restart();
        process
    }

    /// Starts it again.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        self.child = Some(self.command.spawn().unwrap());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends it a signal by name.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.pid());
    }

    /// Waits until it has ended by itself, and says whether all was well.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> bool {
        let mut child = self.child.take().expect("it runs");
        let status = eventually("the process ends", SOON, || child.try_wait().unwrap());
        status.success()
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal by name to any process.
#[track_caller]
pub(crate) fn signal(name: &str, pid: u32) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

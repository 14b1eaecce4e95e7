//! A machine in the cloud: a network namespace, a disk of its own as far as machines differ, and the cloud as it sees it.
//!
//! What its scripts start is ended with it.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::netns::Namespace;
use crate::tools;
use crate::workshop::{PYTHON, script, succeed};

/// The folders of a machine that are its own.
const PLACES: [&str; 3] = ["etc", "var/lib", "usr/local/bin"];

pub(crate) struct Machine {
    pub(crate) network: Namespace,
    folder: tempfile::TempDir,
    cloud: Option<Child>,
}

impl Machine {
    /// A machine with the address `host` behind `router`, which knows `hosts` by name. `role` has four letters.
    pub(crate) fn new(role: &str, router: &Namespace, host: &str, hosts: &str) -> Self {
        let network = Namespace::new(role);
        let (block, _) = host.rsplit_once('.').unwrap();
        let gateway = format!("{block}.1");
        network.link(router, "card0", host, &gateway);
        network.ip(&["route", "add", "default", "via", &gateway]);
        network.ip(&["addr", "add", "169.254.169.254/32", "dev", "lo"]);

        let folder = tempfile::tempdir().unwrap();
        for place in PLACES.iter().chain(&["bin", "run", "log", "cloud"]) {
            fs::create_dir_all(folder.path().join(place)).unwrap();
        }
        // Its user reaches what is its own through here, whatever the umask of who runs this.
        let mut chmod = Command::new("/bin/chmod");
        succeed(chmod.args(["-R", "0755"]).arg(folder.path()));
        succeed(
            Command::new("/bin/cp")
                .args(["-a", "/etc/."])
                .arg(folder.path().join("etc")),
        );
        fs::write(
            folder.path().join("etc/hosts"),
            format!("127.0.0.1 localhost\n{hosts}"),
        )
        .unwrap();
        let systemctl = folder.path().join("bin/systemctl");
        let line = format!(
            "#!/bin/sh\nexec /usr/bin/python3 {} \"$@\"\n",
            script("systemctl.py").display()
        );
        fs::write(&systemctl, line).unwrap();
        succeed(Command::new("/bin/chmod").arg("0755").arg(&systemctl));
        Self {
            network,
            folder,
            cloud: None,
        }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// `program`, run on this machine.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.network.command("/usr/bin/unshare");
        command
            .args(["--mount", "/bin/sh"])
            .arg(script("machine.sh"))
            .arg(self.folder.path())
            .arg(program);
        command
    }

    /// Runs a line of shell; what it prints.
    #[track_caller]
    pub(crate) fn shell(&self, line: &str) -> String {
        succeed(self.command("/bin/sh").args(["-c", line]))
    }

    /// The cloud that has `binary` and gives this machine `secret`.
    #[track_caller]
    pub(crate) fn cloud(&mut self, binary: &Path, secret: &Path) {
        let cloud = self.path("cloud");
        std::os::unix::fs::symlink(binary, cloud.join("turnfleet")).unwrap();
        fs::copy(secret, cloud.join("secret")).unwrap();
        let child = self
            .network
            .command(PYTHON)
            .arg(script("cloud.py"))
            .arg(&cloud)
            .stdout(Stdio::null())
            .spawn();
        self.cloud = Some(child.unwrap());
        tools::eventually("the cloud answers", Duration::from_secs(60), || {
            self.network
                .inside(|| TcpStream::connect("169.254.169.254:80").ok())
        });
    }

    /// The calls of AWS's APIs that it has made, one a line.
    pub(crate) fn calls(&self) -> String {
        fs::read_to_string(self.path("cloud/calls")).unwrap_or_default()
    }

    /// Starts the machine for the first time.
    #[track_caller]
    pub(crate) fn boot(&self, user_data: &str) {
        let file = self.path("user-data");
        fs::write(&file, user_data).unwrap();
        let mut command = self.command(PYTHON);
        command.arg(script("first_boot.py")).arg(&file);
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "the first boot fails:\n{}\n{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.logs()
        );
    }

    /// What the units have said.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.path("log")).unwrap() {
            let path = entry.unwrap().path();
            text.push_str(&format!("--- {}\n", path.display()));
            text.push_str(&fs::read_to_string(path).unwrap_or_default());
        }
        text
    }

    /// Whether the process of `unit` runs.
    pub(crate) fn runs(&self, unit: &str) -> bool {
        self.path(&format!("run/{unit}.pid")).exists()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut cloud) = self.cloud.take() {
            let _ = cloud.kill();
            let _ = cloud.wait();
        }
        let units = fs::read_dir(self.path("run"))
            .into_iter()
            .flatten()
            .flatten();
        for unit in units {
            let pid = fs::read_to_string(unit.path()).unwrap_or_default();
            let _ = Command::new("/bin/kill").args(["-KILL", &pid]).status();
        }
        if std::thread::panicking() {
            tools::tell(&self.logs());
        }
    }
}

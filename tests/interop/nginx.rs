//! nginx, as Debian has it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{haproxy, tools};

pub(crate) const NGINX: &str = "/usr/sbin/nginx";
const LIMIT: Duration = Duration::from_secs(10);

/// A running nginx; it ends when the value is dropped.
pub(crate) struct Nginx {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Runs with `site`, a file of `conf.d`, and a certificate of its own in `$FOLDER/chain.pem` with `$FOLDER/key.pem`, until
    /// `port` takes connections.
    #[track_caller]
    pub(crate) fn run(site: &str, port: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        haproxy::certificate(folder.path());
        let place = folder.path().to_str().unwrap();
        let site = site.replace("$FOLDER", place);
        // One process alone, so that it ends whole.
        let file = folder.path().join("nginx.conf");
        let text = format!(
            "daemon off;\nmaster_process off;\npid {place}/pid;\nevents {{}}\nhttp {{\n\
             client_body_temp_path {place}/body;\nproxy_temp_path {place}/proxy;\n\
             fastcgi_temp_path {place}/fastcgi;\nuwsgi_temp_path {place}/uwsgi;\n\
             scgi_temp_path {place}/scgi;\naccess_log {place}/access.log;\n{site}}}\n"
        );
        fs::write(&file, text).unwrap();
        let child = Command::new(NGINX)
            .args(["-e", "stderr", "-p", place, "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self {
            child,
            _folder: folder,
        };
        tools::eventually("nginx listens", LIMIT, || TcpStream::connect(port).ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

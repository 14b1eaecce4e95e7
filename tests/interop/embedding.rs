//! The example of a program that embeds the TURN core, built and run as a user would: its own work goes on beside TURN.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
use crate::coturn::{UCLIENT, totals, uclient};
use crate::{haproxy, tools};

const NAME: &str = "alice";
const PASSWORD: &str = "wonderland";

/// A running `media_server`; it ends when the value is dropped.
struct MediaServer {
    program: Child,
    address: SocketAddr,
}

impl MediaServer {
    #[track_caller]
    fn start() -> Self {
        let example = build();
        let [address] = haproxy::free();
        let program = Command::new(example)
            .args([&address.to_string(), NAME, PASSWORD])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { program, address }
    }

    fn caller(&self) -> Caller {
        let credential = Credential {
            username: NAME.to_owned(),
            password: PASSWORD.to_owned(),
        };
        Caller::udp(
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            self.address,
            &credential,
        )
    }
}

impl Drop for MediaServer {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Builds the example with the features and the profile of this test, so that little is built anew, and says where it is.
fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_turnfleet")).parent().unwrap();
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--workspace", "--profile", profile]);
    cargo.args(["--example", "media_server"]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().unwrap().success());
    folder.join("examples/media_server")
}

#[test]
fn a_program_that_embeds_the_core_serves_clients_beside_its_own_work() {
    let server = MediaServer::start();
    let (mut one, mut other) = (server.caller(), server.caller());
    let here = one.allocate(AllocateOptions::default()).unwrap().relayed;
    let there = other.allocate(AllocateOptions::default()).unwrap().relayed;
    one.permit(there).unwrap();
    other.bind(here).unwrap();
    one.send(there, "by an indication");
    assert_eq!(other.hear(), (here, "by an indication".to_owned()));
    other.send(here, "by a channel");
    assert_eq!(one.hear(), (there, "by a channel".to_owned()));

    let media = UdpSocket::bind("127.0.0.1:0").unwrap();
    media
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let packet = *b"\x80\x00 a packet of RTP";
    media.send_to(&packet, server.address).unwrap();
    let mut echo = [0; 64];
    let (len, from) = media.recv_from(&mut echo).unwrap();
    assert_eq!((&echo[..len], from), (&packet[..], server.address));
}

#[test]
fn coturns_client_gets_everything_back_through_a_program_that_embeds_the_core() {
    if !tools::present(&[UCLIENT]) {
        return;
    }
    let server = MediaServer::start();
    // The tool gives up at once where nobody listens.
    server
        .caller()
        .allocate(AllocateOptions::default())
        .unwrap();
    let output = uclient(
        server.address,
        &[
            "-y", "-s", "-n", "50", "-m", "4", "-l", "160", "-u", NAME, "-w", PASSWORD,
        ],
    );
    let counts = totals(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(counts, Some((200, 200)), "{output:?}");
}

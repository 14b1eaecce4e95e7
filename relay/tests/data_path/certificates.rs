//! The certificate is replaced while clients talk: they never notice, and later handshakes see the right one.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted fails it")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{
    Driver, Relay, connect, echo_peer, settings, tls_over, wait_until, write_certificate,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use turnfleet_relay::shard::Certificate;
use turnfleet_turn::Transport;
use turnfleet_turn::client::AllocateOptions;

/// Clients that talk all the time.
const CLIENTS: usize = 16;
/// Between two messages of a client.
const PACE: Duration = Duration::from_millis(1);

/// The files that the relay watches, pairs to replace them with, and everything that clients trust.
struct Files {
    folder: tempfile::TempDir,
    chain: PathBuf,
    key: PathBuf,
    trusted: PathBuf,
}

impl Files {
    /// With the pair `first` in use, and it and `others` trusted.
    fn new(first: &str, others: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut trusted = String::new();
        for name in [first].iter().chain(others) {
            let chain = path(&format!("{name}.pem"));
            write_certificate(&chain, &path(&format!("{name}.key")));
            trusted += &fs::read_to_string(chain).unwrap();
        }
        fs::write(path("trusted"), trusted).unwrap();
        let (chain, key, trusted) = (path("chain"), path("key"), path("trusted"));
        let files = Self {
            folder,
            chain,
            key,
            trusted,
        };
        files.replace_chain(&format!("{first}.pem"));
        files.replace_key(&format!("{first}.key"));
        files
    }

    /// Puts a copy of `name` in the place of the certificate file, as a whole.
    fn replace_chain(&self, name: &str) {
        self.replace(name, &self.chain);
    }

    /// Puts a copy of `name` in the place of the key file, as a whole.
    fn replace_key(&self, name: &str) {
        self.replace(name, &self.key);
    }

    fn replace(&self, name: &str, place: &Path) {
        let copy = self.folder.path().join("copy");
        fs::copy(self.folder.path().join(name), &copy).unwrap();
        fs::rename(copy, place).unwrap();
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.folder.path().join(name)).unwrap()
    }

    /// The certificate that a handshake with `server` shows.
    #[track_caller]
    fn shown(&self, server: SocketAddr) -> CertificateDer<'static> {
        let stream = tls_over(connect(server), &self.trusted, &[]);
        let chain = stream.conn.peer_certificates().unwrap();
        chain[0].clone().into_owned()
    }
}

/// A client sends numbered messages to an echoing peer until `over`, and gets every one back; `echoes` counts them. Its
/// allocation and its connection are the first ones to the end.
fn talk(
    server: SocketAddr,
    trusted: &Path,
    peer: SocketAddr,
    echoes: &AtomicU64,
    over: &AtomicBool,
) {
    let mut driver = Driver::tls(server, trusted);
    driver.allocate(AllocateOptions::default());
    driver.bind_channel(peer);
    while !over.load(Ordering::Relaxed) {
        let number = echoes.load(Ordering::Relaxed).to_be_bytes();
        driver.send_to(peer, &number);
        assert_eq!(driver.receive_one().payload, number);
        echoes.fetch_add(1, Ordering::Relaxed);
        std::thread::park_timeout(PACE);
    }
    driver.refresh(600);
}

/// Ends the clients' talk however the test ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_certificate_is_replaced_under_load_without_a_dropped_connection() {
    let files = Files::new("old", &["next", "last"]);
    let certificate = Arc::new(Certificate::load(&files.chain, &files.key).unwrap());
    let _watcher = certificate.watch().unwrap();
    let relay = Relay::start(settings(2, Some(Arc::clone(&certificate))));
    let server = relay.address(Transport::Tls, true);
    let peer = echo_peer(true);
    let echoes: Vec<_> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    let over = AtomicBool::new(false);
    let expect = |changes: (u64, u64), shown: &str| {
        wait_until("the change is seen", || {
            (certificate.replaced(), certificate.rejected()) == changes
        });
        assert!(files.shown(server) == files.certificate(shown), "{shown}");
        let before: Vec<_> = echoes.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        wait_until("every client goes on", || {
            let now = echoes.iter().map(|it| it.load(Ordering::Relaxed));
            now.zip(&before).all(|(now, before)| now > *before)
        });
    };
    std::thread::scope(|scope| {
        let _end = End(&over);
        for echoes in &echoes {
            scope.spawn(|| talk(server, &files.trusted, peer, echoes, &over));
        }
        expect((0, 0), "old.pem");
        // The certificate is there before its key: the pair does not fit.
        files.replace_chain("next.pem");
        expect((0, 1), "old.pem");
        files.replace_key("next.key");
        expect((1, 1), "next.pem");
        fs::write(files.folder.path().join("none.pem"), "no certificate").unwrap();
        files.replace_chain("none.pem");
        expect((1, 2), "next.pem");
        fs::remove_file(&files.key).unwrap();
        expect((1, 3), "next.pem");
        // The key first: the certificate that is there is no better for it.
        files.replace_key("last.key");
        expect((1, 4), "next.pem");
        files.replace_chain("last.pem");
        expect((2, 4), "last.pem");
    });
    assert_eq!(relay.shards.driver_counters().tls_failures, 0);
    assert_eq!(relay.shards.counters().opened, CLIENTS as u64);
}

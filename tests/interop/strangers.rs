//! What those who have proven nothing cost a relay: no memory, and nobody else's way in.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::{Class, MessageWriter, Method, TransactionId};

use crate::client::{Caller, Credential};
use crate::outpost::{Outpost, RELAY, SECRET, WORLD, address, source};
use crate::tools;

const SOURCES: u32 = 20_000;
/// More than the relay keeps at a time (`stream.unauthenticated_connections`).
const STREAMS: usize = 5_000;
const KEPT: usize = 4_096;
/// What the relay's memory may grow by, in kB: pages of its fixed tables and code that it touches for the first time.
const SLACK: u64 = 2_048;
/// How long the relay may take to close what it does not keep: less than it takes to close what is idle.
const LIMIT: Duration = Duration::from_secs(3);

/// The relay's resident memory in kB.
fn memory(outpost: &Outpost) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", outpost.relay().pid)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

/// A request without credentials, as every client sends it first.
pub(crate) fn request(method: Method, number: u32) -> Vec<u8> {
    let mut id = [0; 12];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let mut message = Vec::new();
    let mut writer = MessageWriter::new(&mut message, Class::Request, method, TransactionId(id));
    if method == Method::Allocate {
        writer.requested_transport(17);
    }
    writer.finish();
    message
}

/// A stranger asks for a Binding and an allocation; returns how many answers came.
fn knock(number: u32, server: SocketAddr) -> u32 {
    let socket = UdpSocket::bind(SocketAddr::new(source(number), 0)).unwrap();
    socket.connect(server).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let methods = [Method::Binding, Method::Allocate];
    let mut answers = 0;
    for method in methods {
        socket.send(&request(method, number)).unwrap();
        answers += u32::from(socket.recv(&mut [0; 256]).is_ok());
    }
    answers
}

/// Whoever has a credential gets an allocation.
#[track_caller]
pub(crate) fn gets_in(mut caller: Caller) {
    caller.allocate(AllocateOptions::default()).unwrap();
}

pub(crate) fn someone() -> Credential {
    Credential::synapse(SECRET, "@alice:example.org")
}

#[test]
fn twenty_thousand_sources_leave_no_trace() {
    let Some(outpost) = Outpost::new(&[]) else {
        return;
    };
    let server = outpost.server(RELAY[0]);
    let before = memory(&outpost);
    let answers: u32 = outpost
        .world
        .inside(|| (0..SOURCES).map(|number| knock(number, server)).sum());
    assert!(answers > 2 * SOURCES - 100, "{answers} answers");
    let after = memory(&outpost);
    assert!(
        after <= before + SLACK,
        "{before} kB before, {after} kB after"
    );
    let socket = outpost.world.socket(address(WORLD[0]));
    gets_in(Caller::udp(socket, server, &someone()));
}

/// `STREAMS` connections that have said `beginning`, and stay.
fn hold_streams(server: SocketAddr, beginning: &[u8]) -> Vec<TcpStream> {
    let open = || {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.write(beginning).unwrap(), beginning.len());
        stream
    };
    (0..STREAMS).map(|_| open()).collect()
}

fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// This process may hold that many sockets.
fn allow_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Fills the relay's pool of strangers by way of `server` with streams that say `beginning` and no more, and gets in by
/// TCP and UDP while it is full. Returns the relay's memory meanwhile.
#[track_caller]
fn fill_the_pool(outpost: &Outpost, server: SocketAddr, beginning: &[u8]) -> u64 {
    let streams = outpost.world.inside(|| hold_streams(server, beginning));
    let open = tools::eventually("the pool is bounded", LIMIT, || {
        let open = streams.iter().filter(|stream| is_open(stream)).count();
        (open <= KEPT).then_some(open)
    });
    assert!(open > KEPT / 2, "{open} of {STREAMS} streams are open");
    let held = memory(outpost);
    let turn = outpost.server(RELAY[0]);
    let stream = outpost.world.inside(|| TcpStream::connect(turn).unwrap());
    gets_in(Caller::tcp(stream, &someone()));
    let socket = outpost.world.socket(address(WORLD[0]));
    gets_in(Caller::udp(socket, turn, &someone()));
    held
}

/// The pool costs `each` bytes a stream at most, and no more when it is filled again.
#[track_caller]
fn assert_bounded(outpost: &Outpost, server: SocketAddr, beginning: &[u8], each: u64) {
    allow_descriptors();
    let before = memory(outpost);
    let full = fill_the_pool(outpost, server, beginning);
    let again = fill_the_pool(outpost, server, beginning);
    let most = before + each * KEPT as u64 / 1024;
    assert!(
        full <= most,
        "{before} kB before, {full} kB with the pool full"
    );
    assert!(again <= full + SLACK, "{full} kB at first, {again} kB then");
}

#[test]
fn idle_streams_have_one_pool_and_keep_nobody_out() {
    let Some(outpost) = Outpost::new(&[]) else {
        return;
    };
    let beginning = request(Method::Allocate, 0);
    assert_bounded(&outpost, outpost.server(RELAY[0]), &beginning[..9], 4096);
}

#[test]
fn unfinished_tls_handshakes_have_one_pool_and_keep_nobody_out() {
    let Some(outpost) = Outpost::new(&[]) else {
        return;
    };
    let tls = outpost.relay().tls;
    assert_bounded(&outpost, tls, &[], 4096);
    // A record of 512 bytes with a ClientHello, of which the first bytes come.
    let beginning = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    assert_bounded(&outpost, tls, &beginning, 4096);
}

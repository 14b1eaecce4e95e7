//! What those who have proven nothing cost a relay: no memory, and nobody else's way in.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::{Class, MessageWriter, Method, TransactionId};

use crate::client::{Caller, Credential};
use crate::outpost::{Outpost, RELAY, SECRET, WORLD, address, source};
use crate::tools;

const SOURCES: u32 = 20_000;
/// More than the relay keeps at a time (`stream.unauthenticated_connections`).
const STREAMS: usize = 5_000;
/// Where they come from.
const SOURCE_ADDRESSES: u32 = 80;
/// How long an idle stream may stay (`stream.unauthenticated_seconds`): as long as it takes to hold all of them and to look.
const IDLE_SECONDS: u64 = 20;
const KEPT: usize = 4_096;
/// What the relay's memory may grow by, in kB: pages of its fixed tables and code that it touches for the first time.
const SLACK: u64 = 2_048;
/// How long the relay may take to close what it does not keep: less than it takes to close what is idle.
const LIMIT: Duration = Duration::from_secs(3);

/// The relay's resident memory in kB.
fn memory(outpost: &Outpost) -> u64 {
    kilobytes(&format!("/proc/{}/status", outpost.relay().pid), "VmRSS:")
}

/// The number behind `name` in a file of the kernel.
#[track_caller]
fn kilobytes(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
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

/// A connection from the address `from`, which does not block.
pub(crate) fn connect(from: IpAddr, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true).unwrap();
    stream
}

/// `STREAMS` connections from `SOURCE_ADDRESSES` that have said `beginning`, and stay.
fn hold_streams(server: SocketAddr, beginning: &[u8]) -> Vec<TcpStream> {
    let open = |from: IpAddr| {
        let mut stream = connect(from, server);
        assert_eq!(stream.write(beginning).unwrap(), beginning.len());
        stream
    };
    let sources = (0..SOURCE_ADDRESSES).map(source).cycle();
    sources.take(STREAMS).map(open).collect()
}

/// Whether the relay has left the stream open; what it has said is taken from it.
pub(crate) fn is_open(mut stream: &TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn count_open(streams: &[TcpStream]) -> usize {
    streams.iter().filter(|stream| is_open(stream)).count()
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
        let open = count_open(&streams);
        (open <= KEPT).then_some(open)
    });
    assert!(open > KEPT / 2, "{open} of {STREAMS} streams are open");
    let held = memory(outpost);
    assert_someone_gets_in(outpost);
    held
}

/// A client gets in by TCP, and one by UDP.
#[track_caller]
fn assert_someone_gets_in(outpost: &Outpost) {
    let turn = outpost.server(RELAY[0]);
    let stream = outpost.world.inside(|| TcpStream::connect(turn).unwrap());
    gets_in(Caller::tcp(stream, &someone()));
    let socket = outpost.world.socket(address(WORLD[0]));
    gets_in(Caller::udp(socket, turn, &someone()));
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
fn idle_streams_cost_four_kilobytes_at_most_and_are_reaped() {
    let idle = format!("relay.stream.unauthenticated_seconds={IDLE_SECONDS}");
    let Some(outpost) = Outpost::new(&["--set", &idle]) else {
        return;
    };
    allow_descriptors();
    let slab = || kilobytes("/proc/meminfo", "Slab:");
    let (before, slab_before) = (memory(&outpost), slab());
    let began = Instant::now();
    let server = outpost.server(RELAY[0]);
    // A whole request, so that the relay has answered, and has no other bound on the stream than idleness.
    let beginning = request(Method::Allocate, 0);
    let streams = outpost.world.inside(|| hold_streams(server, &beginning));
    tools::eventually("the pool is full", LIMIT, || {
        (count_open(&streams) == KEPT).then_some(())
    });
    let grown = memory(&outpost).saturating_sub(before);
    let slab = slab().saturating_sub(slab_before);
    tools::tell(&format!(
        "{KEPT} idle streams held: {grown} kB in the relay, {slab} kB in the kernel for both ends and everyone else"
    ));
    assert!(grown * 1024 <= 4096 * KEPT as u64, "{grown} kB for {KEPT}");
    assert_someone_gets_in(&outpost);

    let idle = Duration::from_secs(IDLE_SECONDS);
    tools::eventually("every idle stream is closed", idle + LIMIT, || {
        (count_open(&streams) == 0).then_some(())
    });
    assert!(began.elapsed() >= idle, "{:?}", began.elapsed());
    assert_someone_gets_in(&outpost);
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

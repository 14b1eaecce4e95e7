//! The DNS responder's sockets: datagrams, connections and their bounds, and that it follows the fleet.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use turnfleet_controller::config::{ProbeMode, RawNameServer};
use turnfleet_proto::fleet::listener::Transport;

use crate::stage::{Node, Stage, hello};

const ZONE: &str = "relays.example.org";
const PATIENCE: Duration = Duration::from_secs(10);

fn stage() -> (Stage, SocketAddr) {
    let stage = Stage::with(|raw| {
        raw.probe.mode = ProbeMode::Off;
        raw.dns.zone = Some(ZONE.to_owned());
        raw.dns.listen = vec!["127.0.0.1:0".to_owned()];
        raw.dns.name_servers = vec![RawNameServer {
            name: "ns.example.net".to_owned(),
            addresses: Vec::new(),
        }];
    });
    let address = stage.controller().dns_addresses()[0];
    (stage, address)
}

fn query(id: u16, kind: RecordType) -> Vec<u8> {
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(format!("turn.{ZONE}.")).unwrap();
    query.add_query(Query::query(name, kind));
    query.to_vec().unwrap()
}

fn asker(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[track_caller]
fn by_udp(socket: &UdpSocket, query: &[u8]) -> Message {
    socket.send(query).unwrap();
    let mut answer = [0; 2048];
    let length = socket.recv(&mut answer).unwrap();
    Message::from_vec(&answer[..length]).unwrap()
}

fn framed(query: &[u8]) -> Vec<u8> {
    let length = u16::try_from(query.len()).unwrap();
    [&length.to_be_bytes(), query].concat()
}

#[track_caller]
fn next(stream: &mut TcpStream) -> Message {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    Message::from_vec(&answer).unwrap()
}

fn ips(answer: &Message) -> Vec<IpAddr> {
    let records = answer.answers.iter();
    records.filter_map(|record| record.data.ip_addr()).collect()
}

fn join(stage: &Stage, name: &str, ip: &str) -> Node {
    let address = format!("{ip}:3478").parse().unwrap();
    stage.node(hello(name, &[Transport::Udp], address))
}

#[track_caller]
fn until_named(socket: &UdpSocket, wanted: &[&str]) {
    let wanted: Vec<IpAddr> = wanted.iter().map(|ip| ip.parse().unwrap()).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut seen = ips(&by_udp(socket, &query(2, RecordType::A)));
        seen.sort_unstable();
        if seen == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{seen:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn answers_follow_the_fleet() {
    let (stage, server) = stage();
    let socket = asker(server);
    until_named(&socket, &[]);
    let one = join(&stage, "one", "192.0.2.1");
    let _other = join(&stage, "other", "192.0.2.2");
    until_named(&socket, &["192.0.2.1", "192.0.2.2"]);
    drop(one);
    until_named(&socket, &["192.0.2.2"]);
}

#[test]
fn relays_take_turns_at_the_head_of_answers_on_connections() {
    let (stage, server) = stage();
    let _one = join(&stage, "one", "192.0.2.1");
    let _other = join(&stage, "other", "192.0.2.2");
    until_named(&asker(server), &["192.0.2.1", "192.0.2.2"]);
    let heads: BTreeSet<IpAddr> = (0..10)
        .map(|id| {
            let mut stream = connect(server);
            let query = framed(&query(id, RecordType::A));
            stream.write_all(&query).unwrap();
            ips(&next(&mut stream))[0]
        })
        .collect();
    assert_eq!(heads.len(), 2);
}

#[test]
fn one_connection_asks_several_questions_at_once() {
    let (_stage, server) = stage();
    let mut stream = connect(server);
    let ids = [1, 2, 3];
    let queries = ids.map(|id| framed(&query(id, RecordType::SOA)));
    stream.write_all(&queries.concat()).unwrap();
    assert_eq!(ids.map(|_| next(&mut stream).metadata.id), ids);
}

#[test]
fn a_connection_that_says_what_is_no_query_is_closed() {
    let (_stage, server) = stage();
    for said in [&[0xff, 0xff][..], &[0, 3, 1, 2, 3]] {
        let mut stream = connect(server);
        stream.write_all(said).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
}

#[test]
fn answers_are_not_answered_and_everything_is_counted() {
    let (stage, server) = stage();
    let socket = asker(server);
    let mut response = query(1, RecordType::A);
    response[2] |= 0x80;
    for unanswered in [&response[..], b"short"] {
        socket.send(unanswered).unwrap();
    }
    // What comes first is the answer to the only query.
    assert_eq!(by_udp(&socket, &query(9, RecordType::A)).metadata.id, 9);
    socket.set_nonblocking(true).unwrap();
    let more = socket.recv(&mut [0; 512]).map_err(|error| error.kind());
    assert_eq!(more, Err(ErrorKind::WouldBlock));
    let metrics = ureq::get(stage.url("/metrics"))
        .config()
        .proxy(None)
        .build()
        .header("authorization", stage.admin())
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    for line in [
        "dns_queries_total{rcode=\"noerror\",type=\"a\"} 1",
        "dns_unanswered_total{reason=\"response\"} 1",
        "dns_unanswered_total{reason=\"short\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

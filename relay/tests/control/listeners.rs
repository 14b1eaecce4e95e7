//! Listeners that come and go with the configuration, while allocations live.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use turnfleet_relay::Node;
use turnfleet_relay::config::Config;
use turnfleet_turn::Transport;
use turnfleet_turn::client::Event;

use crate::client::Holder;
use crate::double::Double;
use crate::{TOKEN, config_with, is_answered, take, wait_for};

const SOON: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

fn config(root: &Path, double: &Double, shards: u8, listeners: &[(&str, &str)]) -> Config {
    let config = config_with(root, &[double.endpoint()], listeners);
    assert_eq!(config.nodes_in_process, NonZeroU64::MIN);
    Config { shards, ..config }
}

fn refreshed(event: &Event) -> bool {
    matches!(event, Event::Refreshed { .. })
}

/// One listener stays, one goes and one comes, for `shards` shards.
async fn exchange(shards: u8) {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let (tcp, udp) = (("tcp", "127.0.0.1:0"), ("udp", "127.0.0.1:0"));
    let before = config(root.path(), &double, shards, &[udp, tcp]);
    let node = Node::start(before.clone()).await.unwrap();
    double.hear_hello().await;
    take(&mut double, 1).await;
    let [gone, stream] = node.listeners()[..] else {
        panic!("two listeners");
    };
    let mut holder = Holder::new(gone.address, "north");
    assert!(matches!(holder.allocate(), Event::Allocated(_)));

    let other = ("udp", "127.0.0.2:0");
    node.reload(&config(root.path(), &double, shards, &[tcp, other]))
        .unwrap();
    let [stays, comes] = node.listeners()[..] else {
        panic!("two listeners");
    };
    assert_eq!(stays.address, stream.address);
    // The controller is told, by another session of the same process.
    let hello = double.hear_hello().await;
    let told: Vec<_> = hello.listeners.iter().map(|it| &it.address).collect();
    assert_eq!(told, [&stays.public.to_string(), &comes.public.to_string()]);
    take(&mut double, 2).await;
    wait_for(|| is_answered(comes.address, SOON).then_some(())).await;
    TcpStream::connect_timeout(&stays.address, LONG).unwrap();
    wait_for(|| (!is_answered(gone.address, SOON)).then_some(())).await;
    assert!(refreshed(&holder.refresh(600)), "who came by it stays");
    assert_eq!(node.status().allocations, 1);

    // It is asked for again, goes again, and ends with its last allocation.
    node.reload(&before).unwrap();
    assert_eq!(node.listeners()[0].address, gone.address);
    wait_for(|| is_answered(gone.address, SOON).then_some(())).await;
    node.reload(&config(root.path(), &double, shards, &[tcp]))
        .unwrap();
    wait_for(|| (!is_answered(gone.address, SOON)).then_some(())).await;
    assert!(refreshed(&holder.refresh(0)));
    wait_for(|| UdpSocket::bind(gone.address).ok()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_come_and_go_and_allocations_stay() {
    exchange(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_of_several_shards_come_and_go_together() {
    exchange(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_its_listener() {
    use std::io::{Read as _, Write as _};
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let (tcp, udp) = (("tcp", "127.0.0.1:0"), ("udp", "127.0.0.1:0"));
    let node = Node::start(config(root.path(), &double, 2, &[udp, tcp]));
    let node = node.await.unwrap();
    double.hear_hello().await;
    take(&mut double, 1).await;
    let gone = node.listeners()[1].address;
    let mut stream = TcpStream::connect(gone).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut request = [0; 20];
    request[1] = 0x01;
    request[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
    let mut answered = || {
        stream.write_all(&request).unwrap();
        let mut answer = [0; 20];
        stream.read_exact(&mut answer).unwrap();
        let rest = usize::from(u16::from_be_bytes([answer[2], answer[3]]));
        stream.read_exact(&mut vec![0; rest]).unwrap();
        answer[..2] == [0x01, 0x01]
    };
    assert!(answered());
    node.reload(&config(root.path(), &double, 2, &[udp]))
        .unwrap();
    wait_for(|| TcpStream::connect(gone).is_err().then_some(())).await;
    assert!(answered());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_cannot_be_opened_leaves_everything_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let udp = ("udp", "127.0.0.1:0");
    let node = Node::start(config(root.path(), &double, 2, &[udp]));
    let node = node.await.unwrap();
    double.hear_hello().await;
    take(&mut double, 1).await;
    let before = node.listeners();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let wanted = config(root.path(), &double, 2, &[("tcp", &address)]);
    node.reload(&wanted).unwrap_err();
    assert_eq!(node.listeners(), before);
    assert!(is_answered(before[0].address, LONG));
    drop(taken);
    node.reload(&wanted).unwrap();
    TcpStream::connect_timeout(&address.parse().unwrap(), LONG).unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_refused_where_there_was_no_certificate_at_the_start() {
    let root = tempfile::tempdir().unwrap();
    let mut double = Double::start(TOKEN).await;
    let udp = ("udp", "127.0.0.1:0");
    let tcp = ("tcp", "127.0.0.1:0");
    let node = Node::start(config(root.path(), &double, 1, &[udp]));
    let node = node.await.unwrap();
    double.hear_hello().await;
    take(&mut double, 1).await;
    let before = node.listeners();
    let mut wanted = config(root.path(), &double, 1, &[udp, tcp]);
    wanted.listeners[1].transport = Transport::Tls;
    let error = node.reload(&wanted).unwrap_err().to_string();
    assert!(
        error.contains("tls 127.0.0.1:0") && error.contains("restart it"),
        "{error}"
    );
    assert_eq!(node.listeners(), before);
    node.stop().await;
}

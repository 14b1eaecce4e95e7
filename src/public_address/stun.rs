//! Asks a STUN server what the address of this machine looks like from there (RFC 8489, the Binding method).

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use turnfleet_turn::wire::{Class, Message, MessageWriter, Method, TransactionId};

use super::usable;

/// How long the answer of one server may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// After which time a datagram is taken for lost (RFC 8489 §6.2.1).
const RETRANSMISSION: Duration = Duration::from_millis(500);
/// Addresses of one name that are tried.
const MOST: usize = 4;
/// Longer than any answer to a Binding request is.
const MAX_LEN: usize = 2048;

/// The address that `server`, `HOST:PORT`, sees. IPv4 goes first: it is there that machines have addresses which are not
/// their own.
pub(super) fn ask(server: &str) -> Result<IpAddr> {
    let found = server.to_socket_addrs();
    let mut found: Vec<SocketAddr> = found.context("its name cannot be resolved")?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    let mut problems = Vec::new();
    for address in found.into_iter().take(MOST) {
        match binding(address) {
            Ok(ip) => return Ok(ip),
            Err(error) => problems.push(format!("{address}: {error:#}")),
        }
    }
    bail!("no answer of a STUN server: {}", problems.join("; "))
}

/// One Binding transaction with `server`.
fn binding(server: SocketAddr) -> Result<IpAddr> {
    let any = match server {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(RETRANSMISSION))?;
    let id = TransactionId(crate::random()?);
    let mut request = Vec::new();
    MessageWriter::new(&mut request, Class::Request, Method::Binding, id).finish();
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; MAX_LEN];
    while Instant::now() < deadline {
        socket.send(&request)?;
        let len = match socket.recv(&mut buffer) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Ok(answer) = Message::parse(&buffer[..len]) else {
            continue;
        };
        if answer.transaction_id() != id {
            continue;
        }
        let Some(Ok(mapped)) = answer.xor_mapped_address() else {
            bail!("the answer has no XOR-MAPPED-ADDRESS");
        };
        return usable(mapped.ip().to_canonical());
    }
    bail!("no answer within {PATIENCE:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one request after `lost` others with what `answer` writes.
    fn stand_in(
        lost: usize,
        answer: fn(&mut MessageWriter<'_>),
    ) -> (String, std::thread::JoinHandle<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let place = socket.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; MAX_LEN];
            for number in 0..=lost {
                let (len, from) = socket.recv_from(&mut buffer).unwrap();
                if number < lost {
                    continue;
                }
                let id = Message::parse(&buffer[..len]).unwrap().transaction_id();
                let mut bytes = Vec::new();
                let mut writer =
                    MessageWriter::new(&mut bytes, Class::SuccessResponse, Method::Binding, id);
                answer(&mut writer);
                writer.finish();
                socket.send_to(&bytes, from).unwrap();
            }
        });
        (place, thread)
    }

    #[test]
    fn the_address_that_the_server_sees_is_taken_also_when_datagrams_are_lost() {
        let (place, thread) = stand_in(1, |writer| {
            writer.xor_mapped_address("203.0.113.7:4000".parse().unwrap());
        });
        assert_eq!(ask(&place).unwrap().to_string(), "203.0.113.7");
        thread.join().unwrap();
    }

    #[test]
    fn an_answer_without_an_address_is_said() {
        let (place, thread) = stand_in(0, |_| {});
        let error = format!("{:#}", ask(&place).unwrap_err());
        assert!(error.contains("XOR-MAPPED-ADDRESS"), "{error}");
        thread.join().unwrap();
        let error = ask("host.invalid:3478").unwrap_err();
        assert!(error.to_string().contains("resolved"), "{error:#}");
    }
}

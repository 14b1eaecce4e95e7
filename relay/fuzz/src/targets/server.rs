//! Whatever clients, peers and the operating system do, in whatever order: a server does not panic or spin, sends nothing to
//! an address that it must not reach, and gives back every socket that it opened.

use std::time::Duration;

use turnfleet_turn::policy::TcpRelaying;
use turnfleet_turn::wire::{
    AttributeType, ChannelData, ChannelNumber, Class, IntegrityKind, Message, MessageWriter,
    Method, PasswordAlgorithm, TransactionId,
};
use turnfleet_turn::{AddressFamily, Decision};

use super::bytes::Bytes;
use world::{USERS, World};

mod world;

/// No more steps than this are taken with one input.
const MAX_STEPS: usize = 200;

const METHODS: [Method; 8] = [
    Method::Allocate,
    Method::CreatePermission,
    Method::ChannelBind,
    Method::Refresh,
    Method::Send,
    Method::Binding,
    Method::Connect,
    Method::ConnectionBind,
];

const LIFETIMES: [u32; 5] = [600, 0, 1, 3600, u32::MAX];

pub fn run(data: &[u8]) {
    let mut choices = Bytes::new(data);
    let settings = choices.byte();
    let tcp_relaying = match settings & 0x06 {
        0x02 => TcpRelaying::On,
        0x06 => TcpRelaying::OnWithLowPorts,
        _ => TcpRelaying::Off,
    };
    let mut world = World::new(settings & 0x01 != 0, tcp_relaying);
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            break;
        }
        step(&mut world, &mut choices);
    }
    world.close();
}

fn step(world: &mut World, choices: &mut Bytes<'_>) {
    match choices.byte() % 16 {
        0 => world.advance(Duration::from_secs(u64::from(choices.byte()))),
        1 => world.advance(Duration::from_millis(u64::from(choices.byte()))),
        2 => {
            let client = choices.byte();
            world.handle_unsigned(client, choices.slice(), choices);
        }
        3 | 4 => {
            let client = choices.byte();
            let number = ChannelNumber(0x4000 | (choices.u16() & 0x1003));
            let mut packet = Vec::new();
            ChannelData::write(number, choices.slice(), choices.flag(), &mut packet);
            world.handle_unsigned(client, &packet, choices);
        }
        5 | 6 => {
            let (socket, peer) = (choices.byte(), choices.byte());
            world.handle_peer(socket, peer, usize::from(choices.u16()));
        }
        7 => match choices.byte() % 11 {
            0 => world.fail_relayed(choices.byte(), choices),
            1 => world.close_client(choices.byte(), choices),
            2 => world.server.set_draining(choices.flag()),
            3 => world.release_reserved(),
            4 => world.accept_peer(choices.byte(), choices),
            5 => world.answer_peer(choices.flag(), choices),
            6 => world.end_connection(choices.byte(), choices),
            7 => world.pass_bytes(choices.byte(), usize::from(choices.u16())),
            8 => world.handle_peer_error(choices),
            9 => world.change_bans(choices),
            _ => world.change_alternates(choices),
        },
        _ => request(world, choices),
    }
}

/// A message that makes sense more often than arbitrary bytes, signed where it is a request.
fn request(world: &mut World, choices: &mut Bytes<'_>) {
    let client = choices.byte();
    let method = choices.choose(&METHODS);
    let class = match method {
        Method::Send | Method::Data | Method::ConnectionAttempt => Class::Indication,
        Method::Binding
        | Method::Allocate
        | Method::Refresh
        | Method::CreatePermission
        | Method::ChannelBind
        | Method::Connect
        | Method::ConnectionBind => Class::Request,
    };
    let mut id = [0; 12];
    id[11] = choices.byte();
    let mut packet = Vec::new();
    let mut writer = MessageWriter::new(&mut packet, class, method, TransactionId(id));
    write_usual(&mut writer, method, id, world, choices);
    let kinds = choices.byte();
    write_unusual(&mut writer, kinds, world, choices);
    let user = choices.choose(&USERS);
    match world.nonce(client) {
        Some(nonce) if class == Class::Request => {
            let algorithm = algorithm_of(id);
            let (username, key) = world.user(user, algorithm.unwrap_or_default());
            writer.username(username).realm(world::REALM).nonce(nonce);
            let kind = match algorithm {
                Some(algorithm) => {
                    writer
                        .password_algorithms(&[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5])
                        .password_algorithm(algorithm);
                    IntegrityKind::Sha256
                }
                None => IntegrityKind::Sha1,
            };
            writer.finish_signed_by(kind, &key);
        }
        Some(_) | None => writer.finish(),
    }
    let decision = world.handle_client(client, &packet, choices);
    if class == Class::Indication {
        assert_ne!(decision, Decision::Reply, "an indication has no answer");
    }
    if method == Method::Binding {
        assert!(Message::parse(&packet).is_ok_and(|it| it.method() == Some(method)));
    }
}

/// What the request with this transaction id takes up of the offered algorithms.
fn algorithm_of(id: [u8; 12]) -> Option<PasswordAlgorithm> {
    match id[11] & 0xC0 {
        0x40 => Some(PasswordAlgorithm::Sha256),
        0xC0 => Some(PasswordAlgorithm::Md5),
        _ => None,
    }
}

/// Whether the Allocate request with this transaction id asks for a TCP relayed transport address.
fn wants_tcp(id: [u8; 12]) -> bool {
    id[11] & 0x20 != 0
}

/// What a request of `method` has in any case.
fn write_usual(
    writer: &mut MessageWriter<'_>,
    method: Method,
    id: [u8; 12],
    world: &World,
    choices: &mut Bytes<'_>,
) {
    match method {
        Method::Allocate => {
            writer.requested_transport(if wants_tcp(id) { 6 } else { 17 });
        }
        Method::Refresh => {
            writer.lifetime(choices.choose(&LIFETIMES));
        }
        Method::CreatePermission => {
            writer.xor_peer_address(world.peer(choices.byte()));
        }
        Method::ChannelBind => {
            writer
                .channel_number(ChannelNumber(0x4000 | (choices.u16() & 0x1003)))
                .xor_peer_address(world.peer(choices.byte()));
        }
        Method::Send | Method::Data => {
            writer
                .xor_peer_address(world.peer(choices.byte()))
                .data(choices.slice());
        }
        Method::Connect => {
            writer.xor_peer_address(world.peer(choices.byte()));
        }
        Method::ConnectionBind | Method::ConnectionAttempt => {
            writer.connection_id(world.connection(choices.byte()));
        }
        Method::Binding => {}
    }
}

/// What a request may have besides.
fn write_unusual(
    writer: &mut MessageWriter<'_>,
    kinds: u8,
    world: &World,
    choices: &mut Bytes<'_>,
) {
    const FAMILIES: [AddressFamily; 2] = [AddressFamily::V4, AddressFamily::V6];
    if kinds & 0x01 != 0 {
        writer.even_port(choices.flag());
    }
    if kinds & 0x02 != 0 {
        writer.requested_address_family(choices.choose(&FAMILIES));
    }
    if kinds & 0x04 != 0 {
        writer.additional_address_family(choices.choose(&FAMILIES));
    }
    if kinds & 0x08 != 0
        && let Some(token) = world.reservation_token
    {
        writer.reservation_token(token);
    }
    if kinds & 0x10 != 0 {
        writer.lifetime(choices.choose(&LIFETIMES));
    }
    if kinds & 0x20 != 0 {
        for _ in 0..choices.byte() % 8 {
            writer.xor_peer_address(world.peer(choices.byte()));
        }
    }
    if kinds & 0x40 != 0 {
        writer.attribute(AttributeType(choices.u16()), choices.slice());
    }
    if kinds & 0x80 != 0 {
        writer.with_fingerprint();
    }
}

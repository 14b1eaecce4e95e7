//! Whatever a server answers, the client neither panics nor spins nor believes what the server did not sign.

use std::time::Duration;

use turnfleet_turn::client::{AllocateOptions, Client, Config, Event, Input};
use turnfleet_turn::wire::{
    AttributeType, Class, ErrorCode, IntegrityKind, LongTermKey, Message, MessageWriter,
    PasswordAlgorithm, announces_password_algorithms,
};
use turnfleet_turn::{Instant, PeerAddr, Transport};

use super::bytes::Bytes;

const REALM: &str = "example.org";

const PEERS: [&str; 3] = ["203.0.113.1:1", "203.0.113.2:2", "[2001:db8::1]:3"];

const OFFERS: [&[PasswordAlgorithm]; 3] = [
    &[PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5],
    &[PasswordAlgorithm::Md5],
    &[],
];

/// No more steps than this are taken with one input.
const MAX_STEPS: usize = 200;

pub fn run(data: &[u8]) {
    let mut choices = Bytes::new(data);
    let first = choices.byte();
    let transport = Transport::ALL[usize::from(first) % Transport::ALL.len()];
    let mut world = World::new(transport, first & 0x80 != 0);
    for _ in 0..MAX_STEPS {
        if choices.is_empty() {
            break;
        }
        world.step(&mut choices);
    }
}

struct World {
    client: Client,
    now: Instant,
    /// Whether the client takes up password algorithms.
    modern: bool,
    /// The last request that the client has sent.
    request: Vec<u8>,
}

impl World {
    fn new(transport: Transport, modern: bool) -> Self {
        Self {
            client: Client::new(Config {
                transport,
                username: "user".into(),
                password: "pass".into(),
                password_algorithms: modern,
                seed: [1; 32],
            }),
            now: Instant(0),
            modern,
            request: Vec::new(),
        }
    }

    fn step(&mut self, choices: &mut Bytes<'_>) {
        match choices.byte() % 8 {
            0 => self.advance(Duration::from_millis(u64::from(choices.u16()) * 50)),
            1 => self.call(choices),
            2 => self.receive(choices.slice(), true),
            3..=7 => self.answer(choices),
            _ => unreachable!("a remainder of eight"),
        }
        let mut request = Vec::new();
        while self.client.poll_transmit(&mut request) {
            self.check(&request);
            self.request = std::mem::take(&mut request);
        }
        while self.client.poll_event().is_some() {}
    }

    /// A client that takes up password algorithms signs with nothing less where its server offers them.
    fn check(&self, request: &[u8]) {
        let message = Message::parse(request).expect("the client's requests are sound");
        let offered = message.nonce().and_then(Result::ok);
        if self.modern && offered.is_some_and(announces_password_algorithms) {
            assert_eq!(message.integrity(), Some(IntegrityKind::Sha256));
            assert!(message.password_algorithms().is_some());
        }
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now.after(by);
        while let Some(due) = self.client.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.client.handle_timeout(self.now);
            assert!(
                self.client
                    .poll_timeout()
                    .is_none_or(|next| next > self.now)
            );
        }
        self.now = end;
        self.client.handle_timeout(end);
    }

    fn call(&mut self, choices: &mut Bytes<'_>) {
        let now = self.now;
        let peer = PeerAddr(choices.choose(&PEERS).parse().expect("a peer address"));
        let lifetime = u32::from(choices.u16());
        // A call that is not taken up changes nothing.
        let _ = match choices.byte() % 5 {
            0 => self.client.binding(now),
            1 => self.client.allocate(now, AllocateOptions::default()),
            2 => self.client.refresh(now, lifetime),
            3 => self.client.create_permission(now, &[peer]),
            _ => self.client.bind_channel(now, peer).map(drop),
        };
    }

    /// An answer to the last request, as right or wrong as the choices have it.
    fn answer(&mut self, choices: &mut Bytes<'_>) {
        let Ok(request) = Message::parse(&self.request) else {
            return;
        };
        let (Some(method), id) = (request.method(), request.transaction_id()) else {
            return;
        };
        let was_signed = request.has_integrity();
        let class = choices.choose(&[Class::SuccessResponse, Class::ErrorResponse]);
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes, class, method, id);
        let kinds = choices.byte();
        write_attributes(&mut writer, kinds, choices);
        let signed = choices.flag();
        if signed {
            let chosen = request.password_algorithm().and_then(Result::ok);
            let algorithm = chosen.unwrap_or_default();
            let key = LongTermKey::derive_with(algorithm, "user", REALM, "pass");
            writer.finish_signed_by(request.integrity().unwrap_or(IntegrityKind::Sha1), &key);
        } else {
            writer.finish();
        }
        self.receive(&bytes, signed || !was_signed);
    }

    fn receive(&mut self, packet: &[u8], may_be_believed: bool) {
        match self.client.handle_input(self.now, packet) {
            Input::Data { payload, .. } => assert!(payload.len() <= packet.len()),
            Input::Response | Input::Ignored => {}
        }
        while let Some(event) = self.client.poll_event() {
            let granted = !matches!(event, Event::Failed { .. });
            assert!(may_be_believed || !granted, "believes {event:?}");
        }
    }
}

fn write_attributes(writer: &mut MessageWriter<'_>, kinds: u8, choices: &mut Bytes<'_>) {
    if kinds & 0x01 != 0 {
        let codes = [
            ErrorCode::UNAUTHENTICATED,
            ErrorCode::STALE_NONCE,
            ErrorCode::BAD_REQUEST,
            ErrorCode::ALLOCATION_MISMATCH,
        ];
        writer.error_code(choices.choose(&codes), "");
    }
    if kinds & 0x02 != 0 {
        writer.realm(choices.choose(&[REALM, "other.example.org"]));
    }
    if kinds & 0x04 != 0 {
        writer.nonce(choices.slice());
    }
    if kinds & 0x08 != 0 {
        writer.xor_relayed_address(choices.choose(&PEERS).parse().expect("an address"));
    }
    if kinds & 0x10 != 0 {
        writer.xor_mapped_address(choices.choose(&PEERS).parse().expect("an address"));
    }
    if kinds & 0x20 != 0 {
        writer.lifetime(u32::from(choices.u16()));
    }
    if kinds & 0x40 != 0 {
        writer.attribute(AttributeType(choices.u16()), choices.slice());
    }
    if kinds & 0x80 != 0 {
        writer.password_algorithms(choices.choose(&OFFERS));
    }
}

//! What holds for every message: it is read as it was written, and nothing that comes in can make an accessor panic.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use turnfleet_turn::wire::{
    AttributeType, ChannelData, ChannelNumber, Class, Fingerprint, Frame, IntegrityKind,
    LongTermKey, MAGIC_COOKIE, MAX_FRAME_LEN, Message, MessageWriter, Method, ReservationToken,
    TransactionId, deframe,
};
use turnfleet_turn::{ClientHeader, PeerAddr, Span};

fn classes() -> impl Strategy<Value = Class> {
    prop_oneof![
        Just(Class::Request),
        Just(Class::Indication),
        Just(Class::SuccessResponse),
        Just(Class::ErrorResponse),
    ]
}

fn methods() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::Binding),
        Just(Method::Allocate),
        Just(Method::Refresh),
        Just(Method::Send),
        Just(Method::Data),
        Just(Method::CreatePermission),
        Just(Method::ChannelBind),
    ]
}

fn ids() -> impl Strategy<Value = TransactionId> {
    any::<[u8; 12]>().prop_map(TransactionId)
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn attributes() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    prop::collection::vec(
        (any::<u16>(), prop::collection::vec(any::<u8>(), 0..64)),
        0..16,
    )
}

/// Bytes that get past the header more often than chance would have it.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(prop_oneof![Just(0), 0..0x24_u8, any::<u8>()], 0..128);
    (any::<u16>(), ids(), body).prop_map(|(kind, id, mut body)| {
        body.truncate(body.len() / 4 * 4);
        let len = u16::try_from(body.len()).expect("a short body");
        let mut packet = (kind & 0x3FFF).to_be_bytes().to_vec();
        packet.extend_from_slice(&len.to_be_bytes());
        packet.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        packet.extend_from_slice(&id.0);
        packet.append(&mut body);
        packet
    })
}

fn read_everything(message: Message<'_>) {
    let _ = (message.class(), message.method(), message.method_code());
    let _ = (message.username(), message.realm(), message.nonce());
    let _ = (message.error_code(), message.lifetime(), message.data());
    let _ = (message.xor_mapped_address(), message.xor_relayed_address());
    let _ = (message.channel_number(), message.requested_transport());
    let _ = (
        message.requested_address_family(),
        message.additional_address_family(),
    );
    let _ = (
        message.even_port(),
        message.reservation_token(),
        message.address_error_code(),
    );
    let _ = (
        message.xor_peer_addresses().count(),
        message.unknown_attributes().count(),
    );
    let _ = (
        message.unknown_required().count(),
        message.all_attributes().count(),
    );
    let _ = (
        message.password_algorithm(),
        message
            .password_algorithms()
            .map(|list| list.known().count()),
    );
    let _ = (
        message.fingerprint(),
        message.verify_integrity(&LongTermKey::Md5([0; 16])),
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(packet in prop_oneof![
        packets(), prop::collection::vec(any::<u8>(), 0..64)
    ]) {
        if let Ok(message) = Message::parse(&packet) {
            read_everything(message);
        }
        let _ = ChannelData::parse(&packet);
        let _ = deframe(&packet, MAX_FRAME_LEN);
    }

    #[test]
    fn attributes_are_read_as_they_were_written(
        class in classes(), method in methods(), id in ids(), written in attributes(),
    ) {
        let mut bytes = vec![0xEE];
        let mut writer = MessageWriter::new(&mut bytes, class, method, id);
        for (kind, value) in &written {
            writer.attribute(AttributeType(*kind), value);
        }
        writer.finish();
        let message = Message::parse(&bytes[1..]).unwrap();
        prop_assert_eq!(message.class(), class);
        prop_assert_eq!(message.method(), Some(method));
        prop_assert_eq!(message.transaction_id(), id);
        let read: Vec<_> = message
            .all_attributes()
            .map(|attribute| (attribute.kind.0, attribute.value.to_vec()))
            .collect();
        prop_assert_eq!(read, written);
        read_everything(message);
    }

    #[test]
    fn meanings_are_read_as_they_were_written(
        id in ids(), mapped in addresses(), peers in prop::collection::vec(addresses(), 0..5),
        username in "\\PC{0,100}", lifetime: u32, number: u16, token: [u8; 8], data: Vec<u8>,
    ) {
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::Allocate, id);
        writer
            .username(&username)
            .xor_mapped_address(mapped)
            .lifetime(lifetime)
            .channel_number(ChannelNumber(number))
            .reservation_token(ReservationToken(token))
            .data(&data);
        for peer in &peers {
            writer.xor_peer_address(PeerAddr(*peer));
        }
        writer.finish();
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!(message.username(), Some(Ok(username.as_str())));
        prop_assert_eq!(message.xor_mapped_address(), Some(Ok(mapped)));
        prop_assert_eq!(message.lifetime(), Some(Ok(lifetime)));
        prop_assert_eq!(message.channel_number(), Some(Ok(ChannelNumber(number))));
        prop_assert_eq!(message.reservation_token(), Some(Ok(ReservationToken(token))));
        prop_assert_eq!(&bytes[message.data().unwrap().range()], &data);
        let read: Vec<_> = message.xor_peer_addresses().map(|peer| peer.unwrap().0).collect();
        prop_assert_eq!(read, peers);
    }

    #[test]
    fn a_signature_protects_every_byte(
        id in ids(), written in attributes(), key: [u8; 32], at: prop::sample::Index, bit in 0..8,
        kind in prop::sample::select(&[IntegrityKind::Sha1, IntegrityKind::Sha256]),
    ) {
        let key = LongTermKey::Sha256(key);
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::Allocate, id);
        for (kind, value) in &written {
            // An attribute that closes the message would end what the signature covers.
            writer.attribute(AttributeType(kind | 0x4000), value);
        }
        writer.with_fingerprint();
        writer.finish_signed_by(kind, &key);
        let message = Message::parse(&bytes).unwrap();
        prop_assert!(message.verify_integrity(&key));
        prop_assert_eq!(message.fingerprint(), Fingerprint::Valid);

        let fingerprint_len = 8;
        let at = at.index(bytes.len() - fingerprint_len);
        bytes[at] ^= 1_u8 << bit;
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert!(!message.verify_integrity(&key), "byte {}", at);
            prop_assert_ne!(message.fingerprint(), Fingerprint::Valid);
        }
    }

    #[test]
    fn a_client_header_is_what_the_writer_writes(
        id in ids(), peer in addresses(), number in 0x4000..0x8000_u16, payload: Vec<u8>,
    ) {
        let span = Span { start: ClientHeader::MAX_LEN, len: payload.len() };
        let mut buffer = vec![0; span.start];
        buffer.extend_from_slice(&payload);
        buffer.resize(buffer.len() + ClientHeader::MAX_PADDING, 0xEE);
        let mut copy = buffer.clone();

        let peer = PeerAddr(peer);
        let header = ClientHeader::DataIndication { transaction_id: id, peer };
        let message = header.write(&mut buffer, span).unwrap();
        let mut expected = Vec::new();
        let mut writer = MessageWriter::new(&mut expected, Class::Indication, Method::Data, id);
        writer.xor_peer_address(peer).data(&payload);
        writer.finish();
        prop_assert_eq!(&buffer[message.range()], &expected);

        let number = ChannelNumber(number);
        let header = ClientHeader::ChannelData { number, padded: true };
        let message = header.write(&mut copy, span).unwrap();
        let mut expected = Vec::new();
        prop_assert!(ChannelData::write(number, &payload, true, &mut expected));
        prop_assert_eq!(&copy[message.range()], &expected);
        let read = ChannelData::parse(&expected).unwrap();
        prop_assert_eq!(read.number, number);
        prop_assert_eq!(&expected[read.payload.range()], &payload);
    }

    #[test]
    fn a_stream_is_cut_where_its_messages_were_joined(
        parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..100)), 0..10),
    ) {
        let mut stream = Vec::new();
        let mut ends = Vec::new();
        for (is_channel_data, payload) in &parts {
            if *is_channel_data {
                ChannelData::write(ChannelNumber(0x4000), payload, true, &mut stream);
            } else {
                let id = TransactionId([1; 12]);
                let mut writer = MessageWriter::new(&mut stream, Class::Indication, Method::Send, id);
                writer.data(payload);
                writer.finish();
            }
            ends.push(stream.len());
        }
        let mut at = 0;
        for end in ends {
            for cut in at..end {
                let Frame::NeedMore(more) = deframe(&stream[at..cut], MAX_FRAME_LEN) else {
                    panic!("a message before its end at {end}");
                };
                prop_assert!(more > 0 && cut + more <= end);
            }
            let frame = deframe(&stream[at..], MAX_FRAME_LEN);
            let Frame::Message { total, .. } = frame else {
                panic!("no message at {at}: {frame:?}");
            };
            prop_assert_eq!(at + total, end);
            at = end;
        }
    }
}

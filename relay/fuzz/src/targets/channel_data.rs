//! ChannelData that parses lies within its packet, and is written in place as it is written whole.

use turnfleet_turn::wire::ChannelData;
use turnfleet_turn::{ClientHeader, Span};

pub fn run(data: &[u8]) {
    let Ok(message) = ChannelData::parse(data) else {
        return;
    };
    let payload = data
        .get(message.payload.range())
        .expect("the payload lies within the packet");
    for padded in [false, true] {
        let mut whole = Vec::new();
        assert!(ChannelData::write(
            message.number,
            payload,
            padded,
            &mut whole
        ));
        assert_eq!(ChannelData::parse(&whole), Ok(message));

        let span = Span {
            start: ClientHeader::MAX_LEN,
            len: payload.len(),
        };
        let mut buffer = vec![0xEE; span.start];
        buffer.extend_from_slice(payload);
        buffer.resize(buffer.len() + ClientHeader::MAX_PADDING, 0xEE);
        let number = message.number;
        let in_place = ClientHeader::ChannelData { number, padded }
            .write(&mut buffer, span)
            .expect("there is room for the header");
        assert_eq!(buffer[in_place.range()], whole);
    }
}

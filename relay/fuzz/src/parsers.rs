//! The parsers around the core: what a stream begins with, and TURN URIs. Their sources stand here as they are, because
//! they are private to the relay, or would bring a whole RPC library along.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "they are private to others, who use more of them"
)]

use std::fmt::Debug;

#[path = "../../src/driver/stream/client_hello.rs"]
mod hello;
#[path = "../../src/driver/stream/proxy_protocol.rs"]
mod proxy;
#[path = "../../../proto/src/turn_uri.rs"]
mod uri;

/// A ClientHello is read the same way however many of its bytes have arrived.
pub fn client_hello(data: &[u8]) {
    assert_settled(data, hello::read, &hello::Hello::NeedMore);
}

/// A PROXY protocol header is read the same way however many of its bytes have arrived, and ends within them.
pub fn proxy_header(data: &[u8]) {
    assert_settled(data, proxy::parse, &proxy::ProxyHeader::NeedMore);
    if let proxy::ProxyHeader::Whole { len, .. } = proxy::parse(data) {
        assert!(len <= data.len(), "{len} of {} bytes", data.len());
    }
}

/// What is accepted as a URI is written as one that means the same.
pub fn turn_uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(uri) = text.parse::<uri::TurnUri>() {
        assert_eq!(uri.to_string().parse(), Ok(uri), "{text:?}");
    }
}

/// As long as more is needed it is needed at every earlier byte, and what was decided once stays decided.
fn assert_settled<T: PartialEq + Debug>(data: &[u8], read: fn(&[u8]) -> T, need_more: &T) {
    let mut settled = None;
    for end in 0..=data.len() {
        let now = read(&data[..end]);
        if let Some(before) = &settled {
            assert_eq!(&now, before, "changes its mind at byte {end}");
        } else if now != *need_more {
            settled = Some(now);
        }
    }
}

//! Whether a server still takes TLS 1.1 or older, which our library does not speak: a greeting written by hand, and a look at
//! what comes first.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use super::tls::connect;

/// The type of a record that begins a handshake.
const HANDSHAKE: u8 = 22;
/// The versions as they stand in messages.
const TLS_1_1: [u8; 2] = [3, 2];
/// Suites that TLS 1.1 and 1.0 have: AES with CBC, by ECDHE or RSA, and 3DES.
const SUITES: [[u8; 2]; 7] = [
    [0xc0, 0x13],
    [0xc0, 0x14],
    [0xc0, 0x09],
    [0xc0, 0x0a],
    [0x00, 0x2f],
    [0x00, 0x35],
    [0x00, 0x0a],
];

/// The old version that the server answers in; `None` where it refuses.
pub(super) fn takes(server: SocketAddr) -> Option<&'static str> {
    let mut stream = connect(server).ok()?;
    stream.write_all(&greeting()?).ok()?;
    // Record type, version, length; message type, length; version.
    let mut answer = [0; 11];
    stream.read_exact(&mut answer).ok()?;
    match answer {
        [HANDSHAKE, _, _, _, _, 2, _, _, _, 3, 2] => Some("1.1"),
        [HANDSHAKE, _, _, _, _, 2, _, _, _, 3, 1] => Some("1.0"),
        _ => None,
    }
}

/// A ClientHello whose best version is TLS 1.1 (RFC 4346 §7.4.1.2).
fn greeting() -> Option<Vec<u8>> {
    let random: [u8; 32] = crate::random().ok()?;
    let mut body = [&TLS_1_1[..], &random, &[0]].concat();
    let suites = SUITES.as_flattened();
    body.extend(u16::try_from(suites.len()).ok()?.to_be_bytes());
    body.extend(suites);
    // No compression.
    body.extend([1, 0]);
    // Groups x25519, P-256, P-384, and uncompressed points.
    let extensions = [
        &[0, 10, 0, 8, 0, 6, 0, 29, 0, 23, 0, 24][..],
        &[0, 11, 0, 2, 1, 0],
    ]
    .concat();
    body.extend(u16::try_from(extensions.len()).ok()?.to_be_bytes());
    body.extend(extensions);
    let length = u16::try_from(body.len()).ok()?;
    let mut record = vec![HANDSHAKE, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(body);
    Some(record)
}

//! `stun:`, `stuns:`, `turn:` and `turns:` URIs against the grammar of RFC 7064 §3.1, RFC 7065 §3.1 and RFC 3986 §3.2.2.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use turnfleet_proto::{Scheme, TurnUri, TurnUriError, UriTransport};

fn parse(text: &str) -> Result<TurnUri, TurnUriError> {
    text.parse()
}

#[test]
fn the_examples_of_the_rfcs_read_as_they_are_written() {
    for text in [
        "turn:example.org",
        "turns:example.org",
        "turn:example.org:8000",
        "turn:example.org?transport=udp",
        "turn:example.org?transport=tcp",
        "turns:example.org?transport=tcp",
        "turn:192.0.2.1:3478?transport=udp",
        "turn:[2001:db8::1]:3478?transport=tcp",
        "stun:example.org",
        "stun:example.org:8000",
        "stun:[2001:db8::1]",
        "stun:192.0.2.1",
        "stuns:example.org:5349",
        "turn:xn--bcher-kva.example.",
        "turn:localhost",
    ] {
        let written = parse(text).map(|uri| uri.to_string());
        assert_eq!(written, Ok(text.to_owned()));
    }
}

#[test]
fn what_the_grammar_takes_for_the_same_is_the_same() {
    for (text, plain) in [
        ("TURN:Example.ORG", "turn:example.org"),
        (
            "Turns:EXAMPLE.org?TransPort=TCP",
            "turns:example.org?transport=tcp",
        ),
        ("stun:[2001:DB8::A]", "stun:[2001:db8::a]"),
        ("turn:example.org:", "turn:example.org"),
        ("turn:[::1]:?transport=udp", "turn:[::1]?transport=udp"),
        ("turn:example.org:0000000003478", "turn:example.org:3478"),
        ("turn:ex%61mple%2Eorg", "turn:example.org"),
        ("turn:%31%39%32.0.2.1", "turn:192.0.2.1"),
    ] {
        assert_eq!(parse(text), parse(plain), "{text}");
        assert!(parse(plain).is_ok(), "{plain}");
    }
}

#[test]
fn a_bad_uri_says_which_part_is_bad() {
    use TurnUriError::{FutureAddress, Host, Name, Port, Query, Scheme, Transport};
    for (text, error) in [
        ("", Scheme),
        ("example.org", Scheme),
        ("http:example.org", Scheme),
        (" turn:example.org", Scheme),
        ("turn", Scheme),
        ("turn:", Host),
        ("turn::3478", Host),
        ("turn:?transport=udp", Host),
        ("turn://example.org", Host),
        ("turn:user@example.org", Host),
        ("turn:example.org/", Host),
        ("turn:example.org#a", Host),
        ("turn:a b", Host),
        ("turn:b\u{fc}cher.example", Host),
        ("turn:a%2", Host),
        ("turn:a%zz", Host),
        ("turn:[192.0.2.1]", Host),
        ("turn:[::1", Host),
        ("turn:::1]", Host),
        ("turn:[]", Host),
        ("turn:[[::1]", Host),
        ("turn:[fe80::1%25eth0]", Host),
        ("turn:[v.x]", Host),
        ("turn:[v1.]", Host),
        ("turn:[vg.x]", Host),
        ("turn:[v1.a/b]", Host),
        ("turn:[v1.fe80::a+en1]", FutureAddress),
        ("turn:[VF.x]:80", FutureAddress),
        ("turn:b%C3%BCcher.example", Name),
        ("turn:a%20b", Name),
        ("turn:a!b", Name),
        ("turn:a..b", Name),
        ("turn:.", Name),
        ("turn:-a.example", Name),
        ("turn:256.0.0.1", Name),
        ("turn:127.1", Name),
        ("turn:192.0.2.01", Name),
        ("turn:2001:db8::1", Host),
        ("turn:[::1]3478", Port),
        ("turn:a:0", Port),
        ("turn:a:+80", Port),
        ("turn:a:80 ", Port),
        ("turn:a:65536", Port),
        ("turn:a:80:80", Port),
        ("turn:a?", Query),
        ("turn:a?x=1", Query),
        ("turn:a?transport", Query),
        ("turn:a?transport=", Query),
        ("turn:a?transport=udp&x=1", Query),
        ("turn:a?transport=udp#x", Query),
        ("stun:a?transport=udp", Query),
        ("stuns:a?", Query),
        ("turn:a?transport=sctp", Transport),
        ("turns:a?transport=~x-1.0_", Transport),
    ] {
        assert_eq!(parse(text), Err(error), "{text}");
    }
}

#[test]
fn names_are_as_long_as_dns_has_them() {
    let label = "a".repeat(63);
    let name = [&label[..], &label, &label, &label[..61]].join(".");
    assert_eq!(name.len(), 253);
    assert!(parse(&format!("turn:{name}")).is_ok());
    assert!(parse(&format!("turn:{name}.")).is_ok());
    assert_eq!(parse(&format!("turn:{name}a")), Err(TurnUriError::Name));
    assert_eq!(parse(&format!("turn:{label}a.b")), Err(TurnUriError::Name));
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| Ipv4Addr::from(octets).to_string()),
        any::<[u16; 8]>().prop_map(|groups| Ipv6Addr::from(groups).to_string()),
        "([a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?\\.){0,4}[a-z]([a-z0-9-]{0,20}[a-z0-9])?\\.?",
    ]
}

/// Every value that a parsed URI can have.
fn uri() -> impl Strategy<Value = TurnUri> {
    let scheme = prop_oneof![
        Just(Scheme::Stun),
        Just(Scheme::Stuns),
        Just(Scheme::Turn),
        Just(Scheme::Turns)
    ];
    let transport = prop_oneof![Just(UriTransport::Udp), Just(UriTransport::Tcp)];
    let parts = (
        scheme,
        host(),
        prop::option::of(1..=u16::MAX),
        prop::option::of(transport),
    );
    parts.prop_map(|(scheme, host, port, transport)| {
        let takes_it = matches!(scheme, Scheme::Turn | Scheme::Turns);
        TurnUri {
            scheme,
            host,
            port,
            transport: transport.filter(|_| takes_it),
        }
    })
}

/// Texts with the shape of a URI, some of them right.
fn nearly() -> impl Strategy<Value = String> {
    "(stun|turns?|TURN|x)?:?(\\[?[0-9a-fv:.%]{0,12}\\]?|[a-z%.0-9!-]{0,12})(:[0-9+]{0,6})?(\\?transport=[a-z]{0,4})?"
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(uri in uri()) {
        prop_assert_eq!(parse(&uri.to_string()), Ok(uri));
    }

    #[test]
    fn what_is_read_is_written_in_one_form(text in prop_oneof![nearly(), any::<String>()]) {
        if let Ok(uri) = parse(&text) {
            let written = uri.to_string();
            prop_assert!(written.is_ascii());
            prop_assert_eq!(parse(&written).map(|uri| uri.to_string()), Ok(written));
        }
    }

    #[test]
    fn every_letter_may_be_percent_encoded_and_in_upper_case(uri in uri(), encoded in any::<u64>()) {
        if uri.host.contains(':') {
            return Ok(());
        }
        let host: String = uri.host.bytes().enumerate().map(|(place, byte)| {
            if encoded >> (place % 64) & 1 == 1 {
                format!("%{byte:02x}")
            } else {
                char::from(byte.to_ascii_uppercase()).to_string()
            }
        }).collect();
        let text = uri.to_string().replacen(&format!(":{}", uri.host), &format!(":{host}"), 1);
        prop_assert_eq!(parse(&text), Ok(uri));
    }
}

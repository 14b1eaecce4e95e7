//! What a server discards without an answer (RFC 8489 §6.3): messages that are broken, or that nobody sends to servers.

use turnfleet_turn::wire::{Class, Method};

use super::answer::name;
use super::line::{Line, message};
use super::statement::{Statement, Verdict, must};
use super::subject::Subject;

/// The methods that have requests.
const REQUESTS: [Method; 5] = [
    Method::Binding,
    Method::Allocate,
    Method::Refresh,
    Method::CreatePermission,
    Method::ChannelBind,
];

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = broken_headers();
    all.extend(truncated());
    all.extend(wrong_classes());
    all.extend(unknown_methods());
    all.extend(wrong_fingerprints());
    all
}

/// No answer comes to the bytes that `spoil` makes of a Binding request. Over UDP the five-tuple goes on as if nothing had
/// come; a stream that has lost its way may be closed.
fn discarded(subject: &Subject, spoil: impl Fn(&mut Vec<u8>)) -> Verdict {
    let mut bytes = message(Class::Request, Method::Binding, |_| {});
    spoil(&mut bytes);
    unanswered(subject.line()?, subject, &bytes)
}

fn unanswered(mut line: Line, subject: &Subject, bytes: &[u8]) -> Verdict {
    line.send(bytes)?;
    if subject.is_udp() {
        line.ask_unsigned(Method::Binding, |_| {})?.granted()?;
    }
    line.quiet("no answer")
}

fn broken_headers() -> Vec<Statement> {
    vec![
        must(
            "RFC8489-5-first-bits",
            "A message whose first two bits are 10 is no STUN message and is discarded",
            |subject| discarded(subject, |bytes| bytes[0] |= 0x80),
        ),
        must(
            "RFC8489-5-both-first-bits",
            "A message whose first two bits are 11 is no STUN message and is discarded",
            |subject| discarded(subject, |bytes| bytes[0] |= 0xC0),
        ),
        must(
            "RFC8489-6.3-cookie",
            "A message with another value in the place of the magic cookie is discarded",
            |subject| discarded(subject, |bytes| bytes[4] ^= 1),
        ),
        must(
            "RFC8489-6.3-length-beyond",
            "A datagram shorter than its length field says is discarded",
            |subject| {
                subject.needs_datagrams()?;
                discarded(subject, |bytes| bytes[3] = 8)
            },
        ),
        must(
            "RFC8489-6.3-length-unaligned",
            "A message whose length is not a multiple of four is discarded",
            |subject| {
                subject.needs_datagrams()?;
                discarded(subject, |bytes| {
                    bytes[3] = 2;
                    bytes.extend_from_slice(&[0x80, 0x22]);
                })
            },
        ),
        must(
            "RFC8489-6.3-attribute-beyond",
            "A message with an attribute that reaches beyond its end is discarded",
            |subject| {
                subject.needs_datagrams()?;
                discarded(subject, |bytes| {
                    bytes[3] = 8;
                    bytes.extend_from_slice(&[0x80, 0x22, 0, 60, 0, 0, 0, 0]);
                })
            },
        ),
    ]
}

fn truncated() -> Vec<Statement> {
    let lengths = [1, 2, 4, 8, 12, 19];
    let statement = |length| {
        must(
            format!("RFC8489-6.3-truncated-{length}"),
            format!("A datagram with the first {length} bytes of a request is discarded"),
            move |subject| {
                subject.needs_datagrams()?;
                discarded(subject, |bytes| bytes.truncate(length))
            },
        )
    };
    lengths.map(statement).into()
}

fn wrong_classes() -> Vec<Statement> {
    let mut all = Vec::new();
    for method in REQUESTS {
        for (class, word) in [
            (Class::SuccessResponse, "success response"),
            (Class::ErrorResponse, "error response"),
        ] {
            all.push(must(
                format!("RFC8489-6.3-{}-{}", name(method), word.replace(' ', "-")),
                format!(
                    "A {} {word} to nothing that the server asked is discarded",
                    name(method)
                ),
                move |subject| {
                    unanswered(subject.line()?, subject, &message(class, method, |_| {}))
                },
            ));
        }
        all.push(must(
            format!("RFC8489-6.3.2-{}-indication", name(method)),
            format!(
                "An indication of the method {} gets no answer",
                name(method)
            ),
            move |subject| {
                let indication = message(Class::Indication, method, |_| {});
                unanswered(subject.line()?, subject, &indication)
            },
        ));
    }
    for method in [Method::Send, Method::Data] {
        all.push(must(
            format!("RFC8489-6.3-{}-request", name(method)),
            format!(
                "A request of the method {}, which has only indications, is discarded",
                name(method)
            ),
            move |subject| {
                let request = message(Class::Request, method, |_| {});
                unanswered(subject.line()?, subject, &request)
            },
        ));
    }
    all
}

fn unknown_methods() -> Vec<Statement> {
    // None of them is assigned to a method that servers answer; 0x002 was a method of RFC 3489.
    let methods = [0x000_u16, 0x002, 0x00D, 0x0FF, 0x7FF, 0xFFF];
    let statement = |method: u16| {
        must(
            format!("RFC8489-6.3-method-{method:#05x}"),
            format!("A request of the method {method:#05x}, which no server knows, is discarded"),
            move |subject| {
                discarded(subject, |bytes| {
                    let bits = (method & 0xF) | (method & 0x70) << 1 | (method & 0xF80) << 2;
                    bytes[..2].copy_from_slice(&bits.to_be_bytes());
                })
            },
        )
    };
    methods.map(statement).into()
}

fn wrong_fingerprints() -> Vec<Statement> {
    let statement = |method| {
        must(
            format!("RFC8489-6.3-{}-fingerprint", name(method)),
            format!(
                "A request {} with a FINGERPRINT that does not fit is discarded",
                name(method)
            ),
            move |subject| {
                let mut request = message(Class::Request, method, |writer| {
                    writer.with_fingerprint();
                });
                let last = request.len() - 1;
                request[last] ^= 1;
                unanswered(subject.line()?, subject, &request)
            },
        )
    };
    REQUESTS.map(statement).into()
}

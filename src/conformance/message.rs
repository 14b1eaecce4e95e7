//! What a response looks like, and which attributes are minded and which are not (RFC 8489 §5, §6.3, §7, §14).

use turnfleet_turn::wire::{
    AttributeType, Class, Fingerprint, HEADER_LEN, MAGIC_COOKIE, Message, Method,
};

use super::answer::{Answer, name};
use super::line::{Line, message};
use super::statement::{Shortfall, Statement, Verdict, ensure, failed, met, must, should, skipped};
use super::subject::Subject;

/// The methods that need credentials.
pub(super) const AUTHENTICATED: [Method; 4] = [
    Method::Allocate,
    Method::Refresh,
    Method::CreatePermission,
    Method::ChannelBind,
];

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = binding();
    all.extend(header());
    all.extend(fingerprint());
    all.extend(unknown_required());
    all.extend(unknown_required_when_authenticated());
    all.extend(unminded());
    all.extend(software());
    all
}

/// A line on which a request of `method` has the state that it is about.
pub(super) fn prepared(subject: &Subject, method: Method) -> Result<Line, Shortfall> {
    if method == Method::Allocate {
        subject.introduced()
    } else {
        subject.allocated()
    }
}

fn bound(subject: &Subject) -> Result<(Line, Answer), Shortfall> {
    let mut line = subject.line()?;
    let answer = line.ask_unsigned(Method::Binding, |_| {})?;
    answer.granted()?;
    Ok((line, answer))
}

fn binding() -> Vec<Statement> {
    vec![
        must(
            "RFC8489-13-binding",
            "A Binding request without credentials is granted",
            |subject| bound(subject).and_then(|_| met()),
        ),
        must(
            "RFC8489-6.3.1.1-mapped",
            "A Binding success has an XOR-MAPPED-ADDRESS",
            |subject| {
                let (_, answer) = bound(subject)?;
                answer.with(AttributeType::XOR_MAPPED_ADDRESS, "XOR-MAPPED-ADDRESS")?;
                met()
            },
        ),
        must(
            "RFC8489-6.3.1.1-source",
            "XOR-MAPPED-ADDRESS is the address that the request came from",
            |subject| {
                let (line, answer) = bound(subject)?;
                let Some(Ok(mapped)) = answer.message().xor_mapped_address() else {
                    return Err(failed("XOR-MAPPED-ADDRESS", "none that can be read"));
                };
                if mapped.ip() != line.local.ip() {
                    return Err(skipped("an address translator stands in between"));
                }
                ensure(mapped == line.local, line.local.to_string(), mapped)?;
                met()
            },
        ),
        must(
            "RFC8489-6.3.1-retransmission",
            "A retransmitted Binding request gets the same answer as the first",
            |subject| {
                subject.needs_datagrams()?;
                let mut line = subject.line()?;
                let request = message(Class::Request, Method::Binding, |_| {});
                let first = line.exchange(&request)?;
                let second = line.exchange(&request)?;
                ensure(first.0 == second.0, "the same bytes", "others")?;
                met()
            },
        ),
    ]
}

fn header() -> Vec<Statement> {
    let on_each = |id: &str, text: &'static str, holds: fn(&[u8], &Answer) -> bool| {
        let id = id.to_owned();
        [Method::Binding, Method::Allocate].map(|method| {
            must(
                format!("{id}-{}", name(method)),
                format!("{text}, {}", name(method)),
                move |subject| {
                    let mut line = subject.line()?;
                    let request = message(Class::Request, method, |_| {});
                    let answer = line.exchange(&request)?;
                    ensure(
                        holds(&request, &answer),
                        text,
                        answer.0.escape_ascii().to_string(),
                    )?;
                    met()
                },
            )
        })
    };
    let mut all = Vec::new();
    all.extend(on_each(
        "RFC8489-5-cookie",
        "A response has the magic cookie",
        |_, answer| answer.0[4..8] == MAGIC_COOKIE.to_be_bytes(),
    ));
    all.extend(on_each(
        "RFC8489-6-transaction",
        "A response has the transaction id of its request",
        |request, answer| answer.0[8..HEADER_LEN] == request[8..HEADER_LEN],
    ));
    all.extend(on_each(
        "RFC8489-6.3.1.1-method",
        "A response has the method of its request",
        |request, answer| {
            Message::parse(request)
                .is_ok_and(|request| request.method() == answer.message().method())
        },
    ));
    all.extend(on_each(
        "RFC8489-5-length",
        "The length of a response counts everything behind its header and is a multiple of four",
        |_, answer| {
            let length = usize::from(u16::from_be_bytes([answer.0[2], answer.0[3]]));
            length.is_multiple_of(4) && length + HEADER_LEN == answer.0.len()
        },
    ));
    all.extend(on_each(
        "RFC8489-14-padding",
        "The padding of a response's attributes is zero",
        |_, answer| {
            answer.message().all_attributes().all(|attribute| {
                let end = attribute.offset + attribute.value.len();
                answer.0[end..end.next_multiple_of(4)]
                    .iter()
                    .all(|byte| *byte == 0)
            })
        },
    ));
    all
}

fn fingerprint() -> Vec<Statement> {
    let statement = |method| {
        must(
            format!("RFC8489-7-fingerprint-{}", name(method)),
            format!(
                "The answer to a {} request with FINGERPRINT has one that fits",
                name(method)
            ),
            move |subject| {
                let request = message(Class::Request, method, |writer| {
                    writer.with_fingerprint();
                });
                let answer = subject.line()?.exchange(&request)?;
                let seen = answer.message().fingerprint();
                ensure(seen == Fingerprint::Valid, "a FINGERPRINT that fits", seen)?;
                met()
            },
        )
    };
    [Method::Binding, Method::Allocate].map(statement).into()
}

/// 420, with each of `kinds` listed.
fn lists(answer: &Answer, kinds: &[u16]) -> Result<(), Shortfall> {
    answer.refused(420)?;
    let listed: Vec<u16> = answer.message().unknown_attributes().collect();
    let holds = kinds.iter().all(|kind| listed.contains(kind));
    ensure(holds, format!("UNKNOWN-ATTRIBUTES with {kinds:x?}"), listed)
}

fn unknown_required() -> Vec<Statement> {
    let statement = |kind: u16| {
        must(
            format!("RFC8489-6.3.1-unknown-{kind:#06x}"),
            format!(
                "A Binding request with the unknown required attribute {kind:#06x} gets 420 that lists it"
            ),
            move |subject| {
                let answer = subject.line()?.ask_unsigned(Method::Binding, |writer| {
                    writer.attribute(AttributeType(kind), &[0; 4]);
                })?;
                lists(&answer, &[kind])?;
                met()
            },
        )
    };
    // None of them is assigned.
    let mut all: Vec<Statement> = [0x003F, 0x0123, 0x1234, 0x4567, 0x7FFF]
        .map(statement)
        .into();
    all.push(must(
        "RFC8489-6.3.1-unknown-two",
        "Every unknown required attribute of a request is listed",
        |subject| {
            let answer = subject.line()?.ask_unsigned(Method::Binding, |writer| {
                writer
                    .attribute(AttributeType(0x7FFE), &[0; 4])
                    .attribute(AttributeType(0x0123), &[]);
            })?;
            lists(&answer, &[0x7FFE, 0x0123])?;
            met()
        },
    ));
    all
}

fn unknown_required_when_authenticated() -> Vec<Statement> {
    let mut all = Vec::new();
    for method in AUTHENTICATED {
        all.push(must(
            format!("RFC8489-6.3.1-unknown-{}", name(method)),
            format!(
                "An authentic {} request with an unknown required attribute gets 420",
                name(method)
            ),
            move |subject| {
                let mut line = prepared(subject, method)?;
                let answer = line.ask(method, |writer| {
                    writer
                        .requested_transport(17)
                        .attribute(AttributeType(0x7FFF), &[0; 4]);
                })?;
                lists(&answer, &[0x7FFF])?;
                met()
            },
        ));
        all.push(must(
            format!("RFC8489-6.3-authentication-first-{}", name(method)),
            format!(
                "A {} request is authenticated before its unknown attributes are minded",
                name(method)
            ),
            move |subject| {
                let mut line = prepared(subject, method)?;
                let answer = line.ask_unsigned(method, |writer| {
                    writer.attribute(AttributeType(0x7FFF), &[0; 4]);
                })?;
                answer.refused(401)?;
                met()
            },
        ));
    }
    all
}

fn unminded() -> Vec<Statement> {
    let mut all = Vec::new();
    for kind in [0x8FED_u16, 0x9ABC, 0xC0DE, 0xFFFF] {
        all.push(must(
            format!("RFC8489-6.3-optional-{kind:#06x}"),
            format!("The unknown optional attribute {kind:#06x} of a request is ignored"),
            move |subject| ignored(subject, AttributeType(kind)),
        ));
    }
    for (kind, word) in [
        (AttributeType::LIFETIME, "LIFETIME"),
        (AttributeType::CHANNEL_NUMBER, "CHANNEL-NUMBER"),
        (AttributeType::DATA, "DATA"),
        (AttributeType::XOR_MAPPED_ADDRESS, "XOR-MAPPED-ADDRESS"),
    ] {
        all.push(should(
            format!("RFC8489-6.3-unexpected-{word}"),
            format!("{word}, which nobody expects in a Binding request, is ignored"),
            move |subject| ignored(subject, kind),
        ));
    }
    all.push(must(
        "RFC8489-14-padding-ignored",
        "What the padding of an attribute holds is ignored",
        |subject| {
            let mut request = message(Class::Request, Method::Binding, |writer| {
                writer.software("x");
            });
            let len = request.len();
            request[len - 3..].copy_from_slice(&[1, 2, 3]);
            subject.line()?.exchange(&request)?.granted()?;
            met()
        },
    ));
    all
}

/// A Binding request with an attribute is granted.
fn ignored(subject: &Subject, kind: AttributeType) -> Verdict {
    let mut line = subject.line()?;
    let answer = line.ask_unsigned(Method::Binding, |writer| {
        writer.attribute(kind, &[0, 1, 0, 0, 0, 0, 0, 0]);
    })?;
    answer.granted()?;
    met()
}

fn software() -> Vec<Statement> {
    vec![
        should(
            "RFC8656-5-software-Allocate",
            "An Allocate success names the server's software",
            |subject| {
                let answer = subject.introduced()?.allocate(|_| {})?;
                answer
                    .granted()?
                    .with(AttributeType::SOFTWARE, "SOFTWARE")?;
                met()
            },
        ),
        should(
            "RFC8656-5-software-Refresh",
            "A Refresh success names the server's software",
            |subject| {
                let answer = subject.allocated()?.ask(Method::Refresh, |_| {})?;
                answer
                    .granted()?
                    .with(AttributeType::SOFTWARE, "SOFTWARE")?;
                met()
            },
        ),
    ]
}

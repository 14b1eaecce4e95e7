//! Allocate (RFC 8656 §7.2): what is granted, and every way to ask for too much.

use turnfleet_turn::PeerAddr;
use turnfleet_turn::wire::{AttributeType, ChannelNumber, MessageWriter, Method};

use super::answer::name;
use super::line::UDP;
use super::statement::{Statement, ensure, failed, met, must, should, skipped};

/// The lifetime that nobody has to ask for, in seconds (RFC 8656 §3.2).
const DEFAULT_LIFETIME: u32 = 600;

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = granted();
    all.extend(lifetimes());
    all.extend(mismatches());
    all.extend(without_or_anothers());
    all.extend(transports());
    all.extend(malformed());
    all.extend(dont_fragment());
    all
}

fn granted() -> Vec<Statement> {
    let attribute = |kind, word: &'static str| {
        must(
            format!("RFC8656-7.2-success-{word}"),
            format!("An Allocate success has {word}"),
            move |subject| {
                let answer = subject.introduced()?.allocate(|_| {})?;
                answer.granted()?.with(kind, word)?;
                met()
            },
        )
    };
    vec![
        attribute(AttributeType::XOR_RELAYED_ADDRESS, "XOR-RELAYED-ADDRESS"),
        attribute(AttributeType::LIFETIME, "LIFETIME"),
        attribute(AttributeType::XOR_MAPPED_ADDRESS, "XOR-MAPPED-ADDRESS"),
        must(
            "RFC8656-7.2-no-token",
            "An Allocate success has no RESERVATION-TOKEN where nothing was reserved",
            |subject| {
                let answer = subject.introduced()?.allocate(|_| {})?;
                answer
                    .granted()?
                    .without(AttributeType::RESERVATION_TOKEN, "RESERVATION-TOKEN")?;
                met()
            },
        ),
        should(
            "RFC8656-7.2-dynamic-ports",
            "The relayed port is one of 49152 to 65535",
            |subject| {
                let port = subject.allocated()?.relayed()?.port();
                ensure(port >= 49_152, "49152-65535", port)?;
                met()
            },
        ),
        must(
            "RFC8656-6-own-address",
            "Two allocations do not have the same relayed address",
            |subject| {
                let (one, two) = (subject.allocated()?, subject.allocated()?);
                ensure(
                    one.relayed()? != two.relayed()?,
                    "two addresses",
                    one.relayed()?,
                )?;
                met()
            },
        ),
        must(
            "RFC8656-7.2-mapped",
            "XOR-MAPPED-ADDRESS of an Allocate success is the client's address",
            |subject| {
                let mut line = subject.introduced()?;
                let answer = line.allocate(|_| {})?;
                let Some(Ok(mapped)) = answer.message().xor_mapped_address() else {
                    return Err(failed("XOR-MAPPED-ADDRESS", answer.summary()));
                };
                if mapped.ip() != line.local.ip() {
                    return Err(skipped("an address translator stands in between"));
                }
                ensure(mapped == line.local, line.local.to_string(), mapped)?;
                met()
            },
        ),
    ]
}

fn lifetimes() -> Vec<Statement> {
    let mut all = vec![must(
        "RFC8656-7.2-lifetime-default",
        "Without LIFETIME an allocation lasts the default lifetime",
        |subject| {
            let answer = subject.introduced()?.allocate(|_| {})?;
            let seen = answer.granted()?.message().lifetime();
            ensure(seen == Some(Ok(DEFAULT_LIFETIME)), "LIFETIME 600", seen)?;
            met()
        },
    )];
    for asked in [0, 1, 30, 599] {
        all.push(must(
            format!("RFC8656-7.2-lifetime-{asked}"),
            format!("An Allocate that asks for {asked} seconds gets the default lifetime"),
            move |subject| {
                let answer = subject.introduced()?.allocate(|writer| {
                    writer.lifetime(asked);
                })?;
                let seen = answer.granted()?.message().lifetime();
                ensure(seen == Some(Ok(DEFAULT_LIFETIME)), "LIFETIME 600", seen)?;
                met()
            },
        ));
    }
    for asked in [600, 601, 1200, 3600, u32::MAX] {
        all.push(must(
            format!("RFC8656-7.2-lifetime-{asked}"),
            format!("An Allocate that asks for {asked} seconds gets between the default lifetime and that"),
            move |subject| {
                let answer = subject.introduced()?.allocate(|writer| {
                    writer.lifetime(asked);
                })?;
                let seen = answer.granted()?.message().lifetime();
                let range = DEFAULT_LIFETIME..=asked;
                let holds = matches!(seen, Some(Ok(seconds)) if range.contains(&seconds));
                ensure(holds, format!("LIFETIME {range:?}"), seen)?;
                met()
            },
        ));
    }
    all.push(should(
        "RFC8656-7.2-lifetime-maximum",
        "No allocation lasts longer than an hour without a Refresh",
        |subject| {
            let answer = subject.introduced()?.allocate(|writer| {
                writer.lifetime(u32::MAX);
            })?;
            let seen = answer.granted()?.message().lifetime();
            let holds = matches!(seen, Some(Ok(seconds)) if seconds <= 3600);
            ensure(holds, "LIFETIME of at most 3600", seen)?;
            met()
        },
    ));
    all
}

fn mismatches() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-7.2-437",
            "A second Allocate on a five-tuple with an allocation gets 437",
            |subject| {
                let mut line = subject.allocated()?;
                line.allocate(|_| {})?.refused(437)?;
                met()
            },
        ),
        must(
            "RFC8656-7.2-437-first",
            "The five-tuple is looked at before the attributes of an Allocate",
            |subject| {
                let mut line = subject.allocated()?;
                line.ask(Method::Allocate, |_| {})?.refused(437)?;
                met()
            },
        ),
        must(
            "RFC8489-6.3.1-allocate-again",
            "A retransmitted Allocate gets the relayed address that the first one got",
            |subject| {
                subject.needs_datagrams()?;
                let mut line = subject.introduced()?;
                let request = line.signed(Method::Allocate, |writer| {
                    writer.requested_transport(UDP);
                });
                let first = line.exchange(&request)?;
                line.remember(first.granted()?);
                let second = line.exchange(&request)?;
                let relayed = second.granted()?.message().xor_relayed_address();
                ensure(
                    relayed == Some(Ok(line.relayed()?)),
                    "the same address",
                    relayed,
                )?;
                met()
            },
        ),
        must(
            "RFC8656-5-441-Allocate-nothing",
            "Another user's Allocate on the five-tuple leaves the allocation alone",
            |subject| {
                let mut line = subject.allocated()?;
                let (name, password) = subject.somebody_else()?;
                let request = line.signed_by((&name, &password), Method::Allocate, |writer| {
                    writer.requested_transport(UDP);
                });
                let answer = line.exchange(&request)?;
                ensure(answer.code().is_some(), "an error", answer.summary())?;
                line.ask(Method::Refresh, |_| {})?.granted()?;
                met()
            },
        ),
    ]
}

fn without_or_anothers() -> Vec<Statement> {
    let mut all = Vec::new();
    for method in [
        Method::Refresh,
        Method::CreatePermission,
        Method::ChannelBind,
    ] {
        let word = name(method);
        all.push(must(
            format!("RFC8656-5-437-{word}"),
            format!("{word} on a five-tuple without an allocation gets 437"),
            move |subject| {
                let mut line = subject.introduced()?;
                let peer = PeerAddr(([192, 0, 2, 1], 9).into());
                let answer = line.ask(method, |writer| {
                    if method == Method::ChannelBind {
                        writer.channel_number(ChannelNumber(0x4000));
                    }
                    if method != Method::Refresh {
                        writer.xor_peer_address(peer);
                    }
                })?;
                answer.refused(437)?;
                met()
            },
        ));
        all.push(must(
            format!("RFC8656-5-441-{word}"),
            format!("{word} of a user other than the one that made the allocation gets 441"),
            move |subject| {
                let mut line = subject.allocated()?;
                let peer = subject.peer()?.as_peer();
                let (name, password) = subject.somebody_else()?;
                let request = line.signed_by((&name, &password), method, |writer| {
                    writer.channel_number(ChannelNumber(0x4000));
                    writer.xor_peer_address(peer);
                });
                line.exchange(&request)?.refused(441)?;
                met()
            },
        ));
    }
    all
}

fn transports() -> Vec<Statement> {
    let mut all = Vec::new();
    for protocol in [0, 1, 58, 132, 255] {
        all.push(must(
            format!("RFC8656-7.2-transport-{protocol}"),
            format!("Allocate for the protocol {protocol}, which no server relays, gets 442"),
            move |subject| {
                let answer = subject.introduced()?.ask(Method::Allocate, |writer| {
                    writer.requested_transport(protocol);
                })?;
                answer.refused(442)?;
                met()
            },
        ));
    }
    all.push(must(
        "RFC8656-7.2-transport-none",
        "Allocate without REQUESTED-TRANSPORT gets 400",
        |subject| {
            let mut line = subject.introduced()?;
            line.ask(Method::Allocate, |_| {})?.refused(400)?;
            met()
        },
    ));
    all.push(must(
        "RFC8656-18.8-reserved",
        "The reserved bytes of REQUESTED-TRANSPORT are ignored",
        |subject| {
            let mut line = subject.introduced()?;
            let answer = line.ask(Method::Allocate, |writer| {
                writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[UDP, 1, 2, 3]);
            })?;
            line.remember(answer.granted()?);
            met()
        },
    ));
    all
}

/// Attributes of an Allocate that have one length, and lengths that it is not.
const LENGTHS: [(AttributeType, &str, [usize; 3]); 5] = [
    (
        AttributeType::REQUESTED_TRANSPORT,
        "REQUESTED-TRANSPORT",
        [0, 3, 8],
    ),
    (AttributeType::LIFETIME, "LIFETIME", [0, 2, 8]),
    (AttributeType::EVEN_PORT, "EVEN-PORT", [0, 2, 4]),
    (
        AttributeType::RESERVATION_TOKEN,
        "RESERVATION-TOKEN",
        [0, 4, 12],
    ),
    (
        AttributeType::REQUESTED_ADDRESS_FAMILY,
        "REQUESTED-ADDRESS-FAMILY",
        [0, 2, 8],
    ),
];

fn malformed() -> Vec<Statement> {
    let mut all = Vec::new();
    for (kind, word, lengths) in LENGTHS {
        for length in lengths {
            all.push(must(
                format!("RFC8656-7.2-{word}-length-{length}"),
                format!("Allocate with a malformed {word} of {length} bytes is refused"),
                move |subject| {
                    let write = |writer: &mut MessageWriter<'_>| {
                        if kind != AttributeType::REQUESTED_TRANSPORT {
                            writer.requested_transport(UDP);
                        }
                        writer.attribute(kind, &[1; 12][..length]);
                    };
                    let mut line = subject.introduced()?;
                    let answer = line.ask(Method::Allocate, write)?;
                    line.remember(&answer);
                    if kind == AttributeType::REQUESTED_ADDRESS_FAMILY {
                        answer.refused_with(&[400, 440])?;
                    } else {
                        answer.refused(400)?;
                    }
                    met()
                },
            ));
        }
    }
    all
}

fn dont_fragment() -> Vec<Statement> {
    vec![must(
        "RFC8656-7.2-dont-fragment",
        "Allocate with DONT-FRAGMENT is granted, or gets 420 that lists it",
        |subject| {
            let mut line = subject.introduced()?;
            let answer = line.allocate(|writer| {
                writer.attribute(AttributeType::DONT_FRAGMENT, &[]);
            })?;
            let listed: Vec<u16> = answer.message().unknown_attributes().collect();
            let refused = answer.code() == Some(420) && listed == [AttributeType::DONT_FRAGMENT.0];
            let holds = answer.code().is_none() || refused;
            ensure(holds, "success, or 420 that lists it", answer.summary())?;
            met()
        },
    )]
}

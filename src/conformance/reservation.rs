//! EVEN-PORT and RESERVATION-TOKEN (RFC 8656 §7.2, §18.7, §18.10).

use std::net::SocketAddr;

use turnfleet_turn::AddressFamily;
use turnfleet_turn::wire::{AttributeType, MessageWriter, ReservationToken};

use super::line::Line;
use super::statement::{Shortfall, Statement, ensure, failed, met, must};
use super::subject::Subject;

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = even_ports();
    all.extend(redeemed());
    all.extend(refused());
    all
}

/// An allocation with an even port and the token for the next one.
fn reserved(subject: &Subject) -> Result<(Line, SocketAddr, ReservationToken), Shortfall> {
    let mut line = subject.introduced()?;
    let answer = line.allocate(|writer| {
        writer.even_port(true);
    })?;
    let token = answer.granted()?.message().reservation_token();
    let Some(Ok(token)) = token else {
        return Err(failed("RESERVATION-TOKEN of 8 bytes", format!("{token:?}")));
    };
    let relayed = line.relayed()?;
    Ok((line, relayed, token))
}

fn even_ports() -> Vec<Statement> {
    let even = |id: &str, text: &str, value: u8| {
        must(id, text, move |subject| {
            let mut line = subject.introduced()?;
            line.allocate(|writer| {
                writer.attribute(AttributeType::EVEN_PORT, &[value]);
            })?
            .granted()?;
            let port = line.relayed()?.port();
            ensure(port % 2 == 0, "an even port", port)?;
            met()
        })
    };
    vec![
        even("RFC8656-7.2-even-port", "EVEN-PORT gives an even port", 0),
        even(
            "RFC8656-7.2-even-port-pair",
            "EVEN-PORT with the R bit gives an even port",
            0x80,
        ),
        even(
            "RFC8656-18.7-reserved",
            "The reserved bits of EVEN-PORT are ignored",
            0x7F,
        ),
        must(
            "RFC8656-7.2-reservation-token",
            "EVEN-PORT with the R bit gives a RESERVATION-TOKEN of eight bytes",
            |subject| reserved(subject).and_then(|_| met()),
        ),
        must(
            "RFC8656-7.2-even-port-no-token",
            "EVEN-PORT without the R bit gives no RESERVATION-TOKEN",
            |subject| {
                let answer = subject.introduced()?.allocate(|writer| {
                    writer.even_port(false);
                })?;
                answer
                    .granted()?
                    .without(AttributeType::RESERVATION_TOKEN, "RESERVATION-TOKEN")?;
                met()
            },
        ),
    ]
}

fn redeemed() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-7.2-token",
            "A token gives the address whose port follows the even one",
            |subject| {
                let (_line, relayed, token) = reserved(subject)?;
                let mut other = subject.introduced()?;
                other
                    .allocate(|writer| {
                        writer.reservation_token(token);
                    })?
                    .granted()?;
                let next = SocketAddr::new(relayed.ip(), relayed.port() + 1);
                ensure(other.relayed()? == next, next.to_string(), other.relayed()?)?;
                met()
            },
        ),
        must(
            "RFC8656-7.2-token-outlives",
            "A token is good after the allocation that it came with is deleted",
            |subject| {
                let (mut line, _, token) = reserved(subject)?;
                line.delete()?.granted()?;
                let mut other = subject.introduced()?;
                other
                    .allocate(|writer| {
                        writer.reservation_token(token);
                    })?
                    .granted()?;
                met()
            },
        ),
        must(
            "RFC8656-7.2-token-once",
            "A token is good once",
            |subject| {
                let (_line, _, token) = reserved(subject)?;
                let redeem = |writer: &mut MessageWriter<'_>| {
                    writer.reservation_token(token);
                };
                let (mut first, mut second) = (subject.introduced()?, subject.introduced()?);
                first.allocate(redeem)?.granted()?;
                second.allocate(redeem)?.refused(508)?;
                met()
            },
        ),
    ]
}

fn refused() -> Vec<Statement> {
    let beside = |word: &'static str, write: fn(&mut MessageWriter<'_>)| {
        must(
            format!("RFC8656-7.2-token-beside-{word}"),
            format!("Allocate with RESERVATION-TOKEN and {word} gets 400"),
            move |subject| {
                let answer = subject.introduced()?.allocate(|writer| {
                    writer.reservation_token(ReservationToken([1; 8]));
                    write(writer);
                })?;
                answer.refused(400)?;
                met()
            },
        )
    };
    vec![
        beside("EVEN-PORT", |writer| {
            writer.even_port(false);
        }),
        beside("REQUESTED-ADDRESS-FAMILY", |writer| {
            writer.requested_address_family(AddressFamily::V4);
        }),
        beside("ADDITIONAL-ADDRESS-FAMILY", |writer| {
            writer.additional_address_family(AddressFamily::V6);
        }),
        must(
            "RFC8656-7.2-token-unknown",
            "Allocate with a token that the server never gave gets 508",
            |subject| {
                let answer = subject.introduced()?.allocate(|writer| {
                    writer.reservation_token(ReservationToken([0xA5; 8]));
                })?;
                answer.refused(508)?;
                met()
            },
        ),
    ]
}

//! The address families of relayed addresses and peers (RFC 8656 §7.2, §8.2, §10.2, §12.2, §18.6).
//!
//! A server need not have both: what it lacks it says with 440.

use std::net::SocketAddr;

use turnfleet_turn::wire::{AttributeType, ErrorCode};
use turnfleet_turn::{AddressFamily, PeerAddr};

use super::line::Line;
use super::statement::{Shortfall, Statement, ensure, failed, met, must, skipped};
use super::subject::Subject;

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = requested();
    all.extend(conflicts());
    all.extend(dual_allocations());
    all.extend(refreshed());
    all.extend(mismatched());
    all.extend(relayed());
    all
}

/// An allocation of `family`; a server without it lets the statement be skipped.
fn allocated_in(subject: &Subject, family: AddressFamily) -> Result<Line, Shortfall> {
    let mut line = subject.introduced()?;
    let answer = line.allocate(|writer| {
        writer.requested_address_family(family);
    })?;
    if answer.code() == Some(440) {
        return Err(skipped(format!(
            "the server has no relayed addresses of {family:?}"
        )));
    }
    answer.granted()?;
    Ok(line)
}

/// An allocation of both families, as [`allocated_in`] makes one.
fn dual(subject: &Subject) -> Result<(Line, Vec<SocketAddr>), Shortfall> {
    let mut line = subject.introduced()?;
    let answer = line.allocate(|writer| {
        writer.additional_address_family(AddressFamily::V6);
    })?;
    let message = answer.granted()?.message();
    let addresses: Vec<_> = message.xor_relayed_addresses().flatten().collect();
    if addresses.len() < 2 {
        return Err(skipped("the server gives one relayed address"));
    }
    Ok((line, addresses))
}

/// Two addresses, IPv4 and IPv6.
fn of_both(addresses: &[SocketAddr]) -> bool {
    addresses.len() == 2
        && addresses.iter().any(SocketAddr::is_ipv4)
        && addresses.iter().any(SocketAddr::is_ipv6)
}

fn requested() -> Vec<Statement> {
    let mut all = vec![must(
        "RFC8656-7.2-family-default",
        "Without REQUESTED-ADDRESS-FAMILY the relayed address is IPv4",
        |subject| {
            let relayed = subject.allocated()?.relayed()?;
            ensure(relayed.is_ipv4(), "an IPv4 address", relayed)?;
            met()
        },
    )];
    for family in [AddressFamily::V4, AddressFamily::V6] {
        all.push(must(
            format!("RFC8656-7.2-family-{family:?}"),
            format!("REQUESTED-ADDRESS-FAMILY {family:?} gives a relayed address of it, or 440"),
            move |subject| {
                let relayed = allocated_in(subject, family)?.relayed()?;
                ensure(
                    AddressFamily::of(relayed.ip()) == family,
                    format!("{family:?}"),
                    relayed,
                )?;
                met()
            },
        ));
    }
    for code in [0, 3, 255] {
        all.push(must(
            format!("RFC8656-7.2-family-unknown-{code}"),
            format!("The requested family {code}, which does not exist, gets 440"),
            move |subject| {
                let mut line = subject.introduced()?;
                let answer = line.allocate(|writer| {
                    writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[code, 0, 0, 0]);
                })?;
                answer.refused(440)?;
                met()
            },
        ));
    }
    all.push(must(
        "RFC8656-18.6-reserved",
        "The reserved bytes of REQUESTED-ADDRESS-FAMILY are ignored",
        |subject| {
            let mut line = subject.introduced()?;
            let answer = line.allocate(|writer| {
                writer.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[1, 2, 3, 4]);
            })?;
            answer.granted()?;
            met()
        },
    ));
    all
}

fn conflicts() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-7.2-families-both",
            "Allocate with REQUESTED- and ADDITIONAL-ADDRESS-FAMILY gets 400",
            |subject| {
                let answer = subject.introduced()?.allocate(|writer| {
                    writer.requested_address_family(AddressFamily::V4);
                    writer.additional_address_family(AddressFamily::V6);
                })?;
                answer.refused(400)?;
                met()
            },
        ),
        must(
            "RFC8656-7.2-additional-V4",
            "ADDITIONAL-ADDRESS-FAMILY IPv4 gets 400",
            |subject| {
                let answer = subject.introduced()?.allocate(|writer| {
                    writer.additional_address_family(AddressFamily::V4);
                })?;
                answer.refused(400)?;
                met()
            },
        ),
        must(
            "RFC8656-7.2-additional-pair",
            "ADDITIONAL-ADDRESS-FAMILY with the R bit of EVEN-PORT gets 400",
            |subject| {
                let answer = subject.introduced()?.allocate(|writer| {
                    writer
                        .additional_address_family(AddressFamily::V6)
                        .even_port(true);
                })?;
                answer.refused(400)?;
                met()
            },
        ),
    ]
}

fn dual_allocations() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-7.2-additional",
            "ADDITIONAL-ADDRESS-FAMILY gives an address of each family, or names the one that it lacks",
            |subject| {
                let answer = subject.introduced()?.allocate(|writer| {
                    writer.additional_address_family(AddressFamily::V6);
                })?;
                let message = answer.granted()?.message();
                let addresses: Vec<_> = message.xor_relayed_addresses().flatten().collect();
                let holds = of_both(&addresses) || message.address_error_code().is_some();
                ensure(holds, "an IPv4 and an IPv6 address", addresses)?;
                met()
            },
        ),
        must(
            "RFC8656-7.2-additional-even",
            "ADDITIONAL-ADDRESS-FAMILY with EVEN-PORT gives two even ports",
            |subject| {
                drop(dual(subject)?);
                let answer = subject.introduced()?.allocate(|writer| {
                    writer
                        .additional_address_family(AddressFamily::V6)
                        .even_port(false);
                })?;
                let message = answer.granted()?.message();
                let addresses: Vec<_> = message.xor_relayed_addresses().flatten().collect();
                let holds = addresses.iter().all(|address| address.port() % 2 == 0);
                ensure(of_both(&addresses) && holds, "two even ports", addresses)?;
                met()
            },
        ),
        must(
            "RFC8656-7.2-additional-lacking",
            "A family that the server cannot add is named in ADDRESS-ERROR-CODE with 440 or 508",
            |subject| {
                let answer = subject.introduced()?.allocate(|writer| {
                    writer.additional_address_family(AddressFamily::V6);
                })?;
                let Some(named) = answer.message().address_error_code() else {
                    return Err(skipped("the server adds both"));
                };
                answer.granted()?;
                let Ok((family, code)) = named else {
                    return Err(failed("a family and a code", format!("{named:?}")));
                };
                let codes = [
                    ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED,
                    ErrorCode::INSUFFICIENT_CAPACITY,
                ];
                let holds = family == AddressFamily::V6 && codes.contains(&code);
                ensure(holds, "IPv6 with 440 or 508", (family, code))?;
                met()
            },
        ),
    ]
}

fn refreshed() -> Vec<Statement> {
    let mut all = vec![must(
        "RFC8656-8.2-443",
        "A Refresh of a family that the allocation lacks gets 443",
        |subject| {
            let mut line = subject.allocated()?;
            let answer = line.refresh_family(AddressFamily::V6, 600)?;
            answer.refused(443)?;
            met()
        },
    )];
    for (deleted, other) in [
        (AddressFamily::V4, AddressFamily::V6),
        (AddressFamily::V6, AddressFamily::V4),
    ] {
        all.push(must(
            format!("RFC8656-8.1-delete-{deleted:?}"),
            format!("Deleting {deleted:?} of two families leaves the other one"),
            move |subject| {
                let (mut line, _) = dual(subject)?;
                line.refresh_family(deleted, 0)?.granted()?;
                line.refresh_family(other, 600)?.granted()?;
                met()
            },
        ));
        all.push(must(
            format!("RFC8656-8.2-443-deleted-{deleted:?}"),
            format!("A Refresh of {deleted:?} gets 443 once it is deleted"),
            move |subject| {
                let (mut line, _) = dual(subject)?;
                line.refresh_family(deleted, 0)?.granted()?;
                line.refresh_family(deleted, 600)?.refused(443)?;
                met()
            },
        ));
    }
    all
}

fn mismatched() -> Vec<Statement> {
    let mut all = Vec::new();
    for (family, peer) in [
        (
            AddressFamily::V4,
            SocketAddr::from(([0x2001, 0xDB8, 0, 0, 0, 0, 0, 1], 9)),
        ),
        (AddressFamily::V6, SocketAddr::from(([192, 0, 2, 1], 9))),
    ] {
        all.push(must(
            format!("RFC8656-10.2-443-{family:?}"),
            format!("CreatePermission for a peer of the other family than {family:?} gets 443"),
            move |subject| {
                let mut line = allocated_in(subject, family)?;
                let answer = line.try_permit(&[PeerAddr(peer)])?;
                answer.refused(443)?;
                met()
            },
        ));
        all.push(must(
            format!("RFC8656-12.2-443-{family:?}"),
            format!("ChannelBind to a peer of the other family than {family:?} gets 443"),
            move |subject| {
                let mut line = allocated_in(subject, family)?;
                line.try_bind(0x4000, PeerAddr(peer))?.refused(443)?;
                met()
            },
        ));
    }
    all
}

fn relayed() -> Vec<Statement> {
    vec![
        must(
            "RFC8656-11-V6",
            "Data goes to an IPv6 peer and back in indications",
            |subject| {
                let peer = subject.peer_of(AddressFamily::V6)?;
                let mut line = allocated_in(subject, AddressFamily::V6)?;
                line.permit(&[peer.as_peer()])?;
                line.send_indication(peer.as_peer(), b"over")?;
                peer.hears(b"over")?;
                peer.send(line.relayed()?, b"and back")?;
                line.hears_indication(peer.as_peer(), b"and back")?;
                met()
            },
        ),
        must(
            "RFC8656-12-V6",
            "Data goes to an IPv6 peer and back through a channel",
            |subject| {
                let peer = subject.peer_of(AddressFamily::V6)?;
                let mut line = allocated_in(subject, AddressFamily::V6)?;
                line.bind(0x4000, peer.as_peer())?;
                line.send_channel_data(0x4000, b"over")?;
                peer.hears(b"over")?;
                peer.send(line.relayed()?, b"and back")?;
                line.hears_on_channel(0x4000, b"and back")?;
                met()
            },
        ),
        must(
            "RFC8656-11.2-dual",
            "Data of an allocation with both families leaves by the address of its peer's family",
            |subject| {
                let (mut line, addresses) = dual(subject)?;
                for family in [AddressFamily::V4, AddressFamily::V6] {
                    let peer = subject.peer_of(family)?;
                    line.permit(&[peer.as_peer()])?;
                    line.send_indication(peer.as_peer(), b"over")?;
                    let (from, _) = peer.hear()?;
                    ensure(
                        addresses.contains(&from),
                        format!("one of {addresses:?}"),
                        from,
                    )?;
                    ensure(
                        AddressFamily::of(from.ip()) == family,
                        format!("{family:?}"),
                        from,
                    )?;
                }
                met()
            },
        ),
    ]
}

//! Refresh (RFC 8656 §8.2): lifetimes, and the end of an allocation.

use turnfleet_turn::PeerAddr;
use turnfleet_turn::wire::{AttributeType, Method};

use super::answer::Answer;
use super::line::Line;
use super::statement::{Shortfall, Statement, ensure, met, must, should};

/// The lifetime that nobody has to ask for, in seconds (RFC 8656 §3.2).
const DEFAULT_LIFETIME: u32 = 600;

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = lifetimes();
    all.extend(deleted());
    all.extend(malformed());
    all
}

fn lifetimes() -> Vec<Statement> {
    let mut all = vec![must(
        "RFC8656-8.2-lifetime-default",
        "A Refresh without LIFETIME gives the default lifetime",
        |subject| {
            let answer = subject.allocated()?.ask(Method::Refresh, |_| {})?;
            let seen = answer.granted()?.message().lifetime();
            ensure(seen == Some(Ok(DEFAULT_LIFETIME)), "LIFETIME 600", seen)?;
            met()
        },
    )];
    for asked in [1, 30, 599] {
        all.push(must(
            format!("RFC8656-8.2-lifetime-{asked}"),
            format!("A Refresh that asks for {asked} seconds gets the default lifetime"),
            move |subject| {
                let answer = subject.allocated()?.refresh(asked)?;
                let seen = answer.granted()?.message().lifetime();
                ensure(seen == Some(Ok(DEFAULT_LIFETIME)), "LIFETIME 600", seen)?;
                met()
            },
        ));
    }
    for asked in [600, 601, 1200, 3600, u32::MAX] {
        all.push(must(
            format!("RFC8656-8.2-lifetime-{asked}"),
            format!(
                "A Refresh that asks for {asked} seconds gets between the default lifetime and that"
            ),
            move |subject| {
                let answer = subject.allocated()?.refresh(asked)?;
                let seen = answer.granted()?.message().lifetime();
                let range = DEFAULT_LIFETIME..=asked;
                let holds = matches!(seen, Some(Ok(seconds)) if range.contains(&seconds));
                ensure(holds, format!("LIFETIME {range:?}"), seen)?;
                met()
            },
        ));
    }
    all.push(must(
        "RFC8656-8.2-lifetime-shorter",
        "A Refresh can shorten the lifetime",
        |subject| {
            let mut line = subject.introduced()?;
            line.allocate(|writer| {
                writer.lifetime(1800);
            })?
            .granted()?;
            let answer = line.refresh(DEFAULT_LIFETIME)?;
            let seen = answer.granted()?.message().lifetime();
            ensure(seen == Some(Ok(DEFAULT_LIFETIME)), "LIFETIME 600", seen)?;
            met()
        },
    ));
    all.push(should(
        "RFC8656-8.2-lifetime-maximum",
        "No Refresh gives more than an hour",
        |subject| {
            let answer = subject.allocated()?.refresh(u32::MAX)?;
            let seen = answer.granted()?.message().lifetime();
            let holds = matches!(seen, Some(Ok(seconds)) if seconds <= 3600);
            ensure(holds, "LIFETIME of at most 3600", seen)?;
            met()
        },
    ));
    all
}

fn deleted() -> Vec<Statement> {
    let mut all = vec![
        must(
            "RFC8656-8.2-delete",
            "A Refresh with LIFETIME 0 succeeds with LIFETIME 0",
            |subject| {
                let answer = subject.allocated()?.delete()?;
                let seen = answer.granted()?.message().lifetime();
                ensure(seen == Some(Ok(0)), "LIFETIME 0", seen)?;
                met()
            },
        ),
        must(
            "RFC8656-8.2-delete-anew",
            "After a Refresh with LIFETIME 0 the five-tuple can allocate anew",
            |subject| {
                let mut line = subject.allocated()?;
                line.delete()?.granted()?;
                line.allocate(|_| {})?.granted()?;
                met()
            },
        ),
        must(
            "RFC8656-8.2-delete-permissions",
            "An allocation begins without the permissions of its predecessor",
            |subject| {
                let peer = subject.peer()?;
                let mut line = subject.allocated()?;
                line.permit(&[peer.as_peer()])?;
                line.delete()?.granted()?;
                line.allocate(|_| {})?.granted()?;
                peer.send(line.relayed()?, b"nobody let this in")?;
                line.ask(Method::Refresh, |_| {})?.granted()?;
                line.quiet("nothing of the peer")
            },
        ),
        must(
            "RFC8656-8.2-delete-channels",
            "An allocation begins without the channels of its predecessor",
            |subject| {
                let (peer, other) = (subject.peer()?, subject.peer()?);
                let mut line = subject.allocated()?;
                line.bind(0x4000, peer.as_peer())?;
                line.delete()?.granted()?;
                line.allocate(|_| {})?.granted()?;
                line.bind(0x4000, other.as_peer())?;
                met()
            },
        ),
    ];
    let then = |word: &str, ask: fn(&mut Line, PeerAddr) -> Result<Answer, Shortfall>| {
        must(
            format!("RFC8656-8.2-delete-then-{word}"),
            format!("After a Refresh with LIFETIME 0 {word} gets 437"),
            move |subject| {
                let peer = subject.peer()?.as_peer();
                let mut line = subject.allocated()?;
                line.delete()?.granted()?;
                ask(&mut line, peer)?.refused(437)?;
                met()
            },
        )
    };
    all.push(then("Refresh", |line, _| line.ask(Method::Refresh, |_| {})));
    all.push(then("CreatePermission", |line, peer| {
        line.try_permit(&[peer])
    }));
    all.push(then("ChannelBind", |line, peer| {
        line.try_bind(0x4000, peer)
    }));
    all
}

fn malformed() -> Vec<Statement> {
    let mut all = Vec::new();
    for (kind, word, codes) in [
        (AttributeType::LIFETIME, "LIFETIME", &[400][..]),
        (
            AttributeType::REQUESTED_ADDRESS_FAMILY,
            "REQUESTED-ADDRESS-FAMILY",
            &[400, 440, 443],
        ),
    ] {
        for length in [0, 2, 8] {
            all.push(must(
                format!("RFC8656-8.2-{word}-length-{length}"),
                format!("Refresh with a malformed {word} of {length} bytes is refused"),
                move |subject| {
                    let answer = subject.allocated()?.ask(Method::Refresh, |writer| {
                        writer.attribute(kind, &[1; 8][..length]);
                    })?;
                    answer.refused_with(codes)?;
                    met()
                },
            ));
        }
    }
    all
}

//! Password algorithms and MESSAGE-INTEGRITY-SHA256 (RFC 8489 §9.2.4, §14.6, §14.11, §14.12).
//!
//! A server need not offer a choice: one whose nonce announces none lets the statements be skipped.

use turnfleet_turn::wire::{
    AttributeType, Class, IntegrityKind, MessageWriter, Method, PasswordAlgorithm,
    announces_password_algorithms,
};

use super::answer::Answer;
use super::line::{Line, UDP, message};
use super::statement::{Shortfall, Statement, ensure, failed, met, must, skipped};
use super::subject::Subject;

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = offers();
    all.extend(signatures());
    all.extend(bids_down());
    all
}

/// A line to a server that offers algorithms, and its PASSWORD-ALGORITHMS as they came.
fn offered(subject: &Subject) -> Result<(Line, Vec<u8>), Shortfall> {
    let mut line = subject.line()?;
    let answer = line.introduce()?;
    if !announces_password_algorithms(&line.nonce) {
        return Err(skipped(
            "the server's nonce announces no password algorithms",
        ));
    }
    let message = answer.message();
    let Some(list) = message.password_algorithms() else {
        return Err(failed("PASSWORD-ALGORITHMS", answer.summary()));
    };
    let has_sha256 = list.known().any(|known| known == PasswordAlgorithm::Sha256);
    if !has_sha256 {
        return Err(skipped("the server offers no SHA-256"));
    }
    Ok((line, list.as_bytes().to_vec()))
}

/// An Allocate by SHA-256 whose attributes about algorithms are what `write` makes them.
fn ask(line: &mut Line, write: impl FnOnce(&mut MessageWriter<'_>)) -> Result<Answer, Shortfall> {
    let request = message(Class::Request, Method::Allocate, |writer| {
        writer
            .requested_transport(UDP)
            .username(&line.username)
            .realm(&line.realm)
            .nonce(&line.nonce);
        write(writer);
        writer.integrity_sha256(&line.key_with(PasswordAlgorithm::Sha256));
    });
    let answer = line.exchange(&request)?;
    line.remember(&answer);
    Ok(answer)
}

/// The same with the two attributes as they should be.
fn ask_well(line: &mut Line, list: &[u8]) -> Result<Answer, Shortfall> {
    ask(line, |writer| {
        writer
            .attribute(AttributeType::PASSWORD_ALGORITHMS, list)
            .password_algorithm(PasswordAlgorithm::Sha256);
    })
}

fn offers() -> Vec<Statement> {
    vec![
        must(
            "RFC8489-9.2.4-algorithms-401",
            "A 401 whose nonce announces password algorithms lists them",
            |subject| offered(subject).and_then(|_| met()),
        ),
        must(
            "RFC8489-9.2.4-algorithms-438",
            "A 438 of a server that offers password algorithms lists them",
            |subject| {
                let (mut line, _) = offered(subject)?;
                line.nonce = b"a nonce that nobody gave".to_vec();
                let answer = line.allocate(|_| {})?;
                let listed = answer.refused(438)?.message().password_algorithms();
                ensure(listed.is_some(), "PASSWORD-ALGORITHMS", answer.summary())?;
                met()
            },
        ),
        must(
            "RFC8489-9.2.4-algorithms-none",
            "A request that names no algorithm is processed as one with MD5",
            |subject| {
                let (mut line, _) = offered(subject)?;
                line.allocate(|_| {})?.granted()?;
                met()
            },
        ),
    ]
}

fn signatures() -> Vec<Statement> {
    vec![
        must(
            "RFC8489-9.2.4-sha256",
            "A request that names SHA-256 and is signed by it is granted",
            |subject| {
                let (mut line, list) = offered(subject)?;
                ask_well(&mut line, &list)?.granted()?;
                met()
            },
        ),
        must(
            "RFC8489-9.2.4-sha256-answer",
            "The answer to a request that names SHA-256 has a MESSAGE-INTEGRITY-SHA256 that fits",
            |subject| {
                let (mut line, list) = offered(subject)?;
                let answer = ask_well(&mut line, &list)?;
                let kind = answer.granted()?.message().integrity();
                let holds = answer
                    .message()
                    .verify_integrity(&line.key_with(PasswordAlgorithm::Sha256));
                let expected = "MESSAGE-INTEGRITY-SHA256 that fits";
                ensure(holds && kind == Some(IntegrityKind::Sha256), expected, kind)?;
                met()
            },
        ),
        must(
            "RFC8489-9.2.4-sha1-answer",
            "The answer to a request that names no algorithm has MESSAGE-INTEGRITY and no other",
            |subject| {
                let (mut line, _) = offered(subject)?;
                let answer = line.allocate(|_| {})?;
                answer
                    .granted()?
                    .with(AttributeType::MESSAGE_INTEGRITY, "MESSAGE-INTEGRITY")?
                    .without(
                        AttributeType::MESSAGE_INTEGRITY_SHA256,
                        "MESSAGE-INTEGRITY-SHA256",
                    )?;
                met()
            },
        ),
        must(
            "RFC8489-9.2.4-sha256-tampered",
            "A request that was changed after it was signed by SHA-256 gets 401",
            |subject| {
                let (mut line, list) = offered(subject)?;
                let mut request = message(Class::Request, Method::Allocate, |writer| {
                    writer
                        .requested_transport(UDP)
                        .lifetime(600)
                        .username(&line.username)
                        .realm(&line.realm)
                        .nonce(&line.nonce)
                        .attribute(AttributeType::PASSWORD_ALGORITHMS, &list)
                        .password_algorithm(PasswordAlgorithm::Sha256)
                        .integrity_sha256(&line.key_with(PasswordAlgorithm::Sha256));
                });
                // The last byte of LIFETIME, the second attribute.
                request[20 + 8 + 7] ^= 1;
                line.exchange(&request)?.refused(401)?;
                met()
            },
        ),
    ]
}

fn bids_down() -> Vec<Statement> {
    vec![
        must(
            "RFC8489-9.2.4-algorithms-alone",
            "PASSWORD-ALGORITHMS without PASSWORD-ALGORITHM gets 400",
            |subject| {
                let (mut line, list) = offered(subject)?;
                let answer = ask(&mut line, |writer| {
                    writer.attribute(AttributeType::PASSWORD_ALGORITHMS, &list);
                })?;
                answer.refused(400)?;
                met()
            },
        ),
        must(
            "RFC8489-9.2.4-algorithm-alone",
            "PASSWORD-ALGORITHM without PASSWORD-ALGORITHMS gets 400",
            |subject| {
                let (mut line, _) = offered(subject)?;
                let answer = ask(&mut line, |writer| {
                    writer.password_algorithm(PasswordAlgorithm::Sha256);
                })?;
                answer.refused(400)?;
                met()
            },
        ),
        must(
            "RFC8489-9.2.4-algorithms-other",
            "PASSWORD-ALGORITHMS other than those that came with the nonce get 400",
            |subject| {
                let (mut line, mut list) = offered(subject)?;
                list.extend_from_slice(&[0x7F, 0xFF, 0, 0]);
                ask_well(&mut line, &list)?.refused(400)?;
                met()
            },
        ),
        must(
            "RFC8489-9.2.4-algorithm-unoffered",
            "A PASSWORD-ALGORITHM that was not offered gets 400",
            |subject| {
                let (mut line, list) = offered(subject)?;
                let answer = ask(&mut line, |writer| {
                    writer
                        .attribute(AttributeType::PASSWORD_ALGORITHMS, &list)
                        .attribute(AttributeType::PASSWORD_ALGORITHM, &[0x7F, 0xFF, 0, 0]);
                })?;
                answer.refused(400)?;
                met()
            },
        ),
    ]
}

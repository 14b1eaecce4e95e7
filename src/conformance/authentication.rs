//! The long-term credential mechanism (RFC 8489 §9.2), for each of TURN's requests.

use turnfleet_turn::wire::{AttributeType, Class, LongTermKey, MessageWriter, Method};

use super::answer::{Answer, name};
use super::line::{Line, UDP, message};
use super::message::{AUTHENTICATED, prepared};
use super::statement::{Shortfall, Statement, Verdict, ensure, may, met, must, should};
use super::subject::Subject;

/// The attributes that an answer to a stranger leaves out.
const IDENTITIES: [(AttributeType, &str); 4] = [
    (AttributeType::USERNAME, "USERNAME"),
    (AttributeType::USERHASH, "USERHASH"),
    (AttributeType::MESSAGE_INTEGRITY, "MESSAGE-INTEGRITY"),
    (
        AttributeType::MESSAGE_INTEGRITY_SHA256,
        "MESSAGE-INTEGRITY-SHA256",
    ),
];

/// The longest REALM and NONCE in bytes (RFC 8489 §14.9, §14.10).
const TEXT_MAX: usize = 508;

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = Vec::new();
    for method in AUTHENTICATED {
        all.extend(strangers(method));
        all.extend(malformed(method));
        all.extend(wrong_credentials(method));
        all.extend(stale_nonces(method));
        all.extend(signatures(method));
    }
    all.extend(challenges());
    all.extend(tampered());
    all
}

/// A request without integrity on a line with the state that the method is about.
fn challenged(subject: &Subject, method: Method) -> Result<Answer, Shortfall> {
    prepared(subject, method)?.ask_unsigned(method, |writer| {
        writer.requested_transport(UDP);
    })
}

fn strangers(method: Method) -> Vec<Statement> {
    let word = name(method);
    let mut all = vec![
        must(
            format!("RFC8489-9.2.4-401-{word}"),
            format!("{word} without MESSAGE-INTEGRITY gets 401"),
            move |subject| {
                challenged(subject, method)?.refused(401)?;
                met()
            },
        ),
        must(
            format!("RFC8489-9.2.4-401-realm-{word}"),
            format!("The 401 to {word} has a REALM"),
            move |subject| {
                let answer = challenged(subject, method)?;
                answer.refused(401)?.with(AttributeType::REALM, "REALM")?;
                met()
            },
        ),
        must(
            format!("RFC8489-9.2.4-401-nonce-{word}"),
            format!("The 401 to {word} has a NONCE"),
            move |subject| {
                let answer = challenged(subject, method)?;
                answer.refused(401)?.with(AttributeType::NONCE, "NONCE")?;
                met()
            },
        ),
    ];
    all.push(should(
        format!("RFC8489-9.2.4-401-bare-{word}"),
        format!("The 401 to {word} has neither USERNAME nor USERHASH nor integrity"),
        move |subject| {
            let answer = challenged(subject, method)?;
            answer.refused(401)?;
            for (kind, attribute) in IDENTITIES {
                answer.without(kind, attribute)?;
            }
            met()
        },
    ));
    all
}

/// What a signed request lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Username,
    Realm,
    Nonce,
}

/// A signed request of `method` without one of the three.
fn lacking(line: &Line, method: Method, missing: Missing) -> Vec<u8> {
    message(Class::Request, method, |writer| {
        writer.requested_transport(UDP);
        if missing != Missing::Username {
            writer.username(&line.username);
        }
        if missing != Missing::Realm {
            writer.realm(&line.realm);
        }
        if missing != Missing::Nonce {
            writer.nonce(&line.nonce);
        }
        writer.integrity(&line.key());
    })
}

fn malformed(method: Method) -> Vec<Statement> {
    let word = name(method);
    let mut all = Vec::new();
    for (missing, attribute) in [
        (Missing::Username, "USERNAME"),
        (Missing::Realm, "REALM"),
        (Missing::Nonce, "NONCE"),
    ] {
        let ask = move |subject: &Subject| {
            let mut line = prepared(subject, method)?;
            let request = lacking(&line, method, missing);
            line.exchange(&request)
        };
        all.push(must(
            format!("RFC8489-9.2.4-400-{word}-without-{attribute}"),
            format!("{word} with MESSAGE-INTEGRITY but without {attribute} gets 400"),
            move |subject| {
                ask(subject)?.refused(400)?;
                met()
            },
        ));
        all.push(should(
            format!("RFC8489-9.2.4-400-bare-{word}-without-{attribute}"),
            format!(
                "The 400 to {word} without {attribute} has no USERNAME, USERHASH, NONCE or REALM"
            ),
            move |subject| {
                let answer = ask(subject)?;
                answer
                    .refused(400)?
                    .without(AttributeType::USERNAME, "USERNAME")?
                    .without(AttributeType::USERHASH, "USERHASH")?
                    .without(AttributeType::NONCE, "NONCE")?
                    .without(AttributeType::REALM, "REALM")?;
                met()
            },
        ));
    }
    all
}

/// A request that is signed well, but by `username` with `password` in `realm`.
fn signed_as(
    line: &Line,
    method: Method,
    (username, password): (&str, &str),
    realm: &str,
) -> Vec<u8> {
    message(Class::Request, method, |writer| {
        writer
            .requested_transport(UDP)
            .username(username)
            .realm(realm)
            .nonce(&line.nonce)
            .integrity(&LongTermKey::derive(username, realm, password));
    })
}

/// 401 with REALM and NONCE.
fn rejected(answer: &Answer) -> Verdict {
    answer
        .refused(401)?
        .with(AttributeType::REALM, "REALM")?
        .with(AttributeType::NONCE, "NONCE")?;
    met()
}

fn wrong_credentials(method: Method) -> Vec<Statement> {
    let word = name(method);
    vec![
        must(
            format!("RFC8489-9.2.4-unknown-user-{word}"),
            format!("{word} of a user that the server does not know gets 401 with REALM and NONCE"),
            move |subject| {
                // The five-tuple has no allocation: with one, another user may get 441.
                let mut line = subject.introduced()?;
                let user = ("nobody-of-that-name", "secret");
                let request = signed_as(&line, method, user, &line.realm);
                rejected(&line.exchange(&request)?)
            },
        ),
        must(
            format!("RFC8489-9.2.4-password-{word}"),
            format!("{word} signed with a wrong password gets 401 with REALM and NONCE"),
            move |subject| {
                let mut line = prepared(subject, method)?;
                let user = (line.username.as_str(), "not the password");
                let request = signed_as(&line, method, user, &line.realm);
                rejected(&line.exchange(&request)?)
            },
        ),
    ]
}

fn stale_nonces(method: Method) -> Vec<Statement> {
    let word = name(method);
    let ask = move |line: &mut Line| {
        let good = std::mem::replace(&mut line.nonce, b"a nonce that nobody gave".to_vec());
        let answer = line.ask(method, |writer| {
            writer.requested_transport(UDP);
        });
        line.nonce = good;
        answer
    };
    vec![
        must(
            format!("RFC8489-9.2.4-438-{word}"),
            format!("{word} with a nonce that is not valid gets 438 with NONCE and REALM"),
            move |subject| {
                let answer = ask(&mut prepared(subject, method)?)?;
                answer
                    .refused(438)?
                    .with(AttributeType::NONCE, "NONCE")?
                    .with(AttributeType::REALM, "REALM")?;
                met()
            },
        ),
        must(
            format!("RFC8489-9.2.4-438-good-{word}"),
            format!("The nonce of the 438 to {word} is valid"),
            move |subject| {
                let mut line = prepared(subject, method)?;
                let answer = ask(&mut line)?;
                line.learn(answer.refused(438)?)?;
                let again = line.ask(method, |_| {})?;
                // Nothing else is asked for here than that it is not a matter of credentials.
                let seen = again.code();
                ensure(
                    !matches!(seen, Some(401 | 438)),
                    "neither 401 nor 438",
                    seen,
                )?;
                met()
            },
        ),
    ]
}

/// Whether the answer is signed with the key of the line's user.
fn signed(line: &Line, answer: &Answer) -> Verdict {
    let holds = answer.message().verify_integrity(&line.key());
    ensure(holds, "MESSAGE-INTEGRITY that fits", answer.summary())?;
    met()
}

fn signatures(method: Method) -> Vec<Statement> {
    let word = name(method);
    vec![
        must(
            format!("RFC8489-9.2.4-signed-success-{word}"),
            format!("A {word} success is signed with the key of the request"),
            move |subject| {
                let mut line = prepared(subject, method)?;
                let answer = succeed(subject, &mut line, method)?;
                signed(&line, &answer)
            },
        ),
        must(
            format!("RFC8489-9.2.4-signed-error-{word}"),
            format!("A {word} error to an authentic request is signed with the key of the request"),
            move |subject| {
                let mut line = prepared(subject, method)?;
                let answer = line.ask(method, |writer| {
                    writer.attribute(AttributeType(0x7FFF), &[0; 4]);
                })?;
                ensure(answer.code().is_some(), "an error", answer.summary())?;
                signed(&line, &answer)
            },
        ),
        should(
            format!("RFC8489-9.2.4-bare-success-{word}"),
            format!("A {word} success repeats neither USERNAME nor USERHASH"),
            move |subject| {
                let mut line = prepared(subject, method)?;
                succeed(subject, &mut line, method)?
                    .without(AttributeType::USERNAME, "USERNAME")?
                    .without(AttributeType::USERHASH, "USERHASH")?;
                met()
            },
        ),
    ]
}

/// The success of a good request of `method`.
fn succeed(subject: &Subject, line: &mut Line, method: Method) -> Result<Answer, Shortfall> {
    let answer = if method == Method::Allocate {
        line.allocate(|_| {})?
    } else if method == Method::CreatePermission {
        line.permit(&[subject.peer()?.as_peer()])?
    } else if method == Method::ChannelBind {
        line.bind(0x4000, subject.peer()?.as_peer())?
    } else {
        line.ask(method, |_| {})?
    };
    answer.granted()?;
    Ok(answer)
}

fn challenges() -> Vec<Statement> {
    vec![
        must(
            "RFC8489-14.9-realm",
            "REALM is UTF-8 of fewer than 509 bytes",
            |subject| {
                let line = subject.introduced()?;
                ensure(
                    line.realm.len() <= TEXT_MAX,
                    "at most 508 bytes",
                    line.realm.len(),
                )?;
                met()
            },
        ),
        must(
            "RFC8489-14.10-nonce",
            "NONCE has fewer than 509 bytes",
            |subject| {
                let line = subject.introduced()?;
                ensure(
                    line.nonce.len() <= TEXT_MAX,
                    "at most 508 bytes",
                    line.nonce.len(),
                )?;
                met()
            },
        ),
        must(
            "RFC8489-9.2-nonce-cookie",
            "A nonce begins with the nonce cookie, followed by four characters of base64",
            |subject| {
                let line = subject.introduced()?;
                let seen = line.nonce.escape_ascii().to_string();
                let features = line
                    .nonce
                    .strip_prefix(b"obMatJos2")
                    .and_then(|rest| rest.get(..4));
                let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
                let holds = features.is_some_and(|features| features.iter().all(base64));
                ensure(holds, "obMatJos2 and the security features", seen)?;
                met()
            },
        ),
        must(
            "RFC8489-9.2.4-nonce-clients",
            "Two clients do not get the same nonce",
            |subject| {
                let (one, two) = (subject.introduced()?, subject.introduced()?);
                ensure(one.nonce != two.nonce, "two nonces", "one nonce")?;
                met()
            },
        ),
        must(
            "RFC8489-9.2-nonce-again",
            "A nonce is good for more than one request",
            |subject| {
                let mut line = subject.allocated()?;
                line.ask(Method::Refresh, |_| {})?.granted()?;
                line.ask(Method::Refresh, |_| {})?.granted()?;
                met()
            },
        ),
    ]
}

fn tampered() -> Vec<Statement> {
    let allocate = |line: &Line, more: fn(&mut MessageWriter<'_>)| {
        line.signed(Method::Allocate, |writer| {
            writer.requested_transport(UDP);
            more(writer);
        })
    };
    vec![
        must(
            "RFC8489-9.2.4-tampered",
            "A request that was changed after it was signed gets 401",
            move |subject| {
                let mut line = subject.introduced()?;
                let mut request = allocate(&line, |writer| {
                    writer.lifetime(600);
                });
                // The last byte of LIFETIME, the second attribute.
                request[20 + 8 + 7] ^= 1;
                rejected(&line.exchange(&request)?)
            },
        ),
        must(
            "RFC8489-9.2.4-realm",
            "Credentials of another realm get 401",
            |subject| {
                let mut line = subject.introduced()?;
                let user = (line.username.as_str(), "whatever");
                let request = signed_as(&line, Method::Allocate, user, "another.example");
                rejected(&line.exchange(&request)?)
            },
        ),
        must(
            "RFC8489-14.5-after-integrity",
            "What follows MESSAGE-INTEGRITY is ignored",
            |subject| {
                let mut line = subject.allocated()?;
                let request = message(Class::Request, Method::Refresh, |writer| {
                    writer
                        .username(&line.username)
                        .realm(&line.realm)
                        .nonce(&line.nonce)
                        .integrity(&line.key())
                        .lifetime(0);
                });
                line.exchange(&request)?.granted()?;
                // The allocation is still there.
                line.ask(Method::Refresh, |_| {})?.granted()?;
                met()
            },
        ),
        may(
            "RFC8489-14-first-counts",
            "Of an attribute that is there twice the first counts",
            |subject| {
                let mut line = subject.allocated()?;
                line.ask(Method::Refresh, |writer| {
                    writer.lifetime(900).lifetime(0);
                })?
                .granted()?;
                line.ask(Method::Refresh, |_| {})?.granted()?;
                met()
            },
        ),
    ]
}

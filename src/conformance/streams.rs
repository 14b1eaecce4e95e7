//! Messages in a byte stream (RFC 8489 §6.2.2, RFC 8656 §2.1, §12.5): however they are cut, they are the same messages.

use turnfleet_turn::wire::{Class, Method};

use super::line::message;
use super::statement::{Statement, met, must, should};

/// Requests that are sent at once.
const AT_ONCE: usize = 16;

/// The statements of this subject.
pub(super) fn statements() -> Vec<Statement> {
    let mut all = cut();
    all.extend(kept_open());
    all
}

/// A Binding request.
fn binding() -> Vec<u8> {
    message(Class::Request, Method::Binding, |_| {})
}

fn cut() -> Vec<Statement> {
    let mut all = vec![
        must(
            "RFC8489-6.2.2-at-once",
            "Requests that come together are answered each",
            |subject| {
                subject.needs_a_stream()?;
                let mut line = subject.line()?;
                let requests: [Vec<u8>; AT_ONCE] = std::array::from_fn(|_| binding());
                line.send(&requests.concat())?;
                for request in &requests {
                    line.answer_to(request)?.granted()?;
                }
                met()
            },
        ),
        must(
            "RFC8489-6.2.2-bytewise",
            "A request that comes byte by byte is answered",
            |subject| {
                subject.needs_a_stream()?;
                let mut line = subject.line()?;
                let request = binding();
                for byte in &request {
                    line.send(&[*byte])?;
                }
                line.answer_to(&request)?.granted()?;
                met()
            },
        ),
        must(
            "RFC8656-12.5-mixed",
            "ChannelData and requests in one segment are told apart",
            |subject| {
                subject.needs_a_stream()?;
                let (mut line, peer) = (subject.allocated()?, subject.peer()?);
                line.bind(0x4000, peer.as_peer())?;
                let refresh = line.signed(Method::Refresh, |_| {});
                let data = [0x40, 0, 0, 2, b'o', b'k', 0, 0];
                line.send(&[&data, &refresh[..], &data].concat())?;
                line.answer_to(&refresh)?.granted()?;
                peer.hears(b"ok")?;
                peer.hears(b"ok")?;
                met()
            },
        ),
    ];
    for at in [1, 2, 4, 12, 19, 20] {
        all.push(must(
            format!("RFC8489-6.2.2-cut-{at}"),
            format!("A request whose first {at} bytes came behind another one is answered"),
            move |subject| {
                subject.needs_a_stream()?;
                let mut line = subject.line()?;
                let (one, two) = (
                    binding(),
                    message(Class::Request, Method::Binding, |writer| {
                        writer.software("cut");
                    }),
                );
                line.send(&[&one, &two[..at]].concat())?;
                line.answer_to(&one)?.granted()?;
                line.send(&two[at..])?;
                line.answer_to(&two)?.granted()?;
                met()
            },
        ));
    }
    all
}

fn kept_open() -> Vec<Statement> {
    vec![
        should(
            "RFC8489-6.2.2-open-success",
            "A connection stays open after an answer",
            |subject| {
                subject.needs_a_stream()?;
                let mut line = subject.line()?;
                for _ in 0..3 {
                    line.ask_unsigned(Method::Binding, |_| {})?.granted()?;
                }
                met()
            },
        ),
        should(
            "RFC8489-6.2.2-open-error",
            "A connection stays open after an error",
            |subject| {
                subject.needs_a_stream()?;
                let mut line = subject.introduced()?;
                line.ask(Method::Allocate, |_| {})?.refused(400)?;
                line.ask_unsigned(Method::Binding, |_| {})?.granted()?;
                met()
            },
        ),
    ]
}

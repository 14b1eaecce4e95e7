//! Whether a TURN server is at the other end of a link.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use turnfleet_relay::datagram::ReceiveBatch;
use turnfleet_turn::wire::{Class, Message, MessageWriter, Method, TransactionId};

use crate::link::Link;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// After which time a datagram is taken for lost (RFC 8489 §6.2.1).
const RETRANSMISSION: Duration = Duration::from_millis(500);
/// REQUESTED-TRANSPORT.
const UDP: u8 = 17;

/// Asks for an allocation without a credential, to which every TURN server says something, and waits for that.
///
/// # Errors
/// When nothing comes, or the link breaks.
pub(crate) fn knock(link: &mut Link) -> Result<()> {
    let id = TransactionId(crate::random()?);
    let mut request = Vec::new();
    let mut writer = MessageWriter::new(&mut request, Class::Request, Method::Allocate, id);
    writer.requested_transport(UDP);
    writer.finish();

    let mut poll = Poll::new()?;
    let descriptor = link.descriptor();
    poll.registry()
        .register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)?;
    let (mut events, mut batch) = (Events::with_capacity(1), ReceiveBatch::new(1));
    let began = Instant::now();
    link.send(&request)?;
    let mut sent_at = began;
    while began.elapsed() < PATIENCE {
        let mut answered = false;
        link.receive(&mut batch, |bytes| {
            let answer = Message::parse(bytes);
            answered |= answer.is_ok_and(|answer| answer.transaction_id() == id);
        })?;
        if answered {
            return Ok(());
        }
        if matches!(link, Link::Udp(_)) && sent_at.elapsed() >= RETRANSMISSION {
            link.send(&request)?;
            sent_at = Instant::now();
        }
        let waited = poll.poll(&mut events, Some(RETRANSMISSION));
        if let Err(error) = waited
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
    }
    bail!("no answer within {PATIENCE:?}")
}

//! A stream has the same messages however it is cut into pieces.

use turnfleet_turn::wire::{ChannelData, Frame, MAX_FRAME_LEN, Message, deframe};

use super::bytes::Bytes;

/// Small enough for the bound to matter in short inputs.
const LIMITS: [usize; 4] = [64, 256, 2048, MAX_FRAME_LEN];

pub fn run(data: &[u8]) {
    let mut choices = Bytes::new(data);
    let limit = choices.choose(&LIMITS);
    let mut pieces = Bytes::new(choices.slice());
    let stream = choices.take(usize::MAX);

    let whole = cut(stream, limit);
    let mut frames = Vec::new();
    let mut consumed = 0;
    let mut received = 0;
    while received < stream.len() && !frames.contains(&Frame::Garbage) {
        let piece = usize::from(pieces.byte()).max(1);
        received = stream.len().min(received + piece);
        let more = cut(&stream[consumed..received], limit);
        consumed += more.iter().map(length).sum::<usize>();
        frames.extend(more);
    }
    assert_eq!(frames, whole);
}

/// The frames that `unread` begins with, and what is wrong with the rest.
fn cut(unread: &[u8], limit: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = 0;
    loop {
        let rest = &unread[at..];
        let frame = deframe(rest, limit);
        match frame {
            Frame::NeedMore(more) => {
                assert!(more > 0 && rest.len() + more <= limit);
                return frames;
            }
            Frame::Garbage => {
                frames.push(frame);
                return frames;
            }
            Frame::Message { len, total } => {
                assert!(len <= total && total <= limit && total <= rest.len());
                let sound = ChannelData::parse(&rest[..len]).is_ok();
                let cookie = len >= 20 && rest[4..8] == [0x21, 0x12, 0xA4, 0x42];
                assert!(sound || cookie || Message::parse(&rest[..len]).is_err());
                frames.push(frame);
                at += total;
            }
        }
    }
}

fn length(frame: &Frame) -> usize {
    match frame {
        Frame::Message { total, .. } => *total,
        Frame::NeedMore(_) | Frame::Garbage => 0,
    }
}

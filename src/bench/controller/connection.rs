//! One connection to a controller: a request, its answer, and the next request.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use mio::net::TcpStream;

/// The longest answer, with its header.
const MAX_ANSWER: usize = 16 * 1024;

/// A connection with one request on its way.
pub(super) struct Connection {
    stream: TcpStream,
    /// Which request is on its way, and since when.
    pub(super) asked: usize,
    sent_at: Instant,
    buffer: Box<[u8]>,
    filled: usize,
}

/// What an answer says on its outside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outline {
    is_good: bool,
    body: Range<usize>,
}

/// An answer that has arrived.
pub(super) struct Answer<'a> {
    pub(super) is_good: bool,
    pub(super) body: &'a [u8],
    pub(super) nanos: u64,
}

impl Connection {
    /// Connects, and waits for it.
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            asked: 0,
            sent_at: Instant::now(),
            buffer: vec![0; MAX_ANSWER].into(),
            filled: 0,
        })
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends the request with the number `asked`. It always fits an empty socket buffer.
    pub(super) fn ask(&mut self, asked: usize, request: &[u8]) -> io::Result<()> {
        (self.asked, self.filled) = (asked, 0);
        self.sent_at = Instant::now();
        self.stream.write_all(request)
    }

    /// The answer, if the whole of it has arrived.
    ///
    /// # Errors
    /// When the connection has ended, or what came is no answer.
    pub(super) fn answer(&mut self) -> io::Result<Option<Answer<'_>>> {
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            if let Some(outline) = outline(&self.buffer[..self.filled])?
                && outline.body.end <= self.filled
            {
                let nanos = self.sent_at.elapsed().as_nanos();
                return Ok(Some(Answer {
                    is_good: outline.is_good,
                    body: &self.buffer[outline.body],
                    nanos: u64::try_from(nanos).unwrap_or(u64::MAX),
                }));
            }
        }
    }
}

/// Reads the header of an answer; `None` where it is not complete.
fn outline(answer: &[u8]) -> io::Result<Option<Outline>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(end) = answer.windows(END.len()).position(|four| four == END) else {
        return Ok(None);
    };
    let bad = |what| io::Error::new(ErrorKind::InvalidData, what);
    let mut lines = answer[..end].split(|byte| *byte == b'\n');
    let status = lines.next().and_then(|line| line.get(9..12));
    let status = status.ok_or_else(|| bad("an answer without a status"))?;
    let length = lines.find_map(content_length);
    let length = length.ok_or_else(|| bad("an answer without a length"))?;
    let body = end + END.len();
    Ok(Some(Outline {
        is_good: status == b"200" || status == b"201",
        body: body..body.saturating_add(length),
    }))
}

fn content_length(line: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_length() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        let outlined = outline(whole).unwrap().unwrap();
        assert!(outlined.is_good);
        assert_eq!(outlined.body, whole.len() - 2..whole.len());
        assert_eq!(outline(&whole[..40]).unwrap(), None);
        let refused = b"HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\n\r\n";
        assert!(!outline(refused).unwrap().unwrap().is_good);
        assert!(outline(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}

//! What waits to be written to one stream, in a buffer that is borrowed from a pool while anything waits.

/// Buffers kept for reuse, so that a busy stream allocates nothing and an idle one holds nothing.
#[derive(Default)]
pub(crate) struct BufferPool {
    spare: Vec<Vec<u8>>,
}

/// Buffers in a pool.
const POOL_BUFFERS: usize = 64;
/// A buffer that grew larger is given back to the allocator.
const POOL_BUFFER_LEN: usize = 64 << 10;

impl BufferPool {
    fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        let keeps = 1..=POOL_BUFFER_LEN;
        if keeps.contains(&buffer.capacity()) && self.spare.len() < POOL_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

/// Whole messages on their way to one client.
#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    /// How many of `bytes` are written already.
    written: usize,
}

impl Outgoing {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `message` unless more than `bound` bytes would wait; `false` where it was not taken.
    pub(crate) fn push(&mut self, message: &[u8], bound: usize, pool: &mut BufferPool) -> bool {
        if self.len() + message.len() > bound {
            return false;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        if self.written > bound {
            // What was written long ago does not count against the bound, and is not kept beside it either.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        self.bytes.extend_from_slice(message);
        true
    }

    /// What to write next.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Notes that the first `count` bytes that waited are written.
    pub(crate) fn advance(&mut self, count: usize, pool: &mut BufferPool) {
        self.written += count;
        if self.written == self.bytes.len() {
            self.written = 0;
            pool.give(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_or_not_at_all() {
        let mut pool = BufferPool::default();
        let mut outgoing = Outgoing::default();
        assert!(outgoing.push(b"12345", 8, &mut pool));
        assert!(!outgoing.push(b"6789", 8, &mut pool));
        outgoing.advance(3, &mut pool);
        assert!(outgoing.push(b"6789", 8, &mut pool));
        assert_eq!(outgoing.waiting(), b"456789");
    }

    #[test]
    fn a_stream_that_never_drains_keeps_no_more_than_twice_its_bound() {
        let mut pool = BufferPool::default();
        let mut outgoing = Outgoing::default();
        assert!(outgoing.push(&[0; 100], 100, &mut pool));
        for _ in 0..1000 {
            outgoing.advance(10, &mut pool);
            assert!(outgoing.push(&[0; 10], 100, &mut pool));
            assert!(outgoing.bytes.len() <= 210, "{}", outgoing.bytes.len());
        }
    }

    #[test]
    fn an_empty_queue_holds_no_memory_and_the_next_one_reuses_it() {
        let mut pool = BufferPool::default();
        let mut outgoing = Outgoing::default();
        outgoing.push(&[0; 100], 1000, &mut pool);
        outgoing.advance(100, &mut pool);
        assert_eq!(outgoing.bytes.capacity(), 0);
        assert_eq!(pool.spare.len(), 1);
        outgoing.push(&[0; 1], 1000, &mut pool);
        assert!(outgoing.bytes.capacity() >= 100);
    }
}

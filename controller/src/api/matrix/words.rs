//! What has been said about tokens, each for a while and all within a bound. Of a token, only its HMAC is kept, under a key that
//! nobody else has and that ends with the process.
//!
//! Words of one kind live equally long, so that the oldest is the first to end. No clock: the caller says what time it is.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ring::error::Unspecified;
use ring::hmac;
use ring::rand::SystemRandom;

/// What a token is known by: its HMAC-SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// Makes keys of tokens.
#[derive(Debug)]
pub(super) struct Keys(hmac::Key);

impl Keys {
    /// Keys that differ from those of every other process.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub(super) fn new() -> Result<Self, Unspecified> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map(Self)
    }

    pub(super) fn of(&self, token: &str) -> Key {
        let mut key = [0; 32];
        key.copy_from_slice(hmac::sign(&self.0, token.as_bytes()).as_ref());
        Key(key)
    }
}

/// Words about tokens.
#[derive(Debug)]
pub(super) struct Words<V> {
    bound: usize,
    life: Duration,
    /// With the end of each.
    known: HashMap<Key, (Instant, V)>,
    /// The ends in order; the oldest word first.
    ends: VecDeque<(Instant, Key)>,
}

impl<V> Words<V> {
    /// At most `bound` words, each for `life`.
    pub(super) fn new(bound: usize, life: Duration) -> Self {
        Self {
            bound,
            life,
            known: HashMap::new(),
            ends: VecDeque::new(),
        }
    }

    /// The word about a token, if there is one that has not ended.
    pub(super) fn of(&self, key: &Key, now: Instant) -> Option<&V> {
        let (end, word) = self.known.get(key)?;
        (now < *end).then_some(word)
    }

    /// Keeps a word, and forgets those that have ended; where there are too many, the oldest too. Returns how many of them
    /// had not ended.
    pub(super) fn keep(&mut self, key: Key, word: V, now: Instant) -> u64 {
        let mut cut_short = 0;
        while let Some(&(end, oldest)) = self.ends.front() {
            let has_ended = end <= now;
            if !has_ended && self.ends.len() < self.bound {
                break;
            }
            self.ends.pop_front();
            // One that was said again since stays until its own end.
            if self.known.get(&oldest).is_some_and(|(its, _)| *its == end) {
                self.known.remove(&oldest);
                cut_short += u64::from(!has_ended);
            }
        }
        let end = now + self.life;
        self.known.insert(key, (end, word));
        self.ends.push_back((end, key));
        cut_short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn key(name: u8) -> Key {
        Key([name; 32])
    }

    #[test]
    fn a_token_has_one_key_in_a_process_and_another_in_the_next() {
        let [here, elsewhere] = [(); 2].map(|()| Keys::new().unwrap());
        assert_eq!(here.of("syt_a"), here.of("syt_a"));
        assert_ne!(here.of("syt_a"), here.of("syt_b"));
        assert_ne!(here.of("syt_a"), elsewhere.of("syt_a"));
    }

    #[test]
    fn a_word_lives_its_time() {
        let start = Instant::now();
        let mut words = Words::new(4, LIFE);
        assert_eq!(words.of(&key(1), start), None);
        words.keep(key(1), 1, start);
        let late = start + LIFE;
        assert_eq!(words.of(&key(1), late - Duration::from_nanos(1)), Some(&1));
        assert_eq!(words.of(&key(1), late), None);
        assert_eq!(words.of(&key(2), start), None);
    }

    #[test]
    fn a_word_that_is_said_again_lives_from_then() {
        let start = Instant::now();
        let mut words = Words::new(4, LIFE);
        words.keep(key(1), 1, start);
        words.keep(key(1), 2, start + LIFE / 2);
        words.keep(key(2), 3, start + LIFE);
        assert_eq!(words.of(&key(1), start + LIFE), Some(&2));
        assert_eq!(words.of(&key(1), start + LIFE + LIFE / 2), None);
    }

    #[test]
    fn the_oldest_goes_where_there_are_too_many() {
        let start = Instant::now();
        let mut words = Words::new(3, LIFE);
        let later = |seconds| start + Duration::from_secs(seconds);
        let keys = [1, 2, 3, 4, 5].map(key);
        let cut_short: u64 = (0..)
            .zip(keys)
            .map(|(at, key)| words.keep(key, at, later(at)))
            .sum();
        assert_eq!(cut_short, 2);
        let known = keys.map(|key| words.of(&key, later(5)).copied());
        assert_eq!(known, [None, None, Some(2), Some(3), Some(4)]);
        assert_eq!(words.keep(keys[0], 5, later(100)), 0);
        assert_eq!((words.known.len(), words.ends.len()), (1, 1));
    }
}

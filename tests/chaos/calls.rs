//! Calls that live: each has an allocation on either side, and both say numbered words that must arrive as they were said.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
use crate::figures::millis;
use crate::fleet::{CLIENT, Fleet, SECRET};
use crate::process::SOON;
use crate::tools::eventually;

/// Between two words of one side.
const PACE: Duration = Duration::from_millis(200);
/// Between two looks at every socket.
const LOOK: Duration = Duration::from_millis(10);
/// How long words may take that are on their way at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The length of a word; nothing else in a fleet is as long.
const LENGTH: usize = 600;
/// What a datagram has that holds a word, at least: longer than any request or answer.
pub(crate) const LONG: usize = 500;

/// One of the two clients of a call.
struct Side {
    caller: Caller,
    /// The caller's own socket.
    socket: UdpSocket,
    relayed: SocketAddr,
    /// Words said.
    said: usize,
    /// Which words of the other side have come.
    heard: Vec<bool>,
    /// Words that came once more, and those that others had overtaken.
    repeated: usize,
    overtaken: usize,
    /// The latest word that has come.
    latest: usize,
    last: Instant,
    longest_silence: Duration,
}

/// Two clients.
pub(crate) struct Call {
    number: usize,
    /// The relays of the two.
    pub(crate) homes: [usize; 2],
    sides: [Side; 2],
    /// Whether the network may repeat words.
    may_repeat: bool,
    due: Instant,
}

/// Calls that are held by a thread of their own.
pub(crate) struct Calls {
    thread: JoinHandle<Vec<Call>>,
    over: Arc<AtomicBool>,
    heard: Arc<AtomicU64>,
}

/// Calls that have been held.
pub(crate) struct Held(Vec<Call>);

/// What became of some calls.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) calls: usize,
    pub(crate) words: usize,
    pub(crate) lost: usize,
    pub(crate) repeated: usize,
    pub(crate) overtaken: usize,
    pub(crate) longest_silence: Duration,
    /// Allocations whose refresh was refused.
    pub(crate) ended_allocations: usize,
}

impl Call {
    /// Opens a call between a relay and another one, or the same.
    #[track_caller]
    pub(crate) fn open(fleet: &Fleet<'_>, number: usize, homes: [usize; 2]) -> Self {
        let users = ["alice", "bob"].map(|name| format!("@{name}{number}:example.org"));
        let open = |place: usize| {
            let credential = Credential::synapse(SECRET, &users[place]);
            Side::open(fleet.relays[homes[place]].server, &credential)
        };
        Self::between(number, homes, [open(0), open(1)])
    }

    /// The same over a network that may repeat words: `way` leads to a relay.
    #[track_caller]
    fn open_by(
        fleet: &Fleet<'_>,
        number: usize,
        homes: [usize; 2],
        way: &impl Fn(SocketAddr) -> SocketAddr,
    ) -> Self {
        let open = |place: usize| {
            let user = format!("@{}{number}:example.org", ["alice", "bob"][place]);
            let credential = Credential::synapse(SECRET, &user);
            Side::open(way(fleet.relays[homes[place]].server), &credential)
        };
        let call = Self::between(number, homes, [open(0), open(1)]);
        Self {
            may_repeat: true,
            ..call
        }
    }

    #[track_caller]
    fn between(number: usize, homes: [usize; 2], mut sides: [Side; 2]) -> Self {
        let [here, there] = [0, 1].map(|place| sides[place].relayed);
        sides[0].caller.bind(there).unwrap();
        sides[1].caller.bind(here).unwrap();
        let begun = Instant::now();
        for side in &mut sides {
            side.socket.set_nonblocking(true).unwrap();
            side.last = begun;
        }
        let stagger = LOOK * u32::try_from(number % 20).unwrap();
        Self {
            number,
            homes,
            sides,
            may_repeat: false,
            due: begun + stagger,
        }
    }

    /// Says a word on either side, if it is time.
    fn speak(&mut self, now: Instant) {
        if now < self.due {
            return;
        }
        self.due = now + PACE;
        let relayed = [1, 0].map(|other: usize| self.sides[other].relayed);
        for (place, side) in self.sides.iter_mut().enumerate() {
            let word = word(self.number, place, side.said);
            side.caller.send(relayed[place], &word);
            side.said += 1;
        }
    }

    /// Takes in what has come, and returns how many words that were.
    fn listen(&mut self, now: Instant) -> u64 {
        let mut words = 0;
        for place in [0, 1] {
            let other = 1 - place;
            let (from, said) = (self.sides[other].relayed, self.sides[other].said);
            let side = &mut self.sides[place];
            while let Some((peer, heard)) = side.caller.turn() {
                assert_eq!(peer, from, "call {}: a stranger spoke", self.number);
                let number = heard.split('.').nth(2).and_then(|it| it.parse().ok());
                let number: usize = number.unwrap_or(said);
                assert!(
                    number < said && heard == word(self.number, other, number),
                    "call {}: never said: {heard}",
                    self.number
                );
                side.heard.resize(said, false);
                let again = std::mem::replace(&mut side.heard[number], true);
                assert!(
                    !again || self.may_repeat,
                    "call {}: word {number} came twice",
                    self.number
                );
                side.repeated += usize::from(again);
                side.overtaken += usize::from(!again && number < side.latest);
                side.latest = side.latest.max(number);
                side.longest_silence = side.longest_silence.max(now - side.last);
                side.last = now;
                words += 1;
            }
        }
        words
    }

    fn lost(&self) -> usize {
        let heard = |side: &Side| side.heard.iter().filter(|heard| **heard).count();
        let [one, other] = &self.sides;
        one.said + other.said - heard(one) - heard(other)
    }

    fn end_of_silence(&mut self) {
        for side in &mut self.sides {
            side.longest_silence = side.longest_silence.max(side.last.elapsed());
            side.socket.set_nonblocking(false).unwrap();
        }
    }

    /// How many of its allocations live no longer.
    fn ended_allocations(&mut self) -> usize {
        let refreshed = self.sides.iter_mut().map(|side| side.caller.refresh());
        refreshed.filter(Result::is_err).count()
    }
}

impl Side {
    #[track_caller]
    fn open(server: SocketAddr, credential: &Credential) -> Self {
        let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
        let mut caller = Caller::udp(socket.try_clone().unwrap(), server, credential);
        let allocated = caller.allocate(AllocateOptions::default()).unwrap();
        Self {
            caller,
            socket,
            relayed: allocated.relayed,
            said: 0,
            heard: Vec::new(),
            repeated: 0,
            overtaken: 0,
            latest: 0,
            last: Instant::now(),
            longest_silence: Duration::ZERO,
        }
    }
}

impl Calls {
    /// Opens calls, every other one on a single relay and the rest between neighbours, and holds them.
    #[track_caller]
    pub(crate) fn open(fleet: &Fleet<'_>, number: usize) -> Self {
        let calls = (0..number).map(|number| Call::open(fleet, number, homes(fleet, number)));
        Self::hold(calls.collect())
    }

    /// The same over a network that may repeat words: `way` leads to a relay.
    #[track_caller]
    pub(crate) fn open_by(
        fleet: &Fleet<'_>,
        number: usize,
        way: impl Fn(SocketAddr) -> SocketAddr,
    ) -> Self {
        let open = |number| Call::open_by(fleet, number, homes(fleet, number), &way);
        Self::hold((0..number).map(open).collect())
    }

    #[track_caller]
    pub(crate) fn hold(mut calls: Vec<Call>) -> Self {
        let (over, heard) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let (told, count) = (Arc::clone(&over), Arc::clone(&heard));
        let thread = std::thread::spawn(move || {
            let mut end = None;
            loop {
                let now = Instant::now();
                if end.is_none() && told.load(Ordering::Relaxed) {
                    end = Some(now + LAST_WORDS);
                }
                let mut waiting = 0;
                for call in &mut calls {
                    if end.is_none() {
                        call.speak(now);
                    }
                    count.fetch_add(call.listen(now), Ordering::Relaxed);
                    waiting += call.lost();
                }
                if end.is_some_and(|end| now >= end || waiting == 0) {
                    break;
                }
                std::thread::park_timeout(LOOK);
            }
            calls.iter_mut().for_each(Call::end_of_silence);
            calls
        });
        Self {
            thread,
            over,
            heard,
        }
    }

    /// Waits until so many further words have been heard.
    #[track_caller]
    pub(crate) fn go_on_for(&self, words: u64) {
        let until = self.heard.load(Ordering::Relaxed) + words;
        eventually("the calls go on", SOON, || {
            assert!(!self.thread.is_finished(), "the calls have failed");
            (self.heard.load(Ordering::Relaxed) >= until).then_some(())
        });
    }

    /// Lets time pass while the calls go on.
    #[track_caller]
    pub(crate) fn pass(&self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.go_on_for(100);
        }
    }

    /// Ends the calls when the last words have come; their allocations live on.
    #[track_caller]
    pub(crate) fn end(self) -> Held {
        self.over.store(true, Ordering::Relaxed);
        Held(self.thread.join().expect("the calls have failed"))
    }
}

impl Held {
    /// Counts the calls whose relays are such ones, and refreshes their allocations.
    #[track_caller]
    pub(crate) fn count(&mut self, such: impl Fn([usize; 2]) -> bool) -> Count {
        let mut count = Count {
            calls: 0,
            words: 0,
            lost: 0,
            repeated: 0,
            overtaken: 0,
            longest_silence: Duration::ZERO,
            ended_allocations: 0,
        };
        for call in self.0.iter_mut().filter(|call| such(call.homes)) {
            count.calls += 1;
            count.words += call.sides.iter().map(|side| side.said).sum::<usize>();
            count.lost += call.lost();
            for side in &call.sides {
                count.repeated += side.repeated;
                count.overtaken += side.overtaken;
                count.longest_silence = count.longest_silence.max(side.longest_silence);
            }
            count.ended_allocations += call.ended_allocations();
        }
        count
    }

    #[track_caller]
    pub(crate) fn count_all(&mut self) -> Count {
        self.count(|_| true)
    }
}

impl Count {
    /// Not one word and not one allocation was lost, and there was something to lose.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        assert!(self.words > self.calls, "hardly a call: {self:?}");
        assert_eq!((self.lost, self.ended_allocations), (0, 0), "{self:?}");
    }

    pub(crate) fn figures(&self) -> Value {
        json!({
            "allocations": 2 * self.calls,
            "words": self.words,
            "words_lost": self.lost,
            "allocations_lost": self.ended_allocations,
            "longest_silence_ms": millis(self.longest_silence),
        })
    }
}

/// The relays of a call: every other one on a single relay, and the rest between neighbours.
fn homes(fleet: &Fleet<'_>, number: usize) -> [usize; 2] {
    let relays = fleet.relays.len();
    let home = number % relays;
    [home, (home + number / relays % 2) % relays]
}

/// A word of one side of a call.
fn word(call: usize, side: usize, number: usize) -> String {
    let head = format!("{call}.{side}.{number}.");
    let letters = (b'a'..=b'z').cycle().skip((call + 7 * number) % 26);
    let rest = letters.take(LENGTH - head.len()).map(char::from);
    head.chars().chain(rest).collect()
}

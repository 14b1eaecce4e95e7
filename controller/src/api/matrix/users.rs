//! Whose access token it is. The homeserver's word on a token holds for a minute, a bad one for some seconds, and many requests
//! with one token ask it once.
//!
//! No token is kept, only its [key](Key). A user whose session ends at the homeserver gets lists until the word has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use ring::error::Unspecified;
use tokio::sync::watch;

use super::homeserver::{Client, Homeserver, User, Word};
use super::refusal::Refusal;
use super::words::{Key, Keys, Words};
use crate::api::rate::TokenBucket;
use crate::metrics::Metrics;
use crate::seats::{Seat, Seats};

/// How long a token counts as its user's.
const GOOD_LIFE: Duration = Duration::from_secs(60);
/// How long a token that was refused is refused without asking again.
const BAD_LIFE: Duration = Duration::from_secs(10);
/// Users at once; each takes some 300 bytes.
const MAX_GOOD: usize = 65_536;
/// Apart from the good ones, so that guesses drive no user out.
const MAX_BAD: usize = 8192;
/// Tokens that the homeserver is being asked about, or is going to be: the users of an office who come at once wait for each
/// other. Each takes some 2 KiB.
const MAX_FLIGHTS: usize = 2048;
/// Those of one client's address, so that one who guesses leaves room for others.
const MAX_FLIGHTS_OF_ONE_ADDRESS: usize = MAX_FLIGHTS / 4;
/// When to come again where that is too few.
const BUSY: Duration = Duration::from_secs(1);
/// Longer tokens are not looked at.
const MAX_TOKEN_BYTES: usize = 4096;
/// Requests a second of one token, after a burst: clients ask once an hour.
const RATE: u32 = 10;
const BURST: u32 = 100;

/// What becomes of a request, but for its rate.
type Settled = Result<Arc<Known>, Refusal>;

/// A user by one of its tokens.
#[derive(Debug)]
struct Known {
    user: Arc<User>,
    bucket: TokenBucket,
}

/// The users of a homeserver, by their tokens.
pub(super) struct Users {
    homeserver: Homeserver,
    keys: Keys,
    memory: Mutex<Memory>,
    seats: Seats,
    metrics: Arc<Metrics>,
}

struct Memory {
    good: Words<Arc<Known>>,
    bad: Words<Refusal>,
    /// What the homeserver is being asked; settled when it has spoken.
    flights: HashMap<Key, watch::Receiver<Option<Settled>>>,
}

impl Users {
    /// Nobody yet.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub(super) fn new(homeserver: Homeserver, metrics: Arc<Metrics>) -> Result<Self, Unspecified> {
        let memory = Memory {
            good: Words::new(MAX_GOOD, GOOD_LIFE),
            bad: Words::new(MAX_BAD, BAD_LIFE),
            flights: HashMap::new(),
        };
        Ok(Self {
            homeserver,
            keys: Keys::new()?,
            memory: Mutex::new(memory),
            seats: Seats::new(MAX_FLIGHTS_OF_ONE_ADDRESS),
            metrics,
        })
    }

    /// The user whose token it is that `client` shows.
    ///
    /// # Errors
    /// What the homeserver says of the token, or that it says nothing; 429 where there are too many requests, of this token or
    /// of all.
    pub(super) async fn identify(
        self: &Arc<Self>,
        token: &str,
        client: Client,
    ) -> Result<Arc<User>, Refusal> {
        let known = self.settle(token, client).await?;
        known.bucket.take(Instant::now()).map_err(|wait| {
            self.metrics.rate_limited.inc();
            Refusal::too_many(wait)
        })?;
        Ok(Arc::clone(&known.user))
    }

    async fn settle(self: &Arc<Self>, token: &str, client: Client) -> Settled {
        let bearer = bearer(token).ok_or_else(Refusal::unknown_token)?;
        let key = self.keys.of(token);
        let mut flight = {
            let mut memory = self.memory();
            let now = Instant::now();
            if let Some(known) = memory.good.of(&key, now) {
                return Ok(Arc::clone(known));
            }
            if let Some(refusal) = memory.bad.of(&key, now) {
                return Err(refusal.clone());
            }
            match memory.flights.get(&key) {
                Some(flight) => flight.clone(),
                None => self.start(&mut memory, key, bearer, client)?,
            }
        };
        let settled = flight.wait_for(Option::is_some).await;
        let settled = settled.ok().and_then(|settled| settled.clone());
        // Whoever asked has died where nothing is settled.
        settled.unwrap_or_else(|| Err(Refusal::unreachable()))
    }

    /// Has the homeserver asked, by a task that outlives whoever waits for it.
    fn start(
        self: &Arc<Self>,
        memory: &mut Memory,
        key: Key,
        bearer: HeaderValue,
        client: Client,
    ) -> Result<watch::Receiver<Option<Settled>>, Refusal> {
        let seat = client.ip.map(|ip| self.seats.take(ip));
        if memory.flights.len() >= MAX_FLIGHTS || matches!(seat, Some(None)) {
            self.count("busy");
            return Err(Refusal::too_many(BUSY));
        }
        let (tell, flight) = watch::channel(None);
        memory.flights.insert(key, flight.clone());
        let flying = Flying {
            users: Arc::clone(self),
            key,
            _seat: seat.flatten(),
        };
        tokio::spawn(async move {
            let settled = flying.ask(bearer, client).await;
            tell.send_replace(Some(settled));
        });
        Ok(flight)
    }

    fn count(&self, outcome: &str) {
        let answers = &self.metrics.homeserver_answers;
        answers.with_label_values(&[outcome]).inc();
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token that the homeserver is being asked about; however that ends, it may be asked again afterwards.
struct Flying {
    users: Arc<Users>,
    key: Key,
    _seat: Option<Seat>,
}

impl Flying {
    async fn ask(&self, bearer: HeaderValue, client: Client) -> Settled {
        let users = &self.users;
        let word = users.homeserver.whoami(bearer, client).await;
        users.count(word.outcome());
        let now = Instant::now();
        let (settled, cut_short) = match word {
            Word::User(user) => {
                let known = Arc::new(Known {
                    user: Arc::new(user),
                    bucket: TokenBucket::new(RATE, BURST, now),
                });
                let word = Arc::clone(&known);
                (Ok(known), users.memory().good.keep(self.key, word, now))
            }
            Word::Refused(refusal) => {
                let word = refusal.clone();
                (Err(refusal), users.memory().bad.keep(self.key, word, now))
            }
            Word::Limited(wait) => (Err(Refusal::too_many(wait)), 0),
            Word::Busy => (Err(Refusal::too_many(BUSY)), 0),
            Word::Strange => (Err(Refusal::strange()), 0),
            Word::Unreachable => (Err(Refusal::unreachable()), 0),
        };
        users.metrics.homeserver_words_cut_short.inc_by(cut_short);
        settled
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.users.memory().flights.remove(&self.key);
    }
}

/// `token` as a header for the homeserver; `None` for what cannot be one.
fn bearer(token: &str) -> Option<HeaderValue> {
    let fits = (1..=MAX_TOKEN_BYTES).contains(&token.len());
    let plain = fits && token.bytes().all(|byte| byte.is_ascii_graphic());
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok();
    if let Some(header) = &mut header {
        header.set_sensitive(true);
    }
    header.filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::super::homeserver::tests::silent;
    use super::*;

    #[test]
    fn what_cannot_be_a_token_is_not_asked_about() {
        let long = "a".repeat(4097);
        for token in ["", "a b", "a\nb", "ü", "a\u{7f}", long.as_str()] {
            assert_eq!(bearer(token), None, "{token:?}");
        }
        let header = bearer("syt_YWxpY2U_~+/=").expect("an access token");
        assert!(header.is_sensitive());
        assert_eq!(header, "Bearer syt_YWxpY2U_~+/=");
    }

    #[tokio::test]
    async fn one_who_guesses_leaves_others_their_turn() {
        let (_listener, homeserver) = silent().await;
        let users = Users::new(homeserver, Arc::new(Metrics::new()));
        let users = Arc::new(users.unwrap());
        let guess = |number: usize, ip: &str| {
            let token = format!("{ip} {number}");
            let client = Client {
                ip: Some(ip.parse().unwrap()),
                agent: None,
            };
            let (key, bearer) = (users.keys.of(&token), bearer("syt_a").unwrap());
            users
                .start(&mut users.memory(), key, bearer, client)
                .is_ok()
        };
        let started = (0..1000).filter(|&number| guess(number, "192.0.2.66"));
        assert_eq!(started.count(), MAX_FLIGHTS_OF_ONE_ADDRESS);
        assert!(guess(0, "192.0.2.7"));
    }
}

//! A relay is shards: each is one thread with a TURN server, its sockets and its own event loop.
//!
//! [`ShardSet`] is what the rest of the relay sees. [`ShardSet::bind`] opens every listener, so that addresses are known
//! and taken ports are found before anything starts; [`Bound::start`] starts the threads. After that shards hear of
//! a changed policy, other relays, draining and the end through a few shared words and a wake-up; on the packet path
//! only data between clients of two shards is shared (`crossings`).

mod crossings;
mod event_log;
mod evicting;
mod letters;
mod links;
mod listening;
mod peer_errors;
mod published;
mod relaying;
mod short_cut;
mod slowed;
mod spans;
mod splicing;
mod tallying;
mod telling;
pub(crate) mod token;
mod turns;
mod worker;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;
use mio::{Poll, Waker};
use ring::rand::{SecureRandom as _, SystemRandom};
use tracing::Span;
use turnfleet_turn::alternates::Alternates;
use turnfleet_turn::peer_filter::Cidr;
use turnfleet_turn::policy::{Config, RelayedHost};
use turnfleet_turn::{Counters, Ledger, ShardId};

pub use crate::driver::counters::DriverCounters;
pub use crate::driver::descriptors::raise_limit as raise_descriptor_limit;
pub use crate::driver::stream::StreamLimits;
pub use crate::listeners::{BindError, Front, Listener};
pub use crate::policy::{RelayPolicy, TenantNames};
pub use event_log::EventLog;
pub(crate) use telling::{Heard, Teller, Told, Way};
pub use turnfleet_proto::certificate::Certificate;

use crate::driver::clock::ToldTime;
use crate::driver::directory::Directory;
use crate::driver::ip_options;
use crate::driver::tls::TlsSettings;
use crate::listeners::{self, ShardListeners};
use crate::usage::UsageBook;
use crossings::Crossings;
use links::Links;
use listening::{Change, Listening};
use published::Published;
use token::Source;
use worker::{Shard, ShardParts};

/// What the shards of a relay are made of. Fixed while they live.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Where clients reach the relay.
    pub listeners: Vec<Listener>,
    /// The addresses that relayed sockets are opened on, in order of preference within a family.
    pub relayed_hosts: Vec<RelayedHost>,
    /// How many threads share the clients; zero counts as one.
    pub shards: u8,
    /// Accept channel numbers up to 0x7FFF, as RFC 5766 had them.
    pub rfc5766_channel_numbers: bool,
    /// Whether data between two clients of the relay goes from the one to the other without a trip through the kernel.
    pub short_cut: bool,
    /// Sources whose unauthenticated answers are not limited.
    pub trusted_sources: Vec<Cidr>,
    /// The certificate of TLS listeners.
    pub tls: Option<Arc<Certificate>>,
    /// Bounds on streams.
    pub streams: StreamLimits,
}

/// Opened listeners that nobody serves yet.
pub struct Bound {
    settings: ShardSettings,
    tls: Option<TlsSettings>,
    addresses: Vec<Listener>,
    shards: Vec<(Poll, Arc<Waker>, ShardListeners)>,
    told_time: Arc<ToldTime>,
    usage: Option<Arc<UsageBook>>,
}

impl Bound {
    /// What the shards count goes there.
    pub(crate) fn count_into(&mut self, usage: &Arc<UsageBook>) {
        self.usage = Some(Arc::clone(usage));
    }

    /// What the shards will know of the time.
    pub(crate) fn told_time(&self) -> Arc<ToldTime> {
        Arc::clone(&self.told_time)
    }

    /// The listeners with the ports they got, in the order of the settings.
    #[must_use]
    pub fn addresses(&self) -> &[Listener] {
        &self.addresses
    }

    /// Starts the threads. Clients that came since the listeners were opened are served first.
    pub fn start(
        self,
        policy: Arc<ArcSwap<RelayPolicy>>,
        ledger: &Arc<Ledger>,
        events: &EventLog,
    ) -> io::Result<ShardSet> {
        let control = Arc::new(Control {
            policy,
            draining: AtomicBool::new(false),
            alternates: ArcSwap::default(),
            evictions: AtomicU32::new(0),
            evicting: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            told_time: Arc::clone(&self.told_time),
            changes: self.shards.iter().map(|_| Mutex::default()).collect(),
        });
        let asked = &self.settings.listeners;
        let listening = Listening::new(asked, &self.addresses, self.tls.is_some());
        let dont_fragment = ip_options::can_set_dont_fragment();
        let wakers: Vec<_> = self.shards.iter().map(|(_, w, _)| Arc::clone(w)).collect();
        let streams = self.settings.streams.per_shard(self.settings.shards);
        let links = Links::connect(&wakers, streams.without_allocation);
        let crossings = Crossings::connect(&wakers);
        let hosts = self.settings.relayed_hosts.iter();
        let known = hosts.filter(|_| self.settings.short_cut);
        let directory = Arc::new(Directory::new(known.map(|host| host.local)));
        let mut set = ShardSet {
            control: Arc::clone(&control),
            listening: Mutex::new(listening),
            shards: Vec::with_capacity(wakers.len()),
        };
        let ways = links.into_iter().zip(crossings);
        let shards = self.shards.into_iter().zip(ways);
        for (index, ((poll, waker, listeners), ways)) in (0..=u8::MAX).zip(shards) {
            let published = Arc::new(Published::default());
            let parts = ShardParts {
                config: Config {
                    shard: ShardId(index),
                    shards: self.settings.shards,
                    relayed_hosts: self.settings.relayed_hosts.clone(),
                    rfc5766_channel_numbers: self.settings.rfc5766_channel_numbers,
                    dont_fragment,
                    trusted_sources: self.settings.trusted_sources.clone(),
                },
                seed: seed()?,
                poll,
                listeners,
                tls: self.tls.clone(),
                streams,
                control: Arc::clone(&control),
                ledger: Arc::clone(ledger),
                events: events.clone(),
                links: ways.0,
                crossings: ways.1,
                directory: Arc::clone(&directory),
                published: Arc::clone(&published),
                usage: self.usage.clone(),
            };
            // Entered once for the thread: a packet costs nothing more, and a log line tells whose shard it is.
            let span = Span::current();
            let thread = thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || {
                    let _guard = AbortOnPanic;
                    let _entered = span.entered();
                    Shard::new(parts).run();
                })?;
            set.shards.push(RunningShard {
                waker,
                published,
                thread: Some(thread),
            });
        }
        Ok(set)
    }
}

/// All shards of one relay, running. Dropping it stops them.
pub struct ShardSet {
    control: Arc<Control>,
    listening: Mutex<Listening>,
    shards: Vec<RunningShard>,
}

impl ShardSet {
    /// Opens every listener for every shard. The first failure is returned; nothing stays open then.
    pub fn bind(mut settings: ShardSettings) -> Result<Bound, BindError> {
        settings.shards = settings.shards.max(1);
        let tls = match &settings.tls {
            Some(certificate) => Some(TlsSettings::new(Arc::clone(certificate))?),
            None => None,
        };
        let needs_tls = settings.listeners.iter().find(|it| it.takes_tls());
        if let (Some(listener), None) = (needs_tls, &tls) {
            let listener = listener.clone();
            return Err(BindError::NoCertificate { listener });
        }
        let (opened, addresses) = listeners::open(&settings.listeners, settings.shards)?;
        let shards = opened.into_iter().map(prepare);
        Ok(Bound {
            settings,
            tls,
            addresses,
            shards: shards
                .collect::<io::Result<_>>()
                .map_err(BindError::EventQueue)?,
            told_time: Arc::default(),
            usage: None,
        })
    }

    /// Makes every shard apply the policy that stands in its [`ArcSwap`].
    pub fn notify_policy(&self) {
        self.wake();
    }

    /// Listens on what is `wanted` and on nothing else, without a word to clients of listeners that stay. Streams of a listener
    /// that goes live on, and so do allocations that were made by UDP there: it closes when none is left. Returns the listeners
    /// with their ports, in their order.
    ///
    /// # Errors
    /// With the first failure; nothing has changed then.
    pub fn listen(&self, wanted: &[Listener]) -> Result<Vec<Listener>, BindError> {
        let listening = self.listening.lock();
        let mut listening = listening.unwrap_or_else(PoisonError::into_inner);
        let shards = u8::try_from(self.shards.len()).unwrap_or(u8::MAX);
        let changes = listening.change(wanted, shards)?;
        for (inbox, changes) in self.control.changes.iter().zip(changes) {
            let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.extend(changes);
        }
        self.wake();
        Ok(listening.addresses())
    }

    /// Makes every shard give its allocations the shapers that the ledger has for them.
    pub fn notify_quotas(&self) {
        self.wake();
    }

    /// Refuses allocations from here on, or takes them again. Live ones go on.
    pub fn set_draining(&self, draining: bool) {
        self.control.draining.store(draining, Ordering::Relaxed);
        self.wake();
    }

    /// Replaces the servers that clients are sent to while this relay drains or has no capacity.
    pub fn set_alternates(&self, alternates: Arc<Alternates>) {
        self.control.alternates.store(alternates);
        self.wake();
    }

    /// Ends every allocation that lives; the shards go on.
    pub fn end_allocations(&self) {
        self.control.evictions.fetch_add(1, Ordering::Relaxed);
        self.wake();
    }

    /// Whether every shard has carried out [`Self::end_allocations`], and has told and counted every end. A count of live
    /// allocations does not say so: it may not have the latest yet, and falls before the ends are counted.
    #[must_use]
    pub fn has_ended_allocations(&self) -> bool {
        let ordered = self.control.evictions.load(Ordering::Relaxed);
        let mut shards = self.shards.iter();
        shards.all(|shard| shard.published.evictions() == ordered)
    }

    /// Says of every allocation that lives that it will be ended at the Unix second `deadline`; zero takes that back.
    pub fn set_evicting(&self, deadline: u64) {
        self.control.evicting.store(deadline, Ordering::Relaxed);
        self.wake();
    }

    /// Live allocations.
    #[must_use]
    pub fn allocations(&self) -> u64 {
        let live = self
            .shards
            .iter()
            .map(|shard| shard.published.allocations());
        live.sum()
    }

    /// What the cores have counted, at most a second old.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for shard in &self.shards {
            shard.published.add_counters(&mut sum);
        }
        sum
    }

    /// What the sockets have counted, at most a second old.
    #[must_use]
    pub fn driver_counters(&self) -> DriverCounters {
        let mut sum = DriverCounters::default();
        for shard in &self.shards {
            shard.published.add_driver_counters(&mut sum);
        }
        sum
    }

    /// Ends every allocation, closes every socket and waits for the threads.
    pub fn stop(mut self) {
        self.stop_and_join();
    }

    fn stop_and_join(&mut self) {
        self.control.stopping.store(true, Ordering::Relaxed);
        self.wake();
        for shard in &mut self.shards {
            if let Some(thread) = shard.thread.take() {
                // A shard that panicked has ended the process.
                let _ = thread.join();
            }
        }
    }

    fn wake(&self) {
        for shard in &self.shards {
            if let Err(error) = shard.waker.wake() {
                tracing::error!(%error, "cannot wake a shard");
            }
        }
    }
}

impl Drop for ShardSet {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

struct RunningShard {
    waker: Arc<Waker>,
    published: Arc<Published>,
    thread: Option<JoinHandle<()>>,
}

/// What the relay tells all of its shards; they look at it when woken.
pub(crate) struct Control {
    pub(crate) policy: Arc<ArcSwap<RelayPolicy>>,
    pub(crate) draining: AtomicBool,
    pub(crate) alternates: ArcSwap<Alternates>,
    /// How often every allocation was to be ended.
    pub(crate) evictions: AtomicU32,
    /// The Unix second at which every allocation will be ended; zero for none.
    pub(crate) evicting: AtomicU64,
    pub(crate) stopping: AtomicBool,
    pub(crate) told_time: Arc<ToldTime>,
    /// What each shard has to change of its listeners.
    changes: Vec<Mutex<Vec<Change>>>,
}

impl Control {
    fn changes_of(&self, shard: ShardId) -> Vec<Change> {
        let inbox = self.changes.get(usize::from(shard.0));
        inbox.map_or_else(Vec::new, |inbox| {
            std::mem::take(&mut inbox.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

/// Ends the process when its thread panics: half a relay would go on looking alive.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Makes the event queue of one shard and asks for events about its listeners.
fn prepare(listeners: ShardListeners) -> io::Result<(Poll, Arc<Waker>, ShardListeners)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), Source::Waker.token())?;
    listeners.register(poll.registry())?;
    Ok((poll, Arc::new(waker), listeners))
}

fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| io::Error::other("the system gave no randomness"))?;
    Ok(seed)
}

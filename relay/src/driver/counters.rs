//! What the sockets count, in plain memory of one shard.

/// What the drivers of a shard have counted since its start; what the core counts is in [`turnfleet_turn::Counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverCounters {
    /// Datagrams to clients that the kernel did not take: a full socket buffer, mostly.
    pub client_datagrams_refused: u64,
    /// Datagrams of strangers at a listener that the configuration has no more.
    pub client_datagrams_unserved: u64,
    /// Datagrams to peers that the kernel did not take.
    pub peer_datagrams_refused: u64,
    /// Payloads passed from one client to another of the same shard, instead of being sent.
    pub short_cuts: u64,
    /// Application data in them.
    pub short_cut_bytes: u64,
    /// Payloads that came from a client of another shard, instead of being received.
    pub crossings: u64,
    /// Application data in them.
    pub crossing_bytes: u64,
    /// Payloads for a client of another shard that were dropped, because too many waited for that.
    pub crossings_dropped: u64,
    /// Relayed sockets that failed for good.
    pub relayed_sockets_failed: u64,
    /// Relayed sockets that could not be opened for want of descriptors or memory.
    pub relayed_sockets_exhausted: u64,
    /// Redeemed reservations that could not be asked for, because too many were on their way.
    pub claims_refused: u64,
    /// Streams closed because too many were on their way to other shards.
    pub handovers_refused: u64,
    /// Streams accepted.
    pub streams_accepted: u64,
    /// How often accepting paused, of clients at a listener or of peers, for want of descriptors or memory.
    pub accept_pauses: u64,
    /// Streams closed because no allocation was made, or none was left, in time.
    pub streams_timed_out: u64,
    /// Streams closed because others needed their place among those without an allocation.
    pub streams_evicted: u64,
    /// Streams closed because their source had as many without an allocation as one may have.
    pub streams_crowded: u64,
    /// Streams closed because they carried something other than TURN, or too much of it before an allocation.
    pub streams_malformed: u64,
    /// Streams closed because the client did not even read the answers to its requests.
    pub streams_overflowed: u64,
    /// Streams closed because a balancer's network was required and they came from elsewhere.
    pub streams_untrusted: u64,
    /// Streams closed because they did not begin with a PROXY protocol header for TCP.
    pub proxy_headers_malformed: u64,
    /// Streams passed on to an HTTPS server.
    pub https_forwarded: u64,
    /// Streams for an HTTPS server that were closed because others needed their place.
    pub https_evicted: u64,
    /// Streams closed because their HTTPS server did not accept.
    pub https_unreachable: u64,
    /// TLS sessions that failed, most of them in the handshake.
    pub tls_failures: u64,
    /// Messages with data that were dropped whole because the client reads its stream too slowly.
    pub stream_data_dropped: u64,
    /// Lines on allocations and their peers that were not logged, because there were too many in one second.
    pub events_not_logged: u64,
}

impl DriverCounters {
    /// Adds the counts of another shard.
    pub fn add(&mut self, other: &Self) {
        // Taken apart so that a field without its sum does not compile.
        let Self {
            client_datagrams_refused,
            client_datagrams_unserved,
            peer_datagrams_refused,
            short_cuts,
            short_cut_bytes,
            crossings,
            crossing_bytes,
            crossings_dropped,
            relayed_sockets_failed,
            relayed_sockets_exhausted,
            claims_refused,
            handovers_refused,
            streams_accepted,
            accept_pauses,
            streams_timed_out,
            streams_evicted,
            streams_crowded,
            streams_malformed,
            streams_overflowed,
            streams_untrusted,
            proxy_headers_malformed,
            https_forwarded,
            https_evicted,
            https_unreachable,
            tls_failures,
            stream_data_dropped,
            events_not_logged,
        } = *other;
        self.client_datagrams_refused += client_datagrams_refused;
        self.client_datagrams_unserved += client_datagrams_unserved;
        self.peer_datagrams_refused += peer_datagrams_refused;
        self.short_cuts += short_cuts;
        self.short_cut_bytes += short_cut_bytes;
        self.crossings += crossings;
        self.crossing_bytes += crossing_bytes;
        self.crossings_dropped += crossings_dropped;
        self.relayed_sockets_failed += relayed_sockets_failed;
        self.relayed_sockets_exhausted += relayed_sockets_exhausted;
        self.claims_refused += claims_refused;
        self.handovers_refused += handovers_refused;
        self.streams_accepted += streams_accepted;
        self.accept_pauses += accept_pauses;
        self.streams_timed_out += streams_timed_out;
        self.streams_evicted += streams_evicted;
        self.streams_crowded += streams_crowded;
        self.streams_malformed += streams_malformed;
        self.streams_overflowed += streams_overflowed;
        self.streams_untrusted += streams_untrusted;
        self.proxy_headers_malformed += proxy_headers_malformed;
        self.https_forwarded += https_forwarded;
        self.https_evicted += https_evicted;
        self.https_unreachable += https_unreachable;
        self.tls_failures += tls_failures;
        self.stream_data_dropped += stream_data_dropped;
        self.events_not_logged += events_not_logged;
    }

    /// Counts a payload that another client of the same shard gets.
    pub(crate) fn count_short_cut(&mut self, bytes: usize) {
        self.short_cuts += 1;
        self.short_cut_bytes += bytes as u64;
    }

    /// Counts a payload that has come from another shard.
    pub(crate) fn count_crossing(&mut self, bytes: usize) {
        self.crossings += 1;
        self.crossing_bytes += bytes as u64;
    }
}

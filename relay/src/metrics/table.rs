//! The table of metrics.

use turnfleet_proto::spans::FIGURES;
use turnfleet_turn::bans::BanKind;
use turnfleet_turn::{
    CloseReason, DropReason, Limit, RedirectReason, Reject, RequestMethod, Transport,
};

use super::{Metric, MetricKind, MetricReference, Observed, Samples};
use crate::control::ControlState;

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Observed, &mut Samples),
) -> Metric {
    let kind = MetricKind::Counter;
    Metric {
        reference: MetricReference {
            name,
            kind,
            labels,
            help,
        },
        read,
    }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Observed, &mut Samples),
) -> Metric {
    let kind = MetricKind::Gauge;
    Metric {
        reference: MetricReference {
            name,
            kind,
            labels,
            help,
        },
        read,
    }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    read: fn(&Observed, &mut Samples),
) -> Metric {
    let kind = MetricKind::Histogram;
    Metric {
        reference: MetricReference {
            name,
            kind,
            labels: &[],
            help,
        },
        read,
    }
}

/// Every metric, in the order of the page.
pub(super) const METRICS: &[Metric] = &[
    // What clients hold.
    gauge(
        "turnfleet_relay_allocations",
        &[],
        "Allocations that live.",
        |now, out| out.plain(now.allocations),
    ),
    counter(
        "turnfleet_relay_allocations_opened_total",
        &[],
        "Allocations granted.",
        |now, out| out.plain(now.core.opened),
    ),
    counter(
        "turnfleet_relay_allocations_closed_total",
        &["reason"],
        "Allocations that ended, by reason.",
        |now, out| {
            for reason in CloseReason::ALL {
                out.add(&[reason.name()], now.core.closed(reason));
            }
        },
    ),
    counter(
        "turnfleet_relay_allocations_unused_total",
        &[],
        "Allocations that ended without a byte relayed either way.",
        |now, out| out.plain(now.core.unused),
    ),
    histogram(
        "turnfleet_relay_allocation_duration_seconds",
        "From an Allocate request with a good credential to its success.",
        |now, out| out.durations(&now.core.allocating),
    ),
    gauge(
        "turnfleet_relay_users",
        &[],
        "Users with at least one allocation.",
        |now, out| out.plain(now.usage.users),
    ),
    gauge(
        "turnfleet_relay_permissions",
        &[],
        "Permissions that live.",
        |now, out| out.plain(now.core.permissions),
    ),
    gauge(
        "turnfleet_relay_channels",
        &[],
        "Channel bindings that live.",
        |now, out| out.plain(now.core.channels),
    ),
    gauge(
        "turnfleet_relay_peer_connections",
        &[],
        "Connections of TCP allocations to peers (RFC 6062) that are open or being opened.",
        |now, out| out.plain(now.core.connections),
    ),
    gauge(
        "turnfleet_relay_reservations",
        &[],
        "Ports held for a RESERVATION-TOKEN.",
        |now, out| out.plain(now.core.reservations),
    ),
    // Requests and data.
    counter(
        "turnfleet_relay_requests_total",
        &["method"],
        "Requests, retransmissions included, by method.",
        |now, out| {
            for method in RequestMethod::ALL {
                out.add(&[method.name()], now.core.requests(method));
            }
        },
    ),
    counter(
        "turnfleet_relay_requests_refused_total",
        &["method", "code"],
        "Requests that got an error, by method and STUN error code; 401 counts the challenge that begins every allocation, too.",
        |now, out| {
            for method in RequestMethod::ALL {
                for reject in Reject::ALL {
                    let code = reject.code().to_string();
                    out.add(&[method.name(), &code], now.core.rejects(method, reject));
                }
            }
        },
    ),
    counter(
        "turnfleet_relay_redirects_total",
        &["reason"],
        "Allocate requests that were answered with 300 and the address of another relay, by reason.",
        |now, out| {
            for reason in RedirectReason::ALL {
                out.add(&[reason.name()], now.core.redirects(reason));
            }
        },
    ),
    counter(
        "turnfleet_relay_data_bytes_total",
        &["direction", "transport"],
        "Application data relayed, without any header, by direction and by the client's transport.",
        |now, out| {
            for transport in Transport::ALL {
                let name = transport.name();
                out.add(&["to_peer", name], now.core.to_peers(transport).bytes);
                out.add(&["to_client", name], now.core.to_clients(transport).bytes);
            }
        },
    ),
    counter(
        "turnfleet_relay_data_packets_total",
        &["direction", "transport"],
        "Packets of application data relayed, by direction and by the client's transport.",
        |now, out| {
            for transport in Transport::ALL {
                let name = transport.name();
                out.add(&["to_peer", name], now.core.to_peers(transport).packets);
                out.add(&["to_client", name], now.core.to_clients(transport).packets);
            }
        },
    ),
    counter(
        "turnfleet_relay_packets_dropped_total",
        &["reason"],
        "Packets dropped without an answer, by reason.",
        |now, out| {
            for reason in DropReason::ALL {
                out.add(&[reason.name()], now.core.drops(reason));
            }
        },
    ),
    counter(
        "turnfleet_relay_icmp_indications_total",
        &[],
        "ICMP messages about datagrams to peers that clients were told of.",
        |now, out| out.plain(now.core.icmp_indications),
    ),
    counter(
        "turnfleet_relay_limits_reached_total",
        &["limit"],
        "How often a bound was reached, by bound.",
        |now, out| {
            for limit in Limit::ALL {
                out.add(&[limit.name()], now.core.limits(limit));
            }
        },
    ),
    counter(
        "turnfleet_relay_requests_banned_total",
        &["ban"],
        "Requests refused because of a ban, by what is banned; a suspended tenant counts as a banned one.",
        |now, out| {
            for kind in BanKind::ALL {
                out.add(&[kind.name()], now.core.bans(kind));
            }
        },
    ),
    // Ports.
    gauge(
        "turnfleet_relay_ports_granted",
        &[],
        "Relayed ports that the controller has granted, over all addresses.",
        |now, out| out.plain(now.usage.ports_granted),
    ),
    gauge(
        "turnfleet_relay_ports_used",
        &[],
        "Relayed ports in use or held in reserve.",
        |now, out| out.plain(now.usage.ports_used),
    ),
    counter(
        "turnfleet_relay_ports_reused_at_once_total",
        &[],
        "Ports that went out again within a minute of their last use, because few were free.",
        |now, out| out.plain(now.usage.ports_reused_at_once),
    ),
    counter(
        "turnfleet_relay_ports_unavailable_total",
        &[],
        "Ports drawn that another process of the machine held.",
        |now, out| out.plain(now.usage.ports_unavailable),
    ),
    // Sockets and streams.
    counter(
        "turnfleet_relay_datagrams_refused_total",
        &["direction"],
        "Datagrams that the kernel did not take, mostly for a full socket buffer, by direction.",
        |now, out| {
            out.add(&["to_client"], now.drivers.client_datagrams_refused);
            out.add(&["to_peer"], now.drivers.peer_datagrams_refused);
        },
    ),
    counter(
        "turnfleet_relay_datagrams_unserved_total",
        &[],
        "Datagrams of clients without an allocation, at a UDP listener that was taken out of the configuration.",
        |now, out| out.plain(now.drivers.client_datagrams_unserved),
    ),
    counter(
        "turnfleet_relay_short_cut_packets_total",
        &["shard"],
        "Packets of data passed from one client of this relay to another without a trip through the kernel, by whether both have the same shard.",
        |now, out| {
            out.add(&["same"], now.drivers.short_cuts);
            out.add(&["other"], now.drivers.crossings);
        },
    ),
    counter(
        "turnfleet_relay_short_cut_bytes_total",
        &["shard"],
        "Application data in those packets.",
        |now, out| {
            out.add(&["same"], now.drivers.short_cut_bytes);
            out.add(&["other"], now.drivers.crossing_bytes);
        },
    ),
    counter(
        "turnfleet_relay_short_cut_dropped_total",
        &[],
        "Packets of data dropped on their way from one shard to another, because too many waited.",
        |now, out| out.plain(now.drivers.crossings_dropped),
    ),
    counter(
        "turnfleet_relay_relayed_sockets_failed_total",
        &[],
        "Relayed sockets that failed for good; each ended its allocation.",
        |now, out| out.plain(now.drivers.relayed_sockets_failed),
    ),
    counter(
        "turnfleet_relay_relayed_sockets_exhausted_total",
        &[],
        "Relayed sockets that could not be opened for want of file descriptors or memory.",
        |now, out| out.plain(now.drivers.relayed_sockets_exhausted),
    ),
    counter(
        "turnfleet_relay_claims_refused_total",
        &[],
        "Reservations of another shard that could not be asked for, because too many requests were on their way.",
        |now, out| out.plain(now.drivers.claims_refused),
    ),
    counter(
        "turnfleet_relay_handovers_refused_total",
        &[],
        "Connections closed because too many were on their way from one shard to another.",
        |now, out| out.plain(now.drivers.handovers_refused),
    ),
    counter(
        "turnfleet_relay_streams_accepted_total",
        &[],
        "TCP and TLS connections accepted.",
        |now, out| out.plain(now.drivers.streams_accepted),
    ),
    counter(
        "turnfleet_relay_streams_closed_total",
        &["reason"],
        "Connections that the relay closed, by reason.",
        |now, out| {
            out.add(&["timed_out"], now.drivers.streams_timed_out);
            out.add(&["evicted"], now.drivers.streams_evicted);
            out.add(&["crowded"], now.drivers.streams_crowded);
            out.add(&["malformed"], now.drivers.streams_malformed);
            out.add(&["overflowed"], now.drivers.streams_overflowed);
            out.add(&["untrusted"], now.drivers.streams_untrusted);
            out.add(&["proxy_header"], now.drivers.proxy_headers_malformed);
        },
    ),
    counter(
        "turnfleet_relay_https_connections_total",
        &["outcome"],
        "Connections for the HTTPS server behind a listener: passed on, evicted because others needed their \
         place, or closed because the server did not accept them.",
        |now, out| {
            out.add(&["forwarded"], now.drivers.https_forwarded);
            out.add(&["evicted"], now.drivers.https_evicted);
            out.add(&["unreachable"], now.drivers.https_unreachable);
        },
    ),
    counter(
        "turnfleet_relay_accept_pauses_total",
        &[],
        "How often accepting connections paused for want of file descriptors or memory.",
        |now, out| out.plain(now.drivers.accept_pauses),
    ),
    counter(
        "turnfleet_relay_stream_data_dropped_total",
        &[],
        "Messages with data that were dropped because a client reads its stream too slowly.",
        |now, out| out.plain(now.drivers.stream_data_dropped),
    ),
    counter(
        "turnfleet_relay_tls_failures_total",
        &[],
        "TLS sessions that failed, most of them in the handshake.",
        |now, out| out.plain(now.drivers.tls_failures),
    ),
    counter(
        "turnfleet_relay_certificate_changes_total",
        &["outcome"],
        "Changes of the certificate files that were taken over, or that could not be used.",
        |now, out| {
            let counts = now.certificate.unwrap_or_default();
            out.add(&["replaced"], counts.replaced);
            out.add(&["rejected"], counts.rejected);
        },
    ),
    gauge(
        "turnfleet_relay_certificate_expiry_timestamp_seconds",
        &[],
        "When the certificate of the TLS listeners ends, in seconds since 1970; 0 where there is none.",
        |now, out| out.plain(now.certificate.unwrap_or_default().not_after),
    ),
    counter(
        "turnfleet_relay_challenges_crowded_total",
        &["reason"],
        "What challenges of a certificate authority had no room for, because there were too many: answers, or connections that gave way to later ones.",
        |now, out| {
            let counts = now.certificate.unwrap_or_default();
            out.add(&["answers"], counts.answers_left_out);
            out.add(&["connections"], counts.evicted);
        },
    ),
    counter(
        "turnfleet_relay_reloads_total",
        &["outcome"],
        "Configurations that were read again while the node ran, and taken over or refused.",
        |now, out| {
            out.add(&["good"], now.reloads.0);
            out.add(&["refused"], now.reloads.1);
        },
    ),
    counter(
        "turnfleet_relay_usage_unnamed_total",
        &[],
        "Users and networks that were counted without their names, because a shard had seen too many within a second.",
        |now, out| out.plain(now.usage_unnamed),
    ),
    counter(
        "turnfleet_relay_events_not_logged_total",
        &[],
        "Lines on allocations and their peers that were left out of the log, because there were too many in one second.",
        |now, out| out.plain(now.drivers.events_not_logged),
    ),
    counter(
        "turnfleet_relay_events_taken_total",
        &[],
        "Events of allocations that a controller has taken.",
        |now, out| out.plain(now.events.taken),
    ),
    gauge(
        "turnfleet_relay_events_waiting",
        &[],
        "Events of allocations that no controller has taken yet.",
        |now, out| out.plain(now.events.waiting),
    ),
    counter(
        "turnfleet_relay_events_lost_total",
        &["reason"],
        "Events of allocations that no controller hears of: for want of room or speed, or refusals beyond the rate at which they are told.",
        |now, out| {
            out.add(&["room"], now.events.lost_room);
            out.add(&["speed"], now.events.lost_speed);
            out.add(&["rate"], now.events.lost_rate);
        },
    ),
    // Policy and control session.
    gauge(
        "turnfleet_relay_ready",
        &[],
        "1 when a policy is applied and the node is not draining.",
        |now, out| out.plain(now.ready),
    ),
    gauge(
        "turnfleet_relay_draining",
        &[],
        "1 when allocations are refused because the node is about to leave.",
        |now, out| out.plain(now.draining),
    ),
    gauge(
        "turnfleet_relay_alternates",
        &[],
        "Other relays, counted by transport, that clients are sent to while this one drains or is full; 0 without a word of the controller.",
        |now, out| out.plain(u64::try_from(now.alternates).unwrap_or(u64::MAX)),
    ),
    gauge(
        "turnfleet_relay_policy_generation",
        &[],
        "The generation of the running policy snapshot; 0 for none.",
        |now, out| out.plain(now.generation),
    ),
    counter(
        "turnfleet_relay_policy_snapshots_total",
        &["outcome"],
        "Policy snapshots from the controller that were applied or refused.",
        |now, out| {
            out.add(&["applied"], now.control_counts.applied);
            out.add(&["refused"], now.control_counts.refused);
        },
    ),
    gauge(
        "turnfleet_relay_control_state",
        &["state"],
        "1 for the state that the control session is in.",
        |now, out| {
            for state in ControlState::ALL {
                out.add(&[state.name()], state == now.control);
            }
        },
    ),
    counter(
        "turnfleet_relay_control_sessions_total",
        &[],
        "Control sessions that were open.",
        |now, out| out.plain(now.control_counts.sessions),
    ),
    counter(
        "turnfleet_relay_control_failures_total",
        &[],
        "Control sessions that ended unasked, and attempts that came to nothing.",
        |now, out| out.plain(now.control_counts.failures),
    ),
    gauge(
        "turnfleet_relay_journal_bytes",
        &[],
        "Size of the journal of allocations.",
        |now, out| out.plain(now.journal.bytes),
    ),
    gauge(
        "turnfleet_relay_journal_covers_since_seconds",
        &[],
        "The earliest moment that the journal of allocations tells of, in seconds since 1970; 0 where there is none.",
        |now, out| out.plain(now.journal.covers_since),
    ),
    counter(
        "turnfleet_relay_journal_segments_dropped_total",
        &[],
        "Files of the journal that were dropped before their age, because it had reached its size (journal.max_megabytes).",
        |now, out| out.plain(now.journal.dropped),
    ),
    counter(
        "turnfleet_relay_journal_events_lost_total",
        &[],
        "Beginnings and ends of allocations that are not in the journal, because they came too fast or the disk refused.",
        |now, out| out.plain(now.journal.lost),
    ),
    counter(
        "turnfleet_relay_journal_failures_total",
        &[],
        "Times that the disk refused to take a part of the journal.",
        |now, out| out.plain(now.journal.failures),
    ),
    counter(
        "turnfleet_relay_spans_total",
        &["outcome"],
        "Spans for a trace: exported to the collector, lost because too many waited for it, or refused by it; of the whole process.",
        |_, out| {
            for (outcome, count) in FIGURES.outcomes() {
                out.add(&[outcome], count);
            }
        },
    ),
    // The process; relays that share one each show the whole.
    gauge(
        "turnfleet_relay_file_descriptors_used",
        &[],
        "Open file descriptors of the process.",
        |now, out| out.plain(now.process.file_descriptors),
    ),
    gauge(
        "turnfleet_relay_file_descriptors_limit",
        &[],
        "File descriptors that the process may open.",
        |now, out| out.plain(now.descriptor_limit),
    ),
    gauge(
        "turnfleet_relay_resident_memory_bytes",
        &[],
        "Resident memory of the process.",
        |now, out| out.plain(now.process.resident_bytes),
    ),
    counter(
        "turnfleet_relay_cpu_seconds_total",
        &[],
        "Processor time of the process, user and system.",
        |now, out| out.plain(now.process.cpu_seconds),
    ),
    gauge(
        "turnfleet_relay_build_info",
        &["version"],
        "Always 1; the label is the version of the program.",
        |_, out| out.add(&[env!("CARGO_PKG_VERSION")], true),
    ),
];

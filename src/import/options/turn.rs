//! How coturn speaks STUN and TURN.

use super::Takes::{Nothing, Perhaps, Text};
use super::{CoturnOption, default, none, option};
use crate::import::rules::limits as rule;

const LEAN: &str = "Answers to Binding carry XOR-MAPPED-ADDRESS alone.";

pub(super) const OPTIONS: &[CoturnOption] = &[
    default(
        "fingerprint",
        &["f"],
        Nothing,
        "A request with FINGERPRINT is answered with one, as RFC 8489 has it.",
    ),
    option(
        "stale-nonce",
        &[],
        Perhaps,
        "60 to 3600 seconds. 0, which is for ever, has no equivalent.",
    )
    .becomes(&["relay.nonce_lifetime_seconds"], rule::stale_nonce),
    option("max-allocate-lifetime", &[], Text, "600 seconds at least.").becomes(
        &["controller.limits.max_lifetime_seconds"],
        rule::max_allocate_lifetime,
    ),
    option(
        "max-allocate-timeout",
        &[],
        Text,
        "For clients on TCP and TLS, 300 seconds at most; those on UDP hold nothing \
         before they have an allocation.",
    )
    .becomes(
        &["relay.stream.unauthenticated_seconds"],
        rule::max_allocate_timeout,
    ),
    default(
        "channel-lifetime",
        &[],
        Text,
        "600 seconds, as RFC 8656 has it; another value has no equivalent.",
    )
    .by(rule::channel_lifetime),
    default(
        "permission-lifetime",
        &[],
        Text,
        "300 seconds, as RFC 8656 has it; another value has no equivalent.",
    )
    .by(rule::permission_lifetime),
    none(
        "stun-only",
        &["S"],
        Nothing,
        "A relay relays; a STUN server needs no fleet.",
    ),
    none(
        "no-stun",
        &[],
        Nothing,
        "Binding is always answered: the probes that find a relay healthy begin with it.",
    ),
    default(
        "no-software-attribute",
        &["prod"],
        Nothing,
        "SOFTWARE is told to clients that have shown a good credential, and to nobody \
         else.",
    ),
    none(
        "software-attribute",
        &[],
        Nothing,
        "SOFTWARE is told to clients that have shown a good credential, and to nobody \
         else.",
    ),
    default(
        "no-rfc5780",
        &[],
        Nothing,
        "NAT behaviour discovery is not offered.",
    )
    .always_on(),
    none(
        "rfc5780",
        &[],
        Nothing,
        "NAT behaviour discovery is not offered.",
    ),
    default("no-stun-backward-compatibility", &[], Nothing, LEAN),
    none("stun-backward-compatibility", &[], Nothing, LEAN),
    default(
        "response-origin-only-with-rfc5780",
        &[],
        Nothing,
        "RESPONSE-ORIGIN is never sent.",
    ),
    none(
        "include-reason-string",
        &[],
        Nothing,
        "Reason phrases are those of the RFCs; a refusal's cause is in the relay's log \
         and metrics.",
    ),
    none(
        "respond-http-unsupported",
        &[],
        Nothing,
        "A connection that does not speak TURN is closed. With `https_backend` a listener \
         shares its port with a website.",
    ),
];

//! Who may use coturn, how much, and which peers clients reach.

use super::Takes::{Nothing, Perhaps, Secret, Text};
use super::{CoturnOption, default, none, option, unneeded};
use crate::import::rules::{access as rule, limits, peers};

const QUOTAS: &[&str] = &["controller.tenants"];
const DATABASE: &str = "Users and secrets in a database are not imported: what is in `turn_secret` goes \
         into a file for `controller.shared_secret_file`, and users with a password are \
         `user`.";
const NO_DATABASE: &str = "There is no database of users to ask.";

pub(super) const OPTIONS: &[CoturnOption] = &[
    default(
        "use-auth-secret",
        &[],
        Nothing,
        "Ephemeral credentials of a shared secret are always accepted.",
    )
    .by(rule::use_auth_secret)
    .always_on(),
    option(
        "static-auth-secret",
        &[],
        Secret,
        "The secret goes into a file that only its owner reads. Further ones get files of \
         their own, for `turnfleet fleet secrets pin`.",
    )
    .becomes(&["controller.shared_secret_file"], rule::static_auth_secret)
    .repeated(),
    default(
        "rest-api-separator",
        &["C"],
        Text,
        "The colon; another one has no equivalent.",
    )
    .by(rule::separator),
    unneeded(
        "secret-ts-exp-time",
        &[],
        Text,
        "Coturn itself takes no notice of it.",
    ),
    default(
        "lt-cred-mech",
        &["a"],
        Nothing,
        "Every client authenticates by the long-term mechanism.",
    ),
    none(
        "no-auth",
        &["z"],
        Nothing,
        "Nobody is served without a credential: an open relay is everybody's proxy.",
    ),
    option(
        "user",
        &["u"],
        Secret,
        "Name and password. The key of a password (`0x…`) has no equivalent, since \
         clients that ask for SHA-256 need another key. Beside `use-auth-secret` or \
         `static-auth-secret` coturn takes no users, and they are not translated.",
    )
    .becomes(&["user"], rule::user)
    .repeated(),
    option(
        "realm",
        &["r"],
        Text,
        "As it stands. Without it coturn takes the machine's domain, and this fleet \
         `turnfleet.local`.",
    )
    .becomes(&["realm"], rule::realm),
    none("server-name", &[], Text, "It is for `oauth`."),
    none(
        "oauth",
        &[],
        Nothing,
        "Third-party authorization (RFC 7635) is not offered; no browser uses it.",
    ),
    none(
        "check-origin-consistency",
        &[],
        Nothing,
        "ORIGIN never became a standard, and browsers do not send it.",
    ),
    none(
        "secure-stun",
        &[],
        Nothing,
        "Binding is answered without a credential; answers to strangers are small, and \
         budgeted.",
    ),
    none("userdb", &["b", "db"], Text, DATABASE),
    none("psql-userdb", &["e", "sql-userdb"], Secret, DATABASE),
    none("mysql-userdb", &["M"], Secret, DATABASE),
    none("mongo-userdb", &["J"], Secret, DATABASE),
    none("redis-userdb", &["N"], Secret, DATABASE),
    none(
        "redis-statsdb",
        &["O"],
        Secret,
        "Allocations are events of the controller's API and of webhooks; traffic is in \
         `/metrics` and `turnfleet fleet usage`.",
    ),
    none(
        "secret-key-file",
        &[],
        Text,
        "It opens the password of `mysql-userdb`.",
    ),
    unneeded("no-auth-pings", &[], Nothing, NO_DATABASE),
    unneeded("no-dynamic-ip-list", &[], Nothing, NO_DATABASE),
    unneeded("no-dynamic-realms", &[], Nothing, NO_DATABASE),
    option(
        "user-quota",
        &["q"],
        Text,
        "Allocations of one user. 0, which is no bound, has no equivalent: a user has 100 \
         by default.",
    )
    .becomes(
        &["controller.limits.allocations_per_user"],
        limits::user_quota,
    ),
    option(
        "total-quota",
        &["Q"],
        Text,
        "0, as many as there can be, is the default.",
    )
    .becomes(&["relay.limits.allocations"], limits::total_quota),
    option(
        "max-bps",
        &["s"],
        Text,
        "Bytes become bits, and the bound is one user's, over all of its allocations. 0 \
         is the default.",
    )
    .becomes(QUOTAS, limits::max_bps),
    option(
        "bps-capacity",
        &["B"],
        Text,
        "Bytes become bits, in each direction. 0 is the default.",
    )
    .becomes(QUOTAS, limits::bps_capacity),
    option(
        "allowed-peer-ip",
        &[],
        Text,
        "What the default filter refuses, or `denied-peer-ip` holds. What nothing opens \
         here, such as metadata services, stays closed.",
    )
    .becomes(&["allow-peer"], peers::allowed)
    .repeated(),
    option(
        "denied-peer-ip",
        &[],
        Text,
        "What the default filter does not refuse already.",
    )
    .becomes(&["controller.peers.deny"], peers::denied)
    .repeated(),
    option(
        "allow-loopback-peers",
        &[],
        Nothing,
        "For tests only, here as there.",
    )
    .becomes(&["danger-allow-loopback-peers"], peers::allow_loopback),
    default(
        "no-loopback-peers",
        &[],
        Nothing,
        "Loopback addresses are refused.",
    ),
    default(
        "no-multicast-peers",
        &[],
        Nothing,
        "Multicast and broadcast addresses are refused.",
    ),
    none(
        "web-admin",
        &[],
        Nothing,
        "The controller has a dashboard and an API of its own (`http`), which know tokens \
         and no passwords.",
    ),
    unneeded(
        "web-admin-ip",
        &[],
        Text,
        "The dashboard listens where `http` says.",
    ),
    unneeded(
        "web-admin-port",
        &[],
        Text,
        "The dashboard listens where `http` says.",
    ),
    unneeded(
        "web-admin-listen-on-workers",
        &[],
        Perhaps,
        "The dashboard never shares a port with TURN.",
    ),
];

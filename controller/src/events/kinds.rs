//! Every kind of event, defined once: the type that is published, its fields, the log line and the reference of the docs are
//! made of this table.

use super::event::{Field, Place, Tells, Username, Value};

/// A kind of event, as the reference shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindReference {
    /// Its name.
    pub name: &'static str,
    /// When it is told.
    pub text: String,
    /// What it tells beside what every event does.
    pub fields: Vec<FieldReference>,
}

/// A field of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldReference {
    /// Its name.
    pub name: &'static str,
    /// `text`, `number`, `flag`, `texts`, `user` or `address`; with `?` where it may be missing.
    pub form: &'static str,
    /// What it means.
    pub text: String,
}

/// How the table names the forms of fields.
trait Form {
    const NAME: &'static str;
}

macro_rules! forms {
    ($($type:ty = $name:literal,)*) => {
        $(impl Form for $type {
            const NAME: &'static str = $name;
        })*
    };
}

forms! {
    String = "text",
    u64 = "number",
    bool = "flag",
    Vec<String> = "texts",
    Username = "user",
    Place = "address",
    Option<String> = "text?",
    Option<u64> = "number?",
    Option<Username> = "user?",
    Option<Place> = "address?",
}

macro_rules! kinds {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident = $text:literal {
            $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty,)*
        }
    )*) => {
        /// What happened.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum What {
            $(
                $(#[doc = $doc])+
                $name {
                    $($(#[doc = $field_doc])+ $field: $type,)*
                },
            )*
        }

        /// The names of all kinds.
        pub(crate) const KINDS: &[&str] = &[$($text),*];

        /// What a reader may ask for: a kind, or the beginning of several.
        pub(crate) const NAMED: &[&str] = &[
            "allocation", "node", "secret", "quota", "abuse", "ban", "tenant", "certificate", "events", $($text),*
        ];

        impl What {
            /// The name of its kind.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => $text,)*
                }
            }

            /// What it tells.
            #[must_use]
            pub fn fields(&self) -> Vec<Field> {
                let told: Vec<(&'static str, Option<Value>)> = match self {
                    $(Self::$name { $($field,)* } => vec![$((stringify!($field), $field.value()),)*],)*
                };
                told.into_iter()
                    .filter_map(|(name, value)| Some(Field { name: name.into(), value: value? }))
                    .collect()
            }
        }

        /// Every kind, in the order of the docs.
        #[must_use]
        pub fn kind_reference() -> Vec<KindReference> {
            vec![$(KindReference {
                name: $text,
                text: [$($doc),+].concat().trim().to_owned(),
                fields: vec![$(FieldReference {
                    name: stringify!($field),
                    form: <$type as Form>::NAME,
                    text: [$($field_doc),+].concat().trim().to_owned(),
                },)*],
            },)*]
        }

        /// Writes the line of an event that this controller tells first, with the fields of the event.
        pub(super) fn log(event: &super::Event) {
            let field = |name: &str| event.field(name).map(ToString::to_string);
            let node = event.node.as_deref();
            let tenant = event.tenant.as_deref();
            let id = event.id.to_string();
            match &*event.kind {
                $($text => tracing::info!(
                    target: "turnfleet::event", id, node, tenant, $($field = field(stringify!($field)),)* $text
                ),)*
                _ => {}
            }
        }
    };
}

/// The table with the kinds of abuse between the others: their fields are written once for all of them.
macro_rules! kinds_with_abuse {
    (
        { $($before:tt)* }
        $fields:tt
        { $($(#[doc = $doc:tt])+ $name:ident = $text:tt;)* }
        { $($after:tt)* }
    ) => {
        kinds! {
            $($before)*
            $($(#[doc = $doc])+ $name = $text $fields)*
            $($after)*
        }
    };
}

kinds_with_abuse! {
    {
        /// An allocation was granted.
        AllocationOpened = "allocation.opened" {
            /// The shard of the relay that has it.
            shard: u64,
            /// Its number: unique in the shard while the relay's process lives.
            allocation: u64,
            /// How its client comes: `udp`, `tcp` or `tls`.
            transport: String,
            /// The client's address.
            client: Place,
            /// The address that the client came to.
            server: String,
            /// The USERNAME.
            username: Username,
            /// `udp`, or `tcp` (RFC 6062).
            relayed_transport: String,
            /// The relayed transport addresses, one or two.
            relayed: Vec<String>,
        }
        /// An allocation ended.
        AllocationClosed = "allocation.closed" {
            /// As in `allocation.opened`.
            shard: u64,
            /// As in `allocation.opened`.
            allocation: u64,
            /// As in `allocation.opened`.
            transport: String,
            /// As in `allocation.opened`.
            client: Place,
            /// As in `allocation.opened`.
            server: String,
            /// As in `allocation.opened`.
            username: Username,
            /// Why: `refreshed`, `expired`, `client_gone`, `socket_failed`, `shutdown`, `revoked`, or another label of the metric `turnfleet_relay_allocations_closed_total`.
            reason: String,
            /// How long it lived.
            seconds: u64,
            /// Application bytes from the client to its peers.
            bytes_to_peers: u64,
            /// Application bytes from peers to the client.
            bytes_to_client: u64,
        }
        /// An allocation lives, and will be ended at the deadline, because its relay is being emptied: its application has until then to restart ICE. Told again where the deadline changes.
        AllocationEvicting = "allocation.evicting" {
            /// As in `allocation.opened`.
            shard: u64,
            /// As in `allocation.opened`.
            allocation: u64,
            /// As in `allocation.opened`.
            transport: String,
            /// As in `allocation.opened`.
            client: Place,
            /// As in `allocation.opened`.
            server: String,
            /// As in `allocation.opened`.
            username: Username,
            /// When it will be ended, in Unix seconds.
            deadline: u64,
        }
        /// An Allocate request was refused after authentication, or for want of it where it had credentials. Of one shard at most 20 a second are told.
        AllocationRefused = "allocation.refused" {
            /// As in `allocation.opened`.
            shard: u64,
            /// As in `allocation.opened`.
            transport: String,
            /// As in `allocation.opened`.
            client: Place,
            /// As in `allocation.opened`.
            server: String,
            /// The USERNAME of the request, where it had one.
            username: Option<Username>,
            /// The STUN error code.
            code: u64,
        }
        /// A node has come for the first time, or as another process.
        NodeJoined = "node.joined" {
            /// Its region.
            region: String,
            /// What tells its process from others: the ids of its events have the same eight digits.
            incarnation: String,
        }
        /// A node is in nobody's list any more, because it does not answer, or has left.
        NodeLost = "node.lost" {
            /// How it stands: `unhealthy` or `gone`.
            health: String,
            /// Allocations that it had when it was heard last.
            allocations: u64,
        }
        /// A node that was lost answers again.
        NodeBack = "node.back" {
            /// How it stands.
            health: String,
        }
        /// A node is being emptied: it takes no more allocations.
        NodeDraining = "node.draining" {
            /// Allocations that it had when it was heard last.
            allocations: u64,
        }
        /// A node that is being emptied has no allocation left.
        NodeDrained = "node.drained" {}
        /// A node takes allocations again.
        NodeUndrained = "node.undrained" {}
        /// A node refused a policy, and goes on with what it ran.
        NodePolicyRefused = "node.policy_refused" {
            /// Its words.
            reason: String,
            /// The generation that it runs.
            running_generation: u64,
        }
        /// A shared secret is there that credentials are not minted with yet.
        SecretRotated = "secret.rotated" {
            /// The generation.
            secret: u64,
            /// Whose relays accept it: `fleet`, `region:NAME` or `tenant:NAME`.
            scope: String,
        }
        /// Credentials are minted with a shared secret.
        SecretPromoted = "secret.promoted" {
            /// The generation.
            secret: u64,
            /// As in `secret.rotated`.
            scope: String,
        }
        /// A shared secret is accepted until it is unpinned.
        SecretPinned = "secret.pinned" {
            /// The generation.
            secret: u64,
            /// As in `secret.rotated`.
            scope: String,
        }
        /// No credential is minted with a shared secret any more; relays accept those that there are.
        SecretRetiring = "secret.retiring" {
            /// The generation.
            secret: u64,
            /// As in `secret.rotated`.
            scope: String,
        }
        /// Relays refuse a shared secret, by an operator's word.
        SecretRevoked = "secret.revoked" {
            /// The generation.
            secret: u64,
            /// As in `secret.rotated`.
            scope: String,
        }
        /// A user or a tenant has come to the end of what it may use. Told again when it has kept within it for a minute.
        QuotaExceeded = "quota.exceeded" {
            /// Which one, as the quotas of tenants are called: `allocations`, `allocations_per_user`, `bits_per_second`, `user_bits_per_second`, `bytes_per_day`, `user_bytes_per_day` or `credentials_per_minute`.
            quota: String,
            /// Its size.
            limit: u64,
            /// The user, where it is a user's: as in a USERNAME, without the time.
            username: Option<Username>,
        }
    }
    // Every rule of abuse tells the same.
    {
        /// What the rule is wanted to do: `observe`, `throttle` or `ban`.
        verdict: String,
        /// What it does, or would do: such as `ban source 192.0.2.0/24 for 1h`, or `nothing:` with the reason. Without whom under privacy.
        would: String,
        /// The user, where it is about one.
        username: Option<Username>,
        /// The network, where it is about one.
        client: Option<Place>,
        /// What was counted within the window of the rule.
        count: u64,
        /// What was seen.
        detail: String,
    }
    {
        /// Too many requests with bad credentials come from one network of clients. At most once a minute for each.
        AbuseAuthenticationFailures = "abuse.authentication_failures";
        /// Too many requests with bad credentials name one user, whoever sends them. At most once a minute for each.
        AbuseFailuresOfUser = "abuse.failures_of_user";
        /// Nobody answers the challenges that relays send to a network: requests come in the name of its addresses. At most once a minute for each.
        AbuseUnansweredChallenges = "abuse.unanswered_challenges";
        /// A user asks for too many peers that do not answer as those of a call do. At most once a minute for each.
        AbusePeerFanOut = "abuse.peer_fan_out";
        /// A user asks for too many ports of few peers that do not answer. At most once a minute for each.
        AbusePortScan = "abuse.port_scan";
        /// A user comes from too many addresses. At most once a minute for each.
        AbuseSharedCredential = "abuse.shared_credential";
        /// Too many users of one network of clients have as many allocations as one may have. At most once a minute for each.
        AbuseQuotaEvasion = "abuse.quota_evasion";
        /// A user opens too many allocations. At most once a minute for each.
        AbuseReconnectLoop = "abuse.reconnect_loop";
        /// A user asks for too many peers that the policy refuses. At most once a minute for each.
        AbuseDeniedPeers = "abuse.denied_peers";
    }
    {
        /// Somebody is let in no more, or nothing goes to a peer.
        BanPlaced = "ban.placed" {
            /// Its id.
            ban: String,
            /// `user`, `tenant`, `source` or `peer`.
            whom: String,
            /// The user, for one of a user.
            username: Option<Username>,
            /// The network, for one of a source.
            client: Option<Place>,
            /// The network, for one of a peer.
            peer: Option<String>,
            /// Why.
            reason: String,
            /// Who or which rule.
            by: String,
            /// Unix seconds of its end; missing where it has none.
            until: Option<u64>,
        }
        /// A ban ended, or was taken back.
        BanLifted = "ban.lifted" {
            /// Its id.
            ban: String,
            /// `user`, `tenant`, `source` or `peer`.
            whom: String,
            /// Whether its time was over; otherwise somebody took it back, and the audit log says who.
            ended: bool,
        }
        /// A tenant was made or changed; the audit log says by whom.
        TenantChanged = "tenant.changed" {
            /// Whether none of its users is let in.
            suspended: bool,
        }
        /// A tenant was removed; the audit log says by whom.
        TenantRemoved = "tenant.removed" {}
        /// A certificate authority has given the fleet a certificate, and relays show it.
        CertificateIssued = "certificate.issued" {
            /// What it is for.
            names: Vec<String>,
            /// When it ends, Unix seconds.
            not_after: u64,
            /// When the next one is ordered, Unix seconds.
            renews_at: u64,
        }
        /// The order of a certificate has failed; the one in use stays.
        CertificateFailed = "certificate.failed" {
            /// What it was for.
            names: Vec<String>,
            /// `rate_limited`, `refused`, `challenge`, `unreachable`, `late` or `unusable`.
            reason: String,
            /// What the authority said, or what happened.
            error: String,
            /// How many have failed in a row.
            failures: u64,
            /// When the next one is tried, Unix seconds.
            next_at: u64,
        }
        /// Events that nobody hears of, from a node.
        EventsLost = "events.lost" {
            /// How many.
            count: u64,
            /// `room`: they waited for a controller longer than there was room for; `speed`: they came too fast; `rate`: refusals beyond the rate at which they are told.
            reason: String,
        }
        /// Events that this stream did not bring, because it was read too slowly, or are gone from where it goes on. Of the stream itself: it has no id, and no webhook gets it.
        EventsMissed = "events.missed" {
            /// How many; missing where that is not known.
            count: Option<u64>,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kinds_have_names_of_their_own_and_words_about_everything() {
        let reference = kind_reference();
        let names: BTreeSet<_> = reference.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), KINDS.len());
        for kind in &reference {
            let (beginning, _) = kind.name.split_once('.').expect("a kind has two parts");
            assert!(NAMED.contains(&beginning) && !kind.text.is_empty());
            assert!(kind.fields.iter().all(|field| !field.text.is_empty()));
        }
    }

    #[test]
    fn what_is_missing_is_no_field() {
        let what = What::AllocationRefused {
            shard: 1,
            transport: "udp".to_owned(),
            client: Place("192.0.2.1:1".to_owned()),
            server: "192.0.2.9:3478".to_owned(),
            username: None,
            code: 401,
        };
        assert_eq!(what.kind(), "allocation.refused");
        let names: Vec<_> = what.fields().into_iter().map(|field| field.name).collect();
        assert_eq!(names, ["shard", "transport", "client", "server", "code"]);
    }
}

//! The words in which a finding is told as an event.

use super::engine::Finding;
use super::exempt::Fleetwide;
use super::rule::Rule;
use super::subject::Subject;
use crate::events::{About, Place, Username, What};

/// The words for `finding`, and about whom they are. Under `privacy` none of them names anybody but those that the bus hides.
pub(super) fn words(finding: &Finding, fleet: &Fleetwide, privacy: bool) -> (About, What) {
    let (subject, case) = (&finding.subject, &finding.case);
    let would = match privacy {
        true => case.act.to_string(),
        false => case.act.about(subject),
    };
    let mut detail = case.evidence.clone();
    let (mut username, mut client) = (None, None);
    match subject {
        Subject::User { user, .. } => username = Some(Username(user.clone())),
        // It comes from events, which have hidden it already.
        Subject::Claim(user) if privacy => detail = format!("{detail}: {user}"),
        Subject::Claim(user) => username = Some(Username(user.clone())),
        Subject::Network(network) => client = Some(Place(network.to_string())),
    }
    macro_rules! what {
        ($($rule:ident => $kind:ident,)*) => {
            match finding.rule {
                $(Rule::$rule => What::$kind {
                    verdict: case.verdict.name().to_owned(),
                    would,
                    username,
                    client,
                    count: case.count,
                    detail,
                },)*
            }
        };
    }
    let what = what! {
        AuthenticationFailures => AbuseAuthenticationFailures,
        FailuresOfUser => AbuseFailuresOfUser,
        UnansweredChallenges => AbuseUnansweredChallenges,
        PeerFanOut => AbusePeerFanOut,
        PortScan => AbusePortScan,
        SharedCredential => AbuseSharedCredential,
        QuotaEvasion => AbuseQuotaEvasion,
        ReconnectLoop => AbuseReconnectLoop,
        DeniedPeers => AbuseDeniedPeers,
    };
    let tenant = subject.tenant().and_then(|id| fleet.tenant(id));
    (tenant.map_or_else(About::default, About::tenant), what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abuse::{Engine, NetworkSignals, Signals};
    use crate::config::usual_abuse;
    use crate::events::Value;

    /// One finding of each rule for whom that is possible by names alone.
    fn findings() -> Vec<Finding> {
        let mut signals = Signals::default();
        signals.claims.insert("ann".to_owned(), 5000);
        let seen = NetworkSignals {
            nodes: 1,
            failures: 5000,
            unanswered: 5000,
            ..NetworkSignals::default()
        };
        let network = "192.0.2.0/24".parse().unwrap();
        signals.networks.insert(network, seen);
        let fleet = Fleetwide::default();
        Engine::new(usual_abuse()).judge(1000, &signals, &fleet, true)
    }

    #[test]
    fn every_rule_has_a_kind_of_event_of_its_own_name() {
        let finding = &findings()[0];
        for rule in Rule::ALL {
            let finding = Finding {
                rule,
                ..finding.clone()
            };
            let (_, what) = words(&finding, &Fleetwide::default(), false);
            assert_eq!(what.kind(), format!("abuse.{rule}"));
        }
    }

    #[test]
    fn an_event_says_whom_and_what_would_be_done() {
        let fields = |finding: &Finding, privacy| {
            let (_, what) = words(finding, &Fleetwide::default(), privacy);
            let fields = what.fields().into_iter();
            let told: Vec<_> = fields
                .map(|field| format!("{}={}", field.name, field.value))
                .collect();
            told.join(" ")
        };
        let findings = findings();
        let guesses = &findings[0];
        assert_eq!(
            fields(guesses, false),
            "verdict=observe would=ban source 192.0.2.0/24 for 1h client=192.0.2.0/24 count=5000 \
             detail=5000 requests with bad credentials within 60 s, at one relay"
        );
        let open = words(guesses, &Fleetwide::default(), true).1.fields();
        let open = open
            .iter()
            .filter(|field| !matches!(field.value, Value::Address(_)));
        assert!(
            !open
                .map(|it| it.value.to_string())
                .any(|it| it.contains("192.0.2"))
        );
        let named = findings.iter().find(|it| it.rule == Rule::FailuresOfUser);
        assert!(fields(named.unwrap(), false).contains("username=ann"));
        assert!(!fields(named.unwrap(), true).contains("username="));
    }
}

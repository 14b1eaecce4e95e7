//! The rules that find abuse, checked.

use std::time::Duration;

use super::Check;
use crate::abuse::{Exempt, Rule, RuleSettings, Settings, Verdict};
use crate::config::{RawAbuse, RawExempt, RawRule, RawVerdict};
use crate::fleet::bans::MAX_USER_BYTES;

/// The longest window in seconds.
const LONGEST_WINDOW: u64 = 3600;
/// The shortest and the longest ban in seconds.
const SHORTEST_BAN: u64 = 60;
const LONGEST_BAN: u64 = 30 * 86_400;

impl Check {
    pub(super) fn abuse(&mut self, raw: RawAbuse) -> Settings {
        let usual = RawAbuse::default();
        let exempt = self.exempt(raw.exempt.clone());
        let rules = Rule::ALL.map(|rule| self.rule(rule, given(&raw, rule), given(&usual, rule)));
        Settings { rules, exempt }
    }

    fn exempt(&mut self, raw: RawExempt) -> Exempt {
        self.bounded("abuse.exempt.users", raw.users.len());
        self.bounded("abuse.exempt.tenants", raw.tenants.len());
        for user in &raw.users {
            if user.is_empty() || user.len() > MAX_USER_BYTES {
                let expected = format!("a user of 1 to {MAX_USER_BYTES} bytes");
                self.fail("abuse.exempt.users", Some(user.clone()), expected);
            }
        }
        Exempt {
            networks: self.networks("abuse.exempt.networks", &raw.networks),
            users: raw.users.into_iter().collect(),
            tenants: raw.tenants.into_iter().collect(),
        }
    }

    fn rule(&mut self, rule: Rule, raw: &RawRule, usual: &RawRule) -> RuleSettings {
        let key = |name: &str| format!("abuse.{rule}.{name}");
        let number = |given: Option<u64>, usual: Option<u64>| given.or(usual).unwrap_or(0);
        let threshold = number(raw.threshold, usual.threshold);
        self.within(&key("threshold"), threshold, 1, u64::MAX);
        let window = number(raw.window_seconds, usual.window_seconds);
        let step = rule.base().step_seconds();
        if window == 0 || window > LONGEST_WINDOW || !window.is_multiple_of(step) {
            let expected = format!("a multiple of {step}, at most {LONGEST_WINDOW}");
            self.fail(key("window_seconds"), Some(window.to_string()), expected);
        }
        let ban = number(raw.ban_seconds, usual.ban_seconds);
        self.within(&key("ban_seconds"), ban, SHORTEST_BAN, LONGEST_BAN);
        let verdict = raw.verdict.or(usual.verdict).unwrap_or_default();
        RuleSettings {
            enabled: raw.enabled.or(usual.enabled).unwrap_or_default(),
            threshold,
            window: Duration::from_secs(window),
            verdict: self.verdict(rule, &key("verdict"), verdict),
            ban_for: Duration::from_secs(ban),
        }
    }

    fn verdict(&mut self, rule: Rule, key: &str, raw: RawVerdict) -> Verdict {
        match (raw, rule.bans_nobody_because()) {
            (RawVerdict::Observe, _) => Verdict::Observe,
            (RawVerdict::Ban, None) => Verdict::Ban,
            (RawVerdict::Ban, Some(why)) => {
                let expected = format!("observe, because {why}");
                self.fail(key, Some("ban".to_owned()), expected);
                Verdict::Observe
            }
            (RawVerdict::Throttle, None) if rule.is_of_users() => Verdict::Throttle,
            (RawVerdict::Throttle, why) => {
                let why = why.unwrap_or("it finds networks, and only users can be throttled");
                let expected = match rule.bans_nobody_because() {
                    Some(_) => format!("observe, because {why}"),
                    None => format!("observe or ban, because {why}"),
                };
                self.fail(key, Some("throttle".to_owned()), expected);
                Verdict::Observe
            }
        }
    }
}

fn given(raw: &RawAbuse, rule: Rule) -> &RawRule {
    match rule {
        Rule::AuthenticationFailures => &raw.authentication_failures,
        Rule::FailuresOfUser => &raw.failures_of_user,
        Rule::UnansweredChallenges => &raw.unanswered_challenges,
        Rule::PeerFanOut => &raw.peer_fan_out,
        Rule::PortScan => &raw.port_scan,
        Rule::SharedCredential => &raw.shared_credential,
        Rule::QuotaEvasion => &raw.quota_evasion,
        Rule::ReconnectLoop => &raw.reconnect_loop,
        Rule::DeniedPeers => &raw.denied_peers,
    }
}

/// What holds where nothing is configured.
#[cfg(test)]
pub(crate) fn usual_abuse() -> Settings {
    Check::default().abuse(RawAbuse::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, RawConfig};

    fn checked(change: impl FnOnce(&mut RawAbuse)) -> Result<Settings, String> {
        let mut raw = RawConfig::default();
        change(&mut raw.abuse);
        let config = Config::try_from(raw).map_err(|errors| errors.to_string())?;
        Ok(config.abuse)
    }

    #[test]
    fn a_rule_of_which_something_is_said_keeps_the_rest_of_its_own() {
        let settings = checked(|raw| {
            raw.peer_fan_out = RawRule {
                verdict: Some(RawVerdict::Ban),
                ..RawRule::default()
            };
        });
        let settings = settings.unwrap();
        let mut expected = usual_abuse();
        expected.rules[Rule::PeerFanOut.index()].verdict = Verdict::Ban;
        assert_eq!(settings, expected);
    }

    #[test]
    fn what_a_rule_cannot_do_is_refused_with_the_reason() {
        let refusal = |change: fn(&mut RawAbuse)| checked(change).unwrap_err();
        let ban = |rule: &mut RawRule| rule.verdict = Some(RawVerdict::Ban);
        let victim = checked(|raw| ban(&mut raw.unanswered_challenges)).unwrap_err();
        assert!(victim.contains("abuse.unanswered_challenges.verdict"));
        assert!(victim.contains("victim"), "{victim}");
        let user = checked(|raw| ban(&mut raw.failures_of_user)).unwrap_err();
        assert!(user.contains("in its name"), "{user}");
        let throttle = |rule: &mut RawRule| rule.verdict = Some(RawVerdict::Throttle);
        let network = checked(|raw| throttle(&mut raw.quota_evasion)).unwrap_err();
        assert!(network.contains("observe or ban"), "{network}");
        let victim = checked(|raw| throttle(&mut raw.failures_of_user)).unwrap_err();
        assert!(victim.contains("in its name"), "{victim}");
        let settings = checked(|raw| throttle(&mut raw.port_scan)).unwrap();
        assert_eq!(settings.of(Rule::PortScan).verdict, Verdict::Throttle);
        let window = refusal(|raw| raw.shared_credential.window_seconds = Some(60));
        assert!(window.contains("a multiple of 300"), "{window}");
        refusal(|raw| raw.denied_peers.threshold = Some(0));
        refusal(|raw| raw.denied_peers.ban_seconds = Some(1));
        refusal(|raw| raw.exempt.networks = vec!["nowhere".to_owned()]);
        refusal(|raw| raw.exempt.users = vec![String::new()]);
    }
}

//! What the rules of nftables on this machine do with a datagram or a connection that comes from outside, as far as can be
//! read off them: `nft -j list ruleset`, taken as a value.
//!
//! Rules that look at more than the protocol and the port are not judged: a verdict is given only where it is certain.

use std::ops::ControlFlow;

use serde_json::Value as Json;

/// What is done with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every chain lets it in.
    Open,
    /// This chain drops it.
    Dropped(String),
    /// This chain has rules that decide by something else.
    Unknown(String),
}

/// Whether a statement fits a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    Perhaps,
}

/// What happens to a packet of `protocol` (`udp` or `tcp`) to `port`.
pub(super) fn verdict(ruleset: &Json, protocol: &str, port: u16) -> Verdict {
    let items = ruleset["nftables"].as_array().map(Vec::as_slice);
    let items = items.unwrap_or_default();
    let chains = items.iter().filter_map(|item| item.get("chain"));
    let mut unknown = None;
    for chain in chains.filter(|chain| chain["hook"] == "input" && chain["type"] == "filter") {
        let rules = items.iter().filter_map(|item| item.get("rule"));
        let rules = rules.filter(|rule| {
            ["family", "table"]
                .iter()
                .all(|key| rule[key] == chain[key])
                && rule["chain"] == chain["name"]
        });
        let name = format!(
            "{} {} {}",
            text(&chain["family"]),
            text(&chain["table"]),
            text(&chain["name"])
        );
        match of_chain(rules, chain["policy"] == "drop", protocol, port) {
            Some(true) => {}
            Some(false) => return Verdict::Dropped(name),
            None => unknown = Some(name),
        }
    }
    unknown.map_or(Verdict::Open, Verdict::Unknown)
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether a chain lets a packet in; `None` where that is not certain.
fn of_chain<'a>(
    rules: impl Iterator<Item = &'a Json>,
    drops: bool,
    protocol: &str,
    port: u16,
) -> Option<bool> {
    let mut certain = true;
    for rule in rules {
        let statements = rule["expr"].as_array().map(Vec::as_slice);
        match of_rule(statements.unwrap_or_default(), protocol, port) {
            ControlFlow::Break(Some(accepts)) => return certain.then_some(accepts),
            ControlFlow::Break(None) => certain = false,
            ControlFlow::Continue(()) => {}
        }
    }
    certain.then_some(!drops)
}

/// Whether a rule ends the way of a packet, and how; `Break(None)` where it may.
fn of_rule(statements: &[Json], protocol: &str, port: u16) -> ControlFlow<Option<bool>> {
    let mut fit = Fit::Yes;
    for statement in statements {
        if let Some(condition) = statement.get("match") {
            match fits(condition, protocol, port) {
                Fit::No => return ControlFlow::Continue(()),
                Fit::Perhaps => fit = Fit::Perhaps,
                Fit::Yes => {}
            }
            continue;
        }
        let has = |key: &str| statement.get(key).is_some();
        let accepts = if has("accept") {
            Some(true)
        } else if has("drop") || has("reject") {
            Some(false)
        } else if ["jump", "goto", "return", "vmap", "xt", "queue"]
            .into_iter()
            .any(has)
        {
            None
        } else {
            // Counters and logs do nothing; these let some through. A set may have a limit for each of its elements.
            if ["limit", "quota", "ct count", "meter", "set"]
                .into_iter()
                .any(has)
            {
                fit = Fit::Perhaps;
            }
            continue;
        };
        return ControlFlow::Break(accepts.filter(|_| fit == Fit::Yes));
    }
    ControlFlow::Continue(())
}

/// Whether a condition fits the first packet of somebody whom nobody knows.
fn fits(condition: &Json, protocol: &str, port: u16) -> Fit {
    let (left, right) = (&condition["left"], &condition["right"]);
    let is_negated = condition["op"] == "!=";
    let certainly = |holds: bool| {
        if holds == is_negated {
            Fit::No
        } else {
            Fit::Yes
        }
    };
    let payload = &left["payload"];
    if payload["field"] == "dport" {
        // "th" stands for either protocol.
        let is_ours = payload["protocol"] == protocol || payload["protocol"] == "th";
        return if is_ours {
            holds_port(right, port).map_or(Fit::Perhaps, certainly)
        } else {
            Fit::No
        };
    }
    if left["meta"]["key"] == "l4proto" || payload["field"] == "protocol" {
        return certainly(holds_text(right, protocol));
    }
    if left["ct"]["key"] == "state" {
        return certainly(holds_text(right, "new"));
    }
    if ["iif", "iifname"].contains(&text(&left["meta"]["key"])) && right == "lo" {
        return certainly(false);
    }
    Fit::Perhaps
}

/// Whether a number, a range or a set has the port; `None` where that cannot be read.
fn holds_port(right: &Json, port: u16) -> Option<bool> {
    let port = u64::from(port);
    if let Some(number) = right.as_u64() {
        return Some(number == port);
    }
    if let Some(range) = right["range"].as_array() {
        let [first, last] = &range[..] else {
            return None;
        };
        return Some((first.as_u64()?..=last.as_u64()?).contains(&port));
    }
    let set = right["set"].as_array()?;
    let small = u16::try_from(port).ok()?;
    let held: Option<Vec<bool>> = set.iter().map(|it| holds_port(it, small)).collect();
    Some(held?.contains(&true))
}

/// Whether a text or a set of texts has this one.
fn holds_text(right: &Json, wanted: &str) -> bool {
    let lists = [right.as_array(), right["set"].as_array()];
    let mut lists = lists.into_iter().flatten().flatten();
    right == wanted || lists.any(|it| it == wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dport(protocol: &str, right: &Json) -> Json {
        json!({ "match": { "op": "==", "left": { "payload": { "protocol": protocol, "field": "dport" } }, "right": right } })
    }

    fn ruleset(policy: &str, rules: &[Json]) -> Json {
        let of = json!({ "family": "inet", "table": "filter", "name": "input", "hook": "input", "type": "filter", "policy": policy });
        let mut items = vec![json!({ "chain": of })];
        for expr in rules {
            items.push(json!({ "rule": { "family": "inet", "table": "filter", "chain": "input", "expr": expr } }));
        }
        json!({ "nftables": items })
    }

    #[test]
    fn a_policy_of_dropping_is_opened_by_rules_for_the_port() {
        let accept = json!({ "accept": null });
        let state = json!({ "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": ["established", "related"] } });
        let rules = [
            json!([state, accept]),
            json!([dport("udp", &json!({ "range": [49_152, 65_535] })), accept]),
            json!([
                dport("tcp", &json!({ "set": [22, { "range": [3478, 3479] }] })),
                accept
            ]),
        ];
        let ruleset = ruleset("drop", &rules);
        let dropped = Verdict::Dropped("inet filter input".to_owned());
        assert_eq!(verdict(&ruleset, "udp", 50_000), Verdict::Open);
        assert_eq!(verdict(&ruleset, "udp", 3478), dropped);
        assert_eq!(verdict(&ruleset, "tcp", 3479), Verdict::Open);
        assert_eq!(verdict(&ruleset, "tcp", 50_000), dropped);
    }

    #[test]
    fn a_rule_that_looks_at_more_leaves_the_verdict_open() {
        let from = json!({ "match": { "op": "==", "left": { "payload": { "protocol": "ip", "field": "saddr" } }, "right": "10.0.0.1" } });
        let rules = [json!([from, { "accept": null }])];
        let unknown = Verdict::Unknown("inet filter input".to_owned());
        assert_eq!(verdict(&ruleset("drop", &rules), "udp", 1), unknown);
        let rules = [json!([dport("udp", &json!(3478)), { "counter": {} }, { "drop": null }])];
        let dropped = Verdict::Dropped("inet filter input".to_owned());
        assert_eq!(verdict(&ruleset("accept", &rules), "udp", 3478), dropped);
        assert_eq!(
            verdict(&ruleset("accept", &rules), "udp", 3479),
            Verdict::Open
        );
        assert_eq!(verdict(&json!({ "nftables": [] }), "udp", 1), Verdict::Open);
        let flood = json!({ "set": { "op": "add", "set": "@flood" } });
        let rules = [json!([dport("udp", &json!(3478)), flood, { "drop": null }])];
        assert_eq!(verdict(&ruleset("accept", &rules), "udp", 3478), unknown);
        let inside =
            json!({ "match": { "op": "==", "left": { "meta": { "key": "iif" } }, "right": "lo" } });
        let rules = [json!([inside, { "accept": null }])];
        assert_eq!(verdict(&ruleset("drop", &rules), "udp", 3478), dropped);
    }
}

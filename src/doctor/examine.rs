//! The course of a run: what is looked at, in which order, and what is left out because something before it has failed.

use std::net::IpAddr;

use turnfleet_proto::TurnUri;

use super::allocation::{self, Granted};
use super::catalogue::{CLOCK_SERVER, REACH_UDP};
use super::identity::{Identity, Source};
use super::plan::Plan;
use super::reach::{self, Reached};
use super::report::Report;
use super::way::Way;
use super::{clock, controller, credential, host, ice, outside, pairs, path};

/// How many ways are looked at; a fleet may have more.
const MAX_WAYS: usize = 16;
/// How many are looked at at a time.
const WORKERS: usize = 6;
/// Servers whose relay ports are tried.
const MAX_SERVERS: usize = 4;

/// Looks at everything that the plan names.
pub(super) fn everything(plan: &Plan, report: &Report) {
    let mut uris = plan.uris.clone();
    let mut source = plan.source();
    if let Some(homeserver) = &plan.homeserver {
        uris.extend(homeserver.look(plan.secret.as_ref(), report));
        if let Some(url) = &homeserver.url {
            clock::homeserver(url, report);
        }
    }
    if let Some(client) = &plan.controller {
        uris.extend(controller::look(client, report));
        source = source.or_else(|| controller::credentials(client));
    }
    if let Some(Source::Fixed { username, password }) = &source {
        credential::form(username, password, plan.secret.as_ref(), report);
    }
    let ways = ways(plan, &uris, report);
    if let Some(relay_ports) = plan.host {
        host::look(&ways, relay_ports, report);
    }
    let reached = each(&ways, |way| {
        reach::is_public(way, report);
        let reached = reach::reach(way, report);
        // A certificate that has ended is a finding of its own, whatever the rest is like.
        if way.tls.is_some() {
            plan.trust.look(way, report);
        }
        reached
    });
    let reached: Vec<Reached> = reached.into_iter().flatten().collect();
    // Where there is no URI at all, nothing is said of what it leads to.
    let has_identity = source.is_some() && !uris.is_empty();
    let granted = source.map_or_else(Vec::new, |source| allocations(source, &reached, report));
    ice::candidates(&ways, &reached, &granted, has_identity, report);
}

/// Whatever needs credentials.
fn allocations(source: Source, reached: &[Reached], report: &Report) -> Vec<Granted> {
    let reached: Vec<&Reached> = reached.iter().filter(|it| it.way.is_turn).collect();
    let (Some(first), Ok(identity)) = (reached.first(), Identity::new(source)) else {
        return Vec::new();
    };
    if !identity.has_secret() {
        let text = "credentials that were given have the end that they have; it needs the secret";
        report.skip(CLOCK_SERVER, "", text);
    }
    let identity = credential::diagnose(identity, &first.way, first.mapped, report);
    let Some(identity) = identity else {
        return Vec::new();
    };
    let granted = each(&reached, |reached| {
        allocation::allocate(reached, &identity, report)
    });
    let granted: Vec<Granted> = granted.into_iter().flatten().collect();
    if granted.is_empty() {
        return granted;
    }
    let mut servers: Vec<IpAddr> = Vec::new();
    let mut one_of_each = granted.clone();
    one_of_each.retain(|it| {
        let server = it.way.candidate.address.ip();
        let is_other = !servers.contains(&server);
        servers.push(server);
        is_other
    });
    one_of_each.truncate(MAX_SERVERS);
    each(&one_of_each, |it| outside::ports(it, &identity, report));
    pairs::pairs(&granted, &identity, report);
    path::look(&granted, &identity, report);
    granted
}

/// Every way that the URIs lead to, each once.
fn ways(plan: &Plan, uris: &[TurnUri], report: &Report) -> Vec<Way> {
    let found = each(uris, |uri| reach::ways(uri, report, &plan.trust));
    let mut ways: Vec<Way> = Vec::new();
    for way in found.into_iter().flatten() {
        let name = |way: &Way| way.tls.as_ref().map(|(_, name)| name.clone());
        let same = |it: &Way| it.candidate == way.candidate && name(it) == name(&way);
        if let Some(before) = ways.iter_mut().find(|it| same(it)) {
            before.is_turn |= way.is_turn;
        } else {
            ways.push(way);
        }
    }
    if ways.len() > MAX_WAYS {
        let text = format!(
            "{} ways are known, and {MAX_WAYS} are looked at",
            ways.len()
        );
        report.skip(REACH_UDP, "", text);
        ways.truncate(MAX_WAYS);
    }
    ways
}

/// Does `act` with each of `items`, some at a time; the results are in their order.
fn each<T: Sync, R: Send>(items: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let mut results = Vec::with_capacity(items.len());
    for some in items.chunks(WORKERS) {
        std::thread::scope(|scope| {
            let workers: Vec<_> = some
                .iter()
                .map(|item| {
                    let act = &act;
                    scope.spawn(move || act(item))
                })
                .collect();
            // One that panics ends the run, as it would here.
            results.extend(workers.into_iter().map(|worker| match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
        });
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..20).collect();
        assert_eq!(
            each(&items, |item| item * 2),
            (0..40).step_by(2).collect::<Vec<_>>()
        );
    }
}

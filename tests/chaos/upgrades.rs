//! Relays that are drained and restarted, one after the other, while calls come and go.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::Api;
use crate::client::Caller;
use crate::figures::{self, millis};
use crate::fleet::{CONTROLLERS, Fleet, RELAYS, caller, with_fleet};
use crate::onlookers::Onlookers;
use crate::process::SOON;
use crate::tools::eventually;

/// Calls at any time.
const PARTIES: usize = 12;
/// Words of a call, to and fro.
const WORDS: usize = 20;
/// Between two words.
const PACE: Duration = Duration::from_millis(25);

/// Calls that come and go.
#[derive(Default)]
struct Churn {
    over: AtomicBool,
    calls: AtomicUsize,
    redirected: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Churn {
    /// Holds one call after the other, each by the list of that moment.
    fn run(&self, api: &Api, party: usize) {
        for number in 0.. {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let user = format!("party{party}-{number}");
            match self.call(api, &user) {
                Ok(()) => drop(self.calls.fetch_add(1, Ordering::Relaxed)),
                Err(why) => self.failed.lock().unwrap().push(format!("{user}: {why}")),
            }
        }
    }

    fn call(&self, api: &Api, user: &str) -> Result<(), String> {
        let (mut one, here) = self.allocate(api, &format!("{user}-one"))?;
        let (mut other, there) = self.allocate(api, &format!("{user}-other"))?;
        one.bind(there).map_err(|code| format!("bind: {code:?}"))?;
        other
            .permit(here)
            .map_err(|code| format!("permit: {code:?}"))?;
        for number in 0..WORDS {
            let word = format!("{user} {number}");
            one.send(there, &word);
            if other.hear() != (here, word.clone()) {
                return Err(format!("{word} was lost"));
            }
            other.send(here, &word);
            if one.hear() != (there, word.clone()) {
                return Err(format!("{word} was lost on the way back"));
            }
            std::thread::park_timeout(PACE);
        }
        one.end().map_err(|code| format!("end: {code:?}"))?;
        other.end().map_err(|code| format!("end: {code:?}"))
    }

    /// An allocation at the first relay of the list that grants one, or where that sends the client.
    fn allocate(&self, api: &Api, user: &str) -> Result<(Caller, SocketAddr), String> {
        let (credential, mut servers) = api.credential(user)?;
        servers.truncate(2);
        let mut said = Vec::new();
        while !servers.is_empty() {
            let server = servers.remove(0);
            let mut caller = caller(server, &credential);
            match caller.try_allocate(Duration::from_secs(10)) {
                Some(Ok(allocated)) => return Ok((caller, allocated.relayed)),
                other => said.push(format!("{server}: {other:?}")),
            }
            if let Some(redirect) = caller.redirect() {
                self.redirected.fetch_add(1, Ordering::Relaxed);
                servers.insert(0, redirect.servers[0]);
            }
            if said.len() > 4 {
                break;
            }
        }
        Err(format!("no allocation: {said:?}"))
    }
}

/// Drains a relay as a supervisor does, waits for its end, and starts it again.
#[track_caller]
fn restart(fleet: &mut Fleet<'_>, relay: usize) {
    let process = &mut fleet.relays[relay].process;
    process.signal("TERM");
    assert!(process.ended(), "relay {relay} failed");
    process.restart();
    fleet.wait_until_whole();
}

#[test]
fn r08_a_rolling_restart_of_all_relays_interrupts_no_call_and_refuses_none() {
    with_fleet(|fleet| {
        let churn = Churn::default();
        let onlookers = Onlookers::of(fleet, 0..CONTROLLERS);
        let apis: Vec<Api> = fleet.controllers.iter().map(|it| it.api.clone()).collect();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for party in 0..PARTIES {
                let (churn, api) = (&churn, &apis[party % CONTROLLERS]);
                scope.spawn(move || churn.run(api, party));
            }
            // However this ends, the calls do too.
            let _end = End(&churn.over);
            eventually("calls are held", SOON, || {
                (churn.calls.load(Ordering::Relaxed) > PARTIES).then_some(())
            });
            for relay in 0..RELAYS {
                restart(fleet, relay);
            }
        });
        let (time, seen) = (begun.elapsed(), onlookers.stop());
        let failed = churn.failed.into_inner().unwrap();
        figures::print(
            "R8",
            json!({
                "relays": RELAYS,
                "took_ms": millis(time),
                "calls": churn.calls.load(Ordering::Relaxed),
                "calls_at_a_time": PARTIES,
                "redirected": churn.redirected.load(Ordering::Relaxed),
                "failed": failed.len(),
                "lists": seen.figures(),
            }),
        );
        assert!(failed.is_empty(), "{failed:?}");
        seen.assert_served(2);
        assert!(seen.shortest >= Some(2), "{seen:?}");
    });
}

/// Ends the calls when it is dropped.
struct End<'o>(&'o AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

//! Shared secrets that are rotated, pinned and revoked while clients come and go.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use turnfleet_turn::client::AllocateOptions;
use turnfleet_turn::wire::ErrorCode;

use crate::client::{Caller, Credential};
use crate::fleet::{Fleet, Place, Ports, SOON, within};

/// What a homeserver has in its configuration.
const PINNED: &str = "turn_shared_secret of a homeserver";
/// When a revoked secret is refused everywhere.
const REVOKED_WITHIN: Duration = Duration::from_secs(2);

#[track_caller]
fn call(relay: SocketAddr, credential: &Credential) -> (Caller, Result<(), ErrorCode>) {
    let mut occupied = Vec::new();
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut caller = Caller::udp(socket, relay, credential);
        let allocated = caller.allocate(AllocateOptions::default()).map(drop);
        // The port was that of a probe which could not say goodbye on a busy machine (RFC 8656 §7.4: take another).
        if allocated != Err(ErrorCode::ALLOCATION_MISMATCH) || occupied.len() == 3 {
            return (caller, allocated);
        }
        occupied.push(caller);
    }
}

#[track_caller]
fn allocated(relay: SocketAddr, credential: &Credential) -> Caller {
    let (caller, allocated) = call(relay, credential);
    assert_eq!(allocated, Ok(()));
    caller
}

impl Fleet {
    /// A credential of the API, and the relays that it is for.
    fn credential(&self, user: &str) -> (Credential, Vec<SocketAddr>) {
        let path = format!("/turn?service=turn&transports=udp&username={user}");
        let answer = self.api(&path);
        let uris = answer["uris"].as_array().unwrap().iter();
        let relay = |uri: &Value| -> SocketAddr {
            let place = uri.as_str().unwrap().trim_start_matches("turn:");
            place.split('?').next().unwrap().parse().unwrap()
        };
        let credential = Credential {
            username: answer["username"].as_str().unwrap().to_owned(),
            password: answer["password"].as_str().unwrap().to_owned(),
        };
        (
            credential,
            uris.map(relay).filter(SocketAddr::is_ipv4).collect(),
        )
    }

    /// Says something to `turnfleet fleet secrets`.
    #[track_caller]
    fn secrets(&self, arguments: &[&str]) -> Value {
        self.order(&[["secrets"].as_slice(), arguments].concat())
    }

    fn secret(&self, id: u64) -> Value {
        let answer = self.api("/v1/secrets");
        let mut all = answer["secrets"].as_array().unwrap().iter();
        all.find(|it| it["id"] == id).unwrap().clone()
    }

    /// Rotates, and waits until credentials are minted with the next secret: its id.
    #[track_caller]
    fn rotate(&self) -> u64 {
        let id = self.secrets(&["rotate"])["id"].as_u64().unwrap();
        within(SOON, "the secret is minted with", || {
            self.secret(id)["minted"] == json!(true)
        });
        id
    }
}

fn start(place: &Place) -> Fleet {
    let fleet = place.start(Ports::free(), &["--relays", "2"]);
    within(SOON, "lists name both relays", || {
        fleet.api("/v1/capacity")["total"]["listed"] == 2
    });
    fleet
}

/// Counts of what clients were answered.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    granted: AtomicU64,
    /// What was refused, and with which code.
    refused: Mutex<Vec<(&'static str, ErrorCode)>>,
}

impl Load {
    /// Comes with one user after the other, each with a credential of its own, to every relay of its list, until it is
    /// stopped; then what still lives is refreshed.
    fn run(&self, fleet: &Fleet, name: &str) {
        let mut live = Vec::new();
        for number in 0u32.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let (credential, relays) = fleet.credential(&format!("{name}{number}"));
            for relay in relays {
                let (caller, answer) = call(relay, &credential);
                self.count("Allocate", answer);
                // A port that another caller gets while its allocation lives would be refused for that.
                live.push(caller);
            }
        }
        for caller in &mut live {
            self.count("Refresh", caller.refresh());
        }
    }

    fn count(&self, request: &'static str, answer: Result<(), ErrorCode>) {
        match answer {
            Ok(()) => drop(self.granted.fetch_add(1, Ordering::Relaxed)),
            Err(code) => self.refused.lock().unwrap().push((request, code)),
        }
    }
}

#[test]
fn no_valid_credential_is_refused_over_twenty_rotations() {
    // Each client has a socket of its own, more than a process has by default.
    turnfleet_relay::shard::raise_descriptor_limit().unwrap();
    let place = Place::new();
    let fleet = start(&place);
    let load = Load::default();
    std::thread::scope(|scope| {
        let clients = ["a", "b"].map(|name| scope.spawn(|| load.run(&fleet, name)));
        for _ in 0..20 {
            fleet.rotate();
        }
        load.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
    let (granted, refused) = (load.granted.into_inner(), load.refused.into_inner());
    assert_eq!(refused.unwrap(), [], "of {granted}");
    assert!(granted > 100, "{granted} are hardly a load");
}

#[test]
fn a_pinned_secret_works_throughout_fifty_rotations() {
    let place = Place::new();
    let fleet = start(&place);
    let file = place.0.path().join("secret");
    std::fs::write(&file, PINNED).unwrap();
    let secret_file = file.to_str().unwrap();
    let pinned = fleet.secrets(&["pin", "--secret-file", secret_file])["id"].clone();
    let pinned = pinned.as_u64().unwrap();
    let relays = [fleet.relay(0), fleet.relay(1)];
    within(SOON, "both relays know of it", || {
        fleet.secret(pinned)["acknowledged"] == 2
    });
    let (mut before, mut live) = (1, Vec::new());
    for round in 0..50 {
        let id = fleet.rotate();
        let credential = Credential::synapse(PINNED, &format!("@user{round}:example.org"));
        live.extend(relays.map(|relay| allocated(relay, &credential)));
        // Else they would be more than relays accept at once.
        fleet.secrets(&["revoke", &before.to_string()]);
        before = id;
    }
    assert_eq!(fleet.secret(pinned)["state"], "pinned");
    within(SOON, "its use is reported", || {
        fleet.secret(pinned)["last_used"].is_u64()
    });
}

#[test]
fn a_revoked_secret_is_refused_everywhere_and_a_cut_ends_what_was_made_with_it() {
    let place = Place::new();
    let fleet = start(&place);
    let relays = [fleet.relay(0), fleet.relay(1)];
    let (old, _) = fleet.credential("alice");
    let id = fleet.rotate();
    let (current, _) = fleet.credential("alice");
    let both = |credential: &Credential| relays.map(|relay| allocated(relay, credential));
    let (mut made_with_old, mut made_with_current) = (both(&old), both(&current));

    let begun = Instant::now();
    fleet.secrets(&["revoke", "1", "--cut"]);
    for relay in relays {
        within(REVOKED_WITHIN, "the secret is refused", || {
            call(relay, &old).1 == Err(ErrorCode::UNAUTHENTICATED)
        });
    }
    for caller in &mut made_with_old {
        within(REVOKED_WITHIN, "the allocation is gone", || {
            caller.refresh() != Ok(())
        });
    }
    assert!(begun.elapsed() < REVOKED_WITHIN, "{:?}", begun.elapsed());
    for caller in &mut made_with_current {
        assert_eq!(caller.refresh(), Ok(()));
    }
    let _others = both(&current);

    // The one that is minted with goes only for another, at once.
    let replaced = fleet.secrets(&["revoke", &id.to_string(), "--replace"]);
    assert_eq!(replaced["replaced_by"], id + 1);
    for relay in relays {
        within(REVOKED_WITHIN, "the secret is refused", || {
            call(relay, &current).1 == Err(ErrorCode::UNAUTHENTICATED)
        });
    }
    let (fresh, _) = fleet.credential("alice");
    drop(both(&fresh));
    // What was made before lives on: nothing was cut.
    for caller in &mut made_with_current {
        assert_eq!(caller.refresh(), Ok(()));
    }
}

#[test]
fn no_secret_is_shown_in_the_store_or_the_log() {
    let place = Place::new();
    let fleet = start(&place);
    let file = place.0.path().join("secret");
    std::fs::write(&file, PINNED).unwrap();
    fleet.secrets(&["pin", "--secret-file", file.to_str().unwrap()]);
    let shown = fleet.secrets(&["list"]).to_string();
    assert!(!shown.contains(PINNED), "{shown}");
    assert!(!place.said().contains(PINNED));
    let contains = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        bytes
            .windows(PINNED.len())
            .any(|part| part == PINNED.as_bytes())
    };
    let mut folders = vec![place.state()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                assert!(!contains(&path), "{}", path.display());
            }
        }
    }
}

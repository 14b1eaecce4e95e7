//! Wall clocks that are wrong.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::calls::Calls;
use crate::client::{Credential, unix_now};
use crate::figures::{self, millis, sized};
use crate::fleet::{
    CONTROLLERS, Environment, Fleet, RELAYS, SECRET, Special, caller, with_special_fleet,
};
use crate::process::SOON;
use crate::tools;

/// The relay whose clock jumps.
const JUMPING: usize = 0;
/// The relay whose clock is too fast, and how: by 500 millionths.
const DRIFTING: usize = 1;
const DRIFT: &str = "+0 x1.0005";
/// For a client whose credential has ended: nobody has to hurry.
const PATIENCE: Duration = Duration::from_secs(5);

/// The clock that some processes are shown, as a file says it.
pub(crate) struct ShownClock {
    dir: TempDir,
    library: PathBuf,
}

impl ShownClock {
    /// The right time; `None` where the tool is missing.
    pub(crate) fn new() -> Option<Self> {
        let shown = Self {
            dir: tempfile::tempdir().unwrap(),
            library: library()?,
        };
        shown.set("+0");
        Some(shown)
    }

    /// Sets it to another offset, and to another speed where that is written behind it.
    pub(crate) fn set(&self, offset: &str) {
        // Renamed into its place: never read half written.
        let next = self.dir.path().join("next");
        fs::write(&next, format!("{offset}\n")).unwrap();
        fs::rename(&next, self.file()).unwrap();
    }

    /// What a process needs to be shown it. Its monotonic clock is the machine's.
    pub(crate) fn environment(&self) -> Environment {
        vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("offset")
    }
}

/// The library by which a program is shown another time.
fn library() -> Option<PathBuf> {
    if !tools::present(&["/usr/bin/faketime"]) {
        return None;
    }
    let folders = fs::read_dir("/usr/lib").unwrap();
    let mut files = folders.map(|it| it.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    Some(
        files
            .find(|file| file.exists())
            .expect("faketime has its library"),
    )
}

/// Waits until every controller lists the relay, or no longer does, and says how long the last one took.
#[track_caller]
fn listed(fleet: &Fleet<'_>, listed: bool) -> Duration {
    let relay = &fleet.relays[JUMPING];
    let times = fleet.within(
        SOON,
        "lists follow the clock",
        0..CONTROLLERS,
        |controller| controller.lists(relay) == listed,
    );
    times.into_iter().max().unwrap()
}

#[test]
fn r17_a_clock_that_jumps_an_hour_ends_no_allocation_and_unlists_its_relay_alone() {
    let (Some(jumping), Some(drifting)) = (ShownClock::new(), ShownClock::new()) else {
        return;
    };
    drifting.set(DRIFT);
    let environments = [
        (JUMPING, jumping.environment()),
        (DRIFTING, drifting.environment()),
    ];
    let special = Special {
        relays: &environments,
        ..Special::default()
    };
    with_special_fleet(&special, |fleet| {
        let calls = Calls::open(fleet, 60);
        calls.go_on_for(500);
        let ended = Credential::sign(SECRET, &format!("{}:alice", unix_now() - 90));
        let mut unlisted = Vec::new();
        let mut taken = Vec::new();
        for offset in ["+3600", "-3600"] {
            jumping.set(offset);
            unlisted.push(millis(listed(fleet, false)));
            calls.go_on_for(500);
            let others = fleet.controllers[0].api.listed().unwrap();
            assert_eq!(others.len(), RELAYS - 1, "{others:?}");
            let grants = |relay: usize| {
                let mut client = caller(fleet.relays[relay].server, &ended);
                client
                    .try_allocate(PATIENCE)
                    .is_some_and(|answer| answer.is_ok())
            };
            assert!(
                (1..RELAYS).all(|relay| !grants(relay)),
                "a good clock takes what has ended"
            );
            // One that is behind is told so by then.
            taken.push(grants(JUMPING));
            jumping.set("+0");
            listed(fleet, true);
        }
        calls.pass(sized(Duration::ZERO, Duration::from_secs(600)));
        let drifted = fleet.controllers[0].api.node(&fleet.relays[DRIFTING].name);
        let drifted = drifted["clock_skew_milliseconds"].as_i64();
        let count = calls.end().count_all();
        figures::print(
            "R17",
            json!({
                "jumps_s": [3600, -3600],
                "unlisted_ms": unlisted,
                "listed_relays_that_took_an_ended_credential": 0,
                "unlisted_relay_took_an_ended_credential": taken,
                "drift_ms": drifted,
                "calls": count.figures(),
            }),
        );
        assert!(
            drifted.is_some_and(|drifted| drifted.abs() < 5000),
            "{drifted:?}"
        );
        assert_eq!(taken, [false; 2], "an ended credential was taken");
        count.assert_whole();
    });
}

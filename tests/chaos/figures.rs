//! What an experiment measured, for people and for programs.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// The machine that continuous integration runs on has two cores with much else to do, and the programs are not optimised:
/// times may be so many times those that are promised. The figures that are printed are the real ones.
pub(crate) const SLACK: u32 = 3;

/// The size of an experiment: with `TURNFLEET_CHAOS=full` that of the reference, else one that takes seconds.
pub(crate) fn sized<T>(usual: T, full: T) -> T {
    match std::env::var("TURNFLEET_CHAOS").as_deref() {
        Ok("full") => full,
        Ok(other) => panic!("TURNFLEET_CHAOS={other}: expected full"),
        Err(_) => usual,
    }
}

/// Prints one line, past the harness, which would keep it for itself.
pub(crate) fn print(experiment: &str, figures: Value) {
    let mut line = json!({ "experiment": experiment });
    let object = line.as_object_mut().unwrap();
    object.extend(figures.as_object().unwrap().clone());
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").unwrap();
}

/// Milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap()
}

/// Checks a time against what is promised, with room for a slow machine.
#[track_caller]
pub(crate) fn assert_time(what: &str, time: Duration, promised: Duration) {
    assert!(
        time <= promised * SLACK,
        "{what}: {time:?} instead of {promised:?}"
    );
}

//! Clocks as they stand in answers by HTTP: what a controller and a homeserver say of the time.

use std::time::{Duration, SystemTime};

use ureq::http::Uri;

use super::catalogue::{CLOCK_HOMESERVER, Check};
use super::report::Report;
use crate::proxy;

/// A `Date` has whole seconds, and the answer takes its time: less than this is no difference.
const SOME: Duration = Duration::from_secs(5);
/// What relays forgive.
const MUCH: Duration = Duration::from_secs(60);
/// How long a homeserver may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Compares a `Date` that has just come with the clock here.
pub(super) fn compare(check: &'static Check, subject: &str, date: Option<&str>, report: &Report) {
    let Some(there) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return report.skip(check, subject, "the answer has no Date");
    };
    let (off, way) = match there.duration_since(SystemTime::now()) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    judge(check, subject, off, way, "the one here", report);
}

/// Judges how far a clock is off.
pub(super) fn judge(
    check: &'static Check,
    subject: &str,
    off: Duration,
    way: &str,
    other: &str,
    report: &Report,
) {
    let text = format!("its clock is {:.0} s {way} {other}", off.as_secs_f64());
    if off < SOME {
        report.pass(check, subject, text);
    } else if off < MUCH {
        report.warn(check, subject, text);
    } else {
        report.fail(check, subject, text);
    }
}

/// Asks a homeserver at `url` for the time, by a path that everybody may ask for.
pub(super) fn homeserver(url: &str, report: &Report) {
    let asked = format!("{}/_matrix/client/versions", url.trim_end_matches('/'));
    // What is no URI is refused when it is asked for.
    let proxy = asked.parse().ok().and_then(|uri: Uri| proxy::of(&uri));
    let request = ureq::get(&asked).config();
    let request = request
        .proxy(proxy)
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .build();
    match request.call() {
        Ok(answer) => {
            let date = answer.headers().get("date");
            let date = date.and_then(|date| date.to_str().ok());
            compare(CLOCK_HOMESERVER, url, date, report);
        }
        Err(error) => report.skip(
            CLOCK_HOMESERVER,
            url,
            format!("it does not answer: {error}"),
        ),
    }
}

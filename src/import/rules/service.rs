//! Metrics.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::import::draft::{Draft, Given, Part};
use crate::import::report::{Kind, Outcome};

type Judged = Result<Outcome, String>;

const MAX_PORT: i64 = 65_535;
/// Coturn's port of metrics, which is ours too.
const METRICS_PORT: u16 = 9641;

pub(in crate::import) fn prometheus_port(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let port = given.number(1, MAX_PORT)?;
    Ok(draft.set(Part::Up, "metrics-port", port, given.setting))
}

pub(in crate::import) fn prometheus_address(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let ip = given.address()?;
    if ip == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        return Ok(Outcome::new(
            Kind::Default,
            "metrics are served on 127.0.0.1",
        ));
    }
    // One that is wrong is told of at its own line.
    let port = draft.last("prometheus-port").and_then(|setting| {
        let option = given.option;
        let port = Given { setting, option }.number(1, MAX_PORT).ok()?;
        u16::try_from(port).ok()
    });
    let port = port.unwrap_or(METRICS_PORT);
    let place = SocketAddr::new(ip, port).to_string();
    Ok(draft.set(Part::Relay, "metrics.address", place, given.setting))
}

pub(in crate::import) fn prometheus_path(_: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    Ok(match given.text()? {
        "/metrics" => Outcome::new(Kind::Default, given.option.why),
        _ => Outcome::new(Kind::NoEquivalent, "the path is /metrics"),
    })
}

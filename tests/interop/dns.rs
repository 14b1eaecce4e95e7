//! `dig` asks the controller's DNS responder: only relays that lists may name are in it, and who asks for what it is not there
//! for is refused.

use std::process::Command;
use std::time::Duration;

use crate::fleet::Fleet;
use crate::{haproxy, tools};

const DIG: &str = "/usr/bin/dig";
const ZONE: &str = "relays.test";
/// The TTL of every record: a drained relay leaves the names sooner, and resolvers' memories with it.
const LIMIT: Duration = Duration::from_secs(30);

/// A fleet with a responder on that port of loopback.
struct Zone {
    fleet: Fleet,
    port: String,
}

impl Zone {
    #[track_caller]
    fn start(relays: &str) -> Self {
        let [place] = haproxy::free();
        let server = format!("[{{ name = \"ns.{ZONE}\", addresses = [\"127.0.0.1\"] }}]");
        let sets = [
            format!("controller.dns.zone={ZONE}"),
            format!("controller.dns.listen={place}"),
            format!("controller.dns.name_servers={server}"),
        ];
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let relays = ["--spawn", "--relays", relays].into_iter();
        let arguments: Vec<&str> = relays.chain(sets).collect();
        Self {
            fleet: Fleet::up(&arguments),
            port: place.port().to_string(),
        }
    }

    /// What `dig` prints.
    #[track_caller]
    fn dig(&self, arguments: &[&str]) -> String {
        let output = Command::new(DIG)
            .args(["@127.0.0.1", "-p", &self.port, "+tries=1", "+time=5"])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The code of the answer, and its flags.
    #[track_caller]
    fn status(&self, arguments: &[&str]) -> (String, String) {
        let printed = self.dig(arguments);
        let after = |word: &str, end| {
            let rest = printed.split_once(word).map_or("", |(_, rest)| rest);
            rest.split(end).next().unwrap().trim().to_owned()
        };
        (after("status:", ','), after("flags:", ';'))
    }

    /// The relays that a service leads to, in their order.
    #[track_caller]
    fn relays(&self) -> Vec<String> {
        let printed = self.dig(&["+short", &format!("_turn._udp.{ZONE}"), "SRV"]);
        let names = printed.lines().filter_map(|line| line.split(' ').nth(3));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort();
        names
    }
}

#[test]
fn dig_sees_relays_that_serve_and_neither_the_killed_nor_the_drained_one() {
    if !tools::present(&[DIG]) {
        return;
    }
    let zone = Zone::start("3");
    let names = [0, 1, 2].map(|relay| format!("relay-{relay}.relay.{ZONE}."));
    tools::eventually("all relays are named", LIMIT, || {
        (zone.relays() == names).then_some(())
    });
    let host = format!("turn.{ZONE}");
    assert_eq!(zone.dig(&["+short", &host, "A"]), "127.0.0.1\n");
    assert_eq!(zone.dig(&["+short", "+tcp", &host, "A"]), "127.0.0.1\n");
    let naptr = zone.dig(&["+short", &host, "NAPTR"]);
    assert!(naptr.contains("\"RELAY:turn.udp\""), "{naptr}");

    let pid = zone.fleet.relays()[2].pid.to_string();
    let killed = Command::new("kill").args(["-KILL", &pid]).status();
    assert!(killed.unwrap().success());
    tools::eventually("the killed relay has left", LIMIT, || {
        (zone.relays() == names[..2]).then_some(())
    });

    let drain = format!("{}/v1/nodes/relay-0/drain", zone.fleet.text("http"));
    let bearer = format!("Bearer {}", zone.fleet.text("api_token"));
    let answer = ureq::post(drain)
        .config()
        .proxy(None)
        .build()
        .header("Authorization", bearer)
        .send("");
    assert!(answer.is_ok(), "{answer:?}");
    tools::eventually("the drained relay has left", LIMIT, || {
        (zone.relays() == names[1..2]).then_some(())
    });
    let own = zone.status(&[&names[0], "A"]);
    assert_eq!(own.0, "NXDOMAIN");
}

#[test]
fn dig_is_told_what_is_not_served() {
    if !tools::present(&[DIG]) {
        return;
    }
    let zone = Zone::start("1");
    tools::eventually("the relay is named", LIMIT, || {
        (zone.relays().len() == 1).then_some(())
    });
    let (turn, away) = (format!("turn.{ZONE}"), "example.org");
    #[track_caller]
    fn check(zone: &Zone, arguments: &[&str], status: &str, flags: &str) {
        let expected = (status.to_owned(), flags.to_owned());
        assert_eq!(zone.status(arguments), expected, "{arguments:?}");
    }
    check(&zone, &["+norec", ZONE, "SOA"], "NOERROR", "qr aa");
    check(&zone, &[&turn, "A"], "NOERROR", "qr aa rd");
    check(
        &zone,
        &[&format!("none.{ZONE}"), "A"],
        "NXDOMAIN",
        "qr aa rd",
    );
    check(&zone, &[away, "A"], "REFUSED", "qr rd");
    check(
        &zone,
        &["-c", "CH", "version.bind", "TXT"],
        "REFUSED",
        "qr rd",
    );
    check(
        &zone,
        &["+opcode=notify", "+norec", ZONE, "SOA"],
        "NOTIMP",
        "qr",
    );
    let later = ["+edns=1", "+noednsneg", "+norec", ZONE, "SOA"];
    check(&zone, &later, "BADVERS", "qr");
    let transfer = zone.dig(&[ZONE, "AXFR"]);
    assert!(transfer.contains("Transfer failed"), "{transfer}");
    let any = zone.dig(&["+notcp", "+short", &turn, "ANY"]);
    assert_eq!(any, "\"RFC8482\" \"\"\n");
}

//! The dashboard in Chromium, before a fleet of two relays with traffic: what it shows, whom it lets in, and whether everybody
//! can use it.
//!
//! Pictures of it are left in `target/dashboard`.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use turnfleet_turn::client::AllocateOptions;

use crate::client::{Caller, Credential};
use crate::fleet::Fleet;
use crate::tools;
use crate::webdriver::{Browser, PROGRAMS};

const SECRET: &str = "north-by-northwest";
/// The rules of accessibility, where `cargo xtask test` leaves them.
const AXE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/node/node_modules/axe-core/axe.min.js"
);
/// How long the page may take to show what has happened.
const SOON: Duration = Duration::from_secs(30);

/// A fleet, and a browser that stands before its dashboard.
struct Scene {
    browser: Browser,
    fleet: Fleet,
}

impl Scene {
    #[track_caller]
    fn new() -> Option<Self> {
        if !tools::present(&PROGRAMS) {
            return None;
        }
        let fleet = Fleet::up(&["--shared-secret", SECRET]);
        let browser = Browser::start(&[]);
        browser.open(&format!("{}/dashboard", fleet.text("http")));
        Some(Self { browser, fleet })
    }

    /// The status and the answer of the API.
    #[track_caller]
    fn api(&self, path: &str, token: &str, body: Option<&Value>) -> (u16, Value) {
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .build()
            .new_agent();
        let url = format!("{}{path}", self.fleet.text("http"));
        let bearer = format!("Bearer {token}");
        let answer = match body {
            Some(body) => agent
                .post(&url)
                .header("Authorization", bearer)
                .send_json(body),
            None => agent.get(&url).header("Authorization", bearer).call(),
        };
        let mut answer = answer.unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_json().unwrap())
    }

    /// A token that sees, and changes nothing.
    #[track_caller]
    fn viewer(&self) -> String {
        let wanted = json!({ "name": "dashboard", "scopes": ["viewer"] });
        let (status, made) = self.api("/v1/tokens", self.fleet.text("api_token"), Some(&wanted));
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    }

    /// What the page holds at `selector`, where it is in sight.
    #[track_caller]
    fn text(&self, selector: &str) -> String {
        const SCRIPT: &str = "return document.querySelector(arguments[0])?.innerText ?? ''";
        let text = self.browser.run(SCRIPT, &json!([selector]));
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the text at `selector` is as it should be.
    #[track_caller]
    fn sees(&self, selector: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tools::eventually(selector, SOON, || {
                last = self.text(selector);
                wanted(&last).then(|| last.clone())
            })
        }));
        seen.unwrap_or_else(|_| panic!("{selector} is {last:?}"))
    }

    /// Comes in by the keyboard alone.
    #[track_caller]
    fn sign_in(&self, token: &str) {
        tools::eventually("a token can be typed", SOON, || {
            let focused = "return document.activeElement?.id === 'token'";
            (self.browser.run(focused, &json!([])) == true).then_some(())
        });
        self.browser.press(token);
        self.browser.press("{enter}");
    }

    /// The number that a figure shows, by its name, with the unit of its size reckoned in.
    #[track_caller]
    fn figure(&self, name: &str) -> f64 {
        let figures = self.text("#figures");
        let mut lines = figures.lines().skip_while(|line| *line != name);
        let value = lines.nth(1).unwrap_or_default().to_owned();
        let (number, unit) = value.split_once(' ').unwrap_or((&value, ""));
        let scale = match unit.chars().next() {
            Some('k') => 1e3,
            Some('M') => 1e6,
            Some('G') => 1e9,
            _ => 1.0,
        };
        let number = number.replace(',', "").parse::<f64>();
        number.map_or(0.0, |number| number * scale)
    }
}

/// Two clients with an allocation each, on one relay.
struct Call {
    one: Caller,
    other: Caller,
    here: SocketAddr,
    there: SocketAddr,
}

impl Call {
    #[track_caller]
    fn new(relay: SocketAddr) -> Self {
        let allocate = |user: &str| {
            let credential = Credential::synapse(SECRET, user);
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut caller = Caller::udp(socket, relay, &credential);
            let granted = caller.allocate(AllocateOptions::default()).unwrap();
            (caller, granted.relayed)
        };
        let (mut one, here) = allocate("@ann:example.org");
        let (mut other, there) = allocate("@ben:example.org");
        one.bind(there).unwrap();
        other.permit(here).unwrap();
        Self {
            one,
            other,
            here,
            there,
        }
    }

    /// Says something, so many times, and hears it at the other end.
    #[track_caller]
    fn talk(&mut self, times: usize) {
        let words = "0123456789".repeat(100);
        for _ in 0..times {
            self.one.send(self.there, &words);
            assert_eq!(self.other.hear(), (self.here, words.clone()));
        }
    }
}

#[test]
fn the_page_shows_two_relays_traffic_that_grows_and_a_relay_that_drains() {
    let Some(scene) = Scene::new() else { return };
    scene.sign_in(&scene.viewer());
    scene.sees("#figures", |text| text.contains("2 / 2"));
    let relays = scene.sees("#relays-rows", |text| text.matches("healthy").count() == 2);
    assert!(relays.contains("relay-0") && relays.contains("relay-1"));
    scene.sees("#attention", |text| text == "Nothing.");

    let mut call = Call::new(scene.fleet.relays()[0].udp);
    let talked = |call: &mut Call, times, least: f64| {
        tools::eventually("traffic is shown", SOON, || {
            call.talk(times);
            (scene.figure("Traffic") > least).then(|| scene.figure("Traffic"))
        })
    };
    // More than the probe of the controller sends.
    let little = talked(&mut call, 2, 20_000.0);
    tools::eventually("both allocations are shown", SOON, || {
        (scene.figure("Allocations") >= 2.0).then_some(())
    });
    talked(&mut call, 200, little * 2.0);
    let chart = "#traffic-chart svg";
    let said = "return document.querySelector(arguments[0])?.ariaLabel ?? ''";
    tools::eventually("the chart has traffic", SOON, || {
        call.talk(20);
        let said = scene.browser.run(said, &json!([chart]));
        let said = said.as_str().unwrap().to_owned();
        (said.contains("kbit/s") || said.contains("Mbit/s")).then_some(())
    });
    scene.sees("#talker-rows", |text| text.contains("@ann:example.org"));

    let drain = json!({ "deadline_seconds": 7200 });
    let token = scene.fleet.text("api_token");
    let (status, _) = scene.api("/v1/nodes/relay-0/drain", token, Some(&drain));
    assert_eq!(status, 200);
    scene.sees("#relays-rows", |text| text.contains("draining"));
    let drains = scene.sees("#drain-rows", |text| text.contains("relay-0"));
    assert!(
        drains.contains("in 119 min") || drains.contains("in 2 h"),
        "{drains}"
    );
    scene.sees("#figures", |text| text.contains("1 / 2"));
    scene.sees("#event-list", |text| text.contains("relay-0"));
    // What lives goes on, and is still counted.
    call.talk(1);
    assert_eq!(scene.browser.complaints(), Vec::<String>::new());
}

#[test]
fn who_has_no_right_is_told_so_and_a_controller_that_is_gone_leaves_what_was_seen() {
    let Some(scene) = Scene::new() else { return };
    scene.sign_in("not-a-token-of-anybody");
    scene.sees("#refusal", |text| {
        text.contains("the API token is not known")
    });
    let hidden = "return document.querySelector('#fleet').hidden";
    assert_eq!(scene.browser.run(hidden, &json!([])), true);
    let bound = json!({ "name": "app", "scopes": ["mint"] });
    let admin = scene.fleet.text("api_token").to_owned();
    let (_, made) = scene.api("/v1/tokens", &admin, Some(&bound));
    scene.sign_in(made["token"].as_str().unwrap());
    scene.sees("#refusal", |text| text.contains("does not open the fleet"));

    let viewer = scene.viewer();
    scene.sign_in(&viewer);
    scene.sees("#bearer", |text| {
        text == "Read-only, by the token dashboard"
    });
    scene.sees("#figures", |text| text.contains("2 / 2"));
    // From the page itself, with its token.
    let drained = scene.browser.run(
        "const token = sessionStorage.getItem('turnfleet-token'); \
         const answer = await fetch('v1/nodes/relay-0/drain', { method: 'POST', headers: { authorization: `Bearer ${token}` } }); \
         return [token, answer.status, (await answer.json()).error.code];",
        &json!([]),
    );
    assert_eq!(drained, json!([viewer, 403, "forbidden"]));
    let (_, node) = scene.api("/v1/nodes/relay-0", &admin, None);
    assert_eq!(node["draining"], false);
    let kept =
        "return [localStorage.length, document.cookie, location.href.includes(arguments[0])]";
    let kept = scene.browser.run(kept, &json!([viewer]));
    assert_eq!(kept, json!([0, "", false]));
    // The same tab goes on after it is loaded again.
    let url = format!("{}/dashboard", scene.fleet.text("http"));
    scene.browser.open(&url);
    scene.sees("#relays-rows", |text| text.contains("relay-1"));

    let Scene { browser, fleet } = scene;
    drop(fleet);
    let told = "return [document.querySelector('#note').innerText, document.querySelector('#relays-rows').innerText, \
        document.querySelector('#age').innerText]";
    tools::eventually("the page says that it is old", SOON, || {
        let told = browser.run(told, &json!([]));
        let [note, relays, age] = [0, 1, 2].map(|part| told[part].as_str().unwrap().to_owned());
        let is_told = note.contains("the controller does not answer") && age.contains(" s old");
        (is_told && relays.contains("relay-0")).then_some(())
    });
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn everybody_can_use_the_page_at_every_width_in_light_and_dark() {
    let Some(scene) = Scene::new() else { return };
    if !tools::present(&[AXE]) {
        return;
    }
    let axe = fs::read_to_string(AXE).unwrap();
    let mut faults = Vec::new();
    let mut judge = |place: &str| faults.extend(faults_of(&scene.browser, &axe, place));
    for scheme in ["light", "dark"] {
        scene.browser.show_at(360, scheme);
        judge(&format!("signing in, {scheme}"));
    }
    fs::write(pictures().join("sign-in.png"), scene.browser.picture()).unwrap();
    scene.sign_in(&scene.viewer());
    scene.sees("#figures", |text| text.contains("2 / 2"));
    let mut call = Call::new(scene.fleet.relays()[0].udp);
    let ban =
        json!({ "source": "198.51.100.0/24", "reason": "a report of abuse", "seconds": 86_400 });
    let token = scene.fleet.text("api_token");
    assert_eq!(scene.api("/v1/bans", token, Some(&ban)).0, 201);
    let drain = json!({ "deadline_seconds": 7200 });
    assert_eq!(
        scene.api("/v1/nodes/relay-1/drain", token, Some(&drain)).0,
        200
    );
    tools::eventually("everything is shown", SOON, || {
        call.talk(50);
        let shown = [
            ("#ban-rows", "198.51"),
            ("#drain-rows", "relay-1"),
            ("#talker-rows", "@ann"),
        ];
        let all = shown
            .iter()
            .all(|(place, text)| scene.text(place).contains(text));
        (all && scene.text("#event-list").contains("ban")).then_some(())
    });
    // What moves by itself from here on, while nobody types.
    scene.browser.run(
        "window.moved = 0; new PerformanceObserver(list => { for (const it of list.getEntries()) window.moved += it.value; }) \
         .observe({ type: 'layout-shift' });",
        &json!([]),
    );
    let asked = scene.text("#age");
    scene.sees("#age", |age| age != asked);
    let moved = scene.browser.run("return window.moved", &json!([]));
    assert!(moved.as_f64().unwrap() < 0.05, "the page moves: {moved}");
    for width in [360, 800, 1440] {
        for scheme in ["light", "dark"] {
            scene.browser.show_at(width, scheme);
            let wide = "await new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn))); \
                return document.documentElement.scrollWidth";
            let wide = scene.browser.run(wide, &json!([]));
            assert!(
                wide.as_u64().unwrap() <= u64::from(width),
                "{width}: {wide}"
            );
            judge(&format!("{width} pixels, {scheme}"));
            let picture = pictures().join(format!("{width}-{scheme}.png"));
            fs::write(picture, scene.browser.picture()).unwrap();
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    tabs_through(&scene);
    assert_eq!(scene.browser.complaints(), Vec::<String>::new());
}

/// Every control is reached by the keyboard, and can be seen to be.
fn tabs_through(scene: &Scene) {
    let name = "const it = document.activeElement; \
        if (it === document.body) return ['', ''];
        return [it.id || it.dataset.sort || it.ariaLabel || it.textContent.trim(), getComputedStyle(it).outlineStyle]";
    scene
        .browser
        .run("document.activeElement.blur(); scrollTo(0, 0)", &json!([]));
    let mut reached = Vec::new();
    for _ in 0..60 {
        scene.browser.press("{tab}");
        let told = scene.browser.run(name, &json!([]));
        let control = told[0].as_str().unwrap().to_owned();
        if control != "content" && !control.is_empty() {
            assert_ne!(
                told[1], "none",
                "{control} does not show that it has the focus"
            );
        }
        reached.push(control);
    }
    for control in [
        "Skip to the content",
        "sign-out",
        "course-region",
        "Table of relays",
        "allocations",
        "relays-name",
        "talkers-of",
        "The last events",
    ] {
        assert!(
            reached.iter().any(|it| it == control),
            "{control}: {reached:?}"
        );
    }
}

/// What axe finds that is serious or critical.
#[track_caller]
fn faults_of(browser: &Browser, axe: &str, place: &str) -> Vec<String> {
    let script = format!(
        "{axe};\nconst told = await window.axe.run(document, {{ resultTypes: ['violations'] }}); \
         return told.violations.map(it => [it.id, it.impact, it.nodes.map(node => node.html).slice(0, 3).join(' ')]);"
    );
    let told = browser.run(&script, &json!([]));
    let found = told.as_array().unwrap().iter();
    let grave = found.filter(|it| it[1] == "serious" || it[1] == "critical");
    grave.map(|it| format!("{place}: {it}")).collect()
}

/// The folder of the pictures.
fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dashboard");
    fs::create_dir_all(&folder).unwrap();
    folder
}

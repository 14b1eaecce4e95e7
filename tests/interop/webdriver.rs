//! A headless Chromium behind ChromeDriver, spoken to in the WebDriver protocol.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const CHROMEDRIVER: &str = "/usr/bin/chromedriver";
const CHROMIUM: &str = "/usr/bin/chromium";

/// The programs that a [`Browser`] needs.
pub(crate) const PROGRAMS: [&str; 2] = [CHROMEDRIVER, CHROMIUM];

/// One browser with one page; both end when the value is dropped.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a driver on a port of its choice and a browser without a window, with `switches` besides those that it needs.
    #[track_caller]
    pub(crate) fn start(switches: &[&str]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new(CHROMEDRIVER)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = BufReader::new(driver.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                let port = line
                    .split("on port ")
                    .nth(1)?
                    .trim_end_matches('.')
                    .parse::<u16>()
                    .ok()?;
                (port != 0).then_some(port)
            })
            .expect("ChromeDriver names its port");
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(90)))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let mut arguments = vec![
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--ignore-certificate-errors",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
        ];
        arguments.extend(switches);
        let folder = format!("--user-data-dir={}", profile.path().display());
        arguments.push(&folder);
        let options = json!({ "binary": CHROMIUM, "args": arguments });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
                "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
            } } });
        let url = format!("http://127.0.0.1:{port}/session");
        let answer = post(&agent, &url, &wanted);
        let id = answer["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"));
        Self {
            driver,
            session: format!("{url}/{id}"),
            agent,
            _profile: profile,
        }
    }

    /// Loads a page.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        post(
            &self.agent,
            &format!("{}/url", self.session),
            &json!({ "url": url }),
        );
    }

    /// Runs the body of an asynchronous function with `arguments` and gives what it returns.
    #[track_caller]
    pub(crate) fn run(&self, body: &str, arguments: &Value) -> Value {
        let limits = json!({ "script": 60_000 });
        post(&self.agent, &format!("{}/timeouts", self.session), &limits);
        let script = format!("return (async function () {{ {body} }}).apply(null, arguments);");
        let call = json!({ "script": script, "args": arguments });
        post(
            &self.agent,
            &format!("{}/execute/sync", self.session),
            &call,
        )
    }

    /// Types, as somebody at the keyboard does: what stands between braces is a key by its name.
    #[track_caller]
    pub(crate) fn press(&self, keys: &str) {
        let mut actions = Vec::new();
        let mut rest = keys;
        while let Some(letter) = rest.chars().next() {
            let named = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let (key, after) = match named {
                Some((name, after)) => (special(name), after),
                None => (letter, &rest[letter.len_utf8()..]),
            };
            for kind in ["keyDown", "keyUp"] {
                actions.push(json!({ "type": kind, "value": key.to_string() }));
            }
            rest = after;
        }
        let source = json!({ "type": "key", "id": "keyboard", "actions": actions });
        let url = format!("{}/actions", self.session);
        post(&self.agent, &url, &json!({ "actions": [source] }));
    }

    /// Gives the page a window of `width` and a reader who likes `scheme`: `light` or `dark`.
    #[track_caller]
    pub(crate) fn show_at(&self, width: u32, scheme: &str) {
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let liked = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &liked);
    }

    /// The whole page as PNG.
    #[track_caller]
    pub(crate) fn picture(&self) -> Vec<u8> {
        let whole = json!({ "captureBeyondViewport": true });
        let answer = self.devtools("Page.captureScreenshot", &whole);
        STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }

    /// What the browser has found wrong with the page, requests that were refused apart.
    #[track_caller]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let url = format!("{}/se/log", self.session);
        let told = post(&self.agent, &url, &json!({ "type": "browser" }));
        let told = told.as_array().unwrap().iter();
        let severe = told.filter(|entry| entry["level"] == "SEVERE");
        let words = severe.map(|entry| entry["message"].as_str().unwrap().to_owned());
        words
            .filter(|words| !words.contains("Failed to load resource"))
            .collect()
    }

    #[track_caller]
    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let url = format!("{}/goog/cdp/execute", self.session);
        post(
            &self.agent,
            &url,
            &json!({ "cmd": command, "params": parameters }),
        )
    }
}

/// The code of a key that is no letter, as WebDriver has it.
#[track_caller]
fn special(name: &str) -> char {
    match name {
        "tab" => '\u{e004}',
        "enter" => '\u{e007}',
        "end" => '\u{e010}',
        other => panic!("no key is called {other}"),
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[track_caller]
fn post(agent: &ureq::Agent, url: &str, body: &Value) -> Value {
    let mut response = agent.post(url).send_json(body).unwrap();
    let mut answer: Value = response.body_mut().read_json().unwrap();
    let value = answer["value"].take();
    assert!(
        value["error"].is_null(),
        "{}: {}",
        value["error"],
        value["message"]
    );
    value
}

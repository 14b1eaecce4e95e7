//! `fleet top` before a terminal: live, with keys, and the terminal as it was when it ends. Elsewhere it is a text, or JSON.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;

use crate::fleet::{Fleet, Place, Ports, SOON, exit, signal, within};

/// The other screen, with the cursor hidden, and the way back.
const OPEN: &str = "\x1b[?1049h";
const CLOSE: &str = "\x1b[?1049l";

/// A terminal with a program in it.
struct Window {
    keys: File,
    inside: File,
    shown: Arc<Mutex<String>>,
    program: Child,
}

impl Window {
    /// `fleet top` in a terminal of 160 columns and 40 lines.
    #[track_caller]
    fn of(fleet: &Fleet) -> Self {
        let outside = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&outside).unwrap();
        unlockpt(&outside).unwrap();
        let name = ptsname(&outside, Vec::new()).unwrap();
        let inside = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let size = Winsize {
            ws_row: 40,
            ws_col: 160,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&inside, size).unwrap();
        let end = || Stdio::from(inside.try_clone().unwrap());
        let program = top(fleet)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keys = File::from(outside);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut screen, kept) = (keys.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It ends with the terminal.
            while let Ok(count) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                kept.lock().unwrap().push_str(&text);
            }
        });
        Self {
            keys,
            inside,
            shown,
            program,
        }
    }

    /// Waits until the terminal was told all of `parts` since a key was pressed last.
    #[track_caller]
    fn shows(&self, parts: &[&str]) {
        within(SOON, &format!("the terminal shows {parts:?}"), || {
            let shown = self.shown.lock().unwrap();
            parts.iter().all(|part| shown.contains(part))
        });
    }

    #[track_caller]
    fn press(&mut self, keys: &str) {
        self.shown.lock().unwrap().clear();
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether what is typed is shown and comes by lines, as a shell wants it.
    fn is_plain(&self) -> bool {
        let modes = tcgetattr(self.inside.as_fd()).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// Waits for the end, which leaves the terminal as it was.
    #[track_caller]
    fn ends(mut self) {
        assert!(exit(&mut self.program).success());
        self.shows(&[CLOSE]);
        assert!(self.is_plain());
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn top(fleet: &Fleet) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnfleet"));
    command
        .args(["fleet", "top", "--controller", fleet.text("/http")])
        .env("TURNFLEET_API_TOKEN", fleet.text("/api_token"))
        .stdin(Stdio::null());
    command
}

#[test]
fn fleet_top_is_live_in_a_terminal_and_plain_elsewhere() {
    let place = Place::new();
    let fleet = place.start(Ports::free(), &[]);
    within(SOON, "lists name every relay", || {
        fleet.api("/v1/capacity")["total"]["listed"] == 2
    });

    let mut window = Window::of(&fleet);
    window.shows(&[
        OPEN,
        "relays 2 of 2 in lists",
        "relay-0",
        "[1 relays]",
        "q quit",
    ]);
    assert!(!window.is_plain());
    fleet.order(&["drain", "relay-1", "--deadline", "2h"]);
    window.shows(&["relays 1 of 2 in lists", "draining", "relays that drain: 1"]);
    window.press("3");
    window.shows(&["[3 drains and secrets]", "RELAY THAT DRAINS", "LAST USED"]);
    window.press("\t");
    window.shows(&["[4 abuse]", "TENANT"]);
    window.press("1s");
    window.shows(&["[1 relays]"]);
    window.press("s");
    window.shows(&["by "]);
    window.press("q");
    window.ends();

    // A signal does no harm to the terminal either.
    let window = Window::of(&fleet);
    window.shows(&[OPEN, "relay-0"]);
    signal("TERM", u64::from(window.program.id()));
    window.ends();

    let output = top(&fleet).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !text.contains('\x1b'), "{text}");
    for part in [
        "relays 1 of 2 in lists",
        "relay-0",
        "SCOPE",
        "RELAY THAT DRAINS",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let whole = fleet.order(&["top"]);
    assert_eq!(whole["nodes"]["total"], 2);
    let parts = [
        "capacity",
        "attention",
        "course",
        "secrets",
        "abuse",
        "bans",
    ];
    assert!(
        parts.iter().all(|part| whole[part] != Value::Null),
        "{whole}"
    );
    let users = fleet.order(&["top", "users"]);
    assert!(users["talkers"].is_array());
}

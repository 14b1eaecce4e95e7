//! `fleet top` without more words: the whole fleet, live in a terminal, or once as text or JSON.
//!
//! What is asked for is in [`gather`], what it looks like in [`screen`], and [`terminal`] alone knows escape sequences and keys. It
//! reads the public API and changes nothing.

mod gather;
mod screen;
mod terminal;

use std::io::IsTerminal as _;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value as Json;

use super::console::Console;
use crate::shutdown::Signals;
use gather::Wish;
use screen::State;
use terminal::{Key, Terminal};

/// How often the controller is asked.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often the screen is looked over, so that the age of what is shown goes on.
const LOOK: Duration = Duration::from_millis(250);

/// What the threads tell the one that draws.
enum News {
    /// What the controller says, or why it says nothing.
    Seen(Result<Json, String>),
    /// The process shall end.
    End,
}

/// Shows the whole fleet.
///
/// # Errors
/// When no controller can be reached or it refuses, and when the terminal cannot be used.
pub(super) fn run(console: &Console, once: bool) -> anyhow::Result<()> {
    if console.is_watching() {
        bail!(
            "fleet top goes on by itself in a terminal; --watch goes with fleet top users, sources, peers or strangers"
        );
    }
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if is_terminal && !once && !console.is_json() {
        return live(console);
    }
    let whole = gather::whole(console)?;
    crate::print(&if console.is_json() {
        format!("{whole}\n")
    } else {
        screen::page(&whole)
    })
}

/// Draws what a thread of its own asks for, until somebody has seen enough.
fn live(console: &Console) -> anyhow::Result<()> {
    // A refusal is told on a screen that stays.
    let first = gather::look(console, &Wish::default())?;
    let (tell, news) = mpsc::channel();
    let (wish, wishes) = mpsc::channel();
    let asker = console.clone();
    let teller = tell.clone();
    spawn("ask", move || ask(&asker, &wishes, &teller))?;
    spawn("signals", move || await_signal(&tell))?;
    let mut state = State::default();
    let mut wished = state.wish;
    state.take(Ok(first));
    let mut terminal = Terminal::open().context("cannot use the terminal")?;
    loop {
        let (columns, lines) = terminal.size();
        state.fit(lines);
        terminal.draw(&screen::draw(&state, columns, lines))?;
        let key = terminal.key(LOOK)?;
        for told in news.try_iter() {
            match told {
                News::Seen(seen) => state.take(seen),
                News::End => return Ok(()),
            }
        }
        match key {
            None => {}
            Some(Key::Quit) => return Ok(()),
            Some(key) => state.press(key),
        }
        if state.wish != wished {
            wished = state.wish;
            let asked = wish.send(wished);
            asked.context("nobody asks the controller any more")?;
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(run).context("cannot start a thread")?;
    Ok(())
}

/// Asks at the interval, and at once when something else is wished for.
fn ask(console: &Console, wishes: &Receiver<Wish>, tell: &Sender<News>) {
    let mut wish = Wish::default();
    let mut due = Instant::now() + INTERVAL;
    loop {
        match wishes.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(other) => wish = wishes.try_iter().last().unwrap_or(other),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let seen = gather::look(console, &wish).map_err(|error| format!("{error:#}"));
        due = Instant::now() + INTERVAL;
        if tell.send(News::Seen(seen)).is_err() {
            return;
        }
    }
}

/// Waits for what ends the process, so that the terminal is left as it was.
fn await_signal(tell: &Sender<News>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        if let Ok(mut signals) = Signals::listen() {
            signals.next().await;
            // Nobody draws any more.
            drop(tell.send(News::End));
        }
    });
}

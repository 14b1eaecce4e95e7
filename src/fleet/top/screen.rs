//! What `fleet top` looks like: lines of text made of the API's answers. Nothing here knows a terminal or a clock but
//! [`State::take`], which remembers when it was told something.

use std::time::Instant;

use serde_json::Value as Json;

use super::gather::{SORTS, View, Wish};
use super::terminal::Key;
use crate::fleet::table::{Table, cell, gauge, list, percent, time};
use crate::fleet::{abuse, bans, capacity, secrets, usage};

/// Seconds after which what is shown is called old.
const OLD: u64 = 6;
/// What needs a look, beyond which there is only a number.
const LOOKS: usize = 4;
/// The lines of a screen that has no room for a table.
const LEAST_ROWS: usize = 1;
/// From no use to the most of what is shown.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How a line stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Head,
    Bad,
    Warning,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) tone: Tone,
    pub(super) text: String,
}

impl Line {
    fn new(tone: Tone, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { tone, text }
    }
}

/// What is shown, and what shall be.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) wish: Wish,
    seen: Json,
    since: Option<Instant>,
    failure: Option<String>,
    /// Lines of a table other than that of relays that are above the first one in sight.
    scroll: usize,
}

impl State {
    /// Takes what the controller says, or why it says nothing.
    pub(super) fn take(&mut self, told: Result<Json, String>) {
        match told {
            Ok(seen) => {
                self.seen = seen;
                self.since = Some(Instant::now());
                self.failure = None;
                // Relays have gone, and the page with them.
                let total = number(&self.seen, "/nodes/total");
                if self.wish.view == View::Relays && self.wish.skip > 0 {
                    self.wish.skip = self.wish.skip.min(total.saturating_sub(1));
                }
            }
            Err(failure) => self.failure = Some(failure),
        }
    }

    /// Wishes for as many relays as a screen of so many lines shows.
    pub(super) fn fit(&mut self, lines: usize) {
        let above = head(self).len();
        // The header of the table, and the keys below.
        self.wish.rows = lines.saturating_sub(above + 2).max(LEAST_ROWS);
    }

    /// Does what a key asks for.
    pub(super) fn press(&mut self, key: Key) {
        let page = self.wish.rows.max(1);
        let place = match self.wish.view {
            View::Relays => &mut self.wish.skip,
            View::Regions | View::Changes | View::Abuse => &mut self.scroll,
        };
        match key {
            Key::Up => *place = place.saturating_sub(1),
            Key::Down => *place += 1,
            Key::PageUp => *place = place.saturating_sub(page),
            Key::PageDown => *place += page,
            Key::First => *place = 0,
            Key::Sort => {
                self.wish.sort = (self.wish.sort + 1) % SORTS.len();
                self.wish.skip = 0;
            }
            Key::View(number) => self.turn_to(number),
            Key::NextView => {
                let at = View::ALL.iter().position(|view| *view == self.wish.view);
                self.turn_to((at.unwrap_or(0) + 1) % View::ALL.len());
            }
            Key::Quit => {}
        }
        if self.wish.view == View::Relays {
            let last = number(&self.seen, "/nodes/total").saturating_sub(1);
            self.wish.skip = self.wish.skip.min(last);
        } else {
            let last = body(self).lines().count().saturating_sub(2);
            self.scroll = self.scroll.min(last);
        }
    }

    fn turn_to(&mut self, number: usize) {
        if let Some(view) = View::ALL.get(number) {
            self.wish.view = *view;
            self.scroll = 0;
            self.wish.skip = 0;
        }
    }

    /// Whether the answer to the wish for this view has come.
    fn has_body(&self) -> bool {
        let part = match self.wish.view {
            View::Relays => "nodes",
            View::Regions => "capacity",
            View::Changes => "secrets",
            View::Abuse => "bans",
        };
        self.seen.get(part).is_some()
    }
}

/// The screen: at most `height` lines of at most `width` characters.
pub(super) fn draw(state: &State, width: usize, height: usize) -> Vec<Line> {
    let mut lines = head(state);
    let body = if state.has_body() {
        body(state)
    } else {
        "…\n".to_owned()
    };
    let room = height.saturating_sub(lines.len() + 1).max(LEAST_ROWS);
    let mut rows = body.lines();
    if let Some(header) = rows.next() {
        lines.push(Line::new(Tone::Head, header));
    }
    let shown = rows.skip(state.scroll).take(room.saturating_sub(1));
    lines.extend(shown.map(|row| Line::new(Tone::Plain, row)));
    lines.truncate(height.saturating_sub(1));
    while lines.len() + 1 < height {
        lines.push(Line::new(Tone::Plain, ""));
    }
    let keys = "q quit   1-4 or Tab view   s sort   up, down, PgUp, PgDn scroll";
    lines.push(Line::new(Tone::Strong, keys));
    for line in &mut lines {
        line.text = clean(&line.text, width);
    }
    lines
}

/// Everything as a text for files and pipes.
pub(super) fn page(whole: &Json) -> String {
    let state = State {
        seen: whole.clone(),
        ..State::default()
    };
    let mut text = String::new();
    let mut add = |line: &str| {
        text.push_str(&clean(line, usize::MAX));
        text.push('\n');
    };
    for line in standing(&state).into_iter().chain(looks(&state)) {
        add(&line.text);
    }
    for view in View::ALL {
        add("");
        for row in table(view, whole).lines() {
            add(row);
        }
    }
    text
}

/// What is above the table.
fn head(state: &State) -> Vec<Line> {
    let mut lines = standing(state);
    lines.extend(looks(state));
    let views = View::ALL.iter().enumerate().map(|(number, view)| {
        let name = format!("{} {}", number + 1, view.name());
        if *view == state.wish.view {
            format!("[{name}]")
        } else {
            format!(" {name} ")
        }
    });
    let mut tabs: Vec<_> = views.collect();
    if state.wish.view == View::Relays {
        let (skip, total) = (state.wish.skip, number(&state.seen, "/nodes/total"));
        let sort = SORTS.get(state.wish.sort).unwrap_or(&"node");
        tabs.push(format!(
            "  by {sort}, from {} of {total}",
            (skip + 1).min(total)
        ));
    }
    lines.push(Line::new(Tone::Strong, tabs.join(" ")));
    lines
}

/// How the fleet stands.
fn standing(state: &State) -> Vec<Line> {
    let total = &state.seen["capacity"]["total"];
    let rates = |way: &str| rate(total, &format!("/rates/bytes_{way}_clients"));
    let or_none = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    let first = format!(
        "turnfleet   relays {} of {} in lists   saturation {} ({})   full in {}",
        cell(total, "/listed"),
        cell(total, "/nodes"),
        percent(total, "/saturation"),
        cell(total, "/state"),
        or_none(capacity::time(total)),
    );
    // Where there is one zone, nothing is left without it.
    let without_zone = match list(&state.seen["capacity"], "/zones").count() {
        0 | 1 => String::new(),
        _ => cell(total, "/allocations/headroom_n1"),
    };
    let second = format!(
        "allocations {}   headroom {}   without largest zone {}   ports {}",
        gauge(total, "/allocations"),
        or_none(cell(total, "/allocations/headroom")),
        or_none(without_zone),
        gauge(total, "/relayed_ports"),
    );
    let third = format!(
        "traffic {} from clients, {} to clients",
        rates("from"),
        rates("to")
    );
    let mut lines = vec![
        Line::new(Tone::Strong, first),
        Line::new(Tone::Plain, second),
        Line::new(Tone::Plain, third),
    ];
    let course = |of: fn(&Json) -> f64| spark(&state.seen["course"], of);
    let allocations = course(|moment| float(moment, "/allocations"));
    let traffic =
        course(|moment| float(moment, "/bytes_from_clients") + float(moment, "/bytes_to_clients"));
    lines.push(Line::new(
        Tone::Plain,
        format!("15 min: allocations {allocations}   traffic {traffic}"),
    ));
    let rollout = &state.seen["rollout"];
    let (stage, node) = (cell(rollout, "/stage"), cell(rollout, "/node"));
    let drains = number(&state.seen, "/draining/total");
    if stage != "all" || drains > 0 {
        let text = format!("policy {stage} {node}   relays that drain: {drains}");
        lines.push(Line::new(Tone::Warning, text));
    }
    lines
}

/// What needs a look, and whether what is shown is old.
fn looks(state: &State) -> Vec<Line> {
    let mut lines = Vec::new();
    let age = state.since.map_or(0, |since| since.elapsed().as_secs());
    if let Some(failure) = &state.failure {
        let text = format!("what is shown is {age} s old: {failure}");
        lines.push(Line::new(Tone::Bad, text));
    } else if age > OLD {
        let text = format!("what is shown is {age} s old: the controller has not answered yet");
        lines.push(Line::new(Tone::Bad, text));
    }
    let attention = &state.seen["attention"];
    for item in list(attention, "/items").take(LOOKS) {
        let [severity, about, subject, what] =
            ["/severity", "/about", "/subject", "/what"].map(|part| cell(item, part));
        let tone = match severity.as_str() {
            "critical" => Tone::Bad,
            _ => Tone::Warning,
        };
        let whom = format!("{about} {subject}");
        let text = format!("! {severity}: {}: {what}", whom.trim_end());
        lines.push(Line::new(tone, text));
    }
    let more = number(attention, "/total").saturating_sub(LOOKS);
    if more > 0 {
        lines.push(Line::new(Tone::Warning, format!("! and {more} more")));
    }
    lines
}

fn body(state: &State) -> String {
    table(state.wish.view, &state.seen)
}

/// The table of a view; where it has several, they stand below each other.
fn table(view: View, seen: &Json) -> String {
    match view {
        View::Relays => relays(&seen["nodes"]).to_string(),
        View::Regions => capacity::table(&seen["capacity"]).to_string(),
        View::Changes => {
            let secrets = secrets::table(&seen["secrets"], secrets::now());
            format!("{}\n{secrets}", drains(&seen["draining"]))
        }
        View::Abuse => {
            let (top, suspects) = (usage::users(&seen["top"]), abuse::suspects(&seen["abuse"]));
            format!("{top}\n{suspects}\n{}", bans::table(&seen["bans"]))
        }
    }
}

fn relays(answer: &Json) -> Table {
    let header = [
        "RELAY",
        "PLACE",
        "STATE",
        "LISTED",
        "ALLOCATIONS",
        "PORTS",
        "TRAFFIC",
        "SATURATION",
        "REASON",
    ];
    let row = |node: &Json| {
        let place = [cell(node, "/region"), cell(node, "/zone")].join("/");
        let draining = node.get("draining") == Some(&Json::Bool(true));
        let state = if draining {
            "draining".to_owned()
        } else {
            cell(node, "/health")
        };
        let (used, total) = (
            cell(node, "/load/relayed_ports_used"),
            cell(node, "/load/relayed_ports_total"),
        );
        let bytes = ["from", "to"].map(|way| float(node, &format!("/rates/bytes_{way}_clients")));
        vec![
            cell(node, "/node"),
            place.trim_end_matches('/').to_owned(),
            state,
            cell(node, "/listed"),
            cell(node, "/load/allocations"),
            format!("{used} of {total}"),
            bits(bytes.iter().sum()),
            percent(node, "/saturation"),
            cell(node, "/reason"),
        ]
    };
    Table::new(header).with(list(answer, "/nodes").map(row))
}

fn drains(answer: &Json) -> Table {
    let row = |node: &Json| {
        let deadline = time(node, "/drain_deadline", 1);
        vec![
            cell(node, "/node"),
            cell(node, "/load/allocations"),
            deadline,
            cell(node, "/connected"),
        ]
    };
    let header = [
        "RELAY THAT DRAINS",
        "ALLOCATIONS LEFT",
        "DEADLINE",
        "SESSION",
    ];
    Table::new(header).with(list(answer, "/nodes").map(row))
}

/// The last moments as bars, the highest of them being the most there was.
fn spark(course: &Json, of: fn(&Json) -> f64) -> String {
    const WIDTH: usize = 30;
    let all: Vec<f64> = list(course, "/moments").map(of).collect();
    if all.is_empty() {
        return "nothing is known yet".to_owned();
    }
    let chunk = all.len().div_ceil(WIDTH);
    let highest = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let parts: Vec<f64> = all.chunks(chunk).map(highest).collect();
    let most = highest(&parts);
    let bar = |part: &f64| {
        let reached = |step: usize| part * 8.0 > most * step as f64;
        let steps = (1..BARS.len()).filter(|step| reached(*step)).count();
        BARS[steps]
    };
    parts.iter().map(bar).collect()
}

fn rate(value: &Json, pointer: &str) -> String {
    bits(float(value, pointer))
}

/// Bytes a second, in bits.
fn bits(bytes: f64) -> String {
    let text = format!("{:.0}", bytes * 8.0);
    let number = text.parse().unwrap_or(0);
    format!("{}bit/s", usage::scaled(number))
}

fn float(value: &Json, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Json::as_f64).unwrap_or(0.0)
}

fn number(value: &Json, pointer: &str) -> usize {
    let number = value.pointer(pointer).and_then(Json::as_u64);
    number.and_then(|it| usize::try_from(it).ok()).unwrap_or(0)
}

/// `text` without anything that a terminal would act on: users choose their names. At most `width` characters of it.
fn clean(text: &str, width: usize) -> String {
    let shown = |letter: char| if letter.is_control() { '?' } else { letter };
    text.chars().map(shown).take(width).collect()
}

#[cfg(test)]
mod tests;

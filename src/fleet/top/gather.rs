//! What `fleet top` asks the controller for: little of everything, and the rows that are in sight.

use serde_json::{Map, Value as Json};

use crate::fleet::call::Call;
use crate::fleet::console::Console;

/// Rows of a page that is shown once.
const WHOLE: usize = 1000;
/// Users, suspects and bans.
const FEW: usize = 20;

/// What the table shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    #[default]
    Relays,
    Regions,
    Changes,
    Abuse,
}

impl View {
    pub(super) const ALL: [Self; 4] = [Self::Relays, Self::Regions, Self::Changes, Self::Abuse];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Relays => "relays",
            Self::Regions => "regions",
            Self::Changes => "drains and secrets",
            Self::Abuse => "abuse",
        }
    }
}

/// The order of relays, as the API names it.
pub(super) const SORTS: [&str; 5] = ["node", "region", "allocations", "traffic", "saturation"];

/// What shall be in sight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) view: View,
    /// Of [`SORTS`].
    pub(super) sort: usize,
    /// Relays above the first one.
    pub(super) skip: usize,
    /// Relays that fit; zero where that is not known yet.
    pub(super) rows: usize,
}

/// Every part by its name, of which a view needs some.
fn parts(wish: &Wish) -> Vec<(&'static str, String)> {
    let mut parts = vec![
        ("capacity", "/v1/capacity?summary=true".to_owned()),
        ("attention", "/v1/attention".to_owned()),
        ("rollout", "/v1/rollout".to_owned()),
        ("course", "/v1/capacity/history".to_owned()),
        (
            "draining",
            format!("/v1/nodes?state=draining&limit={WHOLE}"),
        ),
    ];
    match wish.view {
        View::Relays => {
            let Wish {
                sort, skip, rows, ..
            } = *wish;
            let (sort, rows) = (SORTS[sort], if rows == 0 { 50 } else { rows });
            let path = format!("/v1/nodes?sort={sort}&skip={skip}&limit={rows}");
            parts.push(("nodes", path));
        }
        View::Regions => {}
        View::Changes => parts.push(("secrets", "/v1/secrets".to_owned())),
        View::Abuse => parts.extend([
            ("top", format!("/v1/usage/top?limit={FEW}")),
            ("abuse", format!("/v1/abuse?limit={FEW}")),
            ("bans", format!("/v1/bans?limit={FEW}")),
        ]),
    }
    parts
}

/// What is wished for: an object of the API's own answers.
///
/// # Errors
/// When no controller can be reached, or it refuses.
pub(super) fn look(console: &Console, wish: &Wish) -> anyhow::Result<Json> {
    ask(console, parts(wish))
}

/// Everything.
///
/// # Errors
/// As [`look`].
pub(super) fn whole(console: &Console) -> anyhow::Result<Json> {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    for view in View::ALL {
        let rows = WHOLE;
        let wish = Wish {
            view,
            rows,
            ..Wish::default()
        };
        let more = parts(&wish).into_iter();
        let more: Vec<_> = more
            .filter(|(name, _)| all.iter().all(|(known, _)| known != name))
            .collect();
        all.extend(more);
    }
    ask(console, all)
}

fn ask(console: &Console, parts: Vec<(&'static str, String)>) -> anyhow::Result<Json> {
    let mut answers = Map::new();
    for (name, path) in parts {
        answers.insert(name.to_owned(), console.ask(&Call::get(path))?);
    }
    Ok(Json::Object(answers))
}

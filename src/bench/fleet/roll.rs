//! Who of the nodes is where: folded from their own words.

use std::time::Instant;

/// A word of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    /// Which node; those beyond the fleet are the causes of changes.
    pub(super) node: usize,
    pub(super) at: Instant,
    pub(super) news: News,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It runs this generation, and has said so to the controller.
    Runs { generation: u64, bytes: usize },
    /// Its session is over.
    Lost,
    /// It has a connection to the controller again.
    Connected,
}

/// The fleet, as its nodes tell.
#[derive(Debug)]
pub(super) struct Roll {
    /// The generation of each node with a session.
    runs: Vec<Option<u64>>,
    /// The highest of them ever seen.
    newest: u64,
    behind: usize,
    open: usize,
    /// Of the last snapshot.
    pub(super) snapshot_bytes: usize,
}

impl Roll {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            runs: vec![None; nodes],
            newest: 0,
            behind: nodes,
            open: 0,
            snapshot_bytes: 0,
        }
    }

    /// Takes the word of one node of the fleet.
    pub(super) fn hear(&mut self, word: &Word) {
        let Some(known) = self.runs.get_mut(word.node) else {
            return;
        };
        let before = *known;
        let after = match word.news {
            News::Runs { generation, bytes } => {
                self.snapshot_bytes = bytes;
                Some(generation)
            }
            News::Lost => None,
            News::Connected => return,
        };
        *known = after;
        self.open += usize::from(after.is_some());
        self.open -= usize::from(before.is_some());
        if after > Some(self.newest) {
            self.newest = after.unwrap_or_default();
            self.behind = self.runs.len() - 1;
        } else {
            let newest = Some(self.newest);
            self.behind += usize::from(after != newest);
            self.behind -= usize::from(before != newest);
        }
    }

    /// The generation that `node` runs, if it is of the fleet and has a session.
    pub(super) fn runs(&self, node: usize) -> Option<u64> {
        self.runs.get(node).copied().flatten()
    }

    /// How many have a session.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Whether all have a session and run the newest generation that any runs.
    pub(super) fn is_whole(&self) -> bool {
        self.behind == 0
    }

    /// The newest generation.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether all run `generation` or a later one.
    pub(super) fn all_run(&self, generation: u64) -> bool {
        let run = |runs: &Option<u64>| runs.is_some_and(|runs| runs >= generation);
        self.runs.iter().all(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(node: usize, news: News) -> Word {
        Word {
            node,
            at: Instant::now(),
            news,
        }
    }

    #[test]
    fn a_fleet_is_whole_when_all_run_the_newest_generation() {
        let runs = |generation| News::Runs {
            generation,
            bytes: 0,
        };
        let mut roll = Roll::new(2);
        roll.hear(&word(0, runs(1)));
        assert!(!roll.is_whole());
        roll.hear(&word(1, runs(2)));
        assert!(!roll.is_whole() && roll.all_run(1));
        roll.hear(&word(0, runs(2)));
        assert!(roll.is_whole());
        roll.hear(&word(7, runs(9)));
        assert_eq!((roll.newest(), roll.open()), (2, 2));
        roll.hear(&word(1, News::Lost));
        roll.hear(&word(1, News::Lost));
        assert_eq!((roll.is_whole(), roll.open()), (false, 1));
    }
}

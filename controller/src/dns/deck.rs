//! The records of one name and type, and which of them one answer has.
//!
//! An answer takes evenly spaced points of a line on which every record has a stretch as long as its weight: each record is
//! in answers, and first in them, as often as its weight says, and the next query begins at another point.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The most records of an answer: eight of any kind but SRV fit into 512 bytes.
pub(super) const MAX_DRAWN: usize = 8;

/// A record from its type to the end of its data; the name before it is the answer's to write.
pub(super) type Body = Arc<[u8]>;

/// One record, with what helps whoever asked for it.
#[derive(Clone, Debug)]
pub(super) struct Card {
    pub(super) body: Body,
    pub(super) target: Option<Target>,
}

impl From<Body> for Card {
    fn from(body: Body) -> Self {
        Self { body, target: None }
    }
}

/// The name in a record's data, and its addresses.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Where the name begins in the body.
    pub(super) name_at: usize,
    pub(super) addresses: Arc<[Body]>,
}

impl Target {
    /// Whether both are the same host.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.addresses, &other.addresses)
    }
}

/// Records with their weights; at least one.
#[derive(Debug)]
pub(super) struct Deck {
    cards: Box<[Card]>,
    /// For each card the weights up to it, its own included.
    sums: Box<[f64]>,
}

impl Deck {
    /// A deck of `cards` with their weights, which are above zero; `None` where there are none. Those with the same record
    /// are one card with the weight of all, because an answer says nothing twice.
    pub(super) fn new(cards: impl IntoIterator<Item = (f64, Card)>) -> Option<Self> {
        let mut dealt = BTreeMap::<Body, (f64, Option<Target>)>::new();
        for (weight, Card { body, target }) in cards {
            dealt.entry(body).or_insert((0.0, target)).0 += weight;
        }
        let sums = dealt.values().scan(0.0, |sum, (weight, _)| {
            *sum += weight;
            Some(*sum)
        });
        let sums: Box<[f64]> = sums.collect();
        let cards = dealt.into_iter();
        let cards: Box<[Card]> = cards
            .map(|(body, (_, target))| Card { body, target })
            .collect();
        (!cards.is_empty()).then_some(Self { cards, sums })
    }

    /// The records of answer number `turn`, no more than [`MAX_DRAWN`] and none twice.
    pub(super) fn draw(&self, turn: u64) -> impl Iterator<Item = &Card> {
        const PARTS: [f64; MAX_DRAWN] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let count = self.cards.len().min(MAX_DRAWN);
        let line = self.sums.last().copied().unwrap_or_default();
        let step = line / PARTS.get(count).copied().unwrap_or(8.0);
        let first = point(turn) * line;
        let mut drawn = [0; MAX_DRAWN];
        for (nth, part) in PARTS.into_iter().enumerate().take(count) {
            let point = (first + part * step) % line;
            let mut place = self.sums.partition_point(|sum| *sum <= point);
            // A long stretch holds several points: the neighbours have those that are too many.
            while place >= self.cards.len() || drawn[..nth].contains(&place) {
                place = (place + 1) % self.cards.len();
            }
            drawn[nth] = place;
        }
        let places = drawn.into_iter().take(count);
        places.map(move |place| &self.cards[place])
    }
}

/// Points of [0, 1) that fill it evenly, however many there are: multiples of the golden ratio.
fn point(turn: u64) -> f64 {
    const STEPS: f64 = (1u64 << 53) as f64;
    (turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deck(weights: &[f64]) -> Deck {
        let card = |number: usize| Card::from(Body::from([u8::try_from(number).unwrap()]));
        let cards = weights.iter().enumerate();
        Deck::new(cards.map(|(number, weight)| (*weight, card(number)))).unwrap()
    }

    fn drawn(deck: &Deck, turn: u64) -> Vec<u8> {
        deck.draw(turn).map(|card| card.body[0]).collect()
    }

    #[test]
    fn no_record_is_drawn_twice_and_few_are_all_drawn() {
        let few = deck(&[1.0, 1000.0, 1.0]);
        let many = deck(&[[0.01; 20], [500.0; 20]].concat());
        for turn in 0..1000 {
            let mut seen = drawn(&few, turn);
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2]);
            let mut seen = drawn(&many, turn);
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), MAX_DRAWN);
        }
        assert!(Deck::new([]).is_none());
    }

    #[test]
    fn a_record_comes_first_and_at_all_as_often_as_its_weight_says() {
        // 24 records, half of them with three times the weight of the others.
        let deck = deck(&[[1.0; 12], [3.0; 12]].concat());
        let (mut first, mut at_all) = ([0.0; 2], [0.0; 2]);
        const TURNS: u64 = 10_000;
        for turn in 0..TURNS {
            let drawn = drawn(&deck, turn);
            first[usize::from(drawn[0] >= 12)] += 1.0;
            for card in drawn {
                at_all[usize::from(card >= 12)] += 1.0;
            }
        }
        for [light, heavy] in [first, at_all] {
            let ratio = heavy / light;
            assert!((2.8..3.2).contains(&ratio), "{ratio}");
        }
    }
}

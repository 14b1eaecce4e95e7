//! How full a node is, smoothed and rounded for lists.

use turnfleet_turn::Instant;

/// How full a node is, from 0 to 1: the largest of its ratios of used to limit. The processor counts only over a while: a
/// moment's work fills it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Saturation {
    /// As of the last heartbeat.
    pub instant: f64,
    /// Smoothed over ten seconds, the processor included, and rounded to eighths, so that lists stay as they are while load
    /// only breathes.
    pub eighths: u8,
    /// So full that it is given to nobody who can go elsewhere.
    pub full: bool,
}

/// Smooths and rounds saturation.
#[derive(Clone, Debug, Default)]
pub(super) struct SaturationMeter {
    smoothed: Option<(Instant, f64)>,
    pub(super) saturation: Saturation,
}

/// Seconds over which saturation is smoothed.
const SMOOTHING: f64 = 10.0;
/// How far saturation must leave an eighth before the next one is taken, and fall below [`FULL`] before that ends.
const HYSTERESIS: f64 = 1.0 / 16.0;
/// From here on a node is full.
const FULL: f64 = 0.9;

impl SaturationMeter {
    /// `instant` of what a node has is used, and its processor is `busy`.
    pub(super) fn update(&mut self, now: Instant, instant: f64, busy: f64) {
        let loaded = instant.max(busy.min(1.0));
        let smoothed = match self.smoothed {
            None => loaded,
            Some((before, last)) => {
                let kept = (-now.since(before).as_secs_f64() / SMOOTHING).exp();
                loaded + (last - loaded) * kept
            }
        };
        self.smoothed = Some((now, smoothed));
        let before = self.saturation;
        let end = if before.full { FULL - HYSTERESIS } else { FULL };
        self.saturation = Saturation {
            instant,
            eighths: eighths(before.eighths, smoothed),
            full: instant >= end || smoothed >= end && busy >= end,
        };
    }
}

/// The eighth that `smoothed` lies in; `current` as long as it lies in that or close by.
fn eighths(current: u8, smoothed: f64) -> u8 {
    let low = f64::from(current) / 8.0 - HYSTERESIS;
    let high = f64::from(current + 1) / 8.0 + HYSTERESIS;
    if (low..high).contains(&smoothed) {
        return current;
    }
    (0..=8)
        .rev()
        .find(|eighth| f64::from(*eighth) / 8.0 <= smoothed)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Instant {
        Instant(number * 1_000_000_000)
    }

    #[test]
    fn saturation_moves_to_another_eighth_only_beyond_its_margin() {
        for (current, smoothed, expected) in [
            (0, 0.0, 0),
            (0, 0.18, 0),
            (0, 0.19, 1),
            (1, 0.07, 1),
            (1, 0.06, 0),
            (0, 0.99, 7),
            (7, 1.0, 7),
            (3, 0.7, 5),
        ] {
            assert_eq!(
                eighths(current, smoothed),
                expected,
                "from {current} at {smoothed}"
            );
        }
    }

    #[test]
    fn saturation_is_smoothed_over_ten_seconds() {
        let mut meter = SaturationMeter::default();
        meter.update(second(0), 0.0, 0.0);
        meter.update(second(2), 1.0, 0.0);
        assert_eq!(
            (meter.saturation.instant, meter.saturation.eighths),
            (1.0, 0)
        );
        meter.update(second(60), 1.0, 0.0);
        assert_eq!(meter.saturation.eighths, 7);
    }

    #[test]
    fn a_full_node_is_full_until_it_has_room_by_a_margin() {
        let mut meter = SaturationMeter::default();
        let full = [0.89, 0.9, 0.89, 0.84, 0.83, 0.89].map(|instant| {
            meter.update(second(0), instant, 0.0);
            meter.saturation.full
        });
        assert_eq!(full, [false, true, true, true, false, false]);
    }

    #[test]
    fn a_processor_fills_a_node_only_over_a_while() {
        let mut meter = SaturationMeter::default();
        let mut full_after = None;
        for number in 0..30 {
            let busy = if number == 0 { 0.0 } else { 1.0 };
            meter.update(second(number * 2), 0.1, busy);
            if meter.saturation.full && full_after.is_none() {
                full_after = Some(number * 2);
            }
        }
        assert_eq!(full_after, Some(22));
        meter.update(second(62), 0.1, 0.2);
        assert!(!meter.saturation.full);
    }
}

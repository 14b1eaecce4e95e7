//! Turns of many sources that are bounded together, so that none of the others waits long for its own.

/// Gives `sources` their turns, in their order, until they have brought `bound` or more; `serve` says what each has. Returns
/// those that are left over, who come first the next time.
pub(super) fn take_turns<S: Copy>(
    sources: &[S],
    bound: usize,
    mut serve: impl FnMut(S) -> usize,
) -> &[S] {
    let mut brought = 0;
    for (served, source) in sources.iter().enumerate() {
        if brought >= bound {
            return &sources[served..];
        }
        brought += serve(*source);
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_a_flooded_crowd_has_its_turn_and_no_round_is_long() {
        let mut ready: Vec<usize> = (0..5000).collect();
        let mut served = vec![0; ready.len()];
        for _ in 0..5000 / 32 {
            let mut again = Vec::new();
            let left = take_turns(&ready, 256, |source| {
                served[source] += 1;
                again.push(source);
                8
            });
            assert_eq!(again.len(), 32);
            ready = [left, &again].concat();
        }
        assert!(served.iter().all(|turns| *turns <= 1), "somebody had two");
        assert_eq!(served.iter().sum::<i32>(), 4992);
    }

    #[test]
    fn those_that_bring_little_all_have_their_turn() {
        let left = take_turns(&[1; 256], 256, |brought| brought);
        assert!(left.is_empty());
    }
}

//! To about how many different ports a client sends, in eight bytes: the path of packets sets one bit of 64.

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SentPorts(u64);

/// Each peer of a call has a port or two; a conference with more peers than this has asked for each of them anyway.
const FEW: u32 = 8;

impl SentPorts {
    /// Notes a port.
    pub(crate) fn note(&mut self, port: u16) {
        // Fibonacci hashing: neighbours fall far apart, and so do ports at any regular distance.
        self.0 |= 1_u64 << (port.wrapping_mul(40_503) >> 10);
    }

    /// Whether there are more than those of a call.
    pub(crate) fn are_many(self) -> bool {
        self.0.count_ones() > FEW
    }

    /// Names each group of ports that was noted.
    pub(crate) fn each(self, mut seen: impl FnMut(u8)) {
        for group in 0..64u8 {
            if (self.0 >> group) & 1 == 1 {
                seen(group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(ports: impl IntoIterator<Item = u16>) -> usize {
        let (mut sent, mut seen) = (SentPorts::default(), Vec::new());
        for port in ports {
            sent.note(port);
        }
        sent.each(|group| seen.push(group));
        seen.len()
    }

    #[test]
    fn a_scan_fills_the_groups_whatever_its_steps_and_a_call_does_not() {
        assert_eq!(groups(1..=1024), 64);
        assert_eq!(groups((0..1024).map(|n| n * 64)), 64);
        assert!(groups(1..=100) > 50);
        let mut call = SentPorts::default();
        for _ in 0..1000 {
            call.note(50_000);
            call.note(50_001);
        }
        assert!(!call.are_many());
    }
}

//! How a node shares its file descriptors out between allocations, their TCP connections to peers, and connections that it
//! passes on to HTTPS servers.

/// Descriptors for anything else: listeners, event queues, files, the control session, health checks.
const RESERVED: u64 = 64;
/// Those of one connection that joins a client with a peer, or with an HTTPS server.
const OF_A_CONNECTION: u64 = 2;

/// What the descriptors of a node allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DescriptorBudget {
    /// Allocations.
    pub(crate) allocations: u32,
    /// Peer data connections (RFC 6062).
    pub(crate) connections: u32,
    /// Connections that are passed on at a time.
    pub(crate) https_connections: usize,
}

impl DescriptorBudget {
    /// Shares out `descriptors`. The `https_connections` that were asked for get a quarter at most, for the node is there
    /// to relay, and peer data connections get a quarter of the rest.
    pub(crate) fn new(descriptors: u64, https_connections: usize) -> Self {
        let all = descriptors.saturating_sub(RESERVED).max(1);
        let most = all / 4 / OF_A_CONNECTION;
        let passed_on = u64::try_from(https_connections).map_or(most, |asked| asked.min(most));
        let rest = all - passed_on * OF_A_CONNECTION;
        let connections = rest / 4 / OF_A_CONNECTION;
        let rest = rest - connections * OF_A_CONNECTION;
        Self {
            allocations: u32::try_from(rest).unwrap_or(u32::MAX),
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
            https_connections: usize::try_from(passed_on).unwrap_or(usize::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_two_descriptors_from_the_allocations() {
        for (descriptors, asked, allocations, connections, https_connections) in [
            (1_064, 0, 750, 125, 0),
            (1_064, 100, 600, 100, 100),
            (1_064, 1_024, 564, 93, 125),
            (10, 1_024, 1, 0, 0),
            (u64::MAX, 1_024, u32::MAX, u32::MAX, 1_024),
        ] {
            let wanted = DescriptorBudget {
                allocations,
                connections,
                https_connections,
            };
            assert_eq!(DescriptorBudget::new(descriptors, asked), wanted);
        }
    }
}

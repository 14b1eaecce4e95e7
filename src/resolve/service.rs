//! SRV records, and the order in which a client tries the servers that they name (RFC 2782).

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// The lowest goes first.
    pub(super) priority: u16,
    /// The share among those of the same priority.
    pub(super) weight: u16,
    pub(super) port: u16,
    /// The server's name.
    pub(super) target: String,
}

/// The services in the order in which they are to be tried. `below` draws a number below the one that it is given.
pub(super) fn in_order(
    mut services: Vec<Service>,
    mut below: impl FnMut(u32) -> u32,
) -> Vec<Service> {
    // Those of weight zero first, so that they have the small chance that RFC 2782 leaves them.
    services.sort_by_key(|service| (service.priority, service.weight));
    let mut ordered = Vec::with_capacity(services.len());
    while let Some(first) = services.first() {
        let priority = first.priority;
        let alike = services.partition_point(|service| service.priority == priority);
        let total: u32 = services[..alike]
            .iter()
            .map(|service| u32::from(service.weight))
            .sum();
        let drawn = below(total + 1);
        let mut sum = 0;
        let chosen = services[..alike].iter().position(|service| {
            sum += u32::from(service.weight);
            sum >= drawn
        });
        ordered.push(services.remove(chosen.unwrap_or_default()));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(wanted: &[(u16, u16)]) -> Vec<Service> {
        let service = |(index, &(priority, weight)): (u16, &(u16, u16))| Service {
            priority,
            weight,
            port: index,
            target: String::new(),
        };
        (0..).zip(wanted).map(service).collect()
    }

    fn ports(services: &[Service]) -> Vec<u16> {
        services.iter().map(|service| service.port).collect()
    }

    #[test]
    fn a_lower_priority_goes_first_whatever_the_weights() {
        let found = services(&[(20, 65_535), (10, 0), (30, 1)]);
        for drawn in [0, u32::MAX] {
            let order = in_order(found.clone(), |bound| drawn.min(bound - 1));
            assert_eq!(ports(&order), [1, 0, 2]);
        }
    }

    #[test]
    fn within_a_priority_each_goes_first_as_often_as_its_weight_says() {
        let found = services(&[(1, 1), (1, 0), (1, 3)]);
        // Every number that can be drawn first, and zero behind it.
        let mut firsts: Vec<u16> = (0..5)
            .map(|drawn| {
                let mut draws = [drawn, 0, 0].into_iter();
                let order = in_order(found.clone(), |bound| {
                    let drawn = draws.next().unwrap();
                    assert!(drawn < bound);
                    drawn
                });
                assert_eq!(order.len(), 3);
                order[0].port
            })
            .collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [0, 1, 2, 2, 2]);
    }

    #[test]
    fn no_services_are_in_order_as_they_are() {
        assert_eq!(in_order(Vec::new(), |_| 0), []);
    }
}

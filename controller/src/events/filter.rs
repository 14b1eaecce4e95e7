//! Which events somebody wants.

use super::Event;

/// Which events somebody wants; nothing said is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Kinds such as `allocation.opened`, or what comes before the dot for all of these.
    pub kinds: Vec<String>,
    /// Those that concern this tenant.
    pub tenant: Option<String>,
    /// Those that concern this node.
    pub node: Option<String>,
}

impl Filter {
    /// Whether it wants `event`.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        let is = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        is(&self.tenant, event.tenant.as_deref())
            && is(&self.node, event.node.as_deref())
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| covers(kind, &event.kind)))
    }
}

/// Whether `wanted` names `kind`, or the kinds that it is one of.
fn covers(wanted: &str, kind: &str) -> bool {
    match kind.strip_prefix(wanted.trim_end_matches(".*")) {
        Some(rest) => rest.is_empty() || rest.starts_with('.'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_named_whole_or_by_its_beginning() {
        assert!(covers("allocation.opened", "allocation.opened"));
        assert!(covers("allocation", "allocation.opened"));
        assert!(covers("allocation.*", "allocation.opened"));
        assert!(!covers("alloc", "allocation.opened"));
        assert!(!covers("allocation.opened", "allocation.closed"));
        assert!(!covers("node", "secret.pinned"));
    }
}

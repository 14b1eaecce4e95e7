//! Tenants, as the core knows them: by number.

/// Whose users somebody belongs to. Numbers are given by the fleet and never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u32);

impl TenantId {
    /// The tenant of everybody who is no other's.
    pub const DEFAULT: Self = Self(0);
}

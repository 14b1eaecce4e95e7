//! Who uses the fleet, and how much: the reports of relays are folded into one aggregate, which the controllers share, and whose
//! leader keeps it in the store.
//!
//! [`Aggregate`] is pure. A node's counters never go back within an epoch of its counting, so folding is taking the larger
//! value: reports may come late, twice, or over another controller, and every controller comes to the same sums.
//! [`UsageDesk`] is what sessions, followers, the API and [`keeper`] share; nothing of it is on the path of lists and
//! credentials, and the fleet does without it.

pub mod aggregate;
pub mod counters;
pub mod day;
mod desk;
pub mod history;
pub(crate) mod keeper;
pub mod kept;
pub mod top;

pub use aggregate::Aggregate;
pub use counters::Totals;
pub use desk::UsageDesk;

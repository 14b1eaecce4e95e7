//! Where a reader of events goes on.

use std::fmt;
use std::str::FromStr;

use super::event::EventId;

/// Where a reader goes on. At another controller, or in another run of one, the id of the event alone counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Tells places of one run of a controller from those of another.
    pub(super) run: u32,
    pub(super) place: u64,
    pub(super) id: EventId,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{}.{}", self.run, self.place, self.id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(());
        Ok(Self {
            run: u32::from_str_radix(part()?, 16).map_err(|_| ())?,
            place: part()?.parse().map_err(|_| ())?,
            id: part()?.parse()?,
        })
    }
}

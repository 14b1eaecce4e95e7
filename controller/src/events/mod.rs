//! What happens in the fleet, as one bounded stream: relays tell of allocations, the leader of nodes and secrets, and whatever
//! decides something of what it decided.
//!
//! ```text
//!  relay sessions --\                /--> Server-Sent Events, WatchEvents
//!  publish() --------> EventBus ----+---> other controllers
//!  other controllers /               \--> webhooks, of what was heard here
//! ```
//!
//! The bus never waits for anybody: who reads too slowly is told how much was missed. Nothing of it is in the store.

mod bus;
mod cursor;
mod event;
mod filter;
mod intake;
mod kinds;
mod overruns;
mod privacy;
mod ring;
mod shared;
mod standing;
mod webhooks;

pub use bus::{About, Batch, EventBus, Subscription};
pub use event::{Event, EventId, Field, Place, Username, Value};
pub use filter::Filter;
pub use kinds::{FieldReference, KindReference, What, kind_reference};
pub use privacy::Privacy;

pub(crate) use self::ring::Source;
pub(crate) use cursor::Cursor;
pub(crate) use event::to_json;
pub(crate) use intake::{Intake, Taken};
pub(crate) use kinds::NAMED;
pub(crate) use overruns::Overruns;
pub(crate) use standing::announce;
pub(crate) use webhooks::{WebhookStanding, Webhooks};

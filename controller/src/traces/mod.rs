//! Who had a relayed address: the question goes to the journals of the relay nodes that may know, over their control
//! sessions, and to the other controllers for those whose sessions are there.
//!
//! Nothing of it is kept, and nothing of it passes the fleet's owner: a session says here that its node keeps a journal
//! ([`Journals`]), and whoever asks waits for the node's answer, not longer than a deadline. A node that was not heard is
//! named, with the reason.

mod journals;
mod search;

pub(crate) use journals::{Desk, Journals};
pub(crate) use search::{Outcome, Question, Tracer, ask_all};

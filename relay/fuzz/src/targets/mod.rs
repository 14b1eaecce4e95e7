//! One module for each target: `run` takes arbitrary bytes and panics where something that must hold does not.

mod bytes;
pub mod channel_data;
pub mod client;
pub mod deframer;
pub mod server;
pub mod wire_message;

//! Domain types to bytes and back. The conversion is explicit and fallible: wire types stop here.

mod command;
pub(crate) mod ids;
pub(crate) mod inbox;
mod result;
mod stored;

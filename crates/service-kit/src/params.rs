//! Path parameters of the shop API: whole numbers and ids, checked once.

use crate::problem::Problem;

/// Largest amount, price or quantity: 2^53 − 1, so that every JSON client reads it exactly.
pub const MAX_AMOUNT: u64 = (1 << 53) - 1;

/// Reads a whole number between `min` and `max`; everything else is a 422 that names the parameter and the range.
pub fn whole_number(name: &'static str, text: &str, min: u64, max: u64) -> Result<u64, Problem> {
    let _ = (name, text, min, max);
    unimplemented!()
}

/// Reads an id: 1 to 64 characters of `[A-Za-z0-9_-]`; everything else cannot exist, so it is a 404 that names the thing.
pub fn id(thing: &'static str, text: &str) -> Result<String, Problem> {
    let _ = (thing, text);
    unimplemented!()
}

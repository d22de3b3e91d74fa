//! Panics as values, for records that the code cannot stand.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Times that a record which makes the code panic is tried before it is set aside: once may be an accident of the moment,
/// three times are not.
pub const MAX_TRIES: u32 = 3;

/// What the panic said.
pub fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// The value, or what the panic said. What `work` has changed by then may be half changed: the caller throws it away.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| text(&*panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(caught(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        let number = 3;
        assert_eq!(caught(|| panic!("number {number}")), Err::<(), _>("number 3".to_owned()));
    }
}

//! Path parameters of the shop API: whole numbers and ids, checked once.

use crate::problem::Problem;

/// Largest amount, price or quantity: 2^53 − 1, so that every JSON client reads it exactly.
pub const MAX_AMOUNT: u64 = (1 << 53) - 1;

/// Longest id in characters: a UUID has 36, and a key in a store stays short.
pub const MAX_ID_CHARACTERS: usize = 64;

/// Longest idempotency key in characters: whatever a client likes to put into one, and a key in a store stays short.
pub const MAX_IDEMPOTENCY_KEY_CHARACTERS: usize = 255;

/// Most rows of one `batch_init`: some gigabytes of Redis.
pub const MAX_BATCH_ROWS: u64 = 10_000_000;

/// Most characters of a bad parameter that an answer repeats.
const MAX_ECHO_CHARACTERS: usize = 40;

/// Reads a whole number between `min` and `max`; everything else is a 422 that names the parameter and the range.
///
/// Only ASCII digits count: no sign, no blank, no exponent.
pub fn whole_number(name: &'static str, text: &str, min: u64, max: u64) -> Result<u64, Problem> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // `parse` fails on overflow only, once there is nothing but digits.
    let number = if digits_only { text.parse::<u64>().ok() } else { None };
    number.filter(|number| (min..=max).contains(number)).ok_or_else(|| {
        let detail = format!("{name} must be a whole number from {min} to {max}, not \"{}\"", echo(text));
        Problem::new(422, "invalid-parameter", detail)
    })
}

/// Reads an id: 1 to 64 characters of `[A-Za-z0-9_-]`; everything else cannot exist, so it is a 404 that names the thing.
pub fn id(thing: &'static str, text: &str) -> Result<String, Problem> {
    if is_id(text) { Ok(text.to_owned()) } else { Err(not_found(thing, text)) }
}

/// Whether the text could be an id at all.
pub fn is_id(text: &str) -> bool {
    (1..=MAX_ID_CHARACTERS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// The 404 for a thing that does not exist: kind `<thing>-not-found`.
pub fn not_found(thing: &'static str, id: &str) -> Problem {
    let kind = match thing {
        "order" => "order-not-found",
        "item" => "item-not-found",
        "user" => "user-not-found",
        _ => "not-found",
    };
    Problem::new(404, kind, format!("there is no {thing} \"{}\"", echo(id)))
}

/// What an answer may repeat of the caller's text: short and printable.
fn echo(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MAX_ECHO_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_outside_the_range_are_422() {
        let bad = ["", " 1", "+1", "-1", "1.0", "1e3", "0x1", "٣", "18446744073709551616", "9007199254740992", "0"];
        for text in bad {
            let problem = whole_number("amount", text, 1, MAX_AMOUNT).expect_err(text);
            assert_eq!((problem.status, problem.kind), (422, "invalid-parameter"), "{text}");
            assert!(problem.detail.contains("amount") && problem.detail.contains("9007199254740991"), "{problem:?}");
        }
    }

    #[test]
    fn ids_that_cannot_exist_are_404() {
        let long = "a".repeat(65);
        for text in ["", "a b", "../x", "a:b", "ü", long.as_str(), "a\0"] {
            let problem = id("order", text).expect_err(text);
            assert_eq!((problem.status, problem.kind), (404, "order-not-found"), "{text}");
        }
        assert_eq!(id("item", "0").expect("a batch id"), "0");
        assert!(id("item", "0198b1a2-7a3c-7c4e-8d5f-1a2b3c4d5e6f").is_ok());
    }

    proptest! {
        #[test]
        fn every_number_in_range_is_read(number in 0..=MAX_AMOUNT) {
            prop_assert_eq!(whole_number("n", &number.to_string(), 0, MAX_AMOUNT).ok(), Some(number));
        }

        #[test]
        fn no_text_breaks_it(text in ".*") {
            if let Ok(number) = whole_number("n", &text, 0, MAX_AMOUNT) {
                prop_assert!(number <= MAX_AMOUNT);
            }
            let _ = id("order", &text);
        }
    }
}

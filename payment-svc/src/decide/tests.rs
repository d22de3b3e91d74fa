//! The rules of payment as tables.

use super::*;

fn user(credit: u64) -> User {
    User { credit }
}

#[test]
fn funds_stop_at_the_largest_amount() {
    let table = [
        (0, 0, Ok(0)),
        (5, 7, Ok(12)),
        (MAX_AMOUNT - 1, 1, Ok(MAX_AMOUNT)),
        (MAX_AMOUNT, 1, Err(Refused::TooMuch)),
        (MAX_AMOUNT, 0, Ok(MAX_AMOUNT)),
        (1, u64::MAX, Err(Refused::TooMuch)),
    ];
    for (credit, amount, expected) in table {
        assert_eq!(add_funds(user(credit), amount), expected.map(user), "{credit} + {amount}");
    }
}

#[test]
fn paying_stops_at_nothing() {
    let few = Refused::InsufficientCredit;
    let table = [(5, 0, Ok(5)), (5, 5, Ok(0)), (5, 6, Err(few)), (0, 1, Err(few)), (0, 0, Ok(0))];
    for (credit, amount, expected) in table {
        assert_eq!(pay(user(credit), amount), expected.map(user), "{credit} - {amount}");
    }
}

#[test]
fn giving_back_is_not_refused_for_a_full_purse() {
    assert_eq!(give_back(user(4), 2), Some(user(6)));
    assert_eq!(give_back(user(MAX_AMOUNT), 2), Some(user(MAX_AMOUNT + 2)));
    assert_eq!(give_back(user(u64::MAX), 1), None);
}

#[test]
fn a_charge_is_exact() {
    let code = |user, amount| charge("u", user, amount).map_err(|refusal| refusal.code);
    assert_eq!(code(Some(user(5)), 5), Ok(user(0)));
    assert_eq!(code(Some(user(5)), 0), Ok(user(5)));
    assert_eq!(code(Some(user(5)), 6), Err(INSUFFICIENT_CREDIT.to_owned()));
    assert_eq!(code(Some(user(5)), u64::MAX), Err(INSUFFICIENT_CREDIT.to_owned()));
    assert_eq!(code(None, 0), Err(USER_NOT_FOUND.to_owned()));
}

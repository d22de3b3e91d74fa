//! The rules of payment, for REST and sagas alike: pure functions over users.

use saga_core::record::Refusal;
use service_kit::params::MAX_AMOUNT;

/// Refusal code: less credit than asked for.
pub const INSUFFICIENT_CREDIT: &str = "insufficient-credit";
/// Refusal code: no such user.
pub const USER_NOT_FOUND: &str = "user-not-found";

/// One user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// What may be spent.
    pub credit: u64,
}

/// Why a user stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The credit would be above [`MAX_AMOUNT`].
    TooMuch,
    /// There is less credit than asked for.
    InsufficientCredit,
}

/// Adds credit.
pub fn add_funds(user: User, amount: u64) -> Result<User, Refused> {
    let credit = user.credit.checked_add(amount).filter(|credit| *credit <= MAX_AMOUNT).ok_or(Refused::TooMuch)?;
    Ok(User { credit })
}

/// Spends credit.
pub fn pay(user: User, amount: u64) -> Result<User, Refused> {
    let credit = user.credit.checked_sub(amount).ok_or(Refused::InsufficientCredit)?;
    Ok(User { credit })
}

/// Gives charged credit back. It may not be refused, so the sum may go above [`MAX_AMOUNT`] when somebody has added
/// funds in between; `None` if even the number ends.
pub fn give_back(user: User, amount: u64) -> Option<User> {
    let credit = user.credit.checked_add(amount)?;
    Some(User { credit })
}

/// Charges a user, or says why not.
pub fn charge(user_id: &str, user: Option<User>, amount: u64) -> Result<User, Refusal> {
    let refusal = |code: &str, reason: String| Refusal { code: code.to_owned(), reason };
    let user = user.ok_or_else(|| refusal(USER_NOT_FOUND, format!("there is no user {user_id}")))?;
    pay(user, amount).map_err(|_| {
        refusal(INSUFFICIENT_CREDIT, format!("user {user_id} has a credit of {}, needed are {amount}", user.credit))
    })
}

#[cfg(test)]
mod tests;

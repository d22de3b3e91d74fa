//! Single objects of a service's own store: made, and changed by a pure rule.

use proto::Wire;
use redis_txn::{Transaction, Unread, View};

/// Writes an object under a key that nobody else has.
pub struct Create<O> {
    /// Where.
    pub key: String,
    /// What.
    pub object: O,
}

impl<O: Wire + Send + 'static> Transaction for Create<O> {
    type Outcome = ();

    fn keys(&self, _keys: &mut Vec<String>) {}

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        view.set(self.key.clone(), self.object.encode());
        Ok(())
    }
}

/// A pure rule: the object after an amount has been added to it or taken from it, or why it stays as it is.
pub type Rule<O, R> = fn(O, u64) -> Result<O, R>;

/// Changes an object by a rule.
pub struct Change<O, R> {
    /// Where it is.
    pub key: String,
    /// By how much.
    pub amount: u64,
    /// How.
    pub rule: Rule<O, R>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed<O, R> {
    /// It is so now.
    Done(O),
    /// There is no such object.
    Missing,
    /// The rule does not allow it.
    Refused(R),
    /// The stored object cannot be read.
    Unreadable(String),
}

impl<O: Wire + Send + 'static, R: Send + 'static> Transaction for Change<O, R> {
    type Outcome = Changed<O, R>;

    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(self.key.clone());
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Changed<O, R>, Unread> {
        let Some(bytes) = view.get(&self.key)? else { return Ok(Changed::Missing) };
        let object = match O::decode(&bytes) {
            Ok(object) => object,
            Err(cause) => return Ok(Changed::Unreadable(cause.to_string())),
        };
        Ok(match (self.rule)(object, self.amount) {
            Ok(object) => {
                view.set(self.key.clone(), object.encode());
                Changed::Done(object)
            }
            Err(refused) => Changed::Refused(refused),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::DecodeError;
    use redis_txn::Memory;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Purse(u8);

    impl Wire for Purse {
        fn encode(&self) -> Bytes {
            Bytes::from(vec![self.0])
        }
        fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
            match bytes {
                [byte] => Ok(Self(*byte)),
                _ => Err(DecodeError::Malformed { what: "byte", why: "it is not one".to_owned() }),
            }
        }
    }

    fn take(purse: Purse, amount: u64) -> Result<Purse, &'static str> {
        u8::try_from(amount).ok().and_then(|amount| purse.0.checked_sub(amount)).map(Purse).ok_or("too little")
    }

    #[test]
    fn a_change_is_made_or_leaves_everything() {
        let mut memory = Memory::new().with("bad", "two");
        memory.run(&mut Create { key: "a".to_owned(), object: Purse(4) });
        let mut run = |key: &str, amount| {
            let changed = memory.run(&mut Change { key: key.to_owned(), amount, rule: take });
            (changed, memory.get("a").map(|bytes| bytes[0]))
        };
        assert_eq!(run("a", 3), (Changed::Done(Purse(1)), Some(1)));
        assert_eq!(run("a", 2), (Changed::Refused("too little"), Some(1)));
        assert_eq!(run("b", 1), (Changed::Missing, Some(1)));
        assert!(matches!(run("bad", 1), (Changed::Unreadable(_), Some(1))));
    }
}

//! The look at the record inside the transaction that has the effect.

use redis_txn::{Transaction, Unread, View};
use service_kit::problem::Problem;

use super::key::RequestKey;
use super::record::{Record, Recorded};
use crate::answer::Answer;

/// What a transaction finds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: this is the first request, or the first that ran.
    New,
    /// The same request has come before.
    Recorded(Recorded),
    /// The key belongs to another request, or its record cannot be read.
    Unusable(Answer),
}

/// Looks a key up.
pub fn recorded(view: &mut View<'_>, key: &RequestKey) -> Result<Outcome, Unread> {
    Ok(match view.get(&key.record)? {
        Some(bytes) => of_record(&bytes, key),
        None => Outcome::New,
    })
}

/// What a stored record means for this request.
pub(crate) fn of_record(bytes: &[u8], key: &RequestKey) -> Outcome {
    match Record::decode(bytes) {
        Ok(record) if record.has_expired(key.hour) => Outcome::New,
        Ok(record) if record.fingerprint == key.fingerprint => Outcome::Recorded(record.recorded),
        Ok(_) => Outcome::Unusable(Answer::from(&another_request())),
        Err(error) => {
            tracing::error!(%error, "idempotency record cannot be read");
            Outcome::Unusable(Answer::from(&Problem::new(500, "internal", "the record of the key cannot be read")))
        }
    }
}

fn another_request() -> Problem {
    let detail = "this Idempotency-Key was used for another request; nothing was changed, take a new key";
    Problem::new(422, "idempotency-key-reused", detail)
}

/// A transaction whose answer is recorded in its EXEC.
pub struct Keyed<T, F> {
    inner: T,
    key: Option<RequestKey>,
    answer: F,
}

impl<T: Transaction, F: Fn(&T::Outcome) -> Answer + Send + 'static> Keyed<T, F> {
    /// `inner`, and how its outcome is answered. Without a key it only runs.
    pub fn new(inner: T, key: Option<RequestKey>, answer: F) -> Self {
        Self { inner, key, answer }
    }
}

impl<T: Transaction, F: Fn(&T::Outcome) -> Answer + Send + 'static> Transaction for Keyed<T, F> {
    type Outcome = Answer;

    fn keys(&self, keys: &mut Vec<String>) {
        self.inner.keys(keys);
        keys.extend(self.key.iter().map(|key| key.record.clone()));
    }

    fn covered_keys(&self, keys: &mut Vec<String>) {
        self.inner.covered_keys(keys);
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<Answer, Unread> {
        let Some(key) = &self.key else { return Ok((self.answer)(&self.inner.apply(view)?)) };
        match recorded(view, key)? {
            Outcome::New => {}
            Outcome::Recorded(Recorded::Answer(answer)) | Outcome::Unusable(answer) => return Ok(answer),
            // Another kind of request has this method and path: that cannot be, and must not have an effect.
            Outcome::Recorded(Recorded::Saga(_)) => return Ok(Answer::from(&another_request())),
        }
        let answer = (self.answer)(&self.inner.apply(view)?);
        if answer.is_final() {
            view.set(key.record.clone(), Record::new(key, Recorded::Answer(answer.clone())).encode());
        }
        Ok(answer)
    }
}

impl Record {
    /// Writes it, in the transaction that has the effect.
    pub fn write(&self, view: &mut View<'_>, key: &RequestKey) {
        view.set(key.record.clone(), self.encode());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use redis_txn::Memory;
    use saga_core::ids::SagaId;
    use uuid::Uuid;

    use super::*;
    use crate::idempotency::key::Begun;
    use crate::idempotency::record::KEPT_HOURS;

    /// Counts how often it has run; refuses from the third time on.
    struct Count;

    impl Transaction for Count {
        type Outcome = u8;
        fn keys(&self, keys: &mut Vec<String>) {
            keys.push("count".to_owned());
        }
        fn apply(&mut self, view: &mut View<'_>) -> Result<u8, Unread> {
            let count = view.get("count")?.map_or(0, |bytes| bytes[0]) + 1;
            view.set("count", Bytes::from(vec![count]));
            Ok(count)
        }
    }

    fn answer(count: &u8) -> Answer {
        match count {
            1 => Answer::text("first"),
            2 => Answer::from(&Problem::new(409, "no", "second")),
            3 => Answer::from(&Problem::new(503, "away", "third")),
            _ => Answer::text("later"),
        }
    }

    fn key(name: &str, fingerprint: u64, hour: u64) -> Option<RequestKey> {
        Some(RequestKey { record: format!("idem:POST /count {name}"), fingerprint, hour, begun: Begun::Nothing })
    }

    fn run(memory: &mut Memory, key: Option<RequestKey>) -> (u16, u8) {
        let status = memory.run(&mut Keyed::new(Count, key, answer)).status;
        (status, memory.get("count").map_or(0, |bytes| bytes[0]))
    }

    #[test]
    fn the_same_key_has_one_effect_and_one_answer() {
        let mut memory = Memory::new();
        assert_eq!(run(&mut memory, key("a", 1, 7)), (200, 1));
        assert_eq!(run(&mut memory, key("a", 1, 8)), (200, 1));
        assert_eq!(run(&mut memory, key("b", 1, 8)), (409, 2), "another key is another request");
        assert_eq!(run(&mut memory, key("b", 1, 8)), (409, 2), "a refusal stays a refusal");
        assert_eq!(run(&mut memory, None), (503, 3));
        assert_eq!(run(&mut memory, None), (200, 4), "without a key it only runs");
    }

    #[test]
    fn what_may_change_is_not_recorded() {
        let mut memory = Memory::new().with("count", Bytes::from(vec![2]));
        assert_eq!(run(&mut memory, key("a", 1, 7)), (503, 3));
        assert_eq!(run(&mut memory, key("a", 1, 7)), (200, 4));
    }

    #[test]
    fn another_request_with_the_same_key_is_422_and_has_no_effect() {
        let mut memory = Memory::new();
        run(&mut memory, key("a", 1, 7));
        assert_eq!(run(&mut memory, key("a", 2, 7)), (422, 1));
        let saga = Record::new(&key("s", 1, 7).unwrap(), Recorded::Saga(SagaId(Uuid::nil())));
        let mut memory = memory.with(key("s", 1, 7).unwrap().record, saga.encode());
        assert_eq!(run(&mut memory, key("s", 1, 7)), (422, 1));
    }

    #[test]
    fn an_expired_record_counts_no_longer() {
        let mut memory = Memory::new();
        run(&mut memory, key("a", 1, 7));
        assert_eq!(run(&mut memory, key("a", 1, 7 + KEPT_HOURS)), (200, 1));
        assert_eq!(run(&mut memory, key("a", 1, 8 + KEPT_HOURS)), (409, 2));
    }

    #[test]
    fn an_unreadable_record_has_no_effect() {
        let mut memory = Memory::new().with(key("a", 1, 7).unwrap().record, "?");
        assert_eq!(run(&mut memory, key("a", 1, 7)), (500, 0));
    }
}

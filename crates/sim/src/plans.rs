//! The definitions that are run, what their steps ask for, and the rule that the participants follow.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use orchestrator::definitions::Definitions;
use participant::{Business, Decision, Fault, UndoOutcome, Values};
use saga_core::definition::Definition;
use saga_core::record::{Command, Refusal};
use starter::Plan;

use crate::rng::{Rng, mix};

/// Who executes steps.
pub const PARTICIPANTS: [&str; 3] = ["stock", "payment", "courier"];
/// Accounts of each participant: few, so that sagas meet.
pub const ACCOUNTS: usize = 3;
/// The key of an account: its value is its balance, in digits.
pub const ACCOUNT_PREFIX: &str = "account:";
/// Generations of the definitions: each knows newer versions than the one before.
pub const GENERATIONS: usize = 3;
/// The names of all definitions; a seed runs some of them.
pub const NAMES: [&str; 6] = ["pair", "beside", "pivot", "wide", "late", "ghost"];
/// What the steps after the point of no return do; the rule has no other name for it.
const DELIVER: &str = "deliver";
/// A definition that no orchestrator knows.
const GHOST: &str = "ghost";

const PAIR: [&str; 3] = [
    "name: pair
version: 1
deadline_ms: 12000
steps:
  - { name: reserve, participant: stock, operation: take, timeout_ms: 1500, on_timeout: wait, backoff: { first_ms: 100, max_ms: 1000 } }
  - { name: charge, participant: payment, operation: take-some, after: [reserve], uses: [reserve], timeout_ms: 1500, on_timeout: wait }
",
    "name: pair
version: 2
deadline_ms: 8000
steps:
  - { name: reserve, participant: stock, operation: take, timeout_ms: 2500, on_timeout: undo }
  - { name: charge, participant: payment, operation: take-some, timeout_ms: 2500, on_timeout: undo }
",
    "name: pair
version: 3
deadline_ms: 9000
steps:
  - { name: charge, participant: payment, operation: take-some, timeout_ms: 2000, on_timeout: wait }
  - { name: reserve, participant: stock, operation: take, after: [charge], timeout_ms: 2000, on_timeout: undo }
",
];
const BESIDE: &str = "name: beside
version: 1
deadline_ms: 7000
steps:
  - { name: hold, participant: stock, operation: take-some, timeout_ms: 1200, on_timeout: undo }
  - { name: charge, participant: payment, operation: take, timeout_ms: 3000, on_timeout: wait }
  - { name: book, participant: courier, operation: take, timeout_ms: 3000, on_timeout: wait }
";
const PIVOT: &str = "name: pivot
version: 1
deadline_ms: 6000
steps:
  - { name: reserve, participant: stock, operation: take, timeout_ms: 1500, on_timeout: wait }
  - { name: charge, participant: payment, operation: take-firm, kind: pivot, after: [reserve], timeout_ms: 1500, on_timeout: wait }
  - { name: ship, participant: courier, operation: deliver, kind: retriable, after: [charge], uses: [reserve, charge], timeout_ms: 1500, on_timeout: wait, backoff: { first_ms: 100, max_ms: 1000 } }
";
const WIDE: &str = "name: wide
version: 1
deadline_ms: 15000
steps:
  - { name: reserve, participant: stock, operation: take, timeout_ms: 2000, on_timeout: wait }
  - { name: hold, participant: courier, operation: take-some, timeout_ms: 2000, on_timeout: undo }
  - { name: charge, participant: payment, operation: take-firm, kind: pivot, after: [reserve, hold], timeout_ms: 2000, on_timeout: wait }
  - { name: ship, participant: courier, operation: deliver, kind: retriable, after: [charge], timeout_ms: 2000, on_timeout: wait }
  - { name: note, participant: stock, operation: deliver, kind: retriable, after: [charge], uses: [charge], timeout_ms: 2000, on_timeout: wait }
";
const LATE: &str = "name: late
version: 1
deadline_ms: 9000
steps:
  - { name: reserve, participant: stock, operation: take-some, timeout_ms: 2000, on_timeout: wait }
  - { name: charge, participant: payment, operation: take, after: [reserve], timeout_ms: 2000, on_timeout: wait }
";

/// The text of one definition in one generation; none if that generation does not know it.
fn text(name: &str, generation: usize) -> Option<&'static str> {
    match name {
        "pair" => Some(PAIR[generation.min(PAIR.len() - 1)]),
        "beside" => Some(BESIDE),
        "pivot" => Some(PIVOT),
        "wide" => Some(WIDE),
        "late" if generation > 0 => Some(LATE),
        _ => None,
    }
}

/// The texts of one generation, as far as their names are run.
pub fn texts<'a>(names: &'a [&'static str], generation: usize) -> impl Iterator<Item = &'static str> + 'a {
    names.iter().filter_map(move |name| text(name, generation))
}

/// What an orchestrator of one generation wants to be active, as far as the names are run.
pub fn definitions(names: &[&'static str], generation: usize, softened: bool) -> Definitions {
    static PARSED: OnceLock<BTreeMap<String, Arc<Definition>>> = OnceLock::new();
    let parsed = PARSED.get_or_init(|| {
        let all = NAMES.iter().flat_map(|name| (0..GENERATIONS).filter_map(|generation| text(name, generation)));
        let both = all.flat_map(|text| [text.to_owned(), soften(text)]);
        both.map(|text| (text.clone(), Arc::new(Definition::parse("sim", &text).expect("a definition")))).collect()
    });
    let wanted = texts(names, generation).map(|text| if softened { soften(text) } else { text.to_owned() });
    Definitions::of(wanted.filter_map(|text| parsed.get(&text).cloned()))
}

/// The text without its point of no return: a mistake in the making.
pub fn soften(text: &str) -> String {
    text.replace("kind: pivot, ", "").replace("kind: retriable, ", "").replace("on_timeout: wait", "on_timeout: undo")
}

/// The steps of a definition, by name, with what each asks for.
pub fn plan(name: &'static str, rng: &mut Rng) -> Plan {
    let steps: &[&str] = match name {
        "pair" | "late" | GHOST => &["reserve", "charge"],
        "beside" => &["hold", "charge", "book"],
        "pivot" => &["reserve", "charge", "ship"],
        _ => &["reserve", "hold", "charge", "ship", "note"],
    };
    let ask = |rng: &mut Rng| Bytes::from(format!("{} {}", rng.below(ACCOUNTS), rng.between(1, 4)));
    let mut inputs: BTreeMap<String, Bytes> = steps.iter().map(|step| ((*step).to_owned(), ask(rng))).collect();
    // Some starts can never run.
    if rng.once_in(25) {
        inputs.insert("no-such-step".to_owned(), Bytes::new());
    }
    Plan { definition: name.to_owned(), inputs }
}

/// What an operation does to a balance: the new one, and by how much it fell. `None` is a "no".
pub fn rule(operation: &str, balance: i64, amount: i64) -> Option<(i64, i64)> {
    let moved = match operation {
        "take" | "take-firm" => amount,
        "take-some" => amount.min(balance),
        _ => return Some((balance + amount, -amount)),
    };
    (moved > 0 && balance >= moved).then(|| (balance - moved, moved))
}

/// Whether the undo of an operation does anything: what is delivered is gone.
pub fn is_reversible(operation: &str) -> bool {
    matches!(operation, "take" | "take-some")
}

/// An account and an amount, as inputs and undo notes carry them.
pub fn read_ask(bytes: &[u8]) -> Option<(String, i64)> {
    let (account, amount) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    Some((format!("{ACCOUNT_PREFIX}{account}"), amount.parse().ok()?))
}

/// A balance; an account that is not there is empty.
pub fn read_balance(bytes: Option<&Bytes>) -> i64 {
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok()).unwrap_or(0)
}

/// The output of an applied action.
pub fn output(operation: &str, moved: i64, left: i64, uses: usize) -> Bytes {
    Bytes::from(format!("{operation} {moved} {left} {uses}"))
}

/// The note that an undo needs: what was really moved, which is not always what was asked for.
pub fn undo_note(input: &[u8], moved: i64) -> Bytes {
    let account = std::str::from_utf8(input).ok().and_then(|text| text.split(' ').next()).unwrap_or_default();
    Bytes::from(format!("{account} {moved}"))
}

/// The refusal of an operation.
pub fn refusal(operation: &str) -> Refusal {
    Refusal { code: "too-little".to_owned(), reason: format!("{operation}: the account has too little") }
}

/// The rule of all participants. In a bad mood (not 0) it cannot decide some commands.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// 0 is a good mood; any other number says which commands fail.
    pub mood: Arc<AtomicU64>,
}

impl Ledger {
    fn balks(&self, command: &Command) -> bool {
        let mood = self.mood.load(Ordering::Relaxed);
        let bits = command.id.saga.0.as_u128() as u64 ^ command.id.step.len() as u64;
        mood != 0 && mix(mood ^ bits).is_multiple_of(2)
    }
}

impl Business for Ledger {
    fn keys(&self, command: &Command) -> Vec<String> {
        read_ask(&command.input).map(|(key, _)| key).into_iter().collect()
    }

    fn action(&self, command: &Command, values: &mut dyn Values) -> Result<Decision, Fault> {
        if self.balks(command) {
            // A retriable step that says "no" fails like any other.
            return Ok(if command.operation == DELIVER {
                Decision::Refuse(refusal(&command.operation))
            } else {
                Decision::Fail { reason: "in a bad mood".to_owned() }
            });
        }
        let Some((key, amount)) = read_ask(&command.input) else {
            return Ok(Decision::Refuse(refusal("input")));
        };
        let balance = read_balance(values.get(&key)?.as_ref());
        let Some((left, moved)) = rule(&command.operation, balance, amount) else {
            return Ok(Decision::Refuse(refusal(&command.operation)));
        };
        values.set(key, Bytes::from(left.to_string()));
        let output = output(&command.operation, moved, left, command.uses.len());
        Ok(Decision::Apply { output, undo: undo_note(&command.input, moved) })
    }

    fn undo(&self, command: &Command, done: &Bytes, values: &mut dyn Values) -> Result<UndoOutcome, Fault> {
        if self.balks(command) {
            return Ok(UndoOutcome::Fail { reason: "in a bad mood".to_owned() });
        }
        if let (true, Some((key, moved))) = (is_reversible(&command.operation), read_ask(done)) {
            let balance = read_balance(values.get(&key)?.as_ref());
            values.set(key, Bytes::from((balance + moved).to_string()));
        }
        Ok(UndoOutcome::Reversed)
    }
}

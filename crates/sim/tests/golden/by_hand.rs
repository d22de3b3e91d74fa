//! A log that is made by hand, of what the simulation does not bring: records that make the program panic and are set aside, the
//! sagas that are held for that until a deadline, an operator or their answer moves them on, garbage, records of a fold version.

use bytes::Bytes;
use event_stream::Record;
use proto::Wire;
use saga_core::ids::{CommandId, Direction, Ordinal, SagaId, Starter, TraceContext};
use saga_core::lane::{FIRST_FOLD_VERSION, LaneState};
use saga_core::record::{DeadlineKind, InboxEvent, OperatorAct, Outcome, Refusal, Reply, Start};
use uuid::Uuid;

use crate::log::{Entry, LANE, put_checkpoints};

/// Records between two checkpoints, besides those that are owed: few, so that a new owner begins nearly everywhere.
const CHECKPOINT_EVERY: usize = 3;
/// Log time from one record to the next.
const STEP_MS: i64 = 10;
/// Timeouts after which a person is to look at a command that only its answer can end.
const TIMEOUTS_TO_ATTENTION: usize = 5;

const TRIP: &str = "name: trip
version: 1
deadline_ms: 20000
steps:
  - { name: reserve, participant: stock, operation: take, timeout_ms: 2000, on_timeout: undo }
  - { name: charge, participant: payment, operation: take, after: [reserve], uses: [reserve], timeout_ms: 3000, on_timeout: wait }
";
const PARCEL: &str = "name: parcel
version: 1
deadline_ms: 9000
steps:
  - { name: reserve, participant: stock, operation: take, timeout_ms: 2000, on_timeout: wait }
  - { name: charge, participant: payment, operation: take-firm, kind: pivot, after: [reserve], timeout_ms: 2000, on_timeout: wait }
  - { name: ship, participant: courier, operation: deliver, kind: retriable, after: [charge], uses: [charge], timeout_ms: 2000, on_timeout: wait }
";
const LETTER: &str = "name: letter
version: 1
deadline_ms: 9000
steps:
  - { name: post, participant: courier, operation: take, timeout_ms: 2000, on_timeout: wait }
";

/// The whole log.
pub(crate) fn entries() -> Vec<Entry> {
    let mut hand = Hand { state: LaneState::new(LANE), entries: Vec::new(), now_ms: 1_000_000 };
    hand.garbage();
    hand.comes(InboxEvent::FoldVersion(FIRST_FOLD_VERSION));
    hand.comes(InboxEvent::Activate { text: TRIP.to_owned() });
    hand.comes(InboxEvent::Activate { text: PARCEL.to_owned() });
    hand.stays_held(0);
    hand.operators_move_it_on(1);
    hand.its_timeout_turns_it_round(2);
    hand.its_deadline_turns_it_round(3);
    hand.is_beyond_its_pivot(4);
    hand.was_unanswered_before(5);
    hand.begins_after_all(6);
    hand.waits_for_its_definition(7);
    hand.never_gets_its_definition(8);
    hand.garbage();
    put_checkpoints(&mut hand.entries, CHECKPOINT_EVERY);
    hand.entries
}

/// Writes a log, and knows the state that it leads to.
struct Hand {
    state: LaneState,
    entries: Vec<Entry>,
    now_ms: i64,
}

impl Hand {
    fn stays_held(&mut self, number: u64) {
        self.comes(start(number, "trip"));
        self.is_set_aside(applied(number, "reserve"));
    }

    fn operators_move_it_on(&mut self, number: u64) {
        self.comes(start(number, "trip"));
        self.is_set_aside(applied(number, "reserve"));
        self.comes(operator(number, OperatorAct::Retry));
        self.comes(applied(number, "reserve"));
        self.comes(failed(number, "charge"));
        let retry = self.timer(number, DeadlineKind::StepRetry("charge".to_owned()));
        self.is_set_aside(retry.clone());
        self.comes(retry);
        self.comes(operator(number, OperatorAct::Undo));
        self.comes(undone(number, "charge"));
        self.comes(undone(number, "reserve"));
    }

    fn its_timeout_turns_it_round(&mut self, number: u64) {
        self.comes(start(number, "trip"));
        let timeout = self.timer(number, DeadlineKind::StepTimeout("reserve".to_owned()));
        self.is_set_aside(timeout.clone());
        self.comes(timeout);
        self.comes(undone(number, "reserve"));
    }

    fn its_deadline_turns_it_round(&mut self, number: u64) {
        self.comes(start(number, "trip"));
        self.is_set_aside(operator(number, OperatorAct::Undo));
        let deadline = self.timer(number, DeadlineKind::Saga);
        self.comes(deadline);
        self.is_set_aside(undone(number, "reserve"));
        let timeout = self.timer(number, DeadlineKind::StepTimeout("reserve".to_owned()));
        self.comes(timeout);
        self.comes(undone(number, "reserve"));
    }

    fn is_beyond_its_pivot(&mut self, number: u64) {
        self.comes(start(number, "parcel"));
        self.comes(applied(number, "reserve"));
        self.comes(applied(number, "charge"));
        self.is_set_aside(failed(number, "ship"));
        self.garbage();
        self.garbage();
        self.comes(InboxEvent::FoldVersion(FIRST_FOLD_VERSION));
        let timeout = self.timer(number, DeadlineKind::StepTimeout("ship".to_owned()));
        self.comes(timeout);
        let deadline = self.timer(number, DeadlineKind::Saga);
        self.comes(deadline);
        self.comes(operator(number, OperatorAct::Undo));
        self.comes(applied(number, "ship"));
    }

    fn was_unanswered_before(&mut self, number: u64) {
        self.comes(start(number, "parcel"));
        self.comes(applied(number, "reserve"));
        for _ in 0..TIMEOUTS_TO_ATTENTION {
            let timeout = self.timer(number, DeadlineKind::StepTimeout("charge".to_owned()));
            self.comes(timeout);
        }
        self.is_set_aside(applied(number, "charge"));
        self.comes(operator(number, OperatorAct::Retry));
        self.comes(applied(number, "charge"));
        self.comes(applied(number, "ship"));
    }

    fn begins_after_all(&mut self, number: u64) {
        self.is_set_aside(start(number, "trip"));
        self.comes(applied(number, "reserve"));
        self.comes(start(number, "trip"));
        // Another copy of it takes nothing away.
        self.is_set_aside(start(number, "trip"));
        let refusal = Refusal { code: "too-little".to_owned(), reason: "there is none".to_owned() };
        self.comes(reply(number, "reserve", Direction::Action, Outcome::Refused(refusal)));
        self.comes(undone(number, "reserve"));
    }

    fn waits_for_its_definition(&mut self, number: u64) {
        self.comes(start(number, "letter"));
        self.is_set_aside(InboxEvent::Activate { text: LETTER.to_owned() });
        self.is_set_aside(InboxEvent::FoldVersion(FIRST_FOLD_VERSION));
        self.comes(InboxEvent::Activate { text: LETTER.to_owned() });
        self.is_set_aside(applied(number, "no-such-step"));
        self.comes(applied(number, "post"));
    }

    fn never_gets_its_definition(&mut self, number: u64) {
        self.comes(start(number, "ghost"));
        self.is_set_aside(operator(number, OperatorAct::Retry));
        let deadline = self.timer(number, DeadlineKind::Saga);
        self.comes(deadline);
    }

    fn comes(&mut self, event: InboxEvent) {
        self.append(event.encode(), false);
    }

    fn is_set_aside(&mut self, event: InboxEvent) {
        self.append(event.encode(), true);
    }

    fn garbage(&mut self) {
        self.append(Bytes::from_static(b"\xff\xff\xff no record"), false);
    }

    fn append(&mut self, payload: Bytes, is_set_aside: bool) {
        self.now_ms += STEP_MS;
        let (offset, timestamp_ms) = (self.state.next_offset(), self.now_ms);
        let entry = Entry::new(Record { offset, timestamp_ms, payload, headers: Vec::new() }, is_set_aside);
        entry.take(&mut self.state);
        self.entries.push(entry);
    }

    /// Waits until a deadline has passed; the timer that stands for it.
    fn timer(&mut self, number: u64, kind: DeadlineKind) -> InboxEvent {
        let parked = self.state.parked().get(&saga(number)).map(|parked| parked.timer());
        let open = self.state.saga(saga(number)).into_iter().flat_map(|saga| saga.deadlines());
        let mut armed = open.chain(parked);
        let (at_ms, timer) = armed.find(|(_, timer)| timer.kind == kind).expect("a deadline that is armed");
        self.now_ms = self.now_ms.max(at_ms);
        InboxEvent::Timer(timer)
    }
}

fn saga(number: u64) -> SagaId {
    SagaId(Uuid::from_u128(0x7000 + u128::from(number)))
}

fn ordinal(number: u64) -> Ordinal {
    let starter = Starter { name: "order".to_owned(), store: Uuid::from_u128(0x5101) };
    Ordinal { starter, lane: LANE, sequence: number }
}

fn start(number: u64, definition: &str) -> InboxEvent {
    let steps: &[&str] = match definition {
        "trip" => &["reserve", "charge"],
        "parcel" => &["reserve", "charge", "ship"],
        _ => &["post"],
    };
    InboxEvent::Start(Start {
        saga: saga(number),
        ordinal: ordinal(number),
        definition: definition.to_owned(),
        inputs: steps.iter().map(|step| ((*step).to_owned(), Bytes::from(format!("{step} {number}")))).collect(),
        results_topic: "order.results".to_owned(),
        trace: TraceContext::default(),
    })
}

fn reply(number: u64, step: &str, direction: Direction, outcome: Outcome) -> InboxEvent {
    let id = CommandId { saga: saga(number), step: step.to_owned(), direction };
    InboxEvent::Reply(Reply { id, ordinal: ordinal(number), outcome })
}

fn applied(number: u64, step: &str) -> InboxEvent {
    reply(number, step, Direction::Action, Outcome::Applied { output: Bytes::from(format!("{step} done")) })
}

fn failed(number: u64, step: &str) -> InboxEvent {
    reply(number, step, Direction::Action, Outcome::Failed { reason: "away".to_owned() })
}

fn undone(number: u64, step: &str) -> InboxEvent {
    reply(number, step, Direction::Undo, Outcome::Undone)
}

fn operator(number: u64, act: OperatorAct) -> InboxEvent {
    InboxEvent::Operator { saga: saga(number), act }
}

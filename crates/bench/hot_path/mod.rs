//! The paths that every checkout takes, each as something to be done again and again: what the benchmark times and the
//! test of instruction counts counts.

use std::collections::BTreeMap;
use std::hint::black_box;

use bytes::Bytes;
use participant::{Chunk, Entry, MAX_CHUNK_RECORDS, Verdict, execute};
use proto::Wire;
use proto::shop::{Item, ReserveInput, ReserveLine};
use redis_txn::{Offline, Transaction, Unread, View};
use saga_core::effect::Effect;
use saga_core::ended::EndedSequences;
use saga_core::ids::{CommandId, Direction, Lane, Ordinal, SagaId, Starter, TraceContext};
use saga_core::lane::LaneState;
use saga_core::record::{
    Command, CommandRecord, Floor, InboxEvent, InboxRecord, Outcome, Reply, ResultRecord, SagaOutcome, SagaResult,
    Start,
};
use stock_svc::Stock;
use stock_svc::store::item_key;
use telemetry::metrics::SAGA_STEP_SECONDS;
use uuid::Uuid;

/// Does it once.
pub type Once = Box<dyn FnMut()>;

/// Makes ready to do it.
pub type Prepare = fn() -> Once;

/// Every path, by name.
pub const PATHS: [(&str, Prepare); 8] = [
    ("orchestrator: one checkout, from the bytes of its records to those of its commands", checkout),
    ("orchestrator: one checkout, from its records to its commands", fold_only),
    ("starter: a start to bytes and back", start_codec),
    ("participant: a command to bytes and back", command_codec),
    ("participant: 63 reservations and a floor, to bytes, executed, answered", chunk),
    ("starter: a result to bytes and back", result_codec),
    ("committer: the plan of a batch of 64 transactions", batch),
    ("telemetry: one measurement with two labels", measurement),
];

const LANE: Lane = Lane(7);
const CHECKOUT: &str = include_str!("../../../definitions/checkout.yaml");
/// Sagas between two checkpoints, which end the list of what has changed.
const CHECKPOINT_EVERY: u64 = 64;
/// Transactions of a batch.
const BATCH: u64 = 64;
/// Items in the store of a participant.
const ITEMS: u64 = 1_000;

fn start(sequence: u64) -> Start {
    let starter = Starter { name: "order".to_owned(), store: Uuid::from_u128(1) };
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".to_owned();
    Start {
        saga: SagaId(Uuid::from_u128(u128::from(sequence) << 64)),
        ordinal: Ordinal { starter, lane: LANE, sequence },
        definition: "checkout".to_owned(),
        inputs: BTreeMap::from([
            ("reserve".to_owned(), Bytes::from_static(&[7; 60])),
            ("charge".to_owned(), Bytes::from_static(&[7; 50])),
        ]),
        results_topic: "order.results".to_owned(),
        trace: TraceContext { traceparent, tracestate: String::new() },
    }
}

/// Three records in, two commands and a result out.
fn checkout() -> Once {
    let mut state = LaneState::new(LANE);
    let (mut offset, mut sequence) = (0, 0);
    fold(&mut state, &mut offset, &InboxEvent::Activate { text: CHECKOUT.to_owned() }.encode());
    Box::new(move || {
        sequence += 1;
        let mut event = InboxEvent::Start(start(sequence));
        // Each command is answered until the result is there.
        while let Some(answer) = fold(&mut state, &mut offset, &event.encode()) {
            event = InboxEvent::Reply(answer);
        }
        if sequence.is_multiple_of(CHECKPOINT_EVERY) {
            black_box(state.take_changes());
        }
        assert_eq!(state.sagas().len(), 0, "the saga has ended");
    })
}

/// The same without bytes; that the events have to be made is in it.
fn fold_only() -> Once {
    let mut state = LaneState::new(LANE);
    let (mut offset, mut sequence) = (0, 0);
    fold(&mut state, &mut offset, &InboxEvent::Activate { text: CHECKOUT.to_owned() }.encode());
    Box::new(move || {
        sequence += 1;
        let start = start(sequence);
        let reply = |step: &str| {
            let id = CommandId { saga: start.saga, step: step.to_owned(), direction: Direction::Action };
            let outcome = Outcome::Applied { output: Bytes::new() };
            InboxEvent::Reply(Reply { id, ordinal: start.ordinal.clone(), outcome })
        };
        let events = [InboxEvent::Start(start.clone()), reply("reserve"), reply("charge")];
        for event in events {
            black_box(state.step(&InboxRecord { offset, time_ms: 1_000_000 + offset, event }));
            offset += 1;
        }
        if sequence.is_multiple_of(CHECKPOINT_EVERY) {
            black_box(state.take_changes());
        }
        assert_eq!(state.sagas().len(), 0, "the saga has ended");
    })
}

/// Folds one record; the answer to the command that follows from it.
fn fold(state: &mut LaneState, offset: &mut i64, payload: &[u8]) -> Option<Reply> {
    let event = InboxEvent::decode(payload).expect("it was encoded here");
    let record = InboxRecord { offset: *offset, time_ms: 1_000_000 + *offset, event };
    *offset += 1;
    let mut answer = None;
    for effect in state.step(&record).effects {
        match effect {
            Effect::Command { command, .. } => {
                let outcome = Outcome::Applied { output: Bytes::new() };
                answer = Some(Reply { id: command.id.clone(), ordinal: command.ordinal.clone(), outcome });
                black_box(CommandRecord::Command(command).encode());
            }
            Effect::Result { record, .. } => drop(black_box(record.encode())),
            Effect::Alarm(alarm) => panic!("{alarm}"),
        }
    }
    answer
}

fn start_codec() -> Once {
    let start = start(1);
    Box::new(move || {
        let bytes = InboxEvent::Start(black_box(start.clone())).encode();
        black_box(InboxEvent::decode(&bytes).expect("it was encoded here"));
    })
}

fn reserve(sequence: u64) -> Command {
    let Start { saga, ordinal, trace, .. } = start(sequence);
    let line = |number: u64| ReserveLine { item_id: (number % ITEMS).to_string(), quantity: 1 };
    Command {
        id: CommandId { saga, step: "reserve".to_owned(), direction: Direction::Action },
        ordinal,
        operation: "reserve".to_owned(),
        input: ReserveInput::new(vec![line(sequence * 7), line(sequence * 13 + 1)]).encode(),
        uses: BTreeMap::new(),
        may_refuse: true,
        trace,
    }
}

fn command_codec() -> Once {
    let command = reserve(1);
    Box::new(move || {
        let bytes = CommandRecord::Command(black_box(command.clone())).encode();
        black_box(CommandRecord::decode(&bytes).expect("it was encoded here"));
    })
}

fn result_codec() -> Once {
    let Start { saga, ordinal, trace, .. } = start(1);
    let result = SagaResult { saga, ordinal, outcome: SagaOutcome::Completed, trace };
    Box::new(move || {
        let bytes = ResultRecord::Ended(black_box(result.clone())).encode();
        black_box(ResultRecord::decode(&bytes).expect("it was encoded here"));
    })
}

/// A full chunk of one lane, with the floor that says that the chunk before it has ended.
fn chunk() -> Once {
    let full = Item::new(1_000_000_000, 5).encode();
    let mut values: BTreeMap<String, Bytes> = (0..ITEMS).map(|id| (item_key(&id.to_string()), full.clone())).collect();
    let (mut first, mut sequence) = (0, 0);
    Box::new(move || {
        let floor = Floor { starter: start(0).ordinal.starter, ended: EndedSequences::new(sequence, []) };
        let sequences = sequence..sequence + MAX_CHUNK_RECORDS as u64 - 1;
        sequence = sequences.end;
        let commands = sequences.map(|sequence| CommandRecord::Command(reserve(sequence)));
        let records = std::iter::once(CommandRecord::Floor(floor)).chain(commands);
        let entry = |(offset, record): (i64, CommandRecord)| Entry::decode(LANE, offset, &record.encode());
        let entries: Vec<Entry> = (first..).zip(records).map(|it| entry(it).expect("it was encoded here")).collect();
        let chunk = Chunk { lane: LANE, first, entries, replied: first };
        let mut keys = Vec::new();
        chunk.keys(&Stock, &mut keys);
        let Ok(Verdict::Executed(executed)) = execute(&Stock, &chunk, &mut values) else { panic!("it is executed") };
        assert_eq!(executed.answers.len(), MAX_CHUNK_RECORDS - 1);
        first = executed.next;
        for answer in executed.answers {
            black_box(InboxEvent::Reply(answer.reply).encode());
        }
    })
}

/// Takes one piece of one thing and writes down that it did, as a participant does.
struct Take {
    thing: String,
    record: String,
}

impl Transaction for Take {
    type Outcome = ();

    fn keys(&self, keys: &mut Vec<String>) {
        keys.extend([self.thing.clone(), self.record.clone()]);
    }

    fn apply(&mut self, view: &mut View<'_>) -> Result<(), Unread> {
        if view.get(&self.record)?.is_none()
            && let Some(thing) = view.get(&self.thing)?
        {
            view.set(self.thing.clone(), thing);
            view.set(self.record.clone(), Bytes::from_static(&[1; 80]));
        }
        Ok(())
    }
}

fn batch() -> Once {
    let mut number = 0;
    Box::new(move || {
        let offline = Offline::default();
        for _ in 0..BATCH {
            number += 1;
            let take = Take { thing: format!("item:{}", number % 1_000), record: format!("step:7:{number}") };
            drop(offline.run(LANE.0, take));
        }
        let mut batch = offline.batch(BATCH as usize);
        batch.apply(|key| key.starts_with("item:").then(|| Bytes::from_static(&[2; 30])));
        black_box((batch.watched().count(), batch.writes()));
        batch.commit();
    })
}

fn measurement() -> Once {
    Box::new(|| SAGA_STEP_SECONDS.record(black_box(0.012), &[("participant", "stock"), ("direction", "action")]))
}

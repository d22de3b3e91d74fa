//! The paths that every checkout takes, each as something to be done again and again: what the benchmark times and the
//! test of instruction counts counts.

use std::collections::BTreeMap;
use std::hint::black_box;

use bytes::Bytes;
use proto::Wire;
use redis_txn::{Offline, Transaction, Unread, View};
use saga_core::effect::Effect;
use saga_core::ids::{Lane, Ordinal, SagaId, Starter, TraceContext};
use saga_core::lane::LaneState;
use saga_core::record::{CommandRecord, InboxEvent, InboxRecord, Outcome, Reply, Start};
use telemetry::metrics::SAGA_STEP_SECONDS;
use uuid::Uuid;

/// Does it once.
pub type Once = Box<dyn FnMut()>;

/// Makes ready to do it.
pub type Prepare = fn() -> Once;

/// Every path, by name.
pub const PATHS: [(&str, Prepare); 4] = [
    ("orchestrator: one checkout, from the bytes of its records to those of its commands", checkout),
    ("starter: a start to bytes and back", start_codec),
    ("committer: the plan of a batch of 64 transactions", batch),
    ("telemetry: one measurement with two labels", measurement),
];

const LANE: Lane = Lane(7);
const CHECKOUT: &str = include_str!("../../../definitions/checkout.yaml");
/// Sagas between two checkpoints, which end the list of what has changed.
const CHECKPOINT_EVERY: u64 = 64;
/// Transactions of a batch.
const BATCH: u64 = 64;

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

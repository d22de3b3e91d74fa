//! Records in a few words, for event lists.

use event_stream::Record;
use proto::Wire;
use saga_core::ids::{Direction, SagaId};
use saga_core::record::{CommandRecord, InboxEvent, Outcome, ResultRecord, SagaOutcome};

use crate::log::Topic;

/// One record.
pub fn record(topic: Topic, record: &Record) -> String {
    match topic {
        Topic::Inbox => InboxEvent::decode(&record.payload).map_or_else(|_| garbage(), |event| inbox(&event)),
        Topic::Commands(_) => match CommandRecord::decode(&record.payload) {
            Ok(CommandRecord::Command(command)) => {
                let verb = verb(command.id.direction);
                format!("{verb} {} of {} #{}", command.id.step, short(command.id.saga), command.ordinal.sequence)
            }
            Ok(CommandRecord::Floor(floor)) => {
                format!("floor {} and {:?}", floor.ended.below(), floor.ended.above().collect::<Vec<_>>())
            }
            Err(_) => garbage(),
        },
        Topic::Results => match ResultRecord::decode(&record.payload) {
            Ok(ResultRecord::Ended(result)) => {
                let end = match &result.outcome {
                    SagaOutcome::Completed => "completed".to_owned(),
                    SagaOutcome::Undone { cause, refusal, .. } => format!("undone, {cause:?} {}", refusal.code),
                };
                format!("{} #{} {end}", short(result.saga), result.ordinal.sequence)
            }
            Ok(ResultRecord::Undoing(notice)) => format!("{} is being undone", short(notice.saga)),
            Err(_) => garbage(),
        },
    }
}

fn inbox(event: &InboxEvent) -> String {
    match event {
        InboxEvent::Start(start) => {
            format!("start {} of {} #{}", start.definition, short(start.saga), start.ordinal.sequence)
        }
        InboxEvent::Reply(reply) => {
            let outcome = match &reply.outcome {
                Outcome::Applied { output } => format!("applied ({})", String::from_utf8_lossy(output)),
                other => format!("{other:?}"),
            };
            format!("reply {} {} of {}: {outcome}", verb(reply.id.direction), reply.id.step, short(reply.id.saga))
        }
        InboxEvent::Timer(timer) => {
            format!("timer {:?} of {}, armed by {}", timer.kind, short(timer.saga), timer.armed_by)
        }
        InboxEvent::Operator { saga, act } => format!("operator: {act:?} {}", short(*saga)),
        InboxEvent::Activate { text } => {
            format!("activate {}", text.lines().take(2).collect::<Vec<_>>().join(", "))
        }
        InboxEvent::FoldVersion(version) => format!("fold version {version}"),
    }
}

fn verb(direction: Direction) -> &'static str {
    match direction {
        Direction::Action => "do",
        Direction::Undo => "undo",
    }
}

/// The end of a saga's id, which is what differs within a seed.
fn short(saga: SagaId) -> String {
    format!("saga-{}", saga.0.as_u128() as u64)
}

fn garbage() -> String {
    "bytes that are no record".to_owned()
}

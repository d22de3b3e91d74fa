use std::future::{Ready, ready};

use saga_core::ended::EndedSequences;
use saga_core::ids::{CommandId, Direction, Ordinal, Starter};
use saga_core::record::{Refusal, SagaOutcome, SagaResult, UndoCause};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::*;

fn ordinal() -> Ordinal {
    Ordinal { starter: Starter { name: "order".to_owned(), store: Uuid::nil() }, lane: Lane(3), sequence: 9 }
}

fn command(traceparent: &str) -> Command {
    Command {
        id: CommandId { saga: SagaId(Uuid::from_u128(1)), step: "reserve".to_owned(), direction: Direction::Action },
        ordinal: ordinal(),
        operation: "reserve".to_owned(),
        input: Bytes::new(),
        uses: BTreeMap::new(),
        may_refuse: true,
        trace: TraceContext { traceparent: traceparent.to_owned(), tracestate: String::new() },
    }
}

const OWN: &str = "00-11111111111111111111111111111111-2222222222222222-01";
const CAUSE: &str = "00-11111111111111111111111111111111-3333333333333333-01";

fn traceparent(record: &Outgoing) -> Option<&str> {
    record.headers.iter().find(|(name, _)| *name == "traceparent").map(|(_, value)| value.as_str())
}

#[test]
fn records_go_to_the_lane_of_their_topic_in_order() {
    let mut emitter = Emitter::new(Lane(3));
    let no_cause = TraceContext::default();
    emitter.command(&"stock".into(), command(""), &no_cause);
    let floor = Floor { starter: ordinal().starter, ended: EndedSequences::new(4, []) };
    emitter.floor(["payment".into(), "stock".into()], floor.clone());
    emitter.activation("text".to_owned());
    let records = emitter.take();
    assert!(emitter.is_empty());
    let topics: Vec<&str> = records.iter().map(|record| record.topic.as_ref()).collect();
    assert_eq!(topics, ["stock.commands", "payment.commands", "stock.commands", "saga.inbox"]);
    assert!(records.iter().all(|record| record.lane == Lane(3)));
    assert_eq!(CommandRecord::decode(&records[0].payload), Ok(CommandRecord::Command(command(""))));
    assert_eq!(CommandRecord::decode(&records[2].payload), Ok(CommandRecord::Floor(floor)));
}

#[test]
fn a_command_continues_its_cause_or_rejoins_its_saga() {
    let mut emitter = Emitter::new(Lane(3));
    let cause = TraceContext { traceparent: CAUSE.to_owned(), tracestate: String::new() };
    emitter.command(&"stock".into(), command(OWN), &cause);
    emitter.command(&"stock".into(), command(OWN), &TraceContext::default());
    emitter.command(&"stock".into(), command(""), &TraceContext::default());
    emitter.command(&"stock".into(), command(&OWN.replace("-01", "-00")), &TraceContext::default());
    let records = emitter.take();
    let unrecorded = "without a header: the command itself names its trace";
    assert_eq!(
        records.iter().map(traceparent).collect::<Vec<_>>(),
        [Some(CAUSE), Some(OWN), None, None],
        "{unrecorded}"
    );
}

#[test]
fn what_fits_in_no_record_is_not_sent_or_shortened() {
    let mut emitter = Emitter::new(Lane(3));
    let no_cause = TraceContext::default();
    let huge = |bytes: usize| Command { input: vec![7; bytes].into(), ..command("") };
    emitter.command(&"stock".into(), huge(MAX_PAYLOAD_BYTES), &no_cause);
    assert!(emitter.is_empty(), "it would be refused each time that the lane is loaded");
    emitter.command(&"stock".into(), huge(MAX_PAYLOAD_BYTES - MAX_COMMAND_FRAME_BYTES), &no_cause);
    let refusal = Refusal { code: "no".to_owned(), reason: "because ".repeat(MAX_PAYLOAD_BYTES / 4) };
    let outcome = SagaOutcome::Undone { cause: UndoCause::Refused, step: None, refusal: refusal.clone() };
    let result = SagaResult { saga: SagaId(Uuid::nil()), ordinal: ordinal(), outcome, trace: TraceContext::default() };
    emitter.result("order.results".to_owned(), &ResultRecord::Ended(result), &no_cause, 0);
    let sent = emitter.take();
    assert!(sent.len() == 2 && sent.iter().all(|record| record.payload.len() <= MAX_PAYLOAD_BYTES));
    let Ok(ResultRecord::Ended(told)) = ResultRecord::decode(&sent[1].payload) else { panic!("no result") };
    let SagaOutcome::Undone { refusal: told, .. } = told.outcome else { panic!("not undone") };
    assert!(told.code == refusal.code && told.reason.len() > 1_000 && refusal.reason.starts_with(&told.reason));
}

#[test]
fn names_of_results_topics_are_bounded() {
    let mut emitter = Emitter::new(Lane(0));
    for number in 0..MAX_RESULT_TOPICS * 3 {
        assert_eq!(&*emitter.result_topic(format!("t{number}")).0, format!("t{number}"));
        assert!(emitter.result_topics.len() <= MAX_RESULT_TOPICS);
    }
}

#[test]
fn news_for_a_topic_that_is_not_there_goes_to_the_quarantine() {
    let mut emitter = Emitter::new(Lane(3));
    let news = |starter: &str| {
        let starter = Starter { name: starter.to_owned(), store: Uuid::nil() };
        let ordinal = Ordinal { starter, lane: Lane(3), sequence: 1 };
        let trace = TraceContext::default();
        ResultRecord::Ended(SagaResult { saga: SagaId(Uuid::nil()), ordinal, outcome: SagaOutcome::Completed, trace })
    };
    let tell = |emitter: &mut Emitter, starter: &str, offset: i64| {
        emitter.result(format!("{starter}.results"), &news(starter), &TraceContext::default(), offset);
    };
    for (starter, offset) in [("order", 7), ("ghost", 8), ("order", 9), ("ghost", 10)] {
        tell(&mut emitter, starter, offset);
    }
    while let Some((doubtful, topic)) = emitter.doubtful() {
        match topic.to_string().as_str() {
            "order.results" => emitter.is_there("order.results"),
            _ => emitter.has_nowhere_to_go(doubtful, "no such topic".to_owned()),
        }
    }
    let sent = emitter.take();
    let topics: Vec<&str> = sent.iter().map(|record| &*record.topic).collect();
    assert_eq!(topics, ["order.results", QUARANTINE, "order.results", QUARANTINE]);
    let set_aside = Quarantined::decode(&sent[3].payload).unwrap();
    assert_eq!((set_aside.topic.as_str(), set_aside.partition, set_aside.offset), ("ghost.results", 3, 10));
    assert_eq!(set_aside.payload, news("ghost").encode());
    // What is there is not doubted again, what is not there is.
    ["order", "ghost"].into_iter().for_each(|starter| tell(&mut emitter, starter, 11));
    assert_eq!(emitter.doubtful().map(|(doubtful, _)| doubtful), Some(Doubtful { place: 1, cause: 11 }));
    emitter.take();
    assert_eq!(emitter.doubtful(), None);
}

#[tokio::test]
async fn batches_count_as_acknowledged_in_order() {
    let mut outbox = Outbox::<Pending>::default();
    let (first, mut second) = (oneshot::channel(), oneshot::channel());
    outbox.sent(2, Pending(first.1));
    outbox.sent(3, Pending(std::mem::replace(&mut second.1, oneshot::channel().1)));
    second.0.send(()).unwrap();
    let early = tokio::time::timeout(std::time::Duration::ZERO, outbox.next_acknowledged()).await;
    assert!(early.is_err(), "the second batch does not count before the first");
    assert_eq!((outbox.acknowledged(), outbox.unacknowledged()), (0, 5));
    first.0.send(()).unwrap();
    outbox.next_acknowledged().await.unwrap();
    assert_eq!((outbox.acknowledged(), outbox.unacknowledged()), (1, 3));
    outbox.next_acknowledged().await.unwrap();
    assert_eq!((outbox.acknowledged(), outbox.issued(), outbox.unacknowledged()), (2, 2, 0));
}

#[tokio::test]
async fn a_failed_batch_is_never_acknowledged_and_the_bound_holds() {
    let mut outbox = Outbox::<Ready<Result<(), PublishError>>>::default();
    outbox.sent(MAX_UNACKNOWLEDGED - 1, ready(Err(PublishError("gone".to_owned()))));
    assert!(!outbox.is_full());
    outbox.sent(1, ready(Ok(())));
    assert!(outbox.is_full());
    assert!(outbox.next_acknowledged().await.is_err());
    assert_eq!(outbox.acknowledged(), 0);
}

/// A receipt that arrives when the test says so.
struct Pending(oneshot::Receiver<()>);

impl Future for Pending {
    type Output = Result<(), PublishError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context).map(|answer| answer.map_err(|_| PublishError("lost".to_owned())))
    }
}

//! What an orchestrator does with sagas, on a real broker and a real Redis.

mod common;

use common::{LANES, Stack, eventually, start, starter};
use orchestrator::ages::AGES;
use proto::Wire;
use proto::quarantine::{QUARANTINE, Quarantined};
use saga_core::ids::{Direction, SagaId};
use saga_core::record::{InboxEvent, Outcome, ResultRecord, SagaOutcome, UndoCause};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sagas_run_to_their_end() {
    let stack = Stack::start().await;
    // A start before anybody knows its definition is parked until the lane's owner has activated it.
    let early = stack.start_saga(3, 0, "buy").await;
    let mut orchestrator = stack.orchestrator("orchestrator-a", &[("CHECKPOINT_INTERVAL_MS", "200")]);
    orchestrator.ready(LANES).await;
    stack.command(early, "reserve", Direction::Action).await;

    happy_path(&stack, &orchestrator).await;
    refusal_and_undo(&stack, &orchestrator).await;
    timeout_is_a_record(&stack).await;
    duplicates_and_strangers(&stack, &orchestrator).await;
    damaged_records_are_set_aside(&stack, &orchestrator).await;
    starters_without_a_topic_are_set_aside(&stack, &orchestrator).await;
    impossible_records_are_set_aside(&stack).await;
    floors_follow(&stack).await;

    let status = orchestrator.process.terminate(common::PATIENCE).unwrap();
    assert!(status.success(), "{status}");
    activated_once_per_lane(&stack);
}

async fn happy_path(stack: &Stack, orchestrator: &common::Orchestrator) {
    let saga = stack.start_saga(0, 0, "buy").await;
    let reserve = stack.command(saga, "reserve", Direction::Action).await;
    assert_eq!((reserve.operation.as_str(), reserve.input.as_ref()), ("reserve", &b"input of reserve"[..]));

    let view = orchestrator.get_json(&format!("/sagas/{saga}"));
    assert_eq!((&view["state"], &view["lane"]), (&"forward".into(), &0.into()), "{view}");
    assert_eq!((&view["definition"]["name"], &view["definition"]["version"]), (&"buy".into(), &1.into()));
    assert_eq!(view["steps"][0]["awaits"], "action", "{view}");
    let lanes = orchestrator.get_json("/lanes");
    assert_eq!(lanes.as_array().unwrap().len(), LANES as usize);
    assert_eq!((&lanes[0]["owner"], &lanes[0]["state"]), (&"orchestrator-a".into(), &"live".into()), "{lanes}");
    assert_eq!(lanes[0]["open_sagas"], 1, "{lanes}");

    stack.applied(&reserve, "reserved").await;
    let charge = stack.command(saga, "charge", Direction::Action).await;
    assert_eq!(charge.uses["reserve"].as_ref(), b"reserved");
    stack.applied(&charge, "").await;
    assert_eq!(stack.result(saga).await.outcome, SagaOutcome::Completed);
    assert_eq!(orchestrator.get(&format!("/sagas/{saga}")).unwrap().0, 404);
    assert_eq!(orchestrator.get("/sagas/nonsense").unwrap().0, 404);
}

async fn refusal_and_undo(stack: &Stack, orchestrator: &common::Orchestrator) {
    let saga = stack.start_saga(0, 1, "buy").await;
    let reserve = stack.command(saga, "reserve", Direction::Action).await;
    stack.applied(&reserve, "").await;
    let charge = stack.command(saga, "charge", Direction::Action).await;
    stack.refused(&charge, "insufficient-credit").await;
    // Every issued step is undone, the refused one too, in reverse order; no result before the last one.
    let undo = stack.command(saga, "charge", Direction::Undo).await;
    stack.reply(&undo, Outcome::Undone).await;
    undo_that_fails(stack, orchestrator, saga).await;
    let undo = stack.command(saga, "reserve", Direction::Undo).await;
    assert!(stack.watched.with(|seen| !seen.results.contains_key(&saga)), "announced before it was undone");
    stack.reply(&undo, Outcome::Undone).await;
    match stack.result(saga).await.outcome {
        SagaOutcome::Undone { cause: UndoCause::Refused, step: Some(step), refusal } => {
            assert_eq!((step.as_str(), refusal.code.as_str()), ("charge", "insufficient-credit"));
        }
        other => panic!("{other:?}"),
    }
}

/// It is asked for again and again, and a person can see it.
async fn undo_that_fails(stack: &Stack, orchestrator: &common::Orchestrator, saga: SagaId) {
    let needs_attention = || {
        let of_age = |age: &&str| orchestrator.metric(&["saga_attention", age]).is_some_and(|count| count > 0.0);
        AGES.into_iter().find(of_age)
    };
    assert_eq!(needs_attention(), None);
    for _ in 0..5 {
        let undo = stack.command(saga, "reserve", Direction::Undo).await;
        stack.reply(&undo, Outcome::Failed { reason: "the shelf is locked".to_owned() }).await;
    }
    let alarm = || orchestrator.metric(&["saga_fold_alarms", "needs-attention"]).filter(|count| *count == 1.0);
    eventually("the alarm is counted", alarm).await;
    eventually("the gauge shows it", needs_attention).await;
    let view = orchestrator.get_json(&format!("/sagas/{saga}"));
    assert_eq!(view["needs_attention"]["cause"], "Unanswered", "{view}");
}

async fn timeout_is_a_record(stack: &Stack) {
    let saga = stack.start_saga(1, 0, "hasty").await;
    stack.command(saga, "reserve", Direction::Action).await;
    let undo = stack.command(saga, "reserve", Direction::Undo).await;
    let times = stack.watched.with(|seen| {
        let of = |wanted: fn(&InboxEvent) -> Option<SagaId>| {
            let mine = seen.inbox.iter().filter(|(_, _, event)| wanted(event) == Some(saga));
            mine.map(|(_, time_ms, _)| *time_ms).collect::<Vec<_>>()
        };
        let started = of(|event| match event {
            InboxEvent::Start(start) => Some(start.saga),
            _ => None,
        });
        let fired = of(|event| match event {
            InboxEvent::Timer(timer) => Some(timer.saga),
            _ => None,
        });
        (started[0], fired)
    });
    let (started_ms, fired) = times;
    assert_eq!(fired.len(), 1, "one timer record, not one per look at the clock");
    let late_ms = fired[0] - started_ms - 300;
    assert!((0..5_000).contains(&late_ms), "{late_ms} ms late");
    stack.reply(&undo, Outcome::Undone).await;
    let outcome = stack.result(saga).await.outcome;
    assert!(matches!(outcome, SagaOutcome::Undone { cause: UndoCause::TimedOut, .. }), "{outcome:?}");
}

async fn duplicates_and_strangers(stack: &Stack, orchestrator: &common::Orchestrator) {
    let saga = SagaId(Uuid::now_v7());
    for _ in 0..3 {
        stack.send(0, &InboxEvent::Start(start(saga, 0, 2, "buy"))).await;
    }
    let reserve = stack.command(saga, "reserve", Direction::Action).await;
    stack.refused(&reserve, "out-of-stock").await;
    stack.refused(&reserve, "out-of-stock").await;
    let undo = stack.command(saga, "reserve", Direction::Undo).await;
    stack.reply(&undo, Outcome::Undone).await;
    stack.result(saga).await;
    // After its end the same start is known by its ordinal.
    stack.send(0, &InboxEvent::Start(start(saga, 0, 2, "buy"))).await;
    let ignored = || orchestrator.metric(&["saga_fold_ignored", "start-of-ended"]).filter(|count| *count == 1.0);
    eventually("the late start is ignored by name", ignored).await;
    let left = stack.watched.with(|seen| (seen.commands[&saga].len(), seen.results[&saga].len()));
    assert_eq!(left, (0, 1));
}

/// A start of another lane, and an undo that nobody asked for.
async fn impossible_records_are_set_aside(stack: &Stack) {
    let stray = InboxEvent::Start(start(SagaId(Uuid::now_v7()), 3, 99, "buy"));
    stack.send(0, &stray).await;
    let saga = stack.start_saga(0, 4, "buy").await;
    let reserve = stack.command(saga, "reserve", Direction::Action).await;
    stack.reply(&reserve, Outcome::Undone).await;
    let reasons = loop {
        let survey = event_stream::survey(&stack.settings, QUARANTINE, 100, common::PATIENCE).await.unwrap();
        let all = survey.records.iter().map(|(_, record)| Quarantined::decode(&record.payload).unwrap());
        let impossible: Vec<_> = all.filter(|record| record.reason.starts_with("impossible")).collect();
        if impossible.len() == 2 {
            break impossible;
        }
    };
    assert_eq!(reasons[0].payload, stray.encode());
    assert!(reasons[0].reason.contains("start-contradicts") && reasons[1].reason.contains("impossible-reply"));
    stack.applied(&reserve, "").await;
    stack.command(saga, "charge", Direction::Action).await;
}

async fn damaged_records_are_set_aside(stack: &Stack, orchestrator: &common::Orchestrator) {
    stack.send_bytes(0, "no envelope".into()).await;
    let alarm = || orchestrator.metric(&["saga_fold_alarms", "malformed"]).filter(|count| *count == 1.0);
    eventually("the alarm is counted", alarm).await;
    let deadline = common::PATIENCE;
    let set_aside = loop {
        let survey = event_stream::survey(&stack.settings, QUARANTINE, 10, deadline).await.unwrap();
        if let [(_, record)] = survey.records.as_slice() {
            break Quarantined::decode(&record.payload).unwrap();
        }
    };
    assert_eq!(
        (set_aside.topic.as_str(), set_aside.partition, &*set_aside.payload),
        ("saga.inbox", 0, &b"no envelope"[..])
    );
    assert!(set_aside.reason.contains("malformed"), "{}", set_aside.reason);
    let saga = stack.start_saga(0, 3, "buy").await;
    stack.command(saga, "reserve", Direction::Action).await;
    assert_eq!(orchestrator.get("/readyz").unwrap().0, 200);
}

/// The name of the starter comes with the start: whatever it is, the lane goes on.
async fn starters_without_a_topic_are_set_aside(stack: &Stack, orchestrator: &common::Orchestrator) {
    let names = ["ghost", "no such name!", "nul\0"];
    for name in names {
        let mut start = start(SagaId(Uuid::now_v7()), 2, 0, "buy");
        start.ordinal.starter.name = name.to_owned();
        start.results_topic = format!("{name}.results");
        // Without inputs it ends at once.
        start.inputs.clear();
        stack.send(2, &InboxEvent::Start(start)).await;
    }
    let saga = stack.start_saga(2, 0, "buy").await;
    let reserve = stack.command(saga, "reserve", Direction::Action).await;
    stack.refused(&reserve, "out-of-stock").await;
    let undo = stack.command(saga, "reserve", Direction::Undo).await;
    stack.reply(&undo, Outcome::Undone).await;
    stack.result(saga).await;
    let alarms = || orchestrator.metric(&["saga_fold_alarms", "no-results-topic"]).filter(|count| *count == 3.0);
    eventually("the alarm is counted", alarms).await;
    let survey = event_stream::survey(&stack.settings, QUARANTINE, 10, common::PATIENCE).await.unwrap();
    let set_aside: Vec<_> =
        survey.records.iter().map(|(_, record)| Quarantined::decode(&record.payload).unwrap()).collect();
    for name in names {
        let mut theirs = set_aside.iter().filter(|record| record.topic == format!("{name}.results"));
        let (record, none) = (theirs.next().expect(name), theirs.next());
        assert!(none.is_none() && record.partition == 2 && record.reason.contains("no topic"), "{}", record.reason);
        let ResultRecord::Ended(result) = ResultRecord::decode(&record.payload).unwrap() else { panic!("{name}") };
        assert_eq!(result.ordinal.starter.name, name, "what would lie in its topic");
    }
}

async fn floors_follow(stack: &Stack) {
    // Of lane 0 the sequences 0, 1 and 2 have ended, 3 is open.
    for topic in ["stock.commands", "payment.commands"] {
        let told = || {
            stack.watched.with(|seen| {
                let mut floors = seen.floors.iter().filter(|(name, lane, _)| (name.as_str(), *lane) == (topic, 0));
                floors.any(|(_, _, floor)| floor.starter == starter() && floor.ended.below() == 3).then_some(())
            })
        };
        eventually(&format!("{topic} hears that three sagas have ended"), told).await;
    }
}

fn activated_once_per_lane(stack: &Stack) {
    let activations = stack.watched.with(|seen| {
        let texts = seen.inbox.iter().filter_map(|(lane, _, event)| match event {
            InboxEvent::Activate { text } => Some((*lane, text.clone())),
            _ => None,
        });
        texts.collect::<Vec<_>>()
    });
    assert_eq!(activations.len(), 2 * LANES as usize, "{activations:?}");
}

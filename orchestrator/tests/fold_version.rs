//! A new version of the fold is adopted: an old and a new program side by side, on a real broker and a real Redis. The new
//! one knows a version 2 that does the same as version 1.

mod common;

use std::time::Instant;

use common::program::Program;
use common::{LANES, PATIENCE, Stack, eventually};
use saga_core::ids::{Direction, SagaId};
use saga_core::record::{InboxEvent, SagaOutcome};
use serde_json::Value;

const OLD: u32 = 1;
const NEW: u32 = 2;

async fn halfway(stack: &Stack, lane: u32, sequence: u64) -> SagaId {
    let saga = stack.start_saga(lane, sequence, "buy").await;
    let reserve = stack.command(saga, "reserve", Direction::Action).await;
    stack.applied(&reserve, "").await;
    saga
}

/// Whoever has the lane now finishes it. Takeovers ask again for what is awaited.
async fn finish(stack: &Stack, saga: SagaId) {
    let end = Instant::now() + PATIENCE;
    loop {
        let next = || stack.watched.with(|seen| seen.commands.get_mut(&saga).and_then(|waiting| waiting.pop_front()));
        let command = eventually("a command of the saga", next).await;
        if command.id.step == "charge" {
            stack.applied(&command, "").await;
            assert_eq!(stack.result(saga).await.outcome, SagaOutcome::Completed);
            return;
        }
        assert!(Instant::now() < end, "the saga is not asked to charge");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_move_freely_until_a_version_is_adopted() {
    let stack = Stack::start().await;
    let old = Program::start(&stack, "old", OLD);
    old.has(LANES).await;
    let new = Program::start(&stack, "new", NEW);
    let of_new = new.has(LANES / 2).await;
    let of_old = old.has(LANES / 2).await;

    // Before: lanes go to the old program and back, with their sagas.
    let (moved, stays) = (of_new[0], of_old[0]);
    let saga = halfway(&stack, moved, 0).await;
    new.end().await;
    old.has(LANES).await;
    finish(&stack, saga).await;
    let saga = halfway(&stack, moved, 1).await;
    let new = Program::start(&stack, "new-again", NEW);
    new.has(LANES / 2).await;
    finish(&stack, saga).await;

    // The old program refuses, and the new one knows no third version.
    for (program, version) in [(&old, NEW), (&new, NEW + 1)] {
        let (status, problem) = program.ask("POST", &format!("/fold-version/{version}")).unwrap();
        assert_eq!((status, &problem["type"]), (409, &"/problems/fold-version-unsupported".into()), "{problem}");
    }
    assert_eq!(new.ask("POST", "/fold-version/many").unwrap().0, 400);
    new.stands_at(OLD).await;

    // After: the new program goes on, twice is once, and a saga keeps the version it began under.
    let lanes = new.has(LANES / 2).await;
    let saga = halfway(&stack, lanes[0], 2).await;
    let (status, answer) = new.ask("POST", "/fold-version/2").unwrap();
    assert_eq!((status, answer["appended"].as_array().map(Vec::len)), (200, Some(lanes.len())), "{answer}");
    new.stands_at(NEW).await;
    let (_, answer) = new.ask("POST", "/fold-version/2").unwrap();
    assert_eq!(
        (&answer["appended"], answer["standing"].as_array().map(Vec::len)),
        (&Value::from(Vec::<u32>::new()), Some(2))
    );
    finish(&stack, saga).await;
    let saga = halfway(&stack, lanes[0], 3).await;

    // The old one halts the lanes that it gets, and goes on with its own.
    new.end().await;
    let halted = old.halted(lanes.len()).await;
    assert!(halted.iter().all(|(lane, why)| lanes.contains(lane) && why.contains("version 2")), "{halted:?}");
    let other = halfway(&stack, stays, 0).await;
    finish(&stack, other).await;
    // A record that reaches it in its own lane halts that one, too.
    stack.send(stays, &InboxEvent::FoldVersion(NEW)).await;
    let halted = old.halted(lanes.len() + 1).await;
    assert!(halted.iter().any(|(lane, why)| *lane == stays && why.contains("fold version")), "{halted:?}");

    // Rolling forward frees them all, and nothing is lost.
    let new = Program::start(&stack, "forward", NEW);
    old.end().await;
    new.has(LANES).await;
    finish(&stack, saga).await;
    let (_, answer) = new.ask("GET", "/fold-version").unwrap();
    assert_eq!(
        (&answer["lowest"], &answer["highest"], &answer["supported"]),
        (&1.into(), &2.into(), &2.into()),
        "{answer}"
    );
    let (status, answer) = new.ask("POST", "/fold-version/2").unwrap();
    assert_eq!(status, 200, "{answer}");
    new.stands_at(NEW).await;
    new.end().await;
}

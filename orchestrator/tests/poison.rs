//! Records that make the fold panic, on a real broker and a real Redis: tried three times, set aside, and never folded
//! again, not even by a program that could.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::program::Program;
use common::{INBOX, LANES, PATIENCE, Stack, eventually, start};
use event_stream::{Consumer, HaltReason, Lane};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orchestrator::Build;
use orchestrator::definitions::Definitions;
use orchestrator::homes::Homes;
use orchestrator::lane_loop::{Runner, Shared};
use orchestrator::poison::{Probe, Suspects};
use orchestrator::summary::{Summaries, SummaryRule};
use orchestrator::view::{Question, Registry};
use proto::Wire;
use proto::quarantine::{QUARANTINE, Quarantined};
use saga_core::ids::{Direction, SagaId};
use saga_core::lane::SUPPORTED_FOLD_VERSION;
use saga_core::record::{InboxEvent, InboxRecord, Outcome, Reply, SagaOutcome, Start, UndoCause};
use tokio::sync::oneshot;
use uuid::Uuid;

/// The lanes of an orchestrator, without its process.
struct Lanes {
    consumer: Consumer,
    registry: Registry,
}

impl Lanes {
    async fn start(stack: &Stack, probe: Option<Probe>) -> Self {
        let lanes = Self::begin(stack, probe).await;
        lanes.loaded().await;
        lanes
    }

    async fn begin(stack: &Stack, probe: Option<Probe>) -> Self {
        let registry = Registry::default();
        let participants = ["stock", "payment"].map(str::to_owned);
        let shared = Shared {
            store: stack.store().await,
            publisher: stack.publisher.clone(),
            definitions: Arc::new(Definitions::load(&stack.definitions(), &participants).unwrap()),
            registry: registry.clone(),
            epoch: Instant::now(),
            checkpoint_interval: Duration::from_secs(3_600),
            checkpoint_records: 1_000_000,
            drain_deadline: Duration::from_secs(1),
            summaries: SummaryRule { which: Summaries::Off, slow_ms: 0 },
            suspects: Suspects::default(),
            homes: Homes::default(),
            supported_fold_version: SUPPORTED_FOLD_VERSION,
            probe,
        };
        let runner = Arc::new(Runner::new(Arc::new(shared)));
        let consumer = Consumer::start(&stack.settings, orchestrator::GROUP, INBOX, runner).unwrap();
        Self { consumer, registry }
    }

    async fn loaded(&self) {
        let all =
            || (self.consumer.lanes().values().filter(|lane| lane.loaded).count() == LANES as usize).then_some(());
        eventually("all lanes are loaded", all).await;
    }

    /// The saga as its lane sees it; none if it is not open.
    async fn view(&self, lane: u32, saga: SagaId) -> Option<serde_json::Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let questions = self.registry.lanes().get(&Lane(lane)).map(|entry| entry.questions.clone());
            let (answer, answered) = oneshot::channel();
            if let Some(questions) = questions
                && questions.send(Question { saga, answer }).await.is_ok()
                && let Ok(view) = answered.await
            {
                return view.map(|view| serde_json::to_value(view).unwrap());
            }
            assert!(Instant::now() < end, "the lane does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.consumer.shutdown(PATIENCE).await;
    }
}

async fn quarantined(stack: &Stack, count: usize) -> Vec<Quarantined> {
    let end = Instant::now() + PATIENCE;
    loop {
        let survey = event_stream::survey(&stack.settings, QUARANTINE, 100, PATIENCE).await.unwrap();
        if survey.records.len() >= count {
            return survey.records.iter().map(|(_, record)| Quarantined::decode(&record.payload).unwrap()).collect();
        }
        assert!(Instant::now() < end, "{} of {count} are set aside", survey.records.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_panics_is_set_aside_for_ever_and_its_saga_held() {
    let stack = Stack::start().await;
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let probe: Probe = Arc::new(move |record: &InboxRecord| {
        let is_poison = match &record.event {
            InboxEvent::Reply(reply) => {
                matches!(&reply.outcome, Outcome::Applied { output } if output == "poison")
            }
            InboxEvent::Start(start) => start.definition == "hasty",
            _ => false,
        };
        if is_poison {
            counted.fetch_add(1, Ordering::Relaxed);
            panic!("planted");
        }
    });
    let lanes = Lanes::start(&stack, Some(probe)).await;
    let [held, other] = [stack.start_saga(0, 0, "buy").await, stack.start_saga(0, 1, "buy").await];
    let reserve = stack.command(held, "reserve", Direction::Action).await;
    let neighbour = stack.command(other, "reserve", Direction::Action).await;
    let answer = |command: &saga_core::record::Command, output: &'static [u8]| {
        let (id, ordinal) = (command.id.clone(), command.ordinal.clone());
        InboxEvent::Reply(Reply { id, ordinal, outcome: Outcome::Applied { output: Bytes::from_static(output) } })
    };
    let poison = answer(&reserve, b"poison").encode();
    let sent = Instant::now();
    stack.send_together(0, [poison.clone(), answer(&neighbour, b"r").encode()]).await;
    // Restarts repeat what is awaited; what counts is that the other saga goes on.
    let charge = loop {
        let next = || stack.watched.with(|seen| seen.commands.get_mut(&other).and_then(|waiting| waiting.pop_front()));
        let command = eventually("the other saga goes on", next).await;
        if command.id.step == "charge" {
            break command;
        }
    };
    println!("the other saga went on after {:?}", sent.elapsed());
    assert_eq!(tries.load(Ordering::Relaxed), 3);
    let [set_aside] = quarantined(&stack, 1).await.try_into().unwrap();
    assert_eq!((set_aside.topic.as_str(), set_aside.partition, &set_aside.payload), (INBOX, 0, &poison));
    assert!(set_aside.reason.contains("planted"), "{}", set_aside.reason);
    let view = lanes.view(0, held).await.unwrap();
    assert_eq!(view["needs_attention"]["cause"], "SetAside", "{view}");
    lanes.end().await;

    // A later program could fold it, and does not: the checkpoint lies behind it.
    stack.watched.with(|seen| seen.commands.remove(&held));
    let lanes = Lanes::start(&stack, None).await;
    stack.applied(&charge, "").await;
    assert_eq!(stack.result(other).await.outcome, SagaOutcome::Completed);
    let view = lanes.view(0, held).await.unwrap();
    assert_eq!(
        (&view["needs_attention"]["cause"], &view["steps"][0]["awaits"]),
        (&"SetAside".into(), &"action".into())
    );
    assert!(stack.watched.with(|seen| !seen.commands.contains_key(&held)), "a held saga is not asked for again");
    // What lies in the quarantine, put back, sets it going.
    stack.send_bytes(0, set_aside.payload).await;
    let charge = stack.command(held, "charge", Direction::Action).await;
    stack.applied(&charge, "").await;
    assert_eq!(stack.result(held).await.outcome, SagaOutcome::Completed);
    lanes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_given_up_while_it_sends_leaves_its_results_to_the_next_owner() {
    let stack = Stack::start().await;
    let folded = Arc::new(AtomicBool::new(false));
    let (broker, is_folded) = (Pid::from_raw(i32::try_from(stack.kafka.pid()).unwrap()), folded.clone());
    // The broker stands still from here on, so the results topic is asked for in vain.
    let probe: Probe = Arc::new(move |record: &InboxRecord| {
        if matches!(record.event, InboxEvent::Start(_)) && !is_folded.load(Ordering::Relaxed) {
            kill(broker, Signal::SIGSTOP).unwrap();
            is_folded.store(true, Ordering::Relaxed);
        }
    });
    let lanes = Lanes::start(&stack, Some(probe)).await;
    let saga = SagaId(Uuid::now_v7());
    // Without inputs it ends at once.
    let start = InboxEvent::Start(Start { inputs: BTreeMap::new(), ..start(saga, 0, 0, "buy") });
    // What is set aside wants a checkpoint behind it before the loop does anything else.
    let sending = stack.send_together(0, [start.encode(), "rubbish".into()]);
    // The broker may stand still before it has acknowledged them.
    let giving_up = async {
        eventually("the start is folded", || folded.load(Ordering::Relaxed).then_some(())).await;
        lanes.consumer.shutdown(Duration::from_secs(3)).await;
        kill(broker, Signal::SIGCONT).unwrap();
    };
    tokio::join!(sending, giving_up);
    lanes.end().await;

    let lanes = Lanes::start(&stack, None).await;
    let outcome = stack.result(saga).await.outcome;
    assert!(matches!(&outcome, SagaOutcome::Undone { cause: UndoCause::Invalid, .. }), "{outcome:?}");
    lanes.end().await;
}

/// Whoever owned the lane before may have acted on the record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_from_before_the_takeover_halts_its_lane_instead() {
    let stack = Stack::start().await;
    let probe: Probe = Arc::new(|record: &InboxRecord| {
        assert!(!matches!(&record.event, InboxEvent::Start(start) if start.definition == "hasty"), "planted");
    });
    let bad = SagaId(Uuid::now_v7());
    stack.send(1, &InboxEvent::Start(start(bad, 1, 0, "hasty"))).await;
    let lanes = Lanes::begin(&stack, Some(probe)).await;
    let halted = || lanes.consumer.lanes().get(&Lane(1)).and_then(|lane| lane.halted.clone());
    let reason = eventually("the lane halts", halted).await;
    assert!(matches!(&reason, HaltReason::Poison { offset: 0, why } if why.contains("planted")), "{reason}");
    let good = stack.start_saga(0, 0, "buy").await;
    stack.command(good, "reserve", Direction::Action).await;
    let survey = event_stream::survey(&stack.settings, QUARANTINE, 100, PATIENCE).await.unwrap();
    assert_eq!(survey.records.len(), 0, "it is not passed over");
    lanes.end().await;

    let lanes = Lanes::start(&stack, None).await;
    let reserve = stack.command(bad, "reserve", Direction::Action).await;
    stack.applied(&reserve, "").await;
    assert_eq!(stack.result(bad).await.outcome, SagaOutcome::Completed);
    lanes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_lets_a_halted_lane_pass_the_record_over() {
    let stack = Stack::start().await;
    let with_a_bug = |name| {
        let probe: Probe = Arc::new(|record: &InboxRecord| {
            assert!(!matches!(&record.event, InboxEvent::Start(start) if start.definition == "hasty"), "planted");
        });
        Program::start_as(Build { probe: Some(probe), ..Build::default() }, &stack, name)
    };
    let [bad, good] = [SagaId(Uuid::now_v7()), SagaId(Uuid::now_v7())];
    stack.send(1, &InboxEvent::Start(start(bad, 1, 0, "hasty"))).await;
    let program = with_a_bug("halts");
    assert_eq!(program.halted(1).await[0].0, 1);
    for (path, status) in [
        ("/lanes/1/pass-over/x", 400),
        ("/lanes/0/pass-over/0", 409),
        ("/lanes/1/pass-over/1", 409),
        ("/lanes/1/pass-over/0", 200),
    ] {
        assert_eq!(program.ask("POST", path).map(|(status, _)| status), Some(status), "{path}");
    }
    program.end().await;

    let program = with_a_bug("passes");
    stack.send(1, &InboxEvent::Start(start(good, 1, 1, "buy"))).await;
    stack.command(good, "reserve", Direction::Action).await;
    let set_aside = quarantined(&stack, 1).await;
    assert_eq!((set_aside.len(), set_aside[0].offset), (1, 0));
    program.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_panics_is_refused_by_nobody_and_runs_when_it_can() {
    let stack = Stack::start().await;
    let probe: Probe = Arc::new(|record: &InboxRecord| {
        assert!(!matches!(&record.event, InboxEvent::Start(start) if start.definition == "hasty"), "planted");
    });
    let lanes = Lanes::start(&stack, Some(probe)).await;
    let [bad, good] = [SagaId(Uuid::now_v7()), SagaId(Uuid::now_v7())];
    let starts = [start(bad, 1, 0, "hasty"), start(good, 1, 1, "buy")];
    stack.send_together(1, starts.map(|start| InboxEvent::Start(start).encode())).await;
    stack.command(good, "reserve", Direction::Action).await;
    let set_aside = quarantined(&stack, 1).await;
    // Its starter sends it once more, and has no more luck.
    stack.send(1, &InboxEvent::Start(start(bad, 1, 0, "hasty"))).await;
    assert_eq!(quarantined(&stack, 2).await.len(), 2);
    lanes.end().await;
    // Another owner may have sent its commands: only somebody who runs the saga can say how it ends.
    assert!(stack.watched.with(|seen| !seen.results.contains_key(&bad)));

    let lanes = Lanes::start(&stack, None).await;
    stack.send_bytes(1, set_aside[0].payload.clone()).await;
    let reserve = stack.command(bad, "reserve", Direction::Action).await;
    stack.applied(&reserve, "").await;
    assert_eq!(stack.result(bad).await.outcome, SagaOutcome::Completed);
    lanes.end().await;
}

//! Tables: what each record leads to, line by line.

use saga_core::definition::Definition;
use saga_core::effect::{Alarm, Effect, Ignored};
use saga_core::ids::Lane;
use saga_core::lane::{MAX_DEFINITIONS, MAX_PARKED, MAX_SEQUENCE};
use saga_core::record::{InboxEvent, InboxRecord, Outcome, Reply};

use crate::plans::{CHAIN, CHECKOUT, DIAMOND, PARALLEL, PIVOT};
use crate::rig::{LANE, NEWER, Rig, ordinal, saga_id, start};

#[test]
fn happy_path() {
    let rig = Rig::run(
        CHECKOUT,
        "start checkout    -> do reserve
         applied reserve   -> do charge
         applied charge    -> completed",
    );
    assert!(rig.state.sagas().is_empty());
    assert_eq!(rig.state.next_deadline(), None);
    assert_eq!(rig.state.floors()[0].ended.below(), 1);
}

#[test]
fn outputs_flow_to_the_steps_that_use_them() {
    Rig::run(
        CHAIN,
        "start chain     -> do a
         applied a one   -> do b with a=one
         applied b two   -> do c with a=one b=two
         refused c no    -> undo c with a=one b=two
         undone c        -> undo b with a=one
         undone b        -> undo a
         undone a        -> ended Refused c no",
    );
}

#[test]
fn refusal_of_each_step_undoes_the_issued_ones_in_reverse() {
    Rig::run(
        CHAIN,
        "start chain   -> do a
         refused a no  -> undo a
         undone a      -> ended Refused a no",
    );
    Rig::run(
        CHAIN,
        "start chain   -> do a
         applied a     -> do b with a=
         refused b no  -> undo b with a=
         undone b      -> undo a
         undone a      -> ended Refused b no",
    );
}

#[test]
fn parallel_steps_are_undone_at_once() {
    Rig::run(
        PARALLEL,
        "start checkout-parallel   -> do reserve, do charge
         applied reserve           ->
         refused charge poor       -> undo charge, undo reserve
         undone reserve            ->
         undone charge             -> ended Refused charge poor",
    );
}

#[test]
fn a_refusal_undoes_the_sibling_that_is_still_out() {
    Rig::run(
        PARALLEL,
        "start checkout-parallel     -> do reserve, do charge
         refused reserve out         -> undo charge, undo reserve
         # its action arrived before the undo; the answer comes late
         applied charge              -> (LateReply)
         applied charge              -> (DuplicateReply)
         undone charge               ->
         undone reserve              -> ended Refused reserve out",
    );
}

#[test]
fn the_first_refusal_in_log_order_gives_the_reason() {
    Rig::run(
        PARALLEL,
        "start checkout-parallel     -> do reserve, do charge
         refused charge poor         -> undo charge, undo reserve
         refused reserve out         -> (LateReply)
         undone charge               ->
         undone reserve              -> ended Refused charge poor",
    );
}

#[test]
fn an_undo_waits_for_every_later_step() {
    Rig::run(
        DIAMOND,
        "start diamond   -> do a, do b
         applied b       ->
         applied a       -> do c
         operator undo   -> tell undoing, undo c
         applied c       -> (LateReply)
         undone c        -> undo b, undo a
         undone a        ->
         undone b        -> ended Operator - operator",
    );
}

#[test]
fn duplicates_and_late_records_are_named() {
    Rig::run(
        CHECKOUT,
        "start checkout     -> do reserve
         start checkout     -> (DuplicateStart)
         applied reserve x  -> do charge
         applied reserve x  -> (DuplicateReply)
         failed reserve     -> (LateFailure)
         refused charge no  -> undo charge
         refused charge no  -> (DuplicateReply)
         failed charge      -> (LateFailure)
         undone charge      -> undo reserve
         undone charge      -> (DuplicateReply)
         undo-failed charge -> (LateFailure)
         cancelled charge   -> (LateReply)
         operator undo      -> (AlreadyUndoing)
         undone reserve     -> ended Refused charge no
         undone reserve     -> (SagaNotOpen)
         applied reserve    -> (SagaNotOpen)
         stale reserve      -> (StaleOfEnded)
         undo-stale reserve -> (StaleOfEnded)
         operator undo      -> (SagaNotOpen)
         operator retry     -> (SagaNotOpen)
         timer saga 1       -> (SagaNotOpen)
         start checkout     -> (StartOfEnded)",
    );
}

#[test]
fn contradictions_alarm_and_change_nothing() {
    Rig::run(
        CHECKOUT,
        "start checkout      -> do reserve
         misanswered reserve -> alarm ImpossibleReply (ImpossibleReply)
         undone reserve      -> alarm ImpossibleReply (ImpossibleReply)
         undo-failed reserve -> alarm ImpossibleReply (ImpossibleReply)
         applied charge      -> alarm ImpossibleReply (ImpossibleReply)
         applied nothing     -> alarm ImpossibleReply (ImpossibleReply)
         applied reserve x   -> do charge
         applied reserve y   -> alarm Contradiction (Contradiction)
         refused reserve no  -> alarm Contradiction (Contradiction)
         refused charge no   -> undo charge
         refused charge yes  -> alarm Contradiction (Contradiction)
         applied charge      -> alarm Contradiction (Contradiction)
         undo-refused charge -> alarm ImpossibleReply (ImpossibleReply)
         undone charge       -> undo reserve
         undo-refused charge -> alarm ImpossibleReply (ImpossibleReply)
         undone reserve      -> ended Refused charge no",
    );
}

#[test]
fn a_late_answer_is_remembered_so_that_a_contradicting_one_alarms() {
    Rig::run(
        CHECKOUT,
        "start checkout      -> do reserve
         operator undo       -> tell undoing, undo reserve
         applied reserve     -> (LateReply)
         refused reserve out -> alarm Contradiction (Contradiction)
         undone reserve      -> ended Operator - operator",
    );
}

#[test]
fn cancelled_without_an_undo_needs_attention() {
    Rig::run(
        CHECKOUT,
        "start checkout    -> do reserve
         cancelled reserve -> alarm NeedsAttention (ImpossibleReply)
         attention         -> CancelledWithoutUndo
         awaited           -> do reserve",
    );
}

#[test]
fn stale_for_an_open_saga_changes_nothing_but_the_flag() {
    let mut rig = Rig::run(CHECKOUT, "start checkout -> do reserve");
    let before = rig.state.saga(saga_id(0)).expect("open").clone();
    rig.play(
        "stale reserve -> alarm NeedsAttention (StaleOfOpen)
         attention     -> Stale
         awaited       -> do reserve",
    );
    let mut after = rig.state.saga(saga_id(0)).expect("open").clone();
    assert_eq!(after.changed_by, 2, "a checkpoint must see the flag");
    after.attention = None;
    after.changed_by = before.changed_by;
    assert_eq!(after, before);
    rig.play(
        "undo-stale reserve -> alarm NeedsAttention (StaleOfOpen)
         applied reserve    -> do charge
         attention          -> Stale",
    );
}

#[test]
fn a_failure_pauses_and_sends_the_same_command() {
    Rig::run(
        CHAIN,
        "start chain -> do a
         failed a    ->
         awaited     ->
         failed a    -> (LateFailure)
         +99
         due         ->
         +1
         due         -> do a
         awaited     -> do a
         failed a    ->
         +199
         due         ->
         +1
         due         -> do a
         failed a    ->
         applied a   -> do b with a=
         +400
         due         -> ",
    );
}

#[test]
fn a_step_timeout_undoes_every_issued_step() {
    Rig::run(
        CHAIN,
        "start chain -> do a
         +999
         applied a   -> do b with a=
         +999
         due         ->
         +1
         due         -> tell undoing, undo b with a=
         applied b   -> (LateReply)
         undone b    -> undo a
         undone a    -> ended TimedOut b timed-out",
    );
}

#[test]
fn a_step_timeout_that_waits_sends_again() {
    Rig::run(
        CHECKOUT,
        "start checkout  -> do reserve
         +4000
         due             -> do reserve
         +3999
         due             ->
         +1
         due             -> do reserve
         applied reserve -> do charge",
    );
}

#[test]
fn the_saga_deadline_undoes() {
    Rig::run(
        CHECKOUT,
        "start checkout  -> do reserve
         +1
         applied reserve -> do charge
         +19998
         timer saga 1    -> (TimerEarly)
         +1
         timer saga 1    -> tell undoing, undo charge
         timer saga 1    -> (TimerNotArmed)
         undone charge   -> undo reserve
         undone reserve  -> ended TimedOut - timed-out",
    );
}

#[test]
fn a_timer_counts_only_for_the_record_that_armed_it() {
    Rig::run(
        CHECKOUT,
        "start checkout          -> do reserve
         +4000
         timer timeout reserve 0 -> (TimerNotArmed)
         timer timeout reserve 1 -> do reserve
         # armed again by offset 3: the duplicate counts no longer, although its time has come
         +4000
         timer timeout reserve 1 -> (TimerNotArmed)
         timer timeout reserve 3 -> do reserve
         timer timeout charge 3  -> (TimerNotArmed)
         timer timeout nothing 3 -> (TimerNotArmed)
         timer retry reserve 3   -> (TimerNotArmed)
         failed reserve          ->
         +400
         timer retry reserve 3   -> (TimerNotArmed)
         timer retry reserve 9   -> do reserve
         timer retry reserve 9   -> (TimerNotArmed)",
    );
}

#[test]
fn an_issued_pivot_is_undone_by_nothing_but_its_refusal() {
    let script = "start pivot    -> do book
         applied book   -> do pay
         operator undo  -> (PivotIssued)
         +1000
         due            -> do pay
         +9000
         timer saga 1   -> (PivotIssued)
         timer saga 1   -> (TimerNotArmed)
         operator undo  -> (PivotIssued)";
    Rig::run(PIVOT, script).play(
        "refused pay no -> undo pay
         undone pay     -> undo book
         undone book    -> ended Refused pay no",
    );
    Rig::run(PIVOT, script).play(
        "applied pay    -> do send!
         operator undo  -> (PivotIssued)
         applied send   -> completed",
    );
}

#[test]
fn before_the_pivot_is_issued_an_operator_may_undo() {
    Rig::run(
        PIVOT,
        "start pivot   -> do book
         operator undo -> tell undoing, undo book
         undone book   -> ended Operator - operator",
    );
}

#[test]
fn a_retriable_step_is_retried_for_ever_and_shown() {
    Rig::run(
        PIVOT,
        "start pivot   -> do book
         applied book  -> do pay
         applied pay   -> do send!
         +1000
         due           -> do send!
         +1000
         due           -> do send!
         +1000
         due           -> do send!
         +1000
         due           -> do send!
         attention     -> none
         +1000
         due           -> alarm NeedsAttention, do send!
         attention     -> Unanswered
         +1000
         due           -> do send!
         refused send  -> alarm NeedsAttention (ImpossibleReply)
         attention     -> RefusedRetriable
         applied send  -> completed",
    );
}

#[test]
fn an_undo_never_gives_up_and_is_shown() {
    Rig::run(
        CHECKOUT,
        "start checkout      -> do reserve
         operator undo       -> tell undoing, undo reserve
         undo-failed reserve ->
         +100
         due                 -> undo reserve
         undo-failed reserve ->
         +200
         due                 -> undo reserve
         undo-failed reserve ->
         +400
         due                 -> undo reserve
         undo-failed reserve ->
         attention           -> none
         +800
         due                 -> undo reserve
         undo-failed reserve -> alarm NeedsAttention
         attention           -> Unanswered
         +1600
         due                 -> undo reserve
         operator retry      -> undo reserve
         +4000
         due                 -> undo reserve
         undone reserve      -> ended Operator - operator",
    );
}

#[test]
fn the_starter_hears_of_a_refused_sagas_undo_when_it_hangs() {
    Rig::run(
        CHECKOUT,
        "start checkout      -> do reserve
         applied reserve     -> do charge
         refused charge poor -> undo charge
         undone charge       -> undo reserve
         +4000
         due                 -> tell undoing, undo reserve
         undo-failed reserve ->
         +200
         due                 -> undo reserve
         undone reserve      -> ended Refused charge poor",
    );
}

#[test]
fn an_undo_that_takes_long_is_shown_and_the_flag_goes_with_the_answer() {
    Rig::run(
        CHAIN,
        "start chain   -> do a
         applied a     -> do b with a=
         operator undo -> tell undoing, undo b with a=
         +60000
         undo-failed b -> alarm NeedsAttention
         attention     -> Unanswered
         undone b      -> undo a
         attention     -> none",
    );
}

#[test]
fn a_compensable_step_that_fails_often_needs_nobody() {
    Rig::run(
        CHECKOUT,
        "start checkout -> do reserve
         failed reserve ->
         +100
         due            -> do reserve
         failed reserve ->
         +200
         due            -> do reserve
         failed reserve ->
         +400
         due            -> do reserve
         failed reserve ->
         +800
         due            -> do reserve
         failed reserve ->
         attention      -> none",
    );
}

#[test]
fn an_operators_retry_sends_what_is_awaited() {
    Rig::run(
        PARALLEL,
        "start checkout-parallel -> do reserve, do charge
         applied reserve         ->
         failed charge           ->
         awaited                 ->
         operator retry          -> do charge
         awaited                 -> do charge
         +100
         due                     ->",
    );
}

#[test]
fn a_start_waits_for_its_definition() {
    let mut rig = Rig::new();
    rig.know(CHECKOUT);
    rig.play(
        "saga 4
         start checkout ->
         start checkout -> (DuplicateStart)
         operator retry -> (StartParked)
         timer timeout reserve 0 -> (TimerNotArmed)
         saga 2
         start checkout ->",
    );
    assert_eq!(rig.state.parked().len(), 2);
    let came = rig.tell(InboxEvent::Activate { text: CHECKOUT.to_owned() });
    assert_eq!(came, "do reserve, do reserve");
    let order: Vec<_> = rig.state.sagas().values().map(|saga| (saga.ordinal.sequence, saga.changed_by)).collect();
    assert_eq!(order, [(2, 5), (4, 5)]);
}

#[test]
fn parked_starts_begin_in_the_order_in_which_they_came() {
    let mut rig = Rig::new();
    rig.know(CHECKOUT);
    rig.play("saga 4\nstart checkout ->\nsaga 2\nstart checkout ->");
    let step = rig.fold(InboxEvent::Activate { text: CHECKOUT.to_owned() });
    let order: Vec<u64> = step
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::Command { command, .. } => command.ordinal.sequence,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [4, 2]);
}

#[test]
fn a_start_whose_definition_never_comes_ends_as_invalid() {
    let mut rig = Rig::new();
    rig.play(
        "start nothing ->
         +19999
         timer saga 0  -> (TimerEarly)
         +1
         timer saga 9  -> (TimerNotArmed)
         due           -> ended Invalid - invalid
         start nothing -> (StartOfEnded)
         saga 1
         start nothing ->
         operator undo -> ended Operator - operator",
    );
    assert_eq!(rig.state.floors()[0].ended.below(), 2);
}

#[test]
fn starts_beyond_the_parking_limit_end_as_invalid() {
    let mut state = saga_core::lane::LaneState::new(LANE);
    for sequence in 0..=MAX_PARKED as u64 {
        let event = InboxEvent::Start(start(sequence, "nothing", &[]));
        let record = InboxRecord { offset: i64::try_from(sequence).expect("small"), time_ms: 0, event };
        let step = state.step(&record);
        if sequence < MAX_PARKED as u64 {
            assert_eq!(step.effects, []);
        } else {
            assert!(matches!(step.effects.as_slice(), [Effect::Alarm(Alarm::LaneFull { .. }), Effect::Result { .. }]));
        }
    }
    assert_eq!(state.parked().len(), MAX_PARKED);
}

#[test]
fn a_lane_that_knows_too_many_definitions_takes_only_newer_versions() {
    let mut state = saga_core::lane::LaneState::new(LANE);
    let mut activate = |number: usize, version: &str| {
        let text = CHECKOUT
            .replace("name: checkout", &format!("name: c{number}"))
            .replace("version: 1", &format!("version: {version}"));
        let offset = state.next_offset();
        let step = state.step(&InboxRecord { offset, time_ms: 0, event: InboxEvent::Activate { text } });
        (step.ignored, state.definitions().len())
    };
    for number in 0..MAX_DEFINITIONS {
        assert_eq!(activate(number, "1"), (None, number + 1));
    }
    assert_eq!(activate(MAX_DEFINITIONS, "1"), (Some(Ignored::TooManyDefinitions), MAX_DEFINITIONS));
    assert_eq!(activate(3, "2"), (None, MAX_DEFINITIONS));
}

#[test]
fn every_sequence_ends_a_start_that_cannot_run_as_invalid() {
    let mut rig = Rig::run(CHECKOUT, "");
    for (sequence, steps) in [(0, vec!["reserve"]), (1, vec!["reserve", "charge", "ship"]), (2, vec![])] {
        let steps: Vec<String> = steps.into_iter().map(str::to_owned).collect();
        let event = InboxEvent::Start(start(sequence, "checkout", &steps));
        assert_eq!(rig.tell(event.clone()), "ended Invalid - invalid");
        assert_eq!(rig.tell(event), "(StartOfEnded)");
    }
    assert_eq!(rig.state.floors()[0].ended.below(), 3);
}

#[test]
fn a_start_is_answered_on_its_starters_topic_and_on_no_other() {
    let mut rig = Rig::run(CHECKOUT, "");
    let mut stray = start(0, "checkout", &["reserve".to_owned(), "charge".to_owned()]);
    stray.results_topic = "nowhere".to_owned();
    assert_eq!(rig.tell(InboxEvent::Start(stray)), "ended Invalid - invalid");
    assert_eq!(rig.state.floors()[0].ended.below(), 1);
}

#[test]
fn an_ordinal_held_by_another_saga_alarms() {
    let mut rig = Rig::run(CHECKOUT, "start checkout -> do reserve");
    let steps = ["reserve".to_owned(), "charge".to_owned()];
    let mut thief = start(0, "checkout", &steps);
    thief.saga = saga_id(9);
    assert_eq!(rig.tell(InboxEvent::Start(thief)), "alarm OrdinalHeld (StartContradicts)");
    let mut twin = start(0, "checkout", &steps);
    twin.ordinal = ordinal(1);
    assert_eq!(rig.tell(InboxEvent::Start(twin)), "alarm SagaIdReused (StartContradicts)");
    let mut stray = start(2, "checkout", &steps);
    stray.ordinal.lane = Lane(8);
    assert_eq!(rig.tell(InboxEvent::Start(stray)), "alarm WrongLane (StartContradicts)");
    let mut last = start(3, "checkout", &steps);
    last.ordinal.sequence = MAX_SEQUENCE + 1;
    assert_eq!(rig.tell(InboxEvent::Start(last)), "alarm LaneFull, ended Invalid - invalid");
    rig.play("applied reserve -> do charge");
}

#[test]
fn a_reply_with_another_ordinal_is_impossible() {
    let mut rig = Rig::run(CHECKOUT, "start checkout -> do reserve");
    let id = saga_core::ids::CommandId {
        saga: saga_id(0),
        step: "reserve".to_owned(),
        direction: saga_core::ids::Direction::Action,
    };
    let reply = Reply { id, ordinal: ordinal(1), outcome: Outcome::Cancelled };
    assert_eq!(rig.tell(InboxEvent::Reply(reply)), "alarm ImpossibleReply (ImpossibleReply)");
}

#[test]
fn the_floor_is_never_the_lowest_open_sequence() {
    let mut rig = Rig::run(
        CHECKOUT,
        "saga 0
         start checkout  -> do reserve
         saga 2
         start checkout  -> do reserve
         saga 3
         start checkout  -> do reserve
         refused reserve no -> undo reserve
         undone reserve  -> ended Refused reserve no
         saga 0
         refused reserve no -> undo reserve
         undone reserve  -> ended Refused reserve no",
    );
    // 2 is the lowest that is open, but 1 may still be on its way.
    let floors = rig.state.floors();
    assert_eq!(floors[0].ended.below(), 1);
    assert_eq!(floors[0].ended.above().collect::<Vec<_>>(), [(3, 4)]);
    rig.play("saga 1\nstart checkout -> do reserve");
}

#[test]
fn a_saga_ends_with_the_plan_it_began_with() {
    let newer = CHECKOUT.replace("version: 1", "version: 2").replace("name: charge", "name: bill");
    let mut rig = Rig::run(CHECKOUT, "start checkout -> do reserve");
    rig.know(&newer);
    assert_eq!(rig.tell(InboxEvent::Activate { text: newer.clone() }), "");
    assert_eq!(rig.state.definitions().len(), 2);
    rig.play(
        "saga 1
         start checkout  -> do reserve
         applied reserve -> do bill
         saga 0
         applied reserve -> do charge
         applied charge  -> completed",
    );
    let known: Vec<u32> = rig.state.definitions().iter().map(|definition| definition.id.version).collect();
    assert_eq!(known, [2], "the old version is forgotten with its last saga");
    assert_eq!(rig.tell(InboxEvent::Activate { text: CHECKOUT.to_owned() }), "(DefinitionNotNewer)");
    assert_eq!(rig.tell(InboxEvent::Activate { text: newer.clone() }), "(DefinitionNotNewer)");
    let changed = format!("{newer}# other\n");
    assert_eq!(rig.tell(InboxEvent::Activate { text: changed }), "alarm DefinitionConflict (DefinitionNotNewer)");
    let broken = "name: x".to_owned();
    assert_eq!(rig.tell(InboxEvent::Activate { text: broken }), "alarm DefinitionInvalid (DefinitionInvalid)");
}

#[test]
fn a_fold_version_that_is_not_known_moves_nothing() {
    let mut rig = Rig::run(CHECKOUT, "version 1 -> (FoldVersionNotNewer)\nversion 0 -> (FoldVersionNotNewer)");
    let before = rig.state.clone();
    rig.play("version 2 -> alarm UnknownFoldVersion (FoldVersionUnknown)");
    assert_eq!(rig.state, before);
}

#[test]
fn a_saga_keeps_the_fold_version_that_it_started_under() {
    let mut rig = Rig::run(CHECKOUT, "");
    rig.state = rig.state.supporting(NEWER);
    rig.play("start checkout -> do reserve");
    let old = *rig.state.sagas().keys().next().expect("a saga");
    rig.play("version 2 ->");
    assert_eq!(rig.state.fold_version(), 2);
    assert_eq!(rig.state.saga(old).map(|saga| saga.fold_version), Some(1));
    rig.play("version 1 -> (FoldVersionNotNewer)");
    // The checkpoint of a lane that has adopted it is for newer programs only.
    let (head, definitions) = (rig.state.head(), || rig.state.definitions().iter().cloned());
    let sagas = || rig.state.sagas().values().cloned();
    let older = saga_core::lane::LaneState::restore_supporting(1, head.clone(), definitions(), sagas());
    assert_eq!(older, Err(saga_core::lane::RestoreError::FoldVersion(2)));
    let newer = saga_core::lane::LaneState::restore_supporting(NEWER, head, definitions(), sagas());
    assert_eq!(newer.as_ref(), Ok(&rig.state));
}

#[test]
fn a_version_that_differs_counts_for_the_sagas_that_start_under_it() {
    let mut rig = Rig::run(CHECKOUT, "");
    rig.state = rig.state.supporting(NEWER);
    rig.play("start checkout -> do reserve");
    assert_eq!(rig.tell(InboxEvent::FoldVersion(NEWER)), "");
    rig.play(
        "saga 1
         start checkout     -> do reserve
         refused reserve no -> tell undoing, undo reserve
         undone reserve     -> ended Refused reserve no
         saga 0
         refused reserve no -> undo reserve
         undone reserve     -> ended Refused reserve no",
    );
}

#[test]
fn a_record_is_folded_once() {
    let mut rig = Rig::run(CHECKOUT, "start checkout -> do reserve");
    let before = rig.state.clone();
    for record in rig.log.clone() {
        let step = rig.state.step(&record);
        assert_eq!((step.ignored, step.effects), (Some(Ignored::AlreadyFolded), vec![]));
    }
    assert_eq!(rig.state, before);
}

#[test]
fn time_at_the_edge_of_numbers_does_not_overflow() {
    let definition = Definition::parse("checkout", CHECKOUT).expect("a definition");
    let steps: Vec<String> = definition.steps.iter().map(|plan| plan.name.clone()).collect();
    for time_ms in [i64::MIN, -1, i64::MAX - 1, i64::MAX] {
        let mut state = saga_core::lane::LaneState::new(LANE);
        let activate = InboxEvent::Activate { text: CHECKOUT.to_owned() };
        state.step(&InboxRecord { offset: 0, time_ms, event: activate });
        let event = InboxEvent::Start(start(0, "checkout", &steps));
        state.step(&InboxRecord { offset: i64::MAX, time_ms, event });
        assert_eq!(state.sagas().len(), 1);
        assert!(state.next_deadline().is_some_and(|at_ms| at_ms >= time_ms));
    }
}

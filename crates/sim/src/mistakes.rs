//! Deliberate mistakes, to see that the simulation notices them, and defences that can be switched off.
//!
//! They live here and nowhere else: the simulation alters what goes into the real functions and what comes out of them,
//! or does wrongly what its own loops do. No service's code has a switch for them, so none can be built with one.

macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($variant:ident $id:literal $text:literal)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $(#[doc = $text] $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name on the command line.
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)* }
            }

            /// In a sentence.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The one with this name.
            pub fn named(id: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.id() == id)
            }
        }
    };
}

named! {
    /// Something that an implementer can get wrong.
    Mistake {
        NoStepRecord "no-step-record" "participants keep no step records"
        RuleFirst "rule-first" "the business rule is asked before the step record"
        NoTombstone "no-tombstone" "an undo without a record leaves none"
        RecordTtl "record-ttl" "step records expire"
        RecordDroppedAfterUndo "record-dropped-after-undo" "step records are dropped once undone"
        StaleUnchecked "stale-unchecked" "the floor deletes records, but commands below it are not refused"
        FloorAsSent "floor-as-sent" "a participant takes the last floor instead of the highest"
        ItemsNotWatched "items-not-watched" "what the business reads is not watched"
        AnswerBeforeExec "answer-before-exec" "answers are sent before the EXEC is known to have happened"
        OffsetBeforeEffect "offset-before-effect" "the position moves in one EXEC, the effects follow in another"
        NoRepliedPosition "no-replied-position" "after a takeover a participant reads from next, not from replied"
        DoubtSettledByReading "doubt-settled-by-reading" "an unknown EXEC is taken as done if the position stands where it would"
        FencedResigns "fenced-resigns" "a fenced participant gives the lane up"
        RetriableRefusalRecorded "retriable-refusal-recorded" "the no of a step that may not refuse is recorded"
        NoFence "no-fence" "a participant does not compare the lane's position"
        UndoByCommand "undo-by-command" "an undo reverses what the command asked for, not what was done"
        FailureRecorded "failure-recorded" "a technical failure is answered and recorded as a refusal"
        RepliedBeforeAck "replied-before-ack" "replied moves on before the answers are acknowledged"
        UndoOnlyKnown "undo-only-known" "only steps that are known to be applied are undone"
        FreshCommandIds "fresh-command-ids" "every attempt has a command id of its own"
        StartDedupForgotten "start-dedup-forgotten" "a start whose sequence has ended runs once more"
        FloorAtUndo "floor-at-undo" "a saga counts as ended when its undo begins"
        FloorLowestOpen "floor-lowest-open" "the floor is the lowest sequence that happens to be open"
        FloorHighestEnded "floor-highest-ended" "the floor is above the highest sequence that has ended"
        FloorOneTooHigh "floor-one-too-high" "the floor names the first sequence that has not ended, too"
        CheckpointBeforeAcks "checkpoint-before-acks" "a checkpoint does not wait for receipts"
        StateAhead "state-ahead" "a checkpoint's state is ahead of its offset"
        StateBehind "state-behind" "a checkpoint's offset is ahead of its state"
        OffsetBeforeCheckpoint "offset-before-checkpoint" "the group's offset is committed before a checkpoint says it"
        CheckpointUncompared "checkpoint-uncompared" "a checkpoint is written whatever version is stored"
        EndedNotDeleted "ended-not-deleted" "ended sagas stay in the store and among the open ones"
        LocalTimeout "local-timeout" "a passed deadline is acted on without a record"
        DefinitionAtFoldTime "definition-at-fold-time" "a definition is looked up where the fold runs"
        ActivationWithoutVersion "activation-without-version" "an activation counts whatever its version"
        StartSkipped "start-skipped" "a start whose definition is unknown is set aside"
        RefusedStartSilent "refused-start-silent" "a start that cannot run gets no result"
        VerbEndsUndo "verb-ends-undo" "an operator's undo ends a saga that is being undone"
        PivotUndone "pivot-undone" "timeouts undo around the point of no return"
        ResultsNotRepeated "results-not-repeated" "a new owner does not say results again"
        AwaitedNotRepeated "awaited-not-repeated" "a new owner does not send awaited commands again"
        FloorsNotRepeated "floors-never-told" "floors are not told"
        TakenForRefusal "failure-taken-for-refusal" "a failed command is folded as a refusal"
        LostDeliveryIgnored "lost-delivery-ignored" "a failed delivery is taken for an acknowledgement"
        StartsNeverResent "starts-never-resent" "pending starts are not sent again"
        StartsNeverSwept "starts-never-swept" "pending starts are sent again at a takeover only"
        SequenceInMemory "sequence-in-memory" "sequences are counted in memory"
        PendingInSecondExec "pending-in-second-exec" "the pending entry is written in an EXEC of its own"
        SweepFromMemory "sweep-from-memory" "a takeover sends what the process remembers, not what the store knows"
        StartBeforeExec "start-before-exec" "a start is sent before its EXEC is known to have happened"
        ToldBeforeExec "told-before-exec" "clients are told before the result's EXEC"
        CheckoutDoubtByReading "checkout-doubt-by-reading" "an unknown checkout is answered by reading the order"
        LockOverlooked "lock-overlooked" "an order that is being checked out can be checked out again"
        ResultsUnfenced "results-unfenced" "results are applied whatever position is stored"
        UndoNoticeEnds "undo-notice-ends" "the notice of an undo is taken for the end"
        ResultForAnySaga "result-for-any-saga" "a result is applied to whatever saga its order waits for"
        StartsOnlySwept "starts-only-swept" "pending starts are not sent again at a takeover"
        StartsSentOnce "starts-sent-once" "a window sends its starts once, whatever becomes of them"
    }
}

named! {
    /// A safety net that can be taken away, so that it does not hide what is broken beneath it.
    Defence {
        Resends "resends" "the orchestrator's re-sends of commands that nobody answers"
        Timeouts "timeouts" "timeouts of steps and sagas"
        Dedup "dedup" "the starter's look at the sequences that have ended, before a result is applied"
        Sweep "sweep" "the starter's sweep, for starts that somebody else sends until they are acknowledged"
    }
}

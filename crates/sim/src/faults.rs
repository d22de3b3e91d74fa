//! What is injected, and where a process can die. Which of the faults that were drawn really happen can be restricted:
//! that is how a failing seed is shrunk.

use std::collections::BTreeMap;

use crate::rng::Rng;

macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($variant:ident $text:literal)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $(#[doc = $text] $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// In words.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The one with these words.
            pub fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.text() == text)
            }
        }
    };
}

names! {
    /// A kind of fault.
    Fault {
        Crash "a process dies"
        LostSend "a batch is lost, the producer gives up"
        LostAck "a batch arrives, its acknowledgement does not"
        LateSend "a batch arrives long after the producer gave up"
        DoubledSend "a batch arrives, and once more later"
        ExecLostReply "an EXEC happens, its reply is lost"
        ExecNeverArrived "an EXEC never arrives, its outcome is unknown"
        ExecLate "an EXEC is still on its way when its outcome is asked for"
        Rebalance "a lane changes owner, the former one is told"
        Zombie "a lane changes owner, the former one goes on for a while"
        TimerEarly "a timer record before its time"
        TimerAgain "an old timer record once more"
        TimerForNobody "a timer record that nobody armed"
        OperatorRetry "an operator has a saga retried"
        OperatorUndo "an operator has a saga undone"
        Garbage "bytes that are no record"
        RecordAgain "an old record of any topic once more"
        Sick "a participant cannot decide for a while"
        Pause "a long silence: deadlines pass"
        OldActivation "an old activation once more"
        ForgedStart "a start that claims the ordinal or the id of another"
        StrangeReply "a reply that no command can have"
    }
}

names! {
    /// A place in a loop where its process may die: between two things that the world can see.
    Point {
        OrchestratorLoad "orchestrator: lane assigned, nothing read"
        OrchestratorLoaded "orchestrator: checkpoint read"
        OrchestratorCaughtUp "orchestrator: folded a piece of the log silently"
        OrchestratorRecovery "orchestrator: log's end reached, nothing said again"
        OrchestratorRecovered "orchestrator: floors and awaited commands said again"
        OrchestratorFolded "orchestrator: records folded, effects not sent"
        OrchestratorDue "orchestrator: timers, activations, floors queued, not sent"
        OrchestratorSent "orchestrator: effects sent, not acknowledged"
        OrchestratorFrozen "orchestrator: checkpoint frozen, waiting for receipts"
        OrchestratorWriting "orchestrator: checkpoint handed to the store"
        OrchestratorWritten "orchestrator: checkpoint written"
        ParticipantLoad "participant: lane assigned, nothing read"
        ParticipantLoaded "participant: positions read"
        ParticipantTaken "participant: records taken in, nothing executed"
        ParticipantHandedIn "participant: chunk handed to the store"
        ParticipantExecuted "participant: EXEC known, answers not sent"
        ParticipantAnswered "participant: answers sent, not acknowledged"
        ParticipantRepeated "participant: recorded answers said again"
        ParticipantAcknowledged "participant: answers acknowledged, replied not written"
        WindowChosen "starter: window closed, lane chosen"
        WindowHandedIn "starter: window handed to the store"
        WindowCommitted "starter: EXEC known, starts not sent"
        WindowSent "starter: starts sent, not acknowledged"
        ResultsLoad "starter: lane assigned, nothing read"
        ResultsLoaded "starter: position and pending sagas read"
        ResultsTakeOver "starter: pending starts sent again, not acknowledged"
        ResultsHandedIn "starter: results handed to the store"
        ResultsApplied "starter: EXEC known, nobody told"
        ResultsTold "starter: waiters told"
        ResultsSwept "starter: old pending starts sent again"
        CommitterRead "committer: WATCH and MGET done, EXEC not sent"
        CommitterInDoubt "committer: EXEC sent, reply lost"
        CommitterSettled "committer: unknown outcome settled, nobody told"
        CommitterDone "committer: EXEC done, callers not told"
    }
}

/// Draws faults and counts them.
#[derive(Clone, Debug)]
pub struct Faults {
    rng: Rng,
    quiet: bool,
    /// Faults drawn so far.
    drawn: usize,
    /// At most so many happen.
    limit: usize,
    /// These do not happen, by the order in which they are drawn.
    skip: Vec<usize>,
    /// How often each fault happened.
    pub counts: BTreeMap<Fault, u64>,
    /// The numbers of those that happened.
    pub happened: Vec<usize>,
}

impl Faults {
    /// For one seed; `limit` and `skip` restrict what happens of what is drawn.
    pub fn new(seed: u64, limit: usize, skip: Vec<usize>) -> Self {
        Self {
            rng: Rng::new(seed, 2),
            quiet: false,
            drawn: 0,
            limit,
            skip,
            counts: BTreeMap::new(),
            happened: Vec::new(),
        }
    }

    /// Whether this fault happens now; about once in `once_in` calls.
    pub fn strikes(&mut self, fault: Fault, once_in: u32) -> bool {
        if self.quiet || !self.rng.once_in(once_in) {
            return false;
        }
        let number = self.drawn;
        self.drawn += 1;
        if number >= self.limit || self.skip.contains(&number) {
            return false;
        }
        self.happened.push(number);
        *self.counts.entry(fault).or_default() += 1;
        true
    }

    /// Nothing happens from now on.
    pub fn end(&mut self) {
        self.quiet = true;
    }

    /// Whether faults have ended.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// How many happened.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

//! How many seeds it takes to notice a mistake.

use crate::mistakes::{Defence, Mistake};
use crate::oracle::Violation;
use crate::run::run;
use crate::world::Options;

/// Seeds within which every mistake must be noticed. Most take one to twenty; the bound leaves room for what happens to the
/// rarest, a result that is applied to any saga, when a change of the services turns every seed into another run.
pub const MAX_SEEDS: u64 = 1_500;

/// The circumstances under which a mistake is looked for.
///
/// A safety net can hide what is broken beneath it: a command that was never sent is sent again after half a minute. So
/// a mistake is also looked for where the nets that hide it have been taken away.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is done wrong.
    pub mistake: Mistake,
    /// Which nets are taken away.
    pub without: &'static [Defence],
}

/// A mistake that was noticed.
#[derive(Clone, Debug)]
pub struct Catch {
    /// The seed that noticed it.
    pub seed: u64,
    /// What was seen.
    pub violation: Violation,
}

impl Case {
    /// One for each mistake.
    pub fn all() -> impl Iterator<Item = Self> {
        Mistake::ALL.iter().map(|mistake| Self { mistake: *mistake, without: hidden_by(*mistake) })
    }

    /// Runs seeds from `from` on until one fails, at most `most`; one that fails without the mistake as well does not count.
    pub fn hunt(&self, from: u64, most: u64) -> Option<Catch> {
        (from..from.saturating_add(most)).find_map(|seed| {
            let sound = Options { without: self.without.to_vec(), ..Options::new(seed) };
            let violation = run(&Options { mistake: Some(self.mistake), ..sound.clone() }).violation?;
            run(&sound).violation.is_none().then_some(Catch { seed, violation })
        })
    }
}

/// The safety nets that heal what a mistake breaks.
fn hidden_by(mistake: Mistake) -> &'static [Defence] {
    match mistake {
        // A command or answer that was lost is asked for again after a while.
        Mistake::NoRepliedPosition
        | Mistake::RepliedBeforeAck
        | Mistake::AwaitedNotRepeated
        | Mistake::LostDeliveryIgnored
        | Mistake::CheckpointBeforeAcks => &[Defence::Resends, Defence::Timeouts],
        // A result that comes again is stopped before its order is looked at.
        Mistake::ResultForAnySaga => &[Defence::Dedup],
        // What is pending is sent again after a while.
        Mistake::StartsOnlySwept | Mistake::StartsSentOnce => &[Defence::Sweep],
        _ => &[],
    }
}

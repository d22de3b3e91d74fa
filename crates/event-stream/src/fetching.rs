//! How a fetching thread follows one lane: which offset must come next.

use std::sync::Arc;

use crate::inbox::Inbox;

/// A lane as the thread serves it.
pub(crate) struct Fetching {
    pub(crate) epoch: u64,
    pub(crate) inbox: Arc<Inbox>,
    /// The offset that must come next.
    pub(crate) next: i64,
    pub(crate) paused: bool,
    pub(crate) gap: Gap,
    /// Whether the lane was told its end since it was taken on.
    pub(crate) has_caught_up: bool,
}

/// What is known of a jump over offsets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    None,
    /// Seen; nothing is taken until the lane has been taken up again.
    Seen,
    /// Taken up again at this offset: seen once more there, it is in the log itself.
    ReadAgain(i64),
}

/// What to do with a record.
pub(crate) enum Accept {
    Take,
    Skip,
    Gap,
}

impl Fetching {
    pub(crate) fn new(epoch: u64, start: i64, inbox: Arc<Inbox>) -> Self {
        Self { epoch, inbox, next: start, paused: false, gap: Gap::None, has_caught_up: false }
    }

    /// The lane has been taken up again where it stands, because of a jump.
    pub(crate) fn read_again(&mut self) {
        self.paused = false;
        self.gap = Gap::ReadAgain(self.next);
    }

    /// Offsets are dense in our topics, so anything but the next one is the client's mistake, unless it insists.
    pub(crate) fn accept(&mut self, offset: i64) -> Accept {
        if offset < self.next {
            return Accept::Skip;
        }
        if offset > self.next {
            match self.gap {
                Gap::Seen => return Accept::Skip,
                Gap::ReadAgain(at) if at == self.next => {
                    tracing::warn!(lane = %self.inbox.cell.lane, from = at, to = offset, "the log has a gap");
                }
                Gap::None | Gap::ReadAgain(_) => {
                    self.gap = Gap::Seen;
                    return Accept::Gap;
                }
            }
        }
        self.next = offset + 1;
        Accept::Take
    }
}

#[cfg(test)]
mod tests {
    use saga_core::ids::Lane;

    use super::*;
    use crate::lane::LaneCell;

    fn fetching(start: i64) -> Fetching {
        Fetching::new(0, start, Arc::new(Inbox::new(Arc::new(LaneCell::new(Lane(0))))))
    }

    #[test]
    fn what_was_handed_on_before_is_skipped() {
        let mut lane = fetching(5);
        assert!(matches!(lane.accept(4), Accept::Skip));
        assert!(matches!(lane.accept(5), Accept::Take));
        assert!(matches!(lane.accept(5), Accept::Skip));
        assert_eq!(lane.next, 6);
    }

    #[test]
    fn nothing_after_a_jump_is_taken_before_the_lane_was_read_again() {
        let mut lane = fetching(5);
        assert!(matches!(lane.accept(7), Accept::Gap));
        assert!(matches!(lane.accept(8), Accept::Skip));
        assert_eq!(lane.next, 5);
        lane.read_again();
        assert!(matches!(lane.accept(5), Accept::Take));
        assert!(matches!(lane.accept(7), Accept::Gap), "a jump elsewhere is another one");
    }

    #[test]
    fn a_jump_that_is_there_again_is_in_the_log_itself() {
        let mut lane = fetching(5);
        assert!(matches!(lane.accept(7), Accept::Gap));
        lane.read_again();
        assert!(matches!(lane.accept(7), Accept::Take));
        assert_eq!(lane.next, 8);
    }
}

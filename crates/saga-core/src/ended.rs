//! Which sequences of one starter and lane have ended: a dense prefix and the few ranges above it.

use std::collections::BTreeMap;

/// A set of sequences that is kept small: everything below a number, and ranges above it.
///
/// The *floor* is [`EndedSequences::below`]. It is never the lowest sequence that happens to be open: an earlier
/// start may still be on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndedSequences {
    below: u64,
    /// start → end (exclusive); disjoint, not adjacent, all starts above `below`.
    above: BTreeMap<u64, u64>,
}

impl EndedSequences {
    /// Builds the set from its parts, in any order, overlapping or not; empty ranges are dropped.
    pub fn new(below: u64, ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut ended = Self { below, above: BTreeMap::new() };
        for (start, end) in ranges {
            ended.insert_range(start, end);
        }
        ended
    }

    /// Every sequence below this number has ended.
    pub fn below(&self) -> u64 {
        self.below
    }

    /// The ended ranges above the prefix, `(start, end)` with `end` exclusive, ascending.
    pub fn above(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.above.iter().map(|(start, end)| (*start, *end))
    }

    /// Whether the sequence has ended.
    pub fn contains(&self, sequence: u64) -> bool {
        sequence < self.below || self.above.range(..=sequence).next_back().is_some_and(|(_, end)| sequence < *end)
    }

    /// Adds one sequence; true if it was not in the set.
    pub fn insert(&mut self, sequence: u64) -> bool {
        if self.contains(sequence) {
            return false;
        }
        self.insert_range(sequence, sequence.saturating_add(1));
        true
    }

    /// Adds all of the other set.
    pub fn union(&mut self, other: &Self) {
        self.insert_range(0, other.below);
        for (start, end) in other.above() {
            self.insert_range(start, end);
        }
    }

    /// The sequences below `next` that have not ended, ascending.
    pub fn open_below(&self, next: u64) -> impl Iterator<Item = u64> + '_ {
        (self.below..next).filter(|sequence| !self.contains(*sequence))
    }

    /// The sequences of this set that are not in the other one, ascending. Takes time for what it gives and for the
    /// ranges in between, not for what is in both.
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u64> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            loop {
                let candidate = self.first_from(from)?;
                from = other.first_missing_from(candidate);
                if from == candidate {
                    from += 1;
                    return Some(candidate);
                }
            }
        })
    }

    /// The first member at or after `sequence`.
    fn first_from(&self, sequence: u64) -> Option<u64> {
        if self.contains(sequence) {
            return Some(sequence);
        }
        self.above.range(sequence..).next().map(|(start, _)| *start)
    }

    /// The first sequence at or after `sequence` that is no member.
    fn first_missing_from(&self, sequence: u64) -> u64 {
        let sequence = sequence.max(self.below);
        let range = self.above.range(..=sequence).next_back();
        range.map_or(sequence, |(_, end)| sequence.max(*end))
    }

    fn insert_range(&mut self, start: u64, end: u64) {
        if end <= start {
            return;
        }
        let (mut start, mut end) = (start, end);
        // Ranges that overlap or touch the new one become part of it.
        while let Some((&other_start, &other_end)) = self.above.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.above.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        if start <= self.below {
            self.below = self.below.max(end);
        } else {
            self.above.insert(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(sequences in prop::collection::vec(0_u64..64, 0..80)) {
            let mut ended = EndedSequences::default();
            let mut model = BTreeSet::new();
            for sequence in sequences {
                prop_assert_eq!(ended.insert(sequence), model.insert(sequence));
                for probe in 0..66 {
                    prop_assert_eq!(ended.contains(probe), model.contains(&probe));
                }
                let floor = (0..).find(|n| !model.contains(n)).unwrap_or(0);
                prop_assert_eq!(ended.below(), floor);
                prop_assert!(ended.above().all(|(start, end)| start > ended.below() && start < end));
                let rebuilt = EndedSequences::new(ended.below(), ended.above());
                prop_assert_eq!(&rebuilt, &ended);
            }
        }

        #[test]
        fn without_is_the_difference(left in prop::collection::vec(0_u64..64, 0..60), right in prop::collection::vec(0_u64..64, 0..60)) {
            let build = |sequences: &[u64]| {
                let mut ended = EndedSequences::default();
                for sequence in sequences { ended.insert(*sequence); }
                ended
            };
            let model: BTreeSet<u64> = left.iter().filter(|sequence| !right.contains(sequence)).copied().collect();
            let found: Vec<u64> = build(&left).without(&build(&right)).collect();
            prop_assert_eq!(found, Vec::from_iter(model));
        }

        #[test]
        fn union_is_the_union(left in prop::collection::vec(0_u64..64, 0..40), right in prop::collection::vec(0_u64..64, 0..40)) {
            let build = |sequences: &[u64]| {
                let mut ended = EndedSequences::default();
                for sequence in sequences { ended.insert(*sequence); }
                ended
            };
            let mut union = build(&left);
            union.union(&build(&right));
            let both: Vec<u64> = left.iter().chain(&right).copied().collect();
            prop_assert_eq!(union, build(&both));
        }
    }
}

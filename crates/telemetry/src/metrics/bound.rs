//! An instrument's series, each bound to its labels once: a measurement then neither makes strings nor hashes them, and
//! nearly every one goes to a series that is known.

use std::sync::{OnceLock, PoisonError, RwLock};

use opentelemetry::KeyValue;

use super::instrument::Label;

/// Series that are kept; labels have few values, so more of them are a mistake, and slow but not wrong.
const MAX_SERIES: usize = 256;

/// The series of one instrument.
pub(super) struct Series<B> {
    /// Without labels.
    only: OnceLock<B>,
    labelled: RwLock<Vec<(Vec<Box<str>>, B)>>,
}

impl<B> Series<B> {
    pub(super) const fn new() -> Self {
        Self { only: OnceLock::new(), labelled: RwLock::new(Vec::new()) }
    }

    /// Calls `measure` with the series of these labels; `bind` makes it when it is new.
    pub(super) fn with(&self, labels: &[Label<'_>], bind: impl FnOnce(&[KeyValue]) -> B, measure: impl FnOnce(&B)) {
        if labels.is_empty() {
            return measure(self.only.get_or_init(|| bind(&[])));
        }
        {
            let known = self.labelled.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, series)) = known.iter().find(|(values, _)| is_of(values, labels)) {
                return measure(series);
            }
        }
        let series = bind(&attributes(labels));
        measure(&series);
        let mut known = self.labelled.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been faster: both are bound to the same series, and one is enough.
        if known.len() < MAX_SERIES && !known.iter().any(|(values, _)| is_of(values, labels)) {
            known.push((labels.iter().map(|(_, value)| Box::from(*value)).collect(), series));
        }
    }
}

/// The labels as OpenTelemetry has them.
pub(super) fn attributes(labels: &[Label<'_>]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| KeyValue::new(*name, (*value).to_owned())).collect()
}

/// The names are the same for all series of an instrument, and in the same order.
fn is_of(values: &[Box<str>], labels: &[Label<'_>]) -> bool {
    values.len() == labels.len() && values.iter().zip(labels).all(|(value, label)| **value == *label.1)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn each_series_is_bound_once_and_told_apart_by_every_label() {
        let series = Series::<String>::new();
        let (bound, measured) = (Cell::new(0), RefCell::new(Vec::new()));
        let measure = |labels: &[Label<'_>]| {
            let bind = |attributes: &[KeyValue]| {
                bound.set(bound.get() + 1);
                attributes.iter().map(|one| one.value.to_string()).collect::<Vec<_>>().join(",")
            };
            series.with(labels, bind, |series| measured.borrow_mut().push(series.clone()));
        };
        for _ in 0..3 {
            measure(&[("a", "x"), ("b", "1")]);
            measure(&[("a", "x"), ("b", "2")]);
            measure(&[]);
        }
        assert_eq!(measured.into_inner(), ["x,1", "x,2", ""].repeat(3));
        assert_eq!(bound.get(), 3);
    }

    #[test]
    fn more_series_than_are_kept_are_measured_all_the_same() {
        let series = Series::<String>::new();
        let measured = Cell::new(0);
        for round in 0..2 {
            for number in 0..MAX_SERIES + 10 {
                let value = number.to_string();
                series.with(
                    &[("a", &value)],
                    |attributes| attributes[0].value.to_string(),
                    |series| {
                        assert_eq!(*series, value, "round {round}");
                        measured.set(measured.get() + 1);
                    },
                );
            }
        }
        assert_eq!(measured.get(), 2 * (MAX_SERIES + 10));
    }
}

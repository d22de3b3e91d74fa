//! What one phase of load saw.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;

/// Longest latency that the histogram can hold, in microseconds: twice the gateway's deadline. A longer one counts as this.
const LONGEST_US: u64 = 60_000_000;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Answered 200: the order is paid.
    Paid,
    /// Answered 4xx, with this status: the order is not paid.
    Refused(u16),
    /// Answered 429: nothing was begun.
    Shed,
    /// Answered otherwise, with this status, or not at all: nobody knows.
    Unknown(Option<u16>),
}

impl Ended {
    /// What an answer's status means; `None` for none.
    pub fn from_status(status: Option<u16>) -> Self {
        match status {
            Some(200) => Self::Paid,
            Some(429) => Self::Shed,
            Some(status @ 400..=499) => Self::Refused(status),
            status => Self::Unknown(status),
        }
    }

    /// The status of the answer; `None` for none.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Paid => Some(200),
            Self::Refused(status) => Some(status),
            Self::Shed => Some(429),
            Self::Unknown(status) => status,
        }
    }
}

/// Requests of one second of a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Answered 200.
    pub paid: u64,
    /// All others.
    pub others: u64,
}

/// What a phase, or one connection of it, saw.
pub struct Tally {
    /// When the phase began.
    begin: Instant,
    /// When it ends: what is decided later does not count as throughput.
    end: Option<Instant>,
    /// Latency in microseconds of every answer but 429.
    pub latency_us: Histogram<u64>,
    /// By [`Ended`].
    pub paid: u64,
    /// Answers 4xx other than 429.
    pub refused: u64,
    /// Answers 429.
    pub shed: u64,
    /// Answers 5xx and broken connections.
    pub unknown: u64,
    /// Arrivals that were never sent.
    pub unsent: u64,
    /// Paid or refused before the phase's end.
    pub in_time: u64,
    /// By the second of the answer.
    pub seconds: Vec<Second>,
    /// Orders answered 200, for the audit.
    pub paid_orders: Vec<String>,
    /// Orders answered 4xx, for the audit.
    pub refused_orders: Vec<String>,
    /// Orders whose end no answer told, for the audit.
    pub unknown_orders: Vec<String>,
    /// True when the orders were used up before the time was over.
    pub ran_dry: bool,
}

impl Tally {
    /// Nothing yet. Without an end everything is in time.
    pub fn new(begin: Instant, end: Option<Instant>) -> anyhow::Result<Self> {
        Ok(Self {
            begin,
            end,
            latency_us: Histogram::new_with_max(LONGEST_US, 3).context("make a histogram")?,
            paid: 0,
            refused: 0,
            shed: 0,
            unknown: 0,
            unsent: 0,
            in_time: 0,
            seconds: Vec::new(),
            paid_orders: Vec::new(),
            refused_orders: Vec::new(),
            unknown_orders: Vec::new(),
            ran_dry: false,
        })
    }

    /// A checkout of this order has ended now.
    pub fn record(&mut self, order: String, ended: Ended, latency: Duration) {
        let second = usize::try_from(self.begin.elapsed().as_secs()).unwrap_or(usize::MAX);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        if ended == Ended::Paid {
            self.seconds[second].paid += 1;
        } else {
            self.seconds[second].others += 1;
        }
        let is_in_time = self.end.is_none_or(|end| Instant::now() <= end);
        if is_in_time && matches!(ended, Ended::Paid | Ended::Refused(_)) {
            self.in_time += 1;
        }
        if ended != Ended::Shed {
            self.latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US));
        }
        match ended {
            Ended::Paid => {
                self.paid += 1;
                self.paid_orders.push(order);
            }
            Ended::Refused(_) => {
                self.refused += 1;
                self.refused_orders.push(order);
            }
            Ended::Shed => {
                self.shed += 1;
                self.refused_orders.push(order);
            }
            Ended::Unknown(_) => {
                self.unknown += 1;
                self.unknown_orders.push(order);
            }
        }
    }

    /// Checkouts that have ended, shed ones not.
    pub fn ended(&self) -> u64 {
        self.paid + self.refused + self.unknown
    }

    /// Adds what another connection of the same phase saw.
    pub fn merge(&mut self, other: Self) -> anyhow::Result<()> {
        self.latency_us.add(&other.latency_us).context("add histograms")?;
        self.paid += other.paid;
        self.refused += other.refused;
        self.shed += other.shed;
        self.unknown += other.unknown;
        self.in_time += other.in_time;
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), Second::default());
        }
        for (sum, second) in self.seconds.iter_mut().zip(&other.seconds) {
            sum.paid += second.paid;
            sum.others += second.others;
        }
        self.paid_orders.extend(other.paid_orders);
        self.refused_orders.extend(other.refused_orders);
        self.unknown_orders.extend(other.unknown_orders);
        self.ran_dry |= other.ran_dry;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_comes_back_as_it_was() {
        for status in [Some(200), Some(402), Some(429), Some(302), Some(504), None] {
            assert_eq!(Ended::from_status(status).status(), status);
        }
    }

    #[test]
    fn tallies_add_up() {
        let begin = Instant::now();
        let mut sum = Tally::new(begin, None).unwrap();
        let statuses = [Some(200), Some(200), Some(402), Some(429), Some(504), None];
        for (order, status) in statuses.into_iter().enumerate() {
            let mut one = Tally::new(begin, None).unwrap();
            one.record(order.to_string(), Ended::from_status(status), Duration::from_millis(5));
            sum.merge(one).unwrap();
        }
        assert_eq!((sum.paid, sum.refused, sum.shed, sum.unknown, sum.ended()), (2, 1, 1, 2, 5));
        assert_eq!((sum.paid_orders, sum.refused_orders), (vec!["0".into(), "1".into()], vec!["2".into(), "3".into()]));
        assert_eq!(sum.unknown_orders, ["4", "5"]);
        assert_eq!(sum.latency_us.len(), 5, "what was shed at once says nothing about latency");
        let counted = sum.seconds.iter().map(|second| second.paid + second.others).sum::<u64>();
        assert_eq!((counted, sum.in_time), (6, 3));
    }

    #[test]
    fn what_is_answered_after_the_end_is_no_throughput() {
        let begin = Instant::now();
        let mut tally = Tally::new(begin, Some(begin)).unwrap();
        while Instant::now() == begin {}
        tally.record("late".to_owned(), Ended::Paid, Duration::from_millis(5));
        assert_eq!((tally.paid, tally.in_time), (1, 0));
    }
}

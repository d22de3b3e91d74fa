//! CPU time and memory by process, and a fixed loop that tells how fast the machine is at the moment.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Clock ticks per second of `/proc/<pid>/stat`; Linux shows user space 100 on every architecture.
const TICKS_PER_SECOND: u64 = 100;

/// Rounds of the fixed loop: about a quarter of a second on one core of 2026.
const LOOP_ROUNDS: u64 = 100_000_000;

/// User and system time that a process has used so far; `None` when it is gone.
pub fn used_by(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and brackets: the fields are counted from the last closing bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Peak resident memory of a process so far, in bytes; `None` when it is gone.
pub fn peak_memory(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

/// Resident memory of a process now, in bytes; `None` when it is gone.
pub fn memory(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// CPU time of several processes at one moment, by name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(BTreeMap<String, Duration>);

impl Snapshot {
    /// Reads the processes; one that is gone is left out.
    pub fn take(processes: &[(String, u32)]) -> Self {
        Self(processes.iter().filter_map(|(name, pid)| Some((name.clone(), used_by(*pid)?))).collect())
    }

    /// Seconds used since an earlier snapshot, by name.
    pub fn since(&self, earlier: &Self) -> BTreeMap<String, f64> {
        self.0
            .iter()
            .map(|(name, now)| {
                let before = earlier.0.get(name).copied().unwrap_or_default();
                (name.clone(), now.saturating_sub(before).as_secs_f64())
            })
            .collect()
    }
}

/// Time of all processors of this machine since it started, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Spent on other machines of the same host while this one had work to do.
    stolen: u64,
    all: u64,
}

impl Machine {
    /// Reads `/proc/stat`; `None` where it does not tell.
    pub fn look() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first eight fields of the first line: the guests' time behind them is in the user's already.
    fn parse(text: &str) -> Option<Self> {
        let fields = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { stolen: *ticks.get(7)?, all: ticks.iter().sum() })
    }

    /// The part of the processors' time since an earlier look that other machines had, 0 to 1.
    pub fn stolen_since(self, earlier: Self) -> f64 {
        self.stolen.saturating_sub(earlier.stolen) as f64 / self.all.saturating_sub(earlier.all).max(1) as f64
    }
}

/// Milliseconds that the fixed loop takes now. The machine is shared: figures of two runs compare only when this
/// agrees.
pub fn fixed_loop_ms() -> f64 {
    let begin = Instant::now();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..LOOP_ROUNDS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
    begin.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_time_of_this_process() {
        let pid = std::process::id();
        let before = Snapshot::take(&[("me".into(), pid)]);
        while used_by(pid).unwrap_or_default() < before.0["me"] + Duration::from_millis(20) {
            fixed_loop_ms();
        }
        let used = Snapshot::take(&[("me".into(), pid)]).since(&before);
        assert!(used["me"] >= 0.02);
    }

    #[test]
    fn time_that_other_machines_had_is_a_part_of_all() {
        let look = |text| Machine::parse(text).unwrap();
        let before = look("cpu  100 0 50 800 20 0 5 25 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        let after = look("cpu  150 0 70 900 20 0 10 50 7 0\n");
        assert!((after.stolen_since(before) - 25.0 / 200.0).abs() < 1e-9);
        assert_eq!(before.stolen_since(before), 0.0);
        assert_eq!(Machine::parse("cpu  1 2 3\n"), None, "a kernel that tells less");
    }

    #[test]
    fn this_process_has_memory() {
        assert!(peak_memory(std::process::id()).is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn a_dead_process_is_left_out() {
        assert!(used_by(u32::MAX).is_none());
        assert!(peak_memory(u32::MAX).is_none());
    }
}

//! How long the disk under the stack stood still: Redis waits for it before every answer, so its longest silence is in
//! the highest percentiles, whatever the services do.
//!
//! Read from `/proc/diskstats`, whose fields are described in the kernel's `Documentation/admin-guide/iostats.rst`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The disk is looked at this often; no silence is known more exactly.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Silences from here on are added up: below, it is a disk at work.
const STILL_MS: f64 = 60.0;

/// Times in which requests waited and the disk ended none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// The longest one, in milliseconds.
    pub longest_ms: f64,
    /// All that lasted at least 60 ms together, in seconds.
    pub in_all_s: f64,
}

/// One look at the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    /// Requests that have ended: reads, writes, discards, flushes.
    ended: u64,
    /// Requests that wait now.
    waiting: u64,
}

/// Adds looks up.
#[derive(Debug, Default)]
struct Ear {
    /// When requests were first seen to wait, and how many had ended by then.
    waits: Option<(Duration, u64)>,
    /// How long none of them has ended.
    silence: Duration,
    heard: Silence,
}

impl Ear {
    fn hear(&mut self, at: Duration, look: Look) {
        match self.waits {
            Some((since, ended)) if ended == look.ended && look.waiting > 0 => self.silence = at.saturating_sub(since),
            _ => {
                self.end();
                self.waits = (look.waiting > 0).then_some((at, look.ended));
            }
        }
    }

    fn end(&mut self) -> Silence {
        let ms = std::mem::take(&mut self.silence).as_secs_f64() * 1e3;
        self.heard.longest_ms = self.heard.longest_ms.max(ms);
        if ms >= STILL_MS {
            self.heard.in_all_s += ms / 1e3;
        }
        self.heard
    }
}

/// Watches the disk until it is told to end.
pub struct Watch {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<Silence>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
    }
}

impl Watch {
    /// Begins with the disk of this folder; `None` where it has none that the kernel counts for (memory, a network).
    pub fn begin(folder: &Path) -> Option<Self> {
        let device = fs::metadata(folder).ok()?.dev();
        look(device)?;
        let ends = Arc::new(AtomicBool::new(false));
        let body = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let (begin, mut ear) = (Instant::now(), Ear::default());
            while !body.load(Ordering::Acquire) {
                if let Some(look) = look(device) {
                    ear.hear(begin.elapsed(), look);
                }
                std::thread::park_timeout(LOOK_INTERVAL);
            }
            ear.end()
        });
        Some(Self { ends, thread: Some(thread) })
    }

    /// What it heard.
    pub fn end(mut self) -> Silence {
        self.ends.store(true, Ordering::Release);
        let heard = self.thread.take().map(|thread| {
            thread.thread().unpark();
            thread.join().expect("the thread only reads and adds")
        });
        heard.unwrap_or_default()
    }
}

fn look(device: u64) -> Option<Look> {
    find(&fs::read_to_string("/proc/diskstats").ok()?, major(device), minor(device))
}

/// The line of a device; fields are counted from its name on, as in the kernel's description.
fn find(text: &str, major: u64, minor: u64) -> Option<Look> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        if (number(0)?, number(1)?) != (major, minor) {
            return None;
        }
        // Reads and writes; discards and flushes, which older kernels do not count.
        let ended = number(3)? + number(7)? + number(14).unwrap_or(0) + number(18).unwrap_or(0);
        Some(Look { ended, waiting: number(11)? })
    })
}

/// As glibc takes `st_dev` apart.
fn major(device: u64) -> u64 {
    (device >> 8) & 0xfff | (device >> 32) & !0xfff
}

fn minor(device: u64) -> u64 {
    device & 0xff | (device >> 12) & !0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = "\
   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n\
 254       0 vda 100 5 4000 70 200 90 8000 600 3 500 700 30 0 900 10 40 25\n\
 254       1 vda1 1 0 8 0 2 0 16 0 0 0 0\n";

    #[test]
    fn a_device_is_found_by_its_numbers() {
        assert_eq!(find(STATS, 254, 0), Some(Look { ended: 100 + 200 + 30 + 40, waiting: 3 }));
        assert_eq!(find(STATS, 254, 1), Some(Look { ended: 3, waiting: 0 }), "a kernel that counts less");
        assert_eq!(find(STATS, 0, 26), None, "memory has no line");
        assert_eq!((major(0xfe01), minor(0xfe01)), (254, 1));
    }

    #[test]
    fn a_silence_lasts_from_the_first_look_in_vain_to_the_last() {
        let mut ear = Ear::default();
        // (ms, ended, waiting)
        let looks = [
            (0, 5, 1),
            (20, 6, 1),
            (40, 6, 2),
            (120, 6, 2),
            (140, 7, 0),
            (160, 7, 0),
            (400, 7, 1),
            (430, 7, 1),
            (450, 8, 0),
        ];
        for (ms, ended, waiting) in looks {
            ear.hear(Duration::from_millis(ms), Look { ended, waiting });
        }
        // From 20 to 120, and 30 ms that are too short to be added up; nobody waits from 140 to 400.
        assert_eq!(ear.end(), Silence { longest_ms: 100.0, in_all_s: 0.1 });
    }
}

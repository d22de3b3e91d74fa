//! Clocks of single processes that jump: libfaketime, where it is installed, gives the process another time of day; its
//! monotonic clock stays right, as it does when an operator sets a machine's clock.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Where Debian's package `libfaketime` puts it, below `/usr/lib/<architecture>`.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// Folders of libraries.
const LIBRARIES: &str = "/usr/lib";
/// A process looks at its file so often, seconds.
const LOOK_S: u32 = 1;

/// The clocks of the services that can jump.
#[derive(Clone, Debug)]
pub struct Clocks {
    library: PathBuf,
    dir: PathBuf,
}

impl Clocks {
    /// Clocks that are set by files in the folder. None where libfaketime is not installed.
    pub fn find(dir: &Path) -> Option<Self> {
        let library = library()?;
        Some(Self { library, dir: dir.to_owned() })
    }

    /// What a service needs in its environment so that its clock can jump: name of the service, variable, value.
    pub fn envs(&self, service: &str) -> anyhow::Result<Vec<(String, String, String)>> {
        self.set(service, 0)?;
        let variables = [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file(service).display().to_string()),
            ("FAKETIME_CACHE_DURATION", LOOK_S.to_string()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // The name of the same setting in earlier versions.
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        Ok(variables.map(|(name, value)| (service.to_owned(), name.to_owned(), value)).into())
    }

    /// From now on the service's clock is off by so many seconds; it notices within a second.
    pub fn set(&self, service: &str, off_by_s: i64) -> anyhow::Result<()> {
        let file = self.file(service);
        std::fs::create_dir_all(&self.dir).with_context(|| format!("make {}", self.dir.display()))?;
        // Written aside and renamed: a file that is read half is no time at all.
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{off_by_s:+}\n")).with_context(|| format!("write {}", new.display()))?;
        std::fs::rename(&new, &file).with_context(|| format!("write {}", file.display()))
    }

    fn file(&self, service: &str) -> PathBuf {
        self.dir.join(format!("clock-{service}"))
    }
}

fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir(LIBRARIES).ok()?;
    folders.flatten().map(|folder| folder.path().join(LIBRARY)).find(|library| library.is_file())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_process_sees_another_time_and_this_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let Some(clocks) = Clocks::find(folder.path()) else {
            println!("skipped: libfaketime is not installed (apt-get install libfaketime)");
            return;
        };
        let envs = clocks.envs("date").unwrap();
        let seconds_off = || {
            let mut date = Command::new("date");
            date.arg("+%s").envs(envs.iter().map(|(_, name, value)| (name, value)));
            let told = String::from_utf8(date.output().unwrap().stdout).unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            told.trim().parse::<i64>().unwrap() - i64::try_from(now).unwrap()
        };
        assert!(seconds_off().abs() <= 1);
        clocks.set("date", -7_200).unwrap();
        assert!((seconds_off() + 7_200).abs() <= 1);
    }
}

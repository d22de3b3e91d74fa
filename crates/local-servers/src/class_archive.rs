//! Kafka's classes, read and checked once: an archive of the Java machine (class data sharing, JEP 350) beside the jars.
//!
//! Some 40 % of the CPU time of a broker's start is spent on classes, and tests start many brokers. An archive belongs to
//! one Java machine and one set of jars; its name says which.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::kafka::{Kafka, KafkaOptions};
use crate::process::find_program;

/// A broker that writes an archive as it ends takes some seconds for it.
const WRITE_DEADLINE: Duration = Duration::from_secs(120);
/// What a Java machine that was asked to end says, archive written: 128 and the number of SIGTERM.
const ENDED_BY_TERM: i32 = 143;
/// Where no archive could be made, nobody tries again for so long.
const GIVE_UP_FOR: Duration = Duration::from_secs(3600);

/// Kafka's jars, and an archive of their classes.
#[derive(Clone, Debug)]
pub(crate) struct Jars {
    libs: PathBuf,
    /// Whence brokers and tools take classes.
    archive: Option<PathBuf>,
    /// Whither a broker writes what it has loaded, as it ends.
    write: Option<PathBuf>,
}

impl Jars {
    /// These jars, with the archive beside them, which is made if there is none yet. Without one where it cannot be made:
    /// brokers start more slowly then.
    pub(crate) fn with_archive(libs: PathBuf) -> Self {
        let archive = archive(&libs).filter(|archive| fs::metadata(archive).is_ok_and(|file| file.len() > 0));
        Self { libs, archive, write: None }
    }

    /// Options of the Java machine for a tool.
    pub(crate) fn tool_options(&self) -> Vec<OsString> {
        let mut class_path = self.libs.clone().into_os_string();
        class_path.push("/*");
        let archive = self.archive.iter().map(|archive| with_path("-XX:SharedArchiveFile=", archive));
        archive.chain(["-cp".into(), class_path]).collect()
    }

    /// Options of the Java machine for a broker.
    pub(crate) fn broker_options(&self) -> Vec<OsString> {
        let write = self.write.iter().map(|archive| with_path("-XX:ArchiveClassesAtExit=", archive));
        write.chain(self.tool_options()).collect()
    }
}

fn archive(libs: &Path) -> Option<PathBuf> {
    let folder = libs.parent()?;
    let archive = folder.join(format!("classes-{:016x}.jsa", version(libs).ok()?));
    if is_settled(&archive) {
        return Some(archive);
    }
    // Held until this returns: brokers and processes that start meanwhile wait for the archive.
    let lock = File::create(folder.join("classes.lock")).ok()?;
    lock.lock().ok()?;
    if !is_settled(&archive) && make(libs, &folder.join("classes.part"), &archive).is_err() {
        // Empty: it says that it could not be made.
        File::create(&archive).ok()?;
    }
    Some(archive)
}

/// Whether there is an archive, or was none to be had a short time ago.
fn is_settled(archive: &Path) -> bool {
    let Ok(file) = fs::metadata(archive) else { return false };
    let is_new = || file.modified().is_ok_and(|made| made.elapsed().is_ok_and(|age| age < GIVE_UP_FOR));
    file.len() > 0 || is_new()
}

/// Another number for another Java machine and for other jars: by the names, sizes and times of their files, as the Java
/// machine itself compares them.
fn version(libs: &Path) -> anyhow::Result<u64> {
    let java = find_program(Path::new("java")).context("java is not installed")?.canonicalize()?;
    let jars = fs::read_dir(libs)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> = jars.into_iter().chain([java]).collect();
    files.sort_unstable();
    let mut hasher = DefaultHasher::new();
    for file in files {
        let about = fs::metadata(&file)?;
        (&file, about.len(), about.modified()?).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Lets a broker run and end, which leaves an archive of what it loaded.
fn make(libs: &Path, folder: &Path, archive: &Path) -> anyhow::Result<()> {
    // What is there is of a process that died.
    let _ = fs::remove_dir_all(folder);
    let part = folder.join("classes.jsa");
    let made = || {
        let jars = Jars { libs: libs.to_owned(), archive: None, write: Some(part.clone()) };
        let mut kafka = Kafka::start_from(&jars, folder, KafkaOptions::default())?;
        let ended = kafka.process().terminate(WRITE_DEADLINE)?;
        anyhow::ensure!(ended.code() == Some(ENDED_BY_TERM), "the broker ended with {ended}");
        fs::rename(&part, archive).context("the Java machine left no archive")
    };
    let made = made();
    let _ = fs::remove_dir_all(folder);
    made
}

fn with_path(option: &str, path: &Path) -> OsString {
    let mut option = OsString::from(option);
    option.push(path);
    option
}

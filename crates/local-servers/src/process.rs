//! One child process: its command, its log file, its end.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// How much of a log an error shows.
const TAIL_LINES: usize = 15;
/// How much of a log is read to find those lines.
const TAIL_BYTES: u64 = 16 * 1024;

/// How long a child process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It is killed by the kernel when this process dies without dropping anything.
    WithParent,
    /// It runs in a session of its own, so that it can go on when this process ends: see
    /// [`ManagedProcess::leave_running`].
    Detached,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// Its name in messages.
    pub name: String,
    /// The program, by path or to be found in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables on top of those of this process.
    pub envs: Vec<(String, String)>,
    /// Where standard output and standard error go; appended to.
    pub log_file: PathBuf,
    /// How long it lives.
    pub lifetime: Lifetime,
}

/// A child process that can be killed, paused and started again with the same command. Dropping it kills it.
#[derive(Debug)]
pub struct ManagedProcess {
    spec: ProcessSpec,
    child: Child,
    on_drop: OnDrop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDrop {
    Kill,
    Leave,
}

impl ManagedProcess {
    /// Starts the process; does not wait until it is ready for anything.
    pub fn spawn(spec: ProcessSpec) -> anyhow::Result<Self> {
        let child = spawn_child(&spec)?;
        Ok(Self { spec, child, on_drop: OnDrop::Kill })
    }

    /// What was started.
    pub fn spec(&self) -> &ProcessSpec {
        &self.spec
    }

    /// Process id of the child that runs, or ran last.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL, and waits until it is gone. Nothing happens if it has ended before.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.spec.name))?;
        self.child.wait().with_context(|| format!("wait for {}", self.spec.name))?;
        Ok(())
    }

    /// SIGTERM, without waiting for its end. Nothing happens if it has ended before.
    pub fn ask_to_end(&mut self) -> anyhow::Result<()> {
        if self.exit_status().is_none() {
            self.signal(Signal::SIGTERM)?;
        }
        Ok(())
    }

    /// SIGTERM; after the deadline SIGKILL. Says how it ended.
    pub fn terminate(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        self.ask_to_end()?;
        if !wait_until(deadline, || self.exit_status().is_some()) {
            self.kill()?;
        }
        self.child.wait().with_context(|| format!("wait for {}", self.spec.name))
    }

    /// Starts it again with the same command, after killing it if it still runs.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.child = spawn_child(&self.spec)?;
        Ok(())
    }

    /// Has the next start run another program, with the same arguments.
    pub fn use_program(&mut self, program: PathBuf) {
        self.spec.program = program;
    }

    /// SIGSTOP: the process stands still and keeps its connections.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT after [`pause`](Self::pause).
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// From now on dropping the handle leaves the process alone; only one that was started [`Lifetime::Detached`] goes
    /// on after this process.
    pub fn leave_running(&mut self) {
        self.on_drop = OnDrop::Leave;
    }

    /// An error for a process that did not become what it should; shows the end of the log.
    pub fn failure(&mut self, what: &str) -> anyhow::Error {
        let state = match self.exit_status() {
            Some(status) => format!("it ended with {status}"),
            None => "it is still running".to_owned(),
        };
        let Self { spec, .. } = self;
        let tail = log_tail(&spec.log_file);
        anyhow::anyhow!("{} {what}; {state}. The end of {}:\n{tail}", spec.name, spec.log_file.display())
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        anyhow::ensure!(self.exit_status().is_none(), "{signal} to {}: it has ended", self.spec.name);
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).with_context(|| format!("{signal} to {}", self.spec.name))
    }
}

impl Drop for ManagedProcess {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Kill {
            // A failure means that it is gone already.
            let _ = self.kill();
        }
    }
}

/// The last lines of a log file, or why they cannot be read.
pub fn log_tail(path: &Path) -> String {
    match read_end(path) {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
        }
        Err(error) => format!("(cannot be read: {error})"),
    }
}

fn read_end(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn spawn_child(spec: &ProcessSpec) -> anyhow::Result<Child> {
    if let Some(folder) = spec.log_file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let log = OpenOptions::new().create(true).append(true).open(&spec.log_file);
    let log = log.with_context(|| format!("open {}", spec.log_file.display()))?;
    let mut command = wrapped(spec)?;
    command
        .args(&spec.args)
        .envs(spec.envs.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log file")?)
        .stderr(log);
    spawn_from_lasting_thread(command).with_context(|| format!("start {}", spec.name))
}

/// The program behind `setpriv` or `setsid` (util-linux, part of every Debian): they set what only the child can set
/// for itself and then become the program, so its process id is the child's.
fn wrapped(spec: &ProcessSpec) -> anyhow::Result<Command> {
    let program = find_program(&spec.program)
        .with_context(|| format!("{} is not installed or not built: run ./dev setup", spec.program.display()))?;
    Ok(match spec.lifetime {
        Lifetime::WithParent => {
            let mut command = match find_program(Path::new("setpriv")) {
                Some(setpriv) => {
                    let mut command = Command::new(setpriv);
                    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                    command
                }
                None => Command::new(program),
            };
            // Ctrl-C in a terminal is for the parent, which ends its children in order.
            command.process_group(0);
            command
        }
        Lifetime::Detached => {
            let mut command = Command::new("setsid");
            command.arg(program);
            command
        }
    })
}

pub(crate) fn find_program(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

type Order = (Command, SyncSender<std::io::Result<Child>>);

/// The kernel sends the parent-death signal when the *thread* that forked ends, and tests and runtimes let threads end
/// long before the process. So all children are forked by one thread that stays.
fn spawn_from_lasting_thread(command: Command) -> anyhow::Result<Child> {
    static SPAWNER: LazyLock<Mutex<SyncSender<Order>>> = LazyLock::new(|| {
        let (orders, inbox) = sync_channel::<Order>(0);
        let spawner = move || {
            for (mut command, answer) in inbox {
                // Nobody waits for the answer only if the asking thread has died.
                let _ = answer.send(command.spawn());
            }
        };
        thread::Builder::new().name("spawner".to_owned()).spawn(spawner).expect("a thread can be started");
        Mutex::new(orders)
    });
    let (answer, child) = sync_channel(1);
    SPAWNER.lock().expect("nothing panics while this lock is held").send((command, answer))?;
    Ok(child.recv()??)
}

//! One `redis-server` with the settings that the services require.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::ports::{free_port, refuse_port_in_use};
use crate::process::{Lifetime, ManagedProcess, ProcessSpec};
use crate::wait::{connect, wait_until};

/// Loading a large append-only file takes a while; an empty one is there in 50 ms.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Two servers over one folder would ruin its append-only file: the second waits this long for the first, then gives up.
const LOCK_WAIT_S: &str = "5";

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    process: ManagedProcess,
    port: u16,
}

impl Redis {
    /// Starts a Redis over the data in `dir` on `port` (or a free one) and waits until it answers. It is killed when
    /// the handle is dropped.
    pub fn start(dir: &Path, port: Option<u16>) -> anyhow::Result<Self> {
        Self::start_with(dir, port, &[], Lifetime::WithParent)
    }

    /// Like [`start`](Self::start) with more lines for its configuration (the last one of a name counts) and another
    /// lifetime.
    pub fn start_with(
        dir: &Path,
        port: Option<u16>,
        settings: &[(&str, &str)],
        lifetime: Lifetime,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
        let port = match port {
            Some(port) => port,
            None => free_port()?,
        };
        refuse_port_in_use(port)?;
        let configuration = write_configuration(&dir, port, settings)?;
        let lock = dir.join("lock").into_os_string();
        let spec = ProcessSpec {
            name: format!("Redis on port {port}"),
            // `flock` takes the lock and becomes the server, so the lock lives exactly as long as the server.
            program: PathBuf::from("flock"),
            args: vec![
                "--no-fork".into(),
                "--wait".into(),
                LOCK_WAIT_S.into(),
                lock,
                "redis-server".into(),
                configuration.into_os_string(),
            ],
            envs: Vec::new(),
            log_file: dir.join("redis.log"),
            lifetime,
        };
        let mut redis = Self { process: ManagedProcess::spawn(spec)?, port };
        redis.wait_until_ready()?;
        Ok(redis)
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The server's log.
    pub fn log_file(&self) -> &Path {
        &self.process.spec().log_file
    }

    /// The child process.
    pub fn process(&mut self) -> &mut ManagedProcess {
        &mut self.process
    }

    /// Asks it as a person would who types the command, without quotes; its answer must be no error, and begin on one line.
    pub fn tell(&self, command: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.address())?;
        write!(stream, "{command}\r\n")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        anyhow::ensure!(!answer.starts_with('-'), "{command}: {answer}");
        Ok(answer)
    }

    /// SIGKILL; what was acknowledged is on the disk.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// Starts it again (after a kill if it still runs) on the same port over the same data, and waits until it answers.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.process.restart()?;
        self.wait_until_ready()
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.process.pause()
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.process.resume()
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let Self { process, port } = self;
        let mut ended = false;
        let answered = wait_until(START_DEADLINE, || {
            ended = process.exit_status().is_some();
            ended || answers_ping(*port)
        });
        if answered && !ended { Ok(()) } else { Err(process.failure("did not start")) }
    }
}

fn write_configuration(dir: &Path, port: u16, settings: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let mut text = format!(
        "port {port}\nbind 127.0.0.1\ndir \"{}\"\ndaemonize no\nlogfile \"\"\n\
         appendonly yes\nappendfsync always\nno-appendfsync-on-rewrite no\nauto-aof-rewrite-min-size 1gb\nsave \"\"\n\
         maxmemory-policy noeviction\n",
        dir.display()
    );
    for (name, value) in settings {
        writeln!(text, "{name} {value}")?;
    }
    let path = dir.join("redis.conf");
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// While it loads its data Redis answers `-LOADING`, so only a PONG counts.
fn answers_ping(port: u16) -> bool {
    let ping = || -> std::io::Result<[u8; 5]> {
        let mut stream = connect(port)?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    matches!(ping(), Ok(answer) if &answer == b"+PONG")
}

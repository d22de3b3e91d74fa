//! The few words of Redis's protocol that an auditor needs, over one blocking connection.
//!
//! Protocol: <https://redis.io/docs/latest/develop/reference/protocol-spec/>, version 2.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// A store answers within this time, or the audit says that it does not know.
const PATIENCE: Duration = Duration::from_secs(20);
/// Keys of one MGET, places of one SCAN.
const CHUNK: usize = 1_000;

/// A connection to one Redis.
pub struct Resp {
    stream: BufReader<TcpStream>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A string, of either kind.
    Text(Vec<u8>),
    /// A number.
    Number(i64),
    /// Several replies.
    List(Vec<Reply>),
    /// Nothing is there.
    Nil,
}

impl Resp {
    /// To `host:port`.
    pub fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and waits for its reply; one that says an error is an error.
    pub fn ask(&mut self, command: &[&str]) -> anyhow::Result<Reply> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            bytes.extend(format!("${}\r\n{part}\r\n", part.len()).into_bytes());
        }
        self.stream.get_mut().write_all(&bytes)?;
        self.reply().with_context(|| format!("ask {}", command.first().copied().unwrap_or_default()))
    }

    /// The values of these keys.
    pub(crate) fn values(&mut self, keys: &[String]) -> anyhow::Result<Vec<Option<Vec<u8>>>> {
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(CHUNK) {
            let mut command = vec!["MGET"];
            command.extend(keys.iter().map(String::as_str));
            let Reply::List(replies) = self.ask(&command)? else { bail!("MGET is answered without a list") };
            values.extend(replies.into_iter().map(|reply| match reply {
                Reply::Text(value) => Some(value),
                Reply::Number(_) | Reply::List(_) | Reply::Nil => None,
            }));
        }
        Ok(values)
    }

    /// All keys that match the pattern.
    pub(crate) fn keys(&mut self, pattern: &str) -> anyhow::Result<Vec<String>> {
        let mut keys = std::collections::BTreeSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let count = CHUNK.to_string();
            let reply = self.ask(&["SCAN", &cursor, "MATCH", pattern, "COUNT", &count])?;
            let Reply::List(parts) = reply else { bail!("SCAN is answered without a list") };
            let [Reply::Text(next), Reply::List(found)] = &parts[..] else { bail!("SCAN is answered otherwise") };
            for key in found {
                let Reply::Text(key) = key else { bail!("SCAN gives a key that is no text") };
                keys.insert(String::from_utf8_lossy(key).into_owned());
            }
            cursor = String::from_utf8_lossy(next).into_owned();
            if cursor == "0" {
                return Ok(keys.into_iter().collect());
            }
        }
    }

    fn reply(&mut self) -> anyhow::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).context("an empty reply")?;
        match kind {
            "+" => Ok(Reply::Text(rest.as_bytes().to_vec())),
            "-" => bail!("{rest}"),
            ":" => Ok(Reply::Number(rest.parse()?)),
            "$" if rest == "-1" => Ok(Reply::Nil),
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>()? + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Ok(Reply::Text(bytes))
            }
            "*" if rest == "-1" => Ok(Reply::Nil),
            "*" => {
                let count: usize = rest.parse()?;
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.reply()?);
                }
                Ok(Reply::List(list))
            }
            _ => bail!("a reply of an unknown kind: {line}"),
        }
    }
}

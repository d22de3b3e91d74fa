//! Reads on a shared connection, which is replaced when it is lost.

use bytes::Bytes;
use redis::{Pipeline, Value};
use tokio::sync::Mutex;

use crate::connection::{Connection, Failure, Server, ask, first_error, is_foreign, pipeline, string};
use crate::error::CommitError;
use crate::store::{STORE_ID_KEY, unavailable};

/// Keys in one MGET: while it runs, the server does nothing else (some 0.3 ms).
const KEYS_PER_READ: usize = 1_000;

/// Places of the key space that one SCAN looks at (some 0.2 ms).
const KEYS_PER_SCAN: usize = 1_000;

/// A lost connection is replaced and the question asked again, once: reads do no harm.
const ATTEMPTS: u32 = 2;

pub(crate) struct Reader {
    server: Server,
    /// The connection and how many came before it.
    current: Mutex<(u64, Option<Connection>)>,
}

impl Reader {
    pub(crate) fn new(server: Server) -> Self {
        Self { server, current: Mutex::default() }
    }

    pub(crate) async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CommitError> {
        if let Some(cause) = self.server.trust().doubt() {
            return Err(CommitError::Unavailable(cause));
        }
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_PER_READ) {
            let mut commands = pipeline();
            // MGET shows a key of another type as missing, EXISTS counts it: as in the committer.
            for command in ["MGET", "EXISTS"] {
                commands.cmd(command).arg(keys);
            }
            commands.cmd("GET").arg(STORE_ID_KEY);
            let mut replies = self.ask(&commands).await?;
            first_error(&replies).map_err(unavailable)?;
            self.server.trust().check_id(replies.pop()).map_err(unavailable)?;
            let (Some(Value::Int(existing)), Some(Value::Array(part))) = (replies.pop(), replies.pop()) else {
                return Err(CommitError::Unavailable("replies of another shape to MGET and EXISTS".to_owned()));
            };
            let part: Vec<Option<Bytes>> = part.into_iter().map(string).collect();
            if usize::try_from(existing) != Ok(part.iter().flatten().count()) {
                self.refuse_foreign(keys, &part).await?;
            }
            values.extend(part);
        }
        Ok(values)
    }

    /// Nothing is missing that is there as a hash, a set or a list. (A string may have come or gone since MGET.)
    async fn refuse_foreign(&self, keys: &[String], values: &[Option<Bytes>]) -> Result<(), CommitError> {
        let missing: Vec<&String> =
            keys.iter().zip(values).filter(|(_, value)| value.is_none()).map(|(key, _)| key).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut commands = pipeline();
        for key in &missing {
            commands.cmd("TYPE").arg(key);
        }
        let replies = self.ask(&commands).await?;
        first_error(&replies).map_err(unavailable)?;
        match missing.iter().zip(&replies).find(|(_, kind)| is_foreign(kind)) {
            Some((key, _)) => Err(CommitError::WrongType((*key).clone())),
            None => Ok(()),
        }
    }

    pub(crate) async fn scan(&self, prefix: &str, cursor: u64) -> Result<(u64, Vec<String>), CommitError> {
        let mut commands = pipeline();
        commands.cmd("SCAN").arg(cursor).arg("MATCH").arg(glob_of(prefix)).arg("COUNT").arg(KEYS_PER_SCAN);
        let mut replies = self.ask(&commands).await?;
        first_error(&replies).map_err(unavailable)?;
        let reply = replies.pop().unwrap_or(Value::Nil);
        redis::from_redis_value(reply)
            .map_err(|_| CommitError::Unavailable("a reply of another shape to SCAN".to_owned()))
    }

    /// Sends commands that may be sent twice.
    pub(crate) async fn ask(&self, commands: &Pipeline) -> Result<Vec<Value>, CommitError> {
        let mut attempt = 1;
        loop {
            match self.ask_once(commands).await {
                Err(Failure::Lost(_)) if attempt < ATTEMPTS => attempt += 1,
                result => return result.map_err(unavailable),
            }
        }
    }

    async fn ask_once(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        let (number, mut connection) = {
            let mut current = self.current.lock().await;
            match &mut *current {
                (number, Some(connection)) => (*number, connection.clone()),
                // The others wait for this one connection: the lock is held on purpose.
                (number, none) => {
                    let opened = self.server.open_shared().await?;
                    *number += 1;
                    (*number, none.insert(opened).clone())
                }
            }
        };
        let result = ask(&mut connection, commands).await;
        if let Err(Failure::Lost(_)) = result {
            let mut current = self.current.lock().await;
            if current.0 == number {
                current.1 = None;
            }
        }
        result
    }
}

/// The pattern of all keys that begin so.
fn glob_of(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_itself() {
        assert_eq!(glob_of("idem:"), "idem:*");
        assert_eq!(glob_of("a*b[c]\\"), "a\\*b\\[c\\]\\\\*");
    }
}

//! Settles an EXEC whose reply was lost.

use crate::connection::{Failure, Private, first_error, pipeline, string};

/// What is appended to the commit key.
const MARK: &str = "?";

/// Finds out whether EXEC number `number` has happened, and sees to it that it cannot happen any more if not.
///
/// Every EXEC of a committer watches its commit key and writes its number into it. On a new connection a mark is
/// appended to the key: that write makes an EXEC that is still on its way abort. Only then is the key read: it holds
/// the number of the last EXEC that happened, and marks.
///
/// Appended, and not written over with `SET … GET`, because this reply can be lost too: whoever asks again finds the
/// number still there, while the second `SET … GET` would be told about the first. The next EXEC writes a clean number.
pub(crate) async fn settle(connection: &mut Private, commit_key: &str, number: u64) -> Result<bool, Failure> {
    let mut commands = pipeline();
    commands.cmd("APPEND").arg(commit_key).arg(MARK);
    commands.cmd("GET").arg(commit_key);
    let mut replies = connection.ask(&commands).await?;
    first_error(&replies)?;
    let value = replies.pop().and_then(string).unwrap_or_default();
    Ok(last_number(&value) == Some(number))
}

/// The number without the marks.
fn last_number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim_end_matches(MARK).parse().ok()
}

/// Removes the commit key of a committer that has nothing on its way any more.
///
/// A process that is killed leaves its key behind, some 60 bytes. It cannot be cleared away by its successor: a process
/// that only seemed dead would read "did not happen" from the empty key. For the same reason the key carries no TTL.
pub(crate) async fn forget(connection: &mut Private, commit_key: &str) -> Result<(), Failure> {
    let mut commands = pipeline();
    commands.cmd("UNLINK").arg(commit_key);
    first_error(&connection.ask(&commands).await?)
}

/// The value that says which EXEC was the last.
pub(crate) fn commit_value(number: u64) -> String {
    number.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_do_not_hide_the_number() {
        assert_eq!(last_number(b"41"), Some(41));
        assert_eq!(last_number(b"41???"), Some(41));
        assert_eq!(last_number(b"??"), None);
        assert_eq!(last_number(b""), None);
    }
}

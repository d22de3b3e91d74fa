//! The password of a Redis: read from a file, shown nowhere.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use service_kit::process::BadConfiguration;

/// Longest password that is read, bytes; Redis itself takes more, nobody needs it.
const MAX_BYTES: u64 = 1_024;

/// The password of a Redis, or none. Its `Debug` tells only which.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(Option<Arc<str>>);

impl Password {
    /// This password.
    pub fn new(password: &str) -> Self {
        Self(Some(password.into()))
    }

    /// The first line of a file; an empty name means no password.
    pub fn from_file(file: &str) -> Result<Self, BadConfiguration> {
        if file.is_empty() {
            return Ok(Self::default());
        }
        let refuse = |what: String| BadConfiguration(format!("REDIS_PASSWORD_FILE {file} {what}"));
        let text = read(Path::new(file)).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let password = text.lines().next().unwrap_or_default();
        if password.is_empty() {
            return Err(refuse("holds no password in its first line".to_owned()));
        }
        if text.len() as u64 > MAX_BYTES {
            return Err(refuse(format!("is longer than {MAX_BYTES} bytes: it is no password")));
        }
        Ok(Self::new(password))
    }

    pub(crate) fn reveal(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    Ok(text)
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "Password(…)" } else { "Password(none)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_a_password_in_its_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let written = |text: &str| {
            let path = folder.path().join("password");
            std::fs::write(&path, text).unwrap();
            Password::from_file(path.to_str().unwrap())
        };
        assert_eq!(written("open sesame\n").unwrap().reveal(), Some("open sesame"));
        assert_eq!(written("open sesame").unwrap(), Password::new("open sesame"));
        assert!(written("\n").unwrap_err().to_string().contains("no password"));
        assert!(written(&"x".repeat(2_000)).unwrap_err().to_string().contains("longer"));
        assert_eq!(Password::from_file("").unwrap(), Password::default());
        let missing = Password::from_file("/nowhere/password").unwrap_err().to_string();
        assert!(missing.starts_with("REDIS_PASSWORD_FILE /nowhere/password cannot be read"), "{missing}");
    }

    #[test]
    fn no_text_shows_it() {
        assert_eq!(format!("{:?}", Password::new("open sesame")), "Password(…)");
    }
}

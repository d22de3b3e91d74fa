//! Passwords for stores, made on first start: random, in a folder per store, never changed afterwards.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Random bytes of a password.
const PASSWORD_BYTES: usize = 32;
/// Readable for the services and, by their group, for the stores.
const MODE: u32 = 0o440;
/// The password alone, for services.
const PASSWORD_FILE: &str = "password";
/// The same as a piece of configuration, for the store.
const REDIS_FILE: &str = "redis.conf";

/// Makes what is missing in each folder: `password`, and `redis.conf` with the same password in it.
pub(crate) fn make(folders: &[PathBuf]) -> anyhow::Result<()> {
    for folder in folders {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let password_file = folder.join(PASSWORD_FILE);
        if !password_file.exists() {
            write(&password_file, &random_password())?;
            println!("made {}", password_file.display());
        }
        let password =
            std::fs::read_to_string(&password_file).with_context(|| format!("read {}", password_file.display()))?;
        let configuration = format!("requirepass {}\n", password.trim());
        let redis_file = folder.join(REDIS_FILE);
        if std::fs::read_to_string(&redis_file).ok().as_deref() != Some(configuration.as_str()) {
            write(&redis_file, &configuration)?;
        }
    }
    Ok(())
}

fn random_password() -> String {
    let bytes: [u8; PASSWORD_BYTES] = rand::random();
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// All of it or nothing, also when the machine stops in the middle.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let attempt = || -> std::io::Result<()> {
        if part.exists() {
            std::fs::remove_file(&part)?;
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    attempt().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn passwords_are_made_once_each_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("order"), folder.path().join("stock")];
        let read = |name: &str| folders.clone().map(|folder| std::fs::read_to_string(folder.join(name)).unwrap());
        make(&folders).unwrap();
        let first = read("password");
        assert!(first.iter().all(|password| password.len() == 2 * PASSWORD_BYTES) && first[0] != first[1]);
        assert_eq!(read("redis.conf"), first.clone().map(|password| format!("requirepass {password}\n")));
        std::fs::remove_file(folders[0].join("redis.conf")).unwrap();
        make(&folders).unwrap();
        assert_eq!(read("password"), first);
        assert_eq!(read("redis.conf"), first.map(|password| format!("requirepass {password}\n")));
        let mode = std::fs::metadata(folders[0].join("password")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE, "{mode:o}");
    }
}

//! How often the Redis servers of a run write to the disk, and the warning that belongs to every figure measured so.

use serde::{Deserialize, Serialize};

/// What a Redis may do that does not sync every write.
const NOT_SAFE: &str = "not safe: Redis may forget what it acknowledged";

/// `appendfsync` of the Redis servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsync {
    /// Before every answer: what the services require.
    #[default]
    Always,
    /// Once a second.
    #[value(name = "everysec")]
    EverySec,
    /// When the operating system likes.
    No,
}

impl Fsync {
    /// As Redis calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySec => "everysec",
            Self::No => "no",
        }
    }

    /// What must be said wherever a figure of such a run is shown.
    pub fn warning(self) -> Option<&'static str> {
        (self != Self::Always).then_some(NOT_SAFE)
    }

    /// The warning as the end of a line, or nothing.
    pub fn mark(self) -> String {
        self.warning().map(|warning| format!("  [appendfsync {}, {warning}]", self.name())).unwrap_or_default()
    }

    /// More settings for the servers.
    pub fn of_servers(self) -> Vec<(String, String)> {
        vec![("appendfsync".to_owned(), self.name().to_owned())]
    }

    /// More settings for the services, which refuse such a Redis otherwise.
    pub fn of_services(self) -> Option<(String, String)> {
        self.warning().map(|_| ("ALLOW_UNSAFE_FSYNC".to_owned(), "1".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_always_is_safe_and_goes_without_leave() {
        assert_eq!((Fsync::Always.warning(), Fsync::Always.of_services()), (None, None));
        assert_eq!(Fsync::Always.mark(), "");
        for unsafe_one in [Fsync::EverySec, Fsync::No] {
            assert!(unsafe_one.mark().contains("not safe: Redis may forget what it acknowledged"));
            assert!(unsafe_one.mark().contains(unsafe_one.name()));
            assert_eq!(unsafe_one.of_services().unwrap().0, "ALLOW_UNSAFE_FSYNC");
            assert_eq!(unsafe_one.of_servers(), [("appendfsync".to_owned(), unsafe_one.name().to_owned())]);
        }
    }
}

//! The settings of payment-svc.

use participant::host::ParticipantArgs;

/// Keeps users and charges them for sagas
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "payment-svc", version)]
pub struct Settings {
    /// What every participant has
    #[command(flatten)]
    pub participant: ParticipantArgs,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory;
    use service_kit::settings::{assert_documented, settings_page};

    use super::*;

    #[test]
    fn the_docs_say_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings/payment-svc.md");
        assert_documented(&path, &settings_page("payment-svc", &Settings::command()));
    }
}

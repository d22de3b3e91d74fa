//! Says what is being waited for: one moving line in a terminal, plain lines elsewhere, nothing in tests.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Often enough to look alive.
const TICK: Duration = Duration::from_millis(100);

/// Where progress is shown.
#[derive(Clone, Debug)]
pub enum Progress {
    /// One line that moves.
    Terminal(ProgressBar),
    /// One line per stage.
    Lines,
    /// Nowhere.
    Silent,
}

impl Progress {
    /// For a person: moving in a terminal, plain lines elsewhere.
    pub fn for_people() -> Self {
        if !std::io::stderr().is_terminal() {
            return Progress::Lines;
        }
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {elapsed:>4} {msg}").expect("the template is fixed");
        bar.set_style(style);
        bar.enable_steady_tick(TICK);
        Progress::Terminal(bar)
    }

    /// A stage begins.
    pub fn stage(&self, text: &str) {
        match self {
            Progress::Terminal(bar) => bar.set_message(text.to_owned()),
            Progress::Lines => eprintln!("{text} …"),
            Progress::Silent => {}
        }
    }

    /// How far the stage is; only a terminal shows it.
    pub fn update(&self, text: &str) {
        if let Progress::Terminal(bar) = self {
            bar.set_message(text.to_owned());
        }
    }

    /// The moving line goes away.
    pub fn finish(&self) {
        if let Progress::Terminal(bar) = self {
            bar.finish_and_clear();
        }
    }
}

//! A short campaign on a real stack: faults of many kinds, and nothing lost, doubled or answered falsely.

use std::time::Duration;

use chaos::audit::{Finding, Rule};
use chaos::campaign::{Campaign, Verdict, can_move_clocks, run};
use chaos::plan::Field;
use chaos::report;
use stack::Progress;

#[tokio::test(flavor = "multi_thread")]
async fn two_minutes_under_fire_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let campaign = Campaign {
        seed: 20,
        field: Field { replicas: 3, brokers: 1, has_clocks: can_move_clocks(), lasts: Duration::from_secs(120) },
        rate_per_s: 50,
        at_once: 128,
        dir: dir.path().to_owned(),
        envs: Vec::new(),
    };
    let outcome = run(&campaign, &Progress::Silent).await.unwrap();
    println!("{}", report::markdown(&outcome));
    // How soon a checkout succeeds after a kill depends on what else the machine does: it is told here, and judged by
    // `./dev chaos`.
    let is_slow = |finding: &Finding| finding.rule == Rule::AvailableAgain;
    let fine = match &outcome.verdict {
        Verdict::Passed => true,
        Verdict::Failed(findings) => findings.iter().all(is_slow),
        Verdict::Unknown(_) => false,
    };
    if !fine {
        let logs = dir.keep().join("logs");
        panic!("{}\nlogs: {}", outcome.verdict, logs.display());
    }
}

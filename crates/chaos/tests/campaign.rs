//! A short campaign on a real stack: faults of many kinds, and nothing lost, doubled or answered falsely.

use std::time::Duration;

use chaos::campaign::{Campaign, Verdict, run};
use chaos::report;
use stack::Progress;

#[tokio::test(flavor = "multi_thread")]
async fn two_minutes_under_fire_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let campaign = Campaign {
        seed: 20,
        lasts: Duration::from_secs(120),
        replicas: 3,
        clients: 8,
        orders: 50_000,
        dir: dir.path().to_owned(),
        envs: Vec::new(),
    };
    let outcome = run(&campaign, &Progress::Silent).await.unwrap();
    println!("{}", report::markdown(&outcome));
    if !matches!(outcome.verdict, Verdict::Passed) {
        let logs = dir.keep().join("logs");
        panic!("{}\nlogs: {}", outcome.verdict, logs.display());
    }
}

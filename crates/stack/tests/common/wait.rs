//! Waiting for a condition.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks again and again until the answer is `Some`, at most until the deadline.
pub async fn until<T>(what: &str, patience: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        anyhow::ensure!(begin.elapsed() < patience, "{what}: not within {patience:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

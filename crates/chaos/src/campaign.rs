//! One campaign: a stack under load, faults by plan, a quiet end, the verdict.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use stack::{Data, Progress, Shop, Stack, StackOptions};
use tokio::sync::Mutex;

use crate::audit::{Evidence, Finding, judge};
use crate::clients::{Crowd, set_up};
use crate::collect::{Addresses, evidence, goods, key_counts};
use crate::plan::{Fault, Plan, Strike};
use crate::strike::strike;

/// Load before the first fault: the JVM compiles.
const WARM_UP: Duration = Duration::from_secs(5);
/// Everything has ended within this time after the last fault, or it is a finding.
pub const SETTLE: Duration = Duration::from_secs(60);
/// Pause between two looks at the end.
const LOOK: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Seed of the plan.
    pub seed: u64,
    /// Faults begin until this time is over.
    pub lasts: Duration,
    /// Replicas of each service.
    pub replicas: u32,
    /// Clients that ask at the same time.
    pub clients: usize,
    /// Orders at hand.
    pub orders: u64,
    /// Folder of the stack.
    pub dir: PathBuf,
    /// More settings for the services.
    pub envs: Vec<(String, String)>,
}

/// A strike and when it was.
#[derive(Clone, Debug)]
pub struct Struck {
    /// Milliseconds since the campaign began.
    pub at_ms: u64,
    /// When the target was healed and started again.
    pub healed_ms: u64,
    /// Which.
    pub strike: Strike,
}

/// The judgement.
#[derive(Debug)]
pub enum Verdict {
    /// Everything was read, and everything holds.
    Passed,
    /// Something does not hold.
    Failed(Vec<Finding>),
    /// Not everything could be read.
    Unknown(anyhow::Error),
}

/// What a campaign gave.
#[derive(Debug)]
pub struct Outcome {
    /// The judgement.
    pub verdict: Verdict,
    /// What it was judged by.
    pub evidence: Evidence,
    /// The strikes, in order.
    pub struck: Vec<Struck>,
    /// When the last strike was healed, and how long everything took to end after it.
    pub settled: Option<Duration>,
    /// Keys in the stores at the end.
    pub keys: Vec<(&'static str, usize)>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => out.write_str("PASSED"),
            Self::Failed(findings) => {
                write!(out, "FAILED")?;
                findings.iter().try_for_each(|finding| write!(out, "\n  {finding}"))
            }
            Self::Unknown(why) => write!(out, "UNKNOWN: {why:#}"),
        }
    }
}

/// Runs a campaign on a stack of its own.
pub async fn run(campaign: &Campaign, progress: &Progress) -> anyhow::Result<Outcome> {
    let mut options = StackOptions::new(&campaign.dir)?;
    options.data = Data::Forget;
    options.replicas = campaign.replicas;
    options.envs.clone_from(&campaign.envs);
    let stack = Mutex::new(Stack::start(options, progress).await?);
    let outcome = under_fire(campaign, &stack).await;
    stack.into_inner().stop().await?;
    outcome
}

async fn under_fire(campaign: &Campaign, stack: &Mutex<Stack>) -> anyhow::Result<Outcome> {
    let (shop, at) = {
        let stack = stack.lock().await;
        (Shop::new(stack.gateway_url()), Addresses::of(&stack)?)
    };
    set_up(&shop, campaign.orders).await.context("set the shop up")?;
    let before = goods(&at)?;
    let began = Instant::now();
    let crowd = Crowd::new(shop, campaign.orders, began);
    let faults = async {
        tokio::time::sleep(WARM_UP).await;
        let struck = strike_all(campaign, stack, began).await;
        crowd.stop();
        struck
    };
    let (asked, struck) = tokio::join!(crowd.run(campaign.clients), faults);
    asked?;
    let struck = struck?;
    let quiet_since = Instant::now();
    let (verdict, evidence, settled) = loop {
        let read = evidence(&at, &before, crowd.taken(), crowd.history()).await;
        let (verdict, evidence) = match read {
            Ok(mut evidence) => {
                evidence.strikes = struck.len();
                let findings = judge(&evidence);
                let verdict = if findings.is_empty() { Verdict::Passed } else { Verdict::Failed(findings) };
                (verdict, evidence)
            }
            Err(why) => (Verdict::Unknown(why), Evidence::default()),
        };
        match verdict {
            Verdict::Passed => break (verdict, evidence, Some(quiet_since.elapsed())),
            _ if quiet_since.elapsed() > SETTLE => break (verdict, evidence, None),
            _ => tokio::time::sleep(LOOK).await,
        }
    };
    let keys = key_counts(&at).unwrap_or_default();
    Ok(Outcome { verdict, evidence, struck, settled, keys })
}

async fn strike_all(campaign: &Campaign, stack: &Mutex<Stack>, began: Instant) -> anyhow::Result<Vec<Struck>> {
    let now_ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut all = Vec::new();
    for Fault { strikes, quiet } in Plan::new(campaign.seed, campaign.replicas) {
        if began.elapsed() > campaign.lasts {
            break;
        }
        let struck = strikes.into_iter().map(async |one| {
            let at_ms = now_ms();
            println!("{:>7.1} s  {one}", began.elapsed().as_secs_f64());
            strike(stack, &one).await?;
            anyhow::Ok(Struck { at_ms, healed_ms: now_ms(), strike: one })
        });
        all.extend(futures::future::try_join_all(struck).await?);
        tokio::time::sleep(quiet).await;
    }
    Ok(all)
}

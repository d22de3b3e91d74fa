//! Looks at the stores every few seconds while the campaign runs.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::audit::during::{Claim, During, Look};
use crate::audit::{Order, Standing};
use crate::clients::{Crowd, asks_twice};
use crate::collect::{Addresses, Goods, goods, orders};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(5);
/// Most findings that are kept: the first ones say what is wrong.
const MAX_FINDINGS: usize = 50;

struct Watch {
    at: Addresses,
    before: Goods,
    crowd: Arc<Crowd>,
    began: Instant,
    /// By number.
    claims: Vec<Claim>,
    /// Orders that may become paid.
    open: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    /// Answers that earlier looks have judged.
    judged: usize,
}

/// Looks from now on, and keeps what it sees. Never ends.
pub(crate) async fn watch(at: Addresses, before: Goods, crowd: Arc<Crowd>, began: Instant, during: Arc<Mutex<During>>) {
    let (claims, open, refused, judged) = Default::default();
    let mut watch = Watch { at, before, crowd, began, claims, open, refused, judged };
    loop {
        tokio::time::sleep(PAUSE).await;
        let looked = tokio::task::spawn_blocking(move || {
            let seen = watch.look();
            (watch, seen)
        });
        let Ok((back, seen)) = looked.await else { return };
        watch = back;
        let mut during = during.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Ok(findings) => {
                during.whole += 1;
                let room = MAX_FINDINGS.saturating_sub(during.findings.len());
                during.findings.extend(findings.into_iter().take(room));
            }
            Err(_) => during.broken += 1,
        }
    }
}

impl Watch {
    /// What must not be. An error: something could not be read, and nothing was judged.
    fn look(&mut self) -> anyhow::Result<Vec<String>> {
        let at_s = self.began.elapsed().as_secs();
        let told = self.crowd.history_since(self.judged);
        let known = self.claims.len() as u64;
        self.read(known..self.crowd.taken(), true)?;
        let open: Vec<u64> = self.open.range(..known).copied().collect();
        for (number, order) in orders(&self.at, open.into_iter())? {
            if matches!(order.standing, Standing::Paid(_)) {
                self.paid(number)?;
            }
        }
        let now = goods(&self.at)?;
        // What was paid since then may have taken its goods since then too.
        self.read(self.claims.len() as u64..self.crowd.taken(), false)?;
        let for_good = told.iter().filter(|told| told.is_refused() && !asks_twice(told.order)).map(|told| told.order);
        self.refused.extend(for_good);
        let Self { claims, refused, before, .. } = &*self;
        let findings = Look { claims, told: &told, refused, before, now: &now }.judge();
        self.judged += told.len();
        self.open.retain(|order| !self.refused.contains(order));
        Ok(findings.into_iter().map(|finding| format!("after {at_s} s: {finding}")).collect())
    }

    /// Takes in orders that clients have begun to check out since the last look.
    fn read(&mut self, new: Range<u64>, is_before_goods: bool) -> anyhow::Result<()> {
        for (number, order) in orders(&self.at, new)? {
            let Order { user, lines, total, standing, .. } = order;
            self.claims.push(Claim { user, lines, total, is_paid: false });
            self.open.insert(number);
            if is_before_goods && matches!(standing, Standing::Paid(_)) {
                self.paid(number)?;
            }
        }
        Ok(())
    }

    fn paid(&mut self, order: u64) -> anyhow::Result<()> {
        self.open.remove(&order);
        self.claims.get_mut(usize::try_from(order)?).context("an order that nobody has begun")?.is_paid = true;
        Ok(())
    }
}

//! Draws the trace of a paid and of an undone checkout: starts a stack, receives its spans, writes pictures.
//!
//! `docs/pictures/make.sh` calls it. For each checkout it writes `NAME.svg`, drawn here, and `NAME.zipkin.json`, which
//! a Zipkin server shows.

mod svg;
mod zipkin;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use otlp_sink::{Sink, Span, SpanKind};
use stack::{Progress, Shop, Stack, StackOptions};

/// Checkouts before the one that is drawn: the broker's JVM compiles, connections open.
const WARM_UP_CHECKOUTS: usize = 200;
/// Spans are exported within this time after they have ended.
const EXPORTED: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out = PathBuf::from(std::env::args_os().nth(1).context("usage: trace_picture FOLDER")?);
    std::fs::create_dir_all(&out)?;
    let (sink, endpoint) = Sink::start().await;
    let data = tempfile::tempdir()?;
    let mut options = StackOptions::new(data.path())?;
    let otel = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_on".to_owned()),
    ];
    options.envs.extend(otel.map(|(name, value)| (name.to_owned(), value)));
    let stack = Stack::start(options, &Progress::Silent).await?;
    let shop = Shop::new(stack.gateway_url());
    let drawn = draw(&shop, &sink, &out).await;
    stack.stop().await?;
    drawn
}

async fn draw(shop: &Shop, sink: &Sink, out: &std::path::Path) -> anyhow::Result<()> {
    let item = shop.create_item(2, 1_000_000).await?;
    let rich = shop.create_user(1_000_000).await?;
    let poor = shop.create_user(1).await?;
    for _ in 0..WARM_UP_CHECKOUTS {
        let order = shop.create_order(&rich, &[(&item, 1)]).await?;
        ensure!(shop.checkout(&order).await?.status == 200, "a checkout of the warm-up failed");
    }
    for (name, title, user, status) in [
        ("trace-paid", "A checkout that is paid", &rich, 200),
        ("trace-undone", "A checkout that payment refuses: the stock is given back", &poor, 402),
    ] {
        let order = shop.create_order(user, &[(&item, 1)]).await?;
        let answer = shop.checkout(&order).await?;
        ensure!(answer.status == status, "{name}: {} {}", answer.status, answer.text());
        let saga = shop.find_order(&order).await?.saga_id.context("the order has had a saga")?;
        let trace = whole_trace(sink, &saga).await?;
        std::fs::write(out.join(format!("{name}.svg")), svg::draw(title, &trace))?;
        std::fs::write(out.join(format!("{name}.zipkin.json")), zipkin::encode(&trace)?)?;
        println!("{name}: {} spans, trace {}", trace.len(), trace[0].trace);
    }
    Ok(())
}

/// The trace of a saga once it hangs together: one root, no orphan, and order-svc has consumed the result.
async fn whole_trace(sink: &Sink, saga: &str) -> anyhow::Result<Vec<Span>> {
    let end = Instant::now() + EXPORTED;
    loop {
        let trace = trace_of(sink, saga);
        let ids: BTreeSet<&str> = trace.iter().map(|span| span.id.as_str()).collect();
        let roots = trace.iter().filter(|span| span.parent.is_empty()).count();
        let orphans = trace.iter().any(|span| !span.parent.is_empty() && !ids.contains(span.parent.as_str()));
        let told = trace.iter().any(|span| span.service == "order-svc" && span.name.contains("order.results"));
        if roots == 1 && !orphans && told {
            return Ok(trace);
        }
        if Instant::now() > end {
            bail!("the trace of saga {saga} is not whole: {} spans, {roots} roots, orphans: {orphans}", trace.len());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The spans of the trace that a saga's records belong to, by start; none if no record has been seen.
fn trace_of(sink: &Sink, saga: &str) -> Vec<Span> {
    let spans = sink.spans();
    let is_hop =
        |span: &&Span| span.kind == SpanKind::Consumer && span.attributes.get("saga.id").is_some_and(|id| id == saga);
    let Some(trace) = spans.iter().find(is_hop).map(|span| span.trace.clone()) else { return Vec::new() };
    let mut found: Vec<Span> = spans.into_iter().filter(|span| span.trace == trace).collect();
    found.sort_by_key(|span| (span.start_ns, span.parent.clone()));
    found
}

//! `docker-compose.yml`: the rules that it keeps, and the system that it brings up.
//!
//! Reading the file needs nothing. Rendering it needs `docker compose`, running it an engine and the base images; where
//! they are missing, those tests are skipped and say why. `--include-ignored` kills every kind of container in turn and
//! runs the profile `ha`.

mod confined;
#[path = "../common/drill.rs"]
mod drill;
mod engine;
mod file;
mod planted;
mod rules;
#[path = "../common/wait.rs"]
mod wait;
mod world;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::engine::Project;
use crate::world::World;

/// Profiles that the file is rendered with.
const PROFILES: [&[&str]; 4] =
    [&[], &["ha"], &["load", "observability"], &["ha", "load", "observability", "tail-sampling"]];

/// Exit code of what Ctrl-C ends, as shells have it.
const INTERRUPTED: i32 = 130;

type Scenario = for<'world> fn(&'world World) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'world>>;

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        vec![$({
            fn $name(world: &World) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + '_>> {
                Box::pin(world.$name())
            }
            (stringify!($name), $name as Scenario)
        }),*]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One stack, and faults that must not meet.
    arguments.test_threads = Some(1);
    let runtime = Arc::new(Runtime::new().expect("a runtime"));
    let world = Arc::new(World::default());
    runtime.spawn(end_when_interrupted(Arc::clone(&world)));
    let trials = reading().into_iter().chain([rendering(&runtime)]).chain(running(&runtime, &world)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let ended = runtime.block_on(world.end());
    if let Err(error) = &ended {
        eprintln!("the containers do not go away: {error:#}");
    }
    if ended.is_ok() { conclusion.exit_code() } else { ExitCode::FAILURE }
}

/// Containers outlive a test that is broken off unless somebody takes them away.
async fn end_when_interrupted(world: Arc<World>) {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    eprintln!("interrupted: the containers are taken away …");
    if let Err(error) = world.end().await {
        eprintln!("the containers do not go away: {error:#}");
    }
    std::process::exit(INTERRUPTED);
}

fn reading() -> Vec<Trial> {
    let trial = |name: &str, check: fn() -> anyhow::Result<()>| Trial::test(name, move || check().map_err(failed));
    vec![
        trial("merge_keys_and_defaults_are_read", || {
            file::reads_merge_keys_and_defaults();
            Ok(())
        }),
        trial("no_image_that_is_built_is_pulled", || {
            let ours = |image: &String| image.starts_with("saga/");
            let bought = engine::bought(&file::read()?);
            ensure!(!bought.is_empty() && !bought.iter().any(ours), "{bought:?}");
            Ok(())
        }),
        trial("the_file_keeps_the_rules", || keeps_the_rules(&file::read()?)),
        trial("each_violation_is_noticed", planted::each_is_noticed),
    ]
}

fn rendering(runtime: &Arc<Runtime>) -> Trial {
    let runtime = Arc::clone(runtime);
    Trial::ignorable_test("what_compose_renders_keeps_the_rules", move || {
        runtime.block_on(async {
            if let Some(reason) = engine::no_compose().await {
                return Ok(skipped(&reason));
            }
            for profiles in PROFILES {
                let rendered = Project::named("rules", 8000).render(profiles).await.map_err(failed)?;
                keeps_the_rules(&rendered).map_err(failed)?;
            }
            Ok(Completion::Completed)
        })
    })
}

fn keeps_the_rules(file: &serde_json::Value) -> anyhow::Result<()> {
    let found = rules::violations(file);
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

fn running(runtime: &Arc<Runtime>, world: &Arc<World>) -> Vec<Trial> {
    let always = scenarios![
        images_are_small,
        a_checkout_succeeds_when_up_returns,
        containers_are_confined,
        one_replica_of_each_service_is_killed,
        stock_svc_is_scaled_to_five_under_load,
        redis_of_stock_is_killed,
    ];
    let seldom = scenarios![
        all_of_orchestrator_are_killed,
        all_of_order_svc_are_killed,
        all_of_stock_svc_are_killed,
        all_of_payment_svc_are_killed,
        gateway_is_killed,
        dashboard_is_killed,
        redis_of_orders_is_killed,
        redis_of_payment_is_killed,
        redis_of_orchestrator_is_killed,
        kafka_is_killed,
        one_of_three_brokers_is_killed,
    ];
    let trial = |(name, scenario): (&'static str, Scenario), seldom: bool| {
        let (runtime, world) = (Arc::clone(runtime), Arc::clone(world));
        let run = move || {
            runtime.block_on(async {
                if let Some(reason) = world.missing().await {
                    return Ok(skipped(reason));
                }
                scenario(&world).await.map(|()| Completion::Completed).map_err(failed)
            })
        };
        Trial::ignorable_test(name, run).with_ignored_flag(seldom)
    };
    let seldom = seldom.into_iter().map(|scenario| trial(scenario, true));
    always.into_iter().map(|scenario| trial(scenario, false)).chain(seldom).collect()
}

fn skipped(reason: &str) -> Completion {
    Completion::ignored_with(format!("SKIPPED: {reason}"))
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

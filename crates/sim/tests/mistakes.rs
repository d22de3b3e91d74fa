//! Every known mistake is noticed, within so many seeds.

use std::sync::Mutex;

use sim::hunt::{Case, MAX_SEEDS};
use sim::show;

#[test]
fn every_mistake_is_noticed() {
    let cases: Vec<Case> = Case::all().collect();
    let left = Mutex::new(cases.iter().enumerate().rev().collect::<Vec<_>>());
    let lines = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some((index, case)) = left.lock().expect("no thread panics here").pop() else { return };
            let catch = case.hunt(0, MAX_SEEDS);
            let line = show::catch(case, 0, catch.as_ref());
            lines.lock().expect("no thread panics here").push((index, catch.is_some(), line));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let mut lines = lines.into_inner().expect("no thread panicked");
    lines.sort();
    println!("{}", show::CATCH_HEAD);
    lines.iter().for_each(|(_, _, line)| println!("{line}"));
    let missed: Vec<&String> = lines.iter().filter(|(_, noticed, _)| !noticed).map(|(_, _, line)| line).collect();
    assert!(missed.is_empty(), "not noticed within {MAX_SEEDS} seeds: {missed:#?}");
    assert!(lines.len() >= 30);
}

//! `cargo bench -p bench`: how long each hot path takes, by Criterion.

#[path = "../hot_path/mod.rs"]
mod hot_path;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, make) in hot_path::PATHS {
        let mut once = make();
        criterion.bench_function(name, |bencher| bencher.iter(&mut once));
    }
    criterion.final_summary();
}

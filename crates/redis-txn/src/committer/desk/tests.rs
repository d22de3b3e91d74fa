use std::task::{Context, Waker};

use super::*;
use crate::queue::{Handles, Queue};
use crate::transaction::{Transaction, Unread, View};

struct Touch(String);

impl Transaction for Touch {
    type Outcome = ();
    fn keys(&self, keys: &mut Vec<String>) {
        keys.push(self.0.clone());
    }
    fn apply(&mut self, _view: &mut View<'_>) -> Result<(), Unread> {
        Ok(())
    }
}

type Run = std::pin::Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send>>;

fn hand_in(queue: &Queue, count: u32) -> Vec<Run> {
    let hand_in = |number| {
        let mut run: Run = Box::pin(queue.run(Touch(format!("key:{number}"))));
        assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        run
    };
    (0..count).map(hand_in).collect()
}

fn desk(shared: Arc<Shared>) -> Desk {
    let settings = Settings {
        address: "127.0.0.1:1".to_owned(),
        password: crate::Password::default(),
        process: "test".to_owned(),
        max_batch: 64,
        conflicts_before_turn: 2,
        response_timeout: Duration::from_secs(1),
        rest_patience: Duration::from_secs(1),
    };
    Desk::new(shared, &settings)
}

#[test]
fn conflicts_halve_a_batch_and_a_turn_makes_it_whole() {
    let handles = Arc::new(Handles { shared: Arc::new(Shared::new("127.0.0.1:1")) });
    let queue = Queue::lane(handles.clone(), 1);
    let mut desk = desk(handles.shared.clone());
    let mut runs = hand_in(&queue, 8);
    assert!(desk.fill());
    let sizes = [(); 4].map(|()| {
        desk.conflicted();
        desk.batch.len()
    });
    assert_eq!(sizes, [4, 2, 1, 1]);
    runs.extend(hand_in(&queue, 2));
    desk.widen();
    assert_eq!(desk.batch.len(), 10, "what was put off, and what has come meanwhile");
    assert!(desk.batch.is_sorted_by_key(|entry| entry.handed_in), "in order");
}

#[test]
fn a_turn_does_not_lift_the_bound_of_watched_keys() {
    let handles = Arc::new(Handles { shared: Arc::new(Shared::new("127.0.0.1:1")) });
    let mut desk = desk(handles.shared.clone());
    desk.max_batch = 2 * MAX_WATCHED_KEYS;
    let lanes = u32::try_from(MAX_WATCHED_KEYS).expect("small");
    let _runs: Vec<_> = (0..lanes).map(|lane| hand_in(&Queue::lane(handles.clone(), lane), 2)).collect();
    desk.widen();
    desk.widen();
    assert_eq!(desk.batch.len(), MAX_WATCHED_KEYS);
}

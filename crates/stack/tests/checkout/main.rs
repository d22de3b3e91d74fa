//! The whole system by HTTP: outcomes, refusals, concurrency, edits.

#[path = "../common/mod.rs"]
mod common;
mod concurrency;
mod idempotency;
mod neighbours;
mod outcomes;
mod poison;
mod refusals;
#[path = "../common/wait.rs"]
mod wait;

use std::process::ExitCode;

use stack::{Shop, Stack};

/// One stack with one replica of each service.
pub struct World {
    /// Client of its gateway.
    pub shop: Shop,
    stack: Stack,
}

fn main() -> ExitCode {
    common::run(
        |_| {},
        |stack| World { shop: Shop::new(stack.gateway_url()), stack },
        async |world: World| world.stack.stop().await.map(drop),
        vec![
            scenario!(outcomes::paid_order_takes_stock_and_credit),
            scenario!(outcomes::out_of_stock_takes_nothing),
            scenario!(outcomes::too_little_credit_gives_the_stock_back),
            scenario!(outcomes::unknown_user_and_item_are_refused),
            scenario!(outcomes::refused_order_can_be_edited_and_checked_out_again),
            scenario!(outcomes::same_item_twice_adds_up),
            scenario!(outcomes::empty_order_is_paid_for_nothing),
            scenario!(outcomes::batch_init_replaces_what_was_there),
            scenario!(concurrency::many_checkouts_of_one_order_have_one_effect),
            scenario!(concurrency::scarce_item_is_sold_exactly_as_often_as_it_is_there),
            scenario!(concurrency::edits_during_a_checkout_count_wholly_or_not_at_all),
            scenario!(idempotency::every_post_has_one_effect_per_key),
            scenario!(idempotency::a_checkout_with_a_key_keeps_its_answer),
            scenario!(idempotency::many_at_once_have_one_effect),
            scenario!(idempotency::many_keys_at_once_are_many_checkouts),
            scenario!(idempotency::keys_that_cannot_be_used_are_refused),
            scenario!(refusals::every_refusal_of_the_contract),
            scenario!(refusals::nonsense_in_every_parameter),
            scenario!(refusals::overflow_is_refused),
            scenario!(refusals::too_many_lines_are_refused),
            scenario!(refusals::problems_are_problem_json),
            scenario!(poison::garbage_is_set_aside_and_the_lanes_go_on),
            scenario!(neighbours::second_stack_runs_beside_the_first),
        ],
    )
}

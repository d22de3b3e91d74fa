//! What every client was told, as a table to look into: which lane was slow, and when.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::audit::{Evidence, Order, Saga, Standing};

/// One line for each request, in the order of their answers. `lanes` are those of all sagas of the order, which may be
/// more than the request's own.
pub fn csv(evidence: &Evidence) -> String {
    let lanes: BTreeMap<Saga, u32> = evidence.announced.iter().map(|it| (it.saga, it.ordinal.1)).collect();
    let mut text = String::from("sent_ms,took_ms,status,order,lanes\n");
    for told in &evidence.told {
        let status = told.status.map_or_else(|| "broken".to_owned(), |status| status.to_string());
        let of_order = evidence.orders.get(&told.order).map(|order| sagas(order).filter_map(|saga| lanes.get(saga)));
        let of_order: Vec<String> = of_order.into_iter().flatten().map(u32::to_string).collect();
        let took_ms = told.done_ms.saturating_sub(told.sent_ms);
        // Infallible: it writes into a String.
        let _ = writeln!(text, "{},{took_ms},{status},{},{}", told.sent_ms, told.order, of_order.join(" "));
    }
    text
}

/// The sagas that an order remembers; the one that paid it is among its attempts too.
fn sagas(order: &Order) -> impl Iterator<Item = &Saga> {
    let paid = match &order.standing {
        Standing::Paid(Some(saga)) if order.attempts.iter().all(|(other, _)| other != saga) => Some(saga),
        Standing::Paid(_) | Standing::Open | Standing::CheckingOut => None,
    };
    order.attempts.iter().map(|(saga, _)| saga).chain(paid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Announced, Told};

    #[test]
    fn every_request_is_a_line_with_the_lanes_of_its_order() {
        let announced = |saga, lane, completed| Announced { saga, ordinal: ("order".to_owned(), lane, 1), completed };
        let order = Order {
            user: String::new(),
            lines: Vec::new(),
            total: 1,
            standing: Standing::Paid(Some([2; 16])),
            attempts: vec![([1; 16], false)],
        };
        let told = |sent_ms, status| Told { order: 7, sent_ms, done_ms: 1_500, status };
        let evidence = Evidence {
            told: vec![told(1_000, None), told(1_400, Some(200))],
            orders: [(7, order)].into(),
            announced: vec![announced([1; 16], 40, false), announced([2; 16], 93, true)],
            ..Evidence::default()
        };
        let expected = "sent_ms,took_ms,status,order,lanes\n1000,500,broken,7,40 93\n1400,100,200,7,40 93\n";
        assert_eq!(csv(&evidence), expected);
    }
}

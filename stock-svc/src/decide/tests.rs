//! The rules of the stock as tables.

use super::*;

fn item(stock: u64) -> Item {
    Item { stock, price: 3 }
}

#[test]
fn adding_stops_at_the_largest_amount() {
    let table = [
        (0, 0, Ok(0)),
        (5, 7, Ok(12)),
        (MAX_AMOUNT - 1, 1, Ok(MAX_AMOUNT)),
        (MAX_AMOUNT, 1, Err(Refused::TooMany)),
        (MAX_AMOUNT, 0, Ok(MAX_AMOUNT)),
        (1, u64::MAX, Err(Refused::TooMany)),
    ];
    for (stock, amount, expected) in table {
        assert_eq!(add(item(stock), amount), expected.map(item), "{stock} + {amount}");
    }
}

#[test]
fn subtracting_stops_at_nothing() {
    let table = [(5, 0, Ok(5)), (5, 5, Ok(0)), (5, 6, Err(Refused::OutOfStock)), (0, 1, Err(Refused::OutOfStock))];
    for (stock, amount, expected) in table {
        assert_eq!(subtract(item(stock), amount), expected.map(item), "{stock} - {amount}");
    }
}

#[test]
fn putting_back_is_not_refused_for_a_full_stock() {
    assert_eq!(put_back(item(4), 2), Some(item(6)));
    assert_eq!(put_back(item(MAX_AMOUNT), 2), Some(item(MAX_AMOUNT + 2)));
    assert_eq!(put_back(item(u64::MAX), 1), None);
}

#[test]
fn the_same_item_in_several_lines_adds_up() {
    let wanted = add_up([("a", 2), ("b", 1), ("a", 3), ("c", u64::MAX), ("c", 1), ("c", 1)]);
    assert_eq!(wanted, BTreeMap::from([("a", Some(5)), ("b", Some(1)), ("c", None)]));
    assert!(add_up([]).is_empty());
}

#[test]
fn a_reservation_is_exact() {
    let code = |item, wanted| reserve("a", item, wanted).map_err(|refusal| refusal.code);
    assert_eq!(code(Some(item(5)), Some(5)), Ok(item(0)));
    assert_eq!(code(Some(item(5)), Some(0)), Ok(item(5)));
    assert_eq!(code(Some(item(5)), Some(6)), Err(OUT_OF_STOCK.to_owned()));
    assert_eq!(code(Some(item(MAX_AMOUNT)), None), Err(OUT_OF_STOCK.to_owned()));
    assert_eq!(code(None, Some(0)), Err(ITEM_NOT_FOUND.to_owned()));
}

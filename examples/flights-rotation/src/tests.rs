//! The handler on legs of planes, with their states.

use keylane_sdk::testing::{self, States, Verdict};
use serde_json::{Value, json};

use super::*;

/// A flight of two hours to Boston, at a time of the first day of the data.
fn leg(time: &str, dep_delay: impl Into<Option<i64>>, arr_delay: impl Into<Option<i64>>) -> Value {
    let (dep_delay, arr_delay) = (dep_delay.into(), arr_delay.into());
    json!({
        "carrier": "B6", "flight": 8, "origin": "JFK", "dest": "BOS", "scheduled": format!("2013-01-01T{time}Z"),
        "dep_delay": dep_delay, "arr_delay": arr_delay, "air_time": arr_delay.map(|_| 120),
    })
}

fn fly(states: &mut States, tail: &str, leg: &Value) -> Option<Value> {
    let verdict = testing::event().key(tail).value(leg.to_string()).run_keyed(states, handle);
    match verdict.outputs() {
        [] => None,
        [output] => {
            assert_eq!((output.target.as_str(), output.key.as_deref()), ("knock-ons", Some(tail.as_bytes())));
            Some(output.json())
        }
        several => panic!("{several:?}"),
    }
}

/// The minutes that the second of two legs has from the first.
fn carried(first: &Value, second: &Value) -> Option<i64> {
    let mut states = States::new();
    assert_eq!(fly(&mut states, "N1", first), None, "nothing is known before the first leg");
    fly(&mut states, "N1", second).map(|output| output["carried"].as_i64().expect("a number"))
}

#[test]
fn a_late_arrival_explains_at_most_its_own_minutes() {
    let late = leg("10:00", 50, 40);
    assert_eq!(carried(&late, &leg("14:00", 60, 0)), Some(40));
    assert_eq!(carried(&late, &leg("14:00", 30, 0)), Some(30), "the plane made up for ten minutes");
    assert_eq!(carried(&late, &leg("14:00", 15, 0)), Some(15));
    assert_eq!(carried(&late, &leg("14:00", 14, 90)), None, "it left on time");
}

#[test]
fn what_does_not_explain_a_delay_carries_nothing() {
    let delayed = leg("14:00", 60, 60);
    assert_eq!(carried(&leg("10:00", 50, 14), &delayed), None, "arrived on time");
    assert_eq!(carried(&leg("10:00", 50, None), &delayed), None, "the arrival is unknown");
    assert_eq!(carried(&leg("02:00", 50, 40), &delayed), Some(40), "12 hours before");
    assert_eq!(carried(&leg("01:59", 50, 40), &delayed), None, "more than 12 hours before");
    assert_eq!(carried(&leg("10:00", 180, 180), &delayed), Some(60), "landed as the next leg left");
    assert_eq!(carried(&leg("10:00", 181, 181), &delayed), None, "left before it had landed");
}

#[test]
fn each_plane_has_its_own_last_leg_and_cancelled_legs_are_none() {
    let mut states = States::new();
    assert_eq!(fly(&mut states, "N1", &leg("10:00", 50, 40)), None);
    assert_eq!(fly(&mut states, "N2", &leg("12:00", 50, 40)), None);
    let before = states.clone();
    assert_eq!(fly(&mut states, "N1", &leg("13:00", None, None)), None);
    assert_eq!(fly(&mut states, "N3", &leg("13:00", None, None)), None);
    assert_eq!(states, before);
    assert_eq!(fly(&mut states, "N1", &leg("14:00", 60, 60)).expect("a knock-on delay")["carried"], 40);
}

#[test]
fn chains_and_totals_are_carried_along() {
    let mut states = States::new();
    fly(&mut states, "N1", &leg("06:00", 20, 20));
    let first = fly(&mut states, "N1", &leg("10:00", 30, 35)).expect("a knock-on delay");
    assert_eq!(
        first,
        json!({
            "scheduled": "2013-01-01T10:00Z", "leg": "B68 JFK-BOS", "delay": 30, "carried": 20, "after": "B68 JFK-BOS",
            "chain": 1, "plane": {"legs": 2, "knock_ons": 1, "carried": 20}, "source": {"partition": 0, "offset": 0},
        })
    );
    let second = fly(&mut states, "N1", &leg("14:00", 60, 0)).expect("a knock-on delay");
    assert_eq!((&second["chain"], &second["carried"]), (&json!(2), &json!(35)));
    assert_eq!(fly(&mut states, "N1", &leg("18:00", 60, 60)), None);
    let third = fly(&mut states, "N1", &leg("22:00", 60, 60)).expect("a knock-on delay");
    assert_eq!(third["chain"], 1, "a leg without a knock-on delay ends a chain");
    assert_eq!(third["plane"], json!({"legs": 5, "knock_ons": 3, "carried": 115}));
}

#[test]
fn an_invalid_leg_changes_no_state() {
    let mut states = States::new();
    fly(&mut states, "N1", &leg("10:00", 50, 40));
    let before = states.clone();
    for value in ["delayed".to_owned(), leg("noon", 50, 40).to_string()] {
        let verdict = testing::event().key("N1").value(value).run_keyed(&mut states, handle);
        assert!(matches!(verdict, Verdict::Reject { .. }), "{verdict:?}");
    }
    assert_eq!(states, before);
}

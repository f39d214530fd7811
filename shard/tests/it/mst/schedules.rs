//! Random schedules: writes, deletions and expiries on three replicas whose clocks differ, with exchanges that
//! break off, messages that are lost, late or come twice, crashes and long absences.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::world::{Event, KEYS, REPLICAS, World};

/// More in a long run: `ODGM_TEST_SCHEDULES`.
fn schedules(short: u32) -> Config {
    let cases = std::env::var("ODGM_TEST_SCHEDULES").map_or(short, |cases| cases.parse().unwrap());
    Config { cases, failure_persistence: None, ..Config::default() }
}

fn event() -> impl Strategy<Value = Event> {
    let at = 0..REPLICAS;
    let key = 0..KEYS.len();
    prop_oneof![
        6 => (at.clone(), key.clone()).prop_map(|(at, key)| Event::Put { at, key }),
        1 => (at.clone(), key.clone(), 1_u64..3000).prop_map(|(at, key, ms)| Event::Lasting { at, key, ms }),
        5 => (at.clone(), key).prop_map(|(at, key)| Event::Delete { at, key }),
        2 => at.clone().prop_map(|at| Event::Expire { at }),
        8 => (at.clone(), at.clone(), prop_oneof![1 => 1_usize..6, 3 => Just(usize::MAX)], 0_u8..6)
            .prop_map(|(leader, other, until, kept)| Event::Exchange { leader, other, until, kept }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(message, again)| Event::Deliver { message, again }),
        1 => at.clone().prop_map(|at| Event::Crash { at }),
        1 => at.clone().prop_map(|at| Event::Leave { at }),
        1 => at.prop_map(|at| Event::Return { at }),
        1 => prop_oneof![1_u64..2000, Just(3_600_000)].prop_map(|ms| Event::Wait { ms }),
    ]
}

fn world() -> impl Strategy<Value = ([i64; REPLICAS], Vec<Event>)> {
    let skew = || prop_oneof![Just(0), -900_i64..900, Just(1500)];
    ([skew(), skew(), skew()], proptest::collection::vec(event(), 1..80))
}

fn live(skews: [i64; REPLICAS], events: Vec<Event>, forgetful: bool) -> Result<(), String> {
    let mut world = World::new(skews, forgetful);
    events.into_iter().for_each(|event| world.happen(event));
    world.settle()
}

#[test]
fn every_schedule_ends_with_the_newest_write_of_each_key_on_every_replica() {
    TestRunner::new(schedules(600))
        .run(&world(), |(skews, events)| live(skews, events, false).map_err(TestCaseError::fail))
        .unwrap();
}

#[test]
fn a_forgotten_tombstone_is_caught() {
    let mut runner = TestRunner::new(schedules(3000));
    let caught =
        runner.run(&world(), |(skews, events)| live(skews, events, true).map_err(TestCaseError::fail));
    assert!(
        caught.is_err(),
        "tombstones were forgotten before an absent replica saw them, and nobody noticed"
    );
}

/// One of 100,000: the copy that was held was older than the tombstone that all had seen and forgotten.
#[test]
fn what_was_held_until_its_time_came_revives_nothing() {
    let exchange = |leader, other| Event::Exchange { leader, other, until: usize::MAX, kept: 9 };
    let events = vec![
        Event::Put { at: 2, key: 4 },
        // To the first, whose clock is two seconds behind; it is held.
        Event::Deliver { message: 0, again: false },
        Event::Wait { ms: 1497 },
        exchange(0, 2),
        Event::Delete { at: 0, key: 3 },
        exchange(0, 1),
        exchange(0, 2),
        exchange(1, 2),
        exchange(0, 1),
        exchange(0, 2),
    ];
    live([-495, 0, 1500], events, false).unwrap();
}

/// What the search for it found, made small.
#[test]
fn a_replica_that_was_away_brings_nothing_back() {
    let script = || {
        let exchange = |leader, other| Event::Exchange { leader, other, until: usize::MAX, kept: 9 };
        let mut events =
            vec![Event::Put { at: 0, key: 0 }, exchange(0, 1), exchange(0, 2), Event::Leave { at: 2 }];
        events.push(Event::Delete { at: 0, key: 0 });
        for _ in 0..4 {
            events.extend([Event::Wait { ms: 3_600_000 }, exchange(0, 1), exchange(1, 0)]);
        }
        events
    };
    live([0; REPLICAS], script(), false).unwrap();
    let caught = live([0; REPLICAS], script(), true).unwrap_err();
    assert!(caught.contains("holds"), "{caught}");
}

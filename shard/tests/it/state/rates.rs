//! How many puts a second the table takes in memory: `cargo test --release -- --ignored puts_a_second`.

use std::time::Instant;

use bytes::Bytes;
use odgm_shard::object::{ObjectId, ObjectKey, Value};
use odgm_shard::state::{Command, Condition, ObjectTable, Operation, Position};

use super::{NOW, batch, storage};

#[test]
#[ignore = "a measurement, for release builds"]
fn puts_a_second() {
    for with_rid in [false, true] {
        let mut table = ObjectTable::open(storage()).unwrap();
        let payload = Bytes::from(vec![7; 256]);
        let (batches, size) = (2000, 100);
        let mut inputs = Vec::new();
        for index in 0..batches {
            let commands = (0..size).map(|n| {
                let object = ObjectId::parse(&format!("object-{}", (index * size + n) % 50_000)).unwrap();
                let value = Value { payload: payload.clone(), encoding: String::new(), attachment: None };
                let key = ObjectKey { object, entry: None };
                let rid = with_rid.then(|| Bytes::from(format!("rid-{index}-{n}")));
                Command {
                    rid,
                    operation: Operation::Put { key, value, ttl_ms: None, condition: Condition::None },
                }
            });
            inputs.push((Position { term: 1, index: index + 1 }, batch(NOW, commands.collect())));
        }
        let start = Instant::now();
        for input in inputs {
            table.apply(vec![input]).unwrap();
        }
        let rate = (batches * size) as f64 / start.elapsed().as_secs_f64();
        println!("rid {with_rid}: {rate:.0} puts/s");
        assert!(rate > 150_000.0);
    }
}

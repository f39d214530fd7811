//! What is stored: JSON as applications write it, and bytes that no codec shrinks. The same in every run.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

const SEED: u64 = 0x0D6A;

const NAMES: [&str; 12] = [
    "alice", "bruno", "chloe", "daniel", "elena", "farid", "grace", "hiro", "ines", "jonas", "kavya", "lukas",
];
const CITIES: [&str; 8] = ["Bangkok", "Berlin", "Bogota", "Dakar", "Hanoi", "Lisbon", "Osaka", "Vancouver"];
const STATES: [&str; 4] = ["active", "suspended", "invited", "archived"];

/// JSON objects, one a line, of about `bytes` bytes: identifiers, numbers and times that differ, names and
/// words that repeat.
pub(super) fn json(bytes: usize) -> Bytes {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut text = Vec::with_capacity(bytes + 512);
    let mut number = 0_u64;
    while text.len() < bytes {
        number += 1;
        let mut pick = |words: &[&'static str]| words[random.random_range(0..words.len())];
        let (name, other, city, state) = (pick(&NAMES), pick(&NAMES), pick(&CITIES), pick(&STATES));
        let object = serde_json::json!({
            "id": format!("{:016x}", random.next_u64()),
            "number": number,
            "name": format!("{name} {other}"),
            "email": format!("{name}.{other}{}@example.com", random.random_range(0..1000)),
            "city": city,
            "state": state,
            "balance": f64::from(random.random_range(0..10_000_000_u32)) / 100.0,
            "updated_unix_ms": 1_790_000_000_000 + random.random_range(0..10_000_000_000_u64),
            "tags": [format!("group-{}", random.random_range(0..50)), state],
        });
        text.extend_from_slice(object.to_string().as_bytes());
        text.push(b'\n');
    }
    text.into()
}

/// Random bytes.
pub(super) fn noise(bytes: usize) -> Bytes {
    let mut noise = vec![0; bytes];
    StdRng::seed_from_u64(SEED).fill_bytes(&mut noise);
    noise.into()
}

/// Numbers below a bound, in no order.
pub(super) struct Shuffled {
    random: StdRng,
    below: u64,
}

impl Shuffled {
    pub(super) fn below(below: u64) -> Self {
        Shuffled { random: StdRng::seed_from_u64(SEED), below }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.random.random_range(0..self.below)
    }
}

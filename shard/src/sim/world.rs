//! What one simulated world shares on its thread: its randomness and the hash of all that ran.

use std::cell::Cell;

use openraft_rt_sim::SimInstant;

thread_local! {
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    static TASKS: Cell<u64> = const { Cell::new(0) };
    static HASH: Cell<u64> = const { Cell::new(0) };
    static POLLS: Cell<u64> = const { Cell::new(0) };
}

/// Begins a new world on this thread.
pub(crate) fn begin(seed: u64) {
    RANDOM.set(seed ^ 0x0D6E_8FEB_8665_9FD9);
    TASKS.set(0);
    HASH.set(0xcbf2_9ce4_8422_2325);
    POLLS.set(0);
}

/// The next number of the world's own stream (splitmix64).
pub(crate) fn random() -> u64 {
    let state = RANDOM.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    RANDOM.set(state);
    let mut x = state;
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Below `limit`; 0 when that is 0.
pub(crate) fn below(limit: u64) -> u64 {
    random() % limit.max(1)
}

/// Within a range.
pub(crate) fn between(low: u64, high: u64) -> u64 {
    low + below(high.saturating_sub(low) + 1)
}

/// True once in `n`.
pub(crate) fn one_in(n: u64) -> bool {
    below(n) == 0
}

/// Numbers the tasks.
pub(crate) fn next_task() -> u64 {
    TASKS.set(TASKS.get() + 1);
    TASKS.get()
}

/// True time since the start.
pub(crate) fn now() -> std::time::Duration {
    SimInstant::try_now().map(SimInstant::elapsed_since_start).unwrap_or_default()
}

/// Notes that a task ran.
pub(crate) fn polled(task: u64) {
    POLLS.set(POLLS.get() + 1);
    note(task);
}

/// Takes something into the hash of the run, with the time.
pub(crate) fn note(what: u64) {
    let now = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
    let mut hash = HASH.get();
    for word in [now, what] {
        hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }
    HASH.set(hash);
}

/// The hash of all that ran, and how many steps that was.
pub(crate) fn trace() -> (u64, u64) {
    (HASH.get(), POLLS.get())
}

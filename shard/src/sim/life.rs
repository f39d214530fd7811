//! The life of a simulated process: its tasks, its clocks, and how it is frozen and killed.
//!
//! Whatever a task of a life spawns belongs to the same life. Killed, its tasks are dropped where they stand
//! and none runs again, as a process that was sent SIGKILL; frozen, none is polled until it is thawed.
//! Tasks without a life are the world's: the network, the clients, the faults.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use odgm_transport::timer::BoxFuture;
use openraft_rt::AsyncRuntime;
use openraft_rt_sim::SimRuntime;

use super::world;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Life>>> = const { RefCell::new(None) };
}

/// A process from its start to its end.
#[derive(Debug)]
pub(crate) struct Life {
    /// How fast its clocks run, in millionths of the true rate.
    rate: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ended: bool,
    frozen: bool,
    /// How far its wall clock is off, nanoseconds.
    wall_offset: i64,
    next: u64,
    tasks: BTreeMap<u64, Arc<Mutex<Slot>>>,
    /// Who was to run while it was frozen.
    held: Vec<Waker>,
    panics: Vec<String>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Slot {
    future: Option<BoxFuture<'static, ()>>,
    waker: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Life {
    /// A process whose clocks run at `rate` millionths of the true rate and whose wall clock is off.
    pub(crate) fn new(rate: u64, wall_offset: i64) -> Arc<Self> {
        Arc::new(Life { rate, state: Mutex::new(State { wall_offset, ..State::default() }) })
    }

    /// The life of the task that runs; `None` in the world's.
    pub(crate) fn current() -> Option<Arc<Life>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Runs a call as one of this life.
    pub(crate) fn enter<T>(self: &Arc<Self>, call: impl FnOnce() -> T) -> T {
        within(Some(self.clone()), call)
    }

    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    pub(crate) fn wall_offset(&self) -> i64 {
        lock(&self.state).wall_offset
    }

    /// Sets the wall clock.
    pub(crate) fn set_wall_offset(&self, offset: i64) {
        lock(&self.state).wall_offset = offset;
    }

    pub(crate) fn is_frozen(&self) -> bool {
        lock(&self.state).frozen
    }

    /// The panics of its tasks so far.
    pub(crate) fn take_panics(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).panics)
    }

    /// Nothing runs until [`Life::thaw`].
    pub(crate) fn freeze(&self) {
        lock(&self.state).frozen = true;
    }

    pub(crate) fn thaw(&self) {
        let held = {
            let mut state = lock(&self.state);
            state.frozen = false;
            std::mem::take(&mut state.held)
        };
        held.into_iter().for_each(Waker::wake);
    }

    /// Drops all tasks. Not called from one of them.
    pub(crate) fn kill(self: &Arc<Self>) {
        let tasks = {
            let mut state = lock(&self.state);
            state.ended = true;
            state.held.clear();
            std::mem::take(&mut state.tasks)
        };
        for slot in tasks.into_values() {
            let (future, waker) = {
                let mut slot = lock(&slot);
                (slot.future.take(), slot.waker.take())
            };
            // As of this life: what is dropped may spawn, and that must not outlive it.
            self.enter(|| drop(future));
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

fn within<T>(life: Option<Arc<Life>>, call: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(life);
    let result = call();
    CURRENT.set(before);
    result
}

/// Runs a task as one of `life`.
pub(crate) fn spawn(life: Option<Arc<Life>>, future: BoxFuture<'static, ()>) {
    let number = world::next_task();
    let slot = Arc::new(Mutex::new(Slot { future: Some(future), waker: None }));
    let mut id = 0;
    if let Some(life) = &life {
        let mut state = lock(&life.state);
        if state.ended {
            drop(state);
            return;
        }
        id = state.next;
        state.next += 1;
        state.tasks.insert(id, slot.clone());
    }
    drop(SimRuntime::spawn(Task { number, id, life, slot }));
}

struct Task {
    number: u64,
    id: u64,
    life: Option<Arc<Life>>,
    slot: Arc<Mutex<Slot>>,
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(life) = &self.life {
            let mut state = lock(&life.state);
            if state.frozen && !state.ended {
                state.held.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        let Some(mut future) = lock(&self.slot).future.take() else { return Poll::Ready(()) };
        world::polled(self.number);
        let polled = within(self.life.clone(), || {
            let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
            if !matches!(polled, Ok(Poll::Pending)) {
                drop(std::panic::catch_unwind(AssertUnwindSafe(|| drop(future))));
                return polled;
            }
            let mut slot = lock(&self.slot);
            slot.future = Some(future);
            slot.waker = Some(context.waker().clone());
            polled
        });
        match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => {}
            Err(panic) => {
                let words = panic.downcast_ref::<String>().cloned();
                let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let words = words.unwrap_or_else(|| "a panic without words".to_owned());
                match &self.life {
                    Some(life) => lock(&life.state).panics.push(words),
                    None => std::panic::resume_unwind(panic),
                }
            }
        }
        if let Some(life) = &self.life {
            lock(&life.state).tasks.remove(&self.id);
        }
        Poll::Ready(())
    }
}

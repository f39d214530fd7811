//! The runtime of a simulated process: openraft's simulated runtime, with the clocks and the end of a
//! [`Life`].

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use odgm_transport::timer::{BoxFuture, Timer};
use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_sim::{SimJoinError, SimRuntime, SimSleep, SimTimeout, SimWatch};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot};
use tokio::sync::oneshot;

use super::life::{self, Life};
use super::world;
use crate::runtime::{Runtime, ntp64};

/// 2026-01-01, seconds since the Unix epoch: when every simulation begins.
const BEGINNING: u64 = 1_767_225_600;
const MILLION: u64 = 1_000_000;
/// So that a timeout may be taken off an early instant.
const DAY: Duration = Duration::from_secs(86_400);

/// Runs on virtual time, in one thread.
#[derive(Debug)]
pub struct SimulatedRuntime(SimRuntime);

impl SimulatedRuntime {
    /// A runtime whose world follows from a seed.
    pub fn with_seed(seed: u64) -> Self {
        world::begin(seed);
        SimulatedRuntime(SimRuntime::with_seed(seed))
    }
}

fn rate() -> u64 {
    Life::current().map_or(MILLION, |life| life.rate())
}

fn scaled(duration: Duration, by: u64, of: u64) -> Duration {
    let nanos = duration.as_nanos() * u128::from(by) / u128::from(of);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How long a span of this process' clock truly takes; never shorter than it.
fn truly(span: Duration) -> Duration {
    match rate() {
        MILLION => span,
        rate => scaled(span, MILLION, rate) + Duration::from_nanos(1),
    }
}

/// A moment of the monotone clock of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LifeInstant(Duration);

impl openraft_rt::Instant for LifeInstant {
    fn now() -> Self {
        LifeInstant(scaled(world::now() + DAY, rate(), MILLION))
    }
}

impl fmt::Debug for LifeInstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.saturating_sub(DAY))
    }
}

impl Add<Duration> for LifeInstant {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        LifeInstant(self.0.saturating_add(span))
    }
}

impl AddAssign<Duration> for LifeInstant {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub<Duration> for LifeInstant {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        LifeInstant(self.0.saturating_sub(span))
    }
}

impl SubAssign<Duration> for LifeInstant {
    fn sub_assign(&mut self, span: Duration) {
        *self = *self - span;
    }
}

impl Sub for LifeInstant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Waits for a task.
#[derive(Debug)]
pub struct JoinHandle<T>(oneshot::Receiver<T>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, SimJoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // A task that panicked is told by its life.
        Pin::new(&mut self.0).poll(context).map_err(|_| SimJoinError::Cancelled)
    }
}

impl AsyncRuntime for SimulatedRuntime {
    type JoinError = SimJoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = SimSleep;
    type Instant = LifeInstant;
    type TimeoutError = <SimRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = SimTimeout<T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (done, result) = oneshot::channel();
        let task = async move {
            // Whoever let go of the handle does not want it.
            let _ = done.send(future.await);
        };
        life::spawn(Life::current(), Box::pin(task));
        JoinHandle(result)
    }

    fn sleep(duration: Duration) -> SimSleep {
        SimRuntime::sleep(truly(duration))
    }

    fn sleep_until(deadline: LifeInstant) -> SimSleep {
        Self::sleep(deadline - <LifeInstant as openraft_rt::Instant>::now())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> SimTimeout<F> {
        SimRuntime::timeout(truly(duration), future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: LifeInstant,
        future: F,
    ) -> SimTimeout<F> {
        Self::timeout(deadline - <LifeInstant as openraft_rt::Instant>::now(), future)
    }

    fn is_panic(error: &SimJoinError) -> bool {
        SimRuntime::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    type Mpsc = TokioMpsc;
    type Watch = SimWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn new(_threads: usize) -> Self {
        Self::with_seed(0)
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(call: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        async { Ok(<Self as Runtime>::blocking(call).await) }
    }
}

impl Runtime for SimulatedRuntime {
    fn wall_clock() -> u64 {
        let offset = Life::current().map_or(0, |life| life.wall_offset());
        let since = scaled(world::now(), rate(), MILLION) + Duration::from_secs(BEGINNING);
        let distance = Duration::from_nanos(offset.unsigned_abs());
        ntp64(if offset < 0 { since.saturating_sub(distance) } else { since + distance })
    }

    fn random() -> u64 {
        world::random()
    }

    /// Runs to its end even when nobody waits any more, as a thread does.
    async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        let pause = Duration::from_micros(world::between(1, 200));
        let handle = Self::spawn(async move {
            SimRuntime::sleep(pause).await;
            call()
        });
        match handle.await {
            Ok(value) => value,
            // It panicked, which its life has noted, or its life is over: then this is never polled again.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The timer of the links and sessions of a process, or of the world.
#[derive(Debug, Clone)]
pub(crate) struct LifeTimer(pub(crate) Option<Arc<Life>>);

impl Timer for LifeTimer {
    fn now(&self) -> Duration {
        world::now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(SimRuntime::sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        life::spawn(self.0.clone(), task);
    }
}

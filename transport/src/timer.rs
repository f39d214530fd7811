//! Time and tasks as the transport needs them: the real runtime's, or a simulation's virtual ones.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A boxed future, as object-safe traits hand them out.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A monotone clock, sleeping, and spawning.
pub trait Timer: Send + Sync + Debug {
    /// Time since an arbitrary fixed point; never goes back.
    fn now(&self) -> Duration;
    /// Completes once `duration` has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
    /// Runs a task to its end.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

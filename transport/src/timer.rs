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

/// The real clock, and the tasks of the tokio runtime in which it was made.
#[derive(Debug, Clone)]
pub struct TokioTimer {
    start: tokio::time::Instant,
    runtime: tokio::runtime::Handle,
}

impl TokioTimer {
    /// On the current tokio runtime.
    ///
    /// # Errors
    /// [`crate::Error::Session`] outside of a runtime.
    pub fn current() -> crate::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| crate::Error::Session(error.to_string()))?;
        let _guard = runtime.enter();
        Ok(TokioTimer { start: tokio::time::Instant::now(), runtime: runtime.clone() })
    }
}

impl Timer for TokioTimer {
    fn now(&self) -> Duration {
        let _guard = self.runtime.enter();
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let _guard = self.runtime.enter();
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        // A task owns what it needs and ends by itself, as the trait says.
        drop(self.runtime.spawn(task));
    }
}

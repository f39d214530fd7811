//! The one runtime trait that all async code of this crate takes: tokio in a node, a simulated one
//! under test, so that everything runs from one seed.

use std::future::Future;

use openraft_rt::AsyncRuntime;

/// An async runtime with a wall clock and a place for calls that wait for the disk.
pub trait Runtime: AsyncRuntime + Send + Sync {
    /// Wall-clock time as NTP64: seconds since the Unix epoch in the upper 32 bits, their fraction in
    /// the lower. May jump.
    fn wall_clock() -> u64;

    /// A random number, for names that must differ.
    fn random() -> u64;

    /// Runs a call that may wait for the disk off the threads that carry timers.
    fn blocking<T: Send + 'static>(
        call: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send;
}

/// The runtime of a node.
pub type TokioRuntime = openraft_rt_tokio::TokioRuntime;

impl Runtime for TokioRuntime {
    #[expect(clippy::disallowed_methods, reason = "this is the replacement that clippy.toml names")]
    fn wall_clock() -> u64 {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        ntp64(since_epoch)
    }

    fn random() -> u64 {
        rand::random()
    }

    async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        match tokio::task::spawn_blocking(call).await {
            Ok(value) => value,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends and drops whoever waits.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// A duration since the Unix epoch as NTP64.
pub fn ntp64(since_epoch: std::time::Duration) -> u64 {
    let fraction = (u64::from(since_epoch.subsec_nanos()) << 32) / 1_000_000_000;
    (since_epoch.as_secs() << 32) | fraction
}

/// Milliseconds since the Unix epoch of an NTP64 time.
pub fn unix_ms(ntp64: u64) -> u64 {
    (ntp64 >> 32) * 1000 + (((ntp64 & 0xffff_ffff) * 1000) >> 32)
}

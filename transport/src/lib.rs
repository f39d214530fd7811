//! Bytes over zenoh: six verbs (call, serve, publish, subscribe, announce, stream) and the links
//! between the nodes of a cluster; with a simulated twin.
//!
//! | verb | delivered | blocks |
//! |---|---|---|
//! | call / serve | replies until the query ends, or its deadline | a call may, while the link is full; answers go through bounded queues |
//! | publish / subscribe | at most once | [`Session::publish`] may, call it where that is allowed |
//! | announce | presence as each observer sees it: a hint | never |
//! | stream | pulled by the receiver in ranges, resumable | never |
//!
//! The crate knows key expressions and bytes: no objects, no consensus, no storage.

pub mod error;
pub mod link;
pub mod options;
pub mod session;
#[cfg(feature = "testing")]
pub mod sim;
pub mod stream;
#[cfg(feature = "testing")]
pub mod suite;
pub mod time_window;
pub mod timer;
pub mod zenoh;

pub use ::zenoh::key_expr::{KeyExpr, OwnedKeyExpr, keyexpr};
pub use error::{Error, Result};
pub use session::Session;

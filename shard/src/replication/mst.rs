//! Replication by anti-entropy: every replica takes writes, stamped by a hybrid logical clock; replicas find
//! what they lack by the fingerprints of key ranges, and merge it, the newest write of each key winning.
//!
//! [`MstTable`] is the state, synchronous and without a clock; [`Exchange`] is a state machine of messages over
//! two of them; [`MstShard`] is a replica among others. `eventual` is the same under another [`Policy`]: it
//! exchanges on meeting, and remembers deletions for a time.

mod agreed;
mod answer;
mod edit;
mod exchange;
mod intake;
mod item;
mod lead;
mod message;
mod options;
mod replica;
mod router;
mod shard;
mod stamp;
mod table;
mod traffic;
mod tree;
mod unsupported;

pub use answer::answer;
pub use exchange::Exchange;
pub use item::Entry;
pub use message::push;
pub use options::{MstOptions, Policy};
pub use replica::Digest;
pub use router::{MST_MESSAGE, MstRouter};
pub use shard::{MstParts, MstShard};
pub use stamp::{MAX_AHEAD, Stamp};
pub use table::{Merged, MstTable, Written};
pub use traffic::Traffic;
pub use tree::Fingerprint;
pub use unsupported::unsupported;

//! What another process can see: keys, parameters, requests, replies, refusals; both ways.
//!
//! Servers parse requests and encode replies, clients build requests and decode replies, with the same
//! code. Whatever bytes come in, parsing them never panics.

pub mod attachment;
pub mod cursor;
mod encode;
pub mod keys;
pub mod parameters;
pub mod refusal;
pub mod reply;
pub mod request;
mod txn;

pub use attachment::Attachment;
pub use encode::{Encoded, encode_command};
pub use keys::{CommandTarget, DataQuery, Keys, PartitionChunk, Plane, ShardAddress, partition_clock};
pub use refusal::{Code, Effect, Refusal};
pub use reply::{Answer, End, Voice};
pub use request::{
    Body, CacheRequest, CommandRequest, Consistency, Find, MAX_RID_BYTES, ReadParameters, ReadRequest,
    ReplayRequest,
};

//! Requests: what a client asks of a shard, parsed once and whole.
//!
//! Nothing is silently ignored: what is not known here is refused.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use odgm_storage::data::index::IndexValue;
use odgm_transport::time_window::TimeWindow;

pub use super::encode::{Encoded, encode_command};
use super::keys::{CommandTarget, DataQuery, Keys, Plane, ShardAddress};
use super::parameters::{self, Taking};
use super::refusal::{Code, Refusal};
use super::{cursor, txn};
use crate::object::{ObjectKey, Value};
use crate::state::{Command, Condition, IndexQuery, Operation, Selection, index};

/// The longest request id.
pub const MAX_RID_BYTES: usize = 64;

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It sees everything acknowledged before it began.
    Linearizable,
    /// It sees what the replica has.
    Local,
}

/// How a read is answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadParameters {
    /// `cons`; `None` is the strongest that the collection offers.
    pub consistency: Option<Consistency>,
    /// `limit`: at most this many keys of each partition.
    pub limit: Option<u64>,
    /// `cursor`: only keys behind this one.
    pub after: Option<ObjectKey>,
    /// `index`, with `eq`, `ge` and `lt`: only keys of the objects that it finds, in its order.
    pub find: Option<Find>,
    /// `keys=1`: no payloads.
    pub keys_only: bool,
    /// `count=1`: only the END record.
    pub count_only: bool,
    /// `end=1`: close with an END record.
    pub end: bool,
    /// `missing=empty`: silence instead of `NOT_FOUND`.
    pub missing_empty: bool,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `incarnation`: only of this incarnation.
    pub incarnation: Option<[u8; 16]>,
}

/// What an index is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Find {
    /// The index, and the values.
    pub query: IndexQuery,
    /// `cursor`: only what is behind this value and key; stands for [`ReadParameters::after`].
    pub after: Option<(IndexValue, ObjectKey)>,
}

/// A read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// What it is for.
    pub query: DataQuery,
    /// How it is answered.
    pub parameters: ReadParameters,
}

/// An acknowledged command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRequest {
    /// What it is for, and so the key of its reply.
    pub target: CommandTarget,
    /// What to do.
    pub command: Command,
    /// `timeout`.
    pub timeout: Option<Duration>,
}

/// What comes with a request beside key and parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Body {
    /// The payload.
    pub payload: Option<Bytes>,
    /// Its encoding; empty when none was given.
    pub encoding: String,
    /// The attachment.
    pub attachment: Option<Bytes>,
}

/// Parses a read of the data or near plane. `None`: another partition answers; stay silent.
///
/// # Errors
/// What is wrong, and what is allowed.
pub fn read(
    keys: &Keys,
    plane: Plane,
    shard: &ShardAddress,
    key: &str,
    parameters: &str,
) -> Result<Option<ReadRequest>, Refusal> {
    let Some(query) = keys.data_query(plane, key, shard)? else { return Ok(None) };
    let mut taking = Taking::new(parameters)?;
    let parameters = read_parameters(&mut taking)?;
    taking.finish("a read")?;
    let has_cursor = parameters.after.is_some() || parameters.find.iter().any(|find| find.after.is_some());
    let names_partition = keys.names_partition(plane, key, shard);
    if !names_partition && (has_cursor || parameters.incarnation.is_some()) {
        return Err(Refusal::parameter("cursor and incarnation need a concrete partition"));
    }
    if plane == Plane::Near {
        if !names_partition {
            return Err(Refusal::key("a near read needs a concrete partition"));
        }
        if parameters.consistency == Some(Consistency::Linearizable) {
            return Err(Refusal::new(Code::Unsupported, "a near read is local, never linearizable"));
        }
    }
    if matches!(query, DataQuery::Concrete(_)) && (has_cursor || parameters.find.is_some()) {
        return Err(Refusal::parameter("cursor and index need a key with wildcards"));
    }
    Ok(Some(ReadRequest { query, parameters }))
}

fn read_parameters(taking: &mut Taking) -> Result<ReadParameters, Refusal> {
    let consistency = taking.parsed("cons", "linearizable or local", |text| match text {
        "linearizable" => Some(Consistency::Linearizable),
        "local" => Some(Consistency::Local),
        _ => None,
    })?;
    let query = index_query(taking)?;
    let allowed = "what END gave as next";
    let (after, find) = match query {
        None => (taking.parsed("cursor", allowed, cursor::decode)?, None),
        Some(query) => {
            let after = taking.parsed("cursor", allowed, cursor::decode_hit)?;
            (None, Some(Find { query, after }))
        }
    };
    Ok(ReadParameters {
        after,
        find,
        consistency,
        limit: taking.positive("limit")?,
        keys_only: taking.flag("keys")?,
        count_only: taking.flag("count")?,
        end: taking.flag("end")?,
        missing_empty: taking.parsed("missing", "empty", |text| (text == "empty").then_some(()))?.is_some(),
        timeout: taking.timeout()?,
        incarnation: taking.parsed("incarnation", "32 hex digits", hex_16)?,
    })
}

fn index_query(taking: &mut Taking) -> Result<Option<IndexQuery>, Refusal> {
    let name = taking.text("index");
    let [eq, ge, lt] = ["eq", "ge", "lt"].map(|bound| taking.text(bound).map(|text| index::scalar(&text)));
    let bounds = match (eq, ge, lt) {
        (None, None, None) => None,
        (Some(eq), None, None) => Some((Bound::Included(eq.clone()), Bound::Included(eq))),
        (None, ge, lt) => {
            Some((ge.map_or(Bound::Unbounded, Bound::Included), lt.map_or(Bound::Unbounded, Bound::Excluded)))
        }
        (Some(_), ..) => return Err(Refusal::parameter("give eq, or ge and lt")),
    };
    match (name, bounds) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Refusal::parameter("eq, ge and lt need an index")),
        (Some(_), None) => Err(Refusal::parameter("index needs eq, or ge and lt, or one of these")),
        (Some(name), Some((from, to))) => Ok(Some(IndexQuery { name, from, to })),
    }
}

/// A replay of the retained changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest {
    /// Which keys' changes.
    pub selection: Selection,
    /// `from`: the first revision; `None` is the oldest that is retained.
    pub from: Option<u64>,
    /// `limit`: at most this many changes.
    pub limit: Option<u64>,
    /// `end=1`: close with an END record.
    pub end: bool,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `incarnation`: only of this incarnation.
    pub incarnation: Option<[u8; 16]>,
}

/// Parses a query of the event plane, which replays the history. `None`: another partition answers; stay
/// silent.
///
/// # Errors
/// What is wrong, and what is allowed.
pub fn replay(
    keys: &Keys,
    shard: &ShardAddress,
    key: &str,
    parameters: &str,
) -> Result<Option<ReplayRequest>, Refusal> {
    let Some(query) = keys.data_query(Plane::Event, key, shard)? else { return Ok(None) };
    let mut taking = Taking::new(parameters)?;
    let from = taking.number("from")?;
    let limit = taking.positive("limit")?;
    let end = taking.flag("end")?;
    let timeout = taking.timeout()?;
    let incarnation = taking.parsed("incarnation", "32 hex digits", hex_16)?;
    taking.finish("a replay")?;
    let needs_partition = from.is_some() || incarnation.is_some();
    if needs_partition && !keys.names_partition(Plane::Event, key, shard) {
        return Err(Refusal::parameter("from and incarnation need a concrete partition"));
    }
    let selection = match query {
        DataQuery::Concrete(key) => Selection::key(&key),
        DataQuery::Wildcard(selection) => selection,
    };
    Ok(Some(ReplayRequest { selection, from, limit, end, timeout, incarnation }))
}

/// A query of zenoh-ext's advanced subscriber for what it may have missed.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheRequest {
    /// Which keys' changes.
    pub selection: Selection,
    /// `_max`: the newest of them.
    pub max: Option<u64>,
    /// `_time`: those committed then.
    pub window: Option<TimeWindow>,
}

/// Parses a query for the cache of a publisher, which the history stands for; `now` is NTP64. `None`:
/// nothing here is asked for. What zenoh may add to such queries is ignored.
pub fn cache(
    keys: &Keys,
    shard: &ShardAddress,
    key: &str,
    parameters: &str,
    now: u64,
) -> Option<CacheRequest> {
    let (key, _) = key.split_once("/@adv/")?;
    let selection = match keys.data_query(Plane::Event, key, shard).ok()?? {
        DataQuery::Concrete(key) => Selection::key(&key),
        DataQuery::Wildcard(selection) => selection,
    };
    let mut given = parameters::pairs(parameters).ok()?;
    // Sequence numbers are of publishers that number their samples; these have the commits' times.
    if given.contains_key("_sn") {
        return None;
    }
    let max = given.remove("_max").map(|max| max.parse()).transpose().ok()?;
    let window = match given.remove("_time") {
        Some(text) => Some(TimeWindow::parse(&text, now)?),
        None => None,
    };
    Some(CacheRequest { selection, max, window })
}

/// Parses an acknowledged command. `None`: another partition answers; stay silent.
///
/// # Errors
/// What is wrong, and what is allowed.
pub fn command(
    keys: &Keys,
    shard: &ShardAddress,
    value_limit: u64,
    key: &str,
    parameters: &str,
    body: Body,
) -> Result<Option<CommandRequest>, Refusal> {
    let Some(target) = keys.command_target(Plane::Command, key, shard)? else { return Ok(None) };
    let mut taking = Taking::new(parameters)?;
    let op = taking
        .text("op")
        .ok_or_else(|| Refusal::parameter("op is missing, allowed are put, delete, increment, touch, txn"))?;
    let rid = taking.parsed("rid", "1 to 64 bytes", |rid| {
        (1..=MAX_RID_BYTES).contains(&rid.len()).then(|| Bytes::copy_from_slice(rid.as_bytes()))
    })?;
    let timeout = taking.timeout()?;
    let operation = match (op.as_str(), &target) {
        ("put", CommandTarget::Key(key)) => put(taking, key.clone(), body, value_limit)?,
        ("delete", CommandTarget::Key(key)) => {
            let if_revision = taking.number("if_revision")?;
            taking.finish("op=delete")?;
            no_payload("delete", &body)?;
            Operation::Delete { key: key.clone(), if_revision }
        }
        ("increment", CommandTarget::Key(key)) => {
            let allowed = "an integer from -9223372036854775808 to 9223372036854775807";
            let by = taking.parsed("by", allowed, |by| by.parse().ok())?.unwrap_or(1);
            taking.finish("op=increment")?;
            no_payload("increment", &body)?;
            Operation::Increment { key: key.clone(), by }
        }
        ("touch", CommandTarget::Key(key)) => {
            let allowed = format!("none, or {}", parameters::DURATION);
            let ttl = |text: &str| match text {
                "none" => Some(None),
                text => parameters::duration(text).map(|ttl| Some(millis(ttl))),
            };
            let ttl = taking.parsed("ttl", &allowed, ttl)?;
            taking.finish("op=touch")?;
            no_payload("touch", &body)?;
            let missing = || Refusal::parameter(format!("ttl is missing, allowed is {allowed}"));
            Operation::Touch { key: key.clone(), ttl_ms: ttl.ok_or_else(missing)? }
        }
        ("txn", CommandTarget::Partition) => {
            taking.finish("op=txn")?;
            txn::parse(body.payload.as_deref().unwrap_or_default(), shard, value_limit)?
        }
        ("txn", CommandTarget::Key(_)) => {
            return Err(Refusal::key("a transaction is asked on @cmd/{collection}/{partition}"));
        }
        ("put" | "delete" | "increment" | "touch", CommandTarget::Partition) => {
            return Err(Refusal::key(format!(
                "op={op} needs an object: @cmd/{{collection}}/{{partition}}/{{object}}"
            )));
        }
        _ => {
            let given = parameters::shown(&op);
            let message =
                format!("op={given} is not allowed, allowed are put, delete, increment, touch, txn");
            return Err(Refusal::parameter(message));
        }
    };
    Ok(Some(CommandRequest { target, command: Command { rid, operation }, timeout }))
}

fn put(mut taking: Taking, key: ObjectKey, body: Body, value_limit: u64) -> Result<Operation, Refusal> {
    let ttl = taking.duration("ttl")?;
    let revision = taking.number("if_revision")?;
    let absent = taking.flag("if_absent")?;
    let present = taking.flag("if_present")?;
    taking.finish("op=put")?;
    let condition = match (revision, absent, present) {
        (None, false, false) => Condition::None,
        (Some(revision), false, false) => Condition::Revision(revision),
        (None, true, false) => Condition::Absent,
        (None, false, true) => Condition::Present,
        _ => return Err(Refusal::parameter("give one of if_revision, if_absent, if_present")),
    };
    let value = value(body, value_limit)?;
    Ok(Operation::Put { key, value, ttl_ms: ttl.map(millis), condition })
}

/// Parsed durations are whole milliseconds, at most a quarter of what fits.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Parses a plain put (with a payload) or delete (without). `None`: another partition takes it.
///
/// # Errors
/// Why it is dropped.
pub fn plain(
    keys: &Keys,
    shard: &ShardAddress,
    value_limit: u64,
    key: &str,
    body: Body,
) -> Result<Option<Command>, Refusal> {
    let key = match keys.command_target(Plane::Data, key, shard)? {
        Some(CommandTarget::Key(key)) => key,
        Some(CommandTarget::Partition) | None => return Ok(None),
    };
    let operation = if body.payload.is_some() {
        Operation::Put { key, value: value(body, value_limit)?, ttl_ms: None, condition: Condition::None }
    } else {
        Operation::Delete { key, if_revision: None }
    };
    Ok(Some(Command { rid: None, operation }))
}

fn value(body: Body, limit: u64) -> Result<Value, Refusal> {
    let payload = body.payload.unwrap_or_default();
    within("the value", payload.len(), limit)?;
    within("the attachment", body.attachment.as_ref().map_or(0, Bytes::len), limit)?;
    within("the encoding", body.encoding.len(), limit)?;
    Ok(Value { payload, encoding: body.encoding, attachment: body.attachment })
}

pub(crate) fn within(what: &str, bytes: usize, limit: u64) -> Result<(), Refusal> {
    if bytes as u64 <= limit {
        return Ok(());
    }
    let message = format!("{what} has {bytes} bytes, allowed are {limit}");
    Err(Refusal::new(Code::TooLarge, message).with("limit", limit))
}

fn no_payload(op: &str, body: &Body) -> Result<(), Refusal> {
    if body.payload.as_ref().is_some_and(|payload| !payload.is_empty()) {
        return Err(Refusal::parameter(format!("op={op} takes no payload")));
    }
    Ok(())
}

fn hex_16(text: &str) -> Option<[u8; 16]> {
    let fits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = fits.then(|| u128::from_str_radix(text, 16).ok())??;
    Some(number.to_be_bytes())
}

//! Key expressions of ROOT: every key that this crate builds or reads, in one place.
//!
//! | plane | key |
//! |---|---|
//! | data | `ROOT/{collection}/{partition}/{object}[/{entry}]` |
//! | commands | `ROOT/@cmd/{collection}/{partition}[/{object}[/{entry}]]` |
//! | near | `ROOT/@near/{collection}/{partition}/{object}[/{entry}]` |
//! | events | `ROOT/@ev/{collection}/{partition}/{object}[/{entry}]` |
//! | history, for advanced subscribers | `ROOT/@ev/{collection}/{partition}/**/@adv/pub/{clock}/uhlc/_` |
//!
//! A key that was asked is read against the shard that it reached: its chunks are matched with the
//! shard's own head, and what is left says which objects and entries it is for.

use std::fmt::Write as _;

use odgm_transport::KeyExpr;

use super::parameters::shown;
use super::refusal::{Code, Refusal};
use crate::object::{CollectionName, EntryName, ObjectId, ObjectKey, Partition, id::owner_of};
use crate::state::Selection;

/// Most keys are shorter.
const KEY_BYTES: usize = 128;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plane {
    /// Reads, and writes that nobody acknowledges.
    Data,
    /// Acknowledged commands.
    Command,
    /// Reads from the nearest replica.
    Near,
    /// Committed changes.
    Event,
}

impl Plane {
    /// The chunk that leads to it; the data plane has none.
    pub fn chunk(self) -> Option<&'static str> {
        match self {
            Plane::Data => None,
            Plane::Command => Some("@cmd"),
            Plane::Near => Some("@near"),
            Plane::Event => Some("@ev"),
        }
    }

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Plane::Data => "data",
            Plane::Command => "cmd",
            Plane::Near => "near",
            Plane::Event => "ev",
        }
    }
}

/// A shard as keys name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardAddress {
    /// Its collection.
    pub collection: CollectionName,
    /// Its partition.
    pub partition: Partition,
    /// How many partitions the collection has.
    pub partitions: u32,
}

/// What a read is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataQuery {
    /// One key, which this shard owns.
    Concrete(ObjectKey),
    /// Whatever matches.
    Wildcard(Selection),
}

/// What a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandTarget {
    /// One key, which this shard owns.
    Key(ObjectKey),
    /// The partition: a transaction.
    Partition,
}

/// A partition in a key that is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionChunk {
    /// This one.
    Concrete(Partition),
    /// `*`: the owner of the object answers.
    Any,
}

impl From<Partition> for PartitionChunk {
    fn from(partition: Partition) -> Self {
        PartitionChunk::Concrete(partition)
    }
}

impl std::fmt::Display for PartitionChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PartitionChunk::Concrete(partition) => partition.fmt(f),
            PartitionChunk::Any => f.write_str("*"),
        }
    }
}

/// Builds and reads the keys under one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    root: String,
}

impl Keys {
    /// The keys under a root of one or more concrete chunks.
    ///
    /// # Errors
    /// `INVALID_KEY` when the root is no such key.
    pub fn new(root: &str) -> Result<Self, Refusal> {
        let wild = root.contains(['*', '$']);
        match KeyExpr::try_from(root) {
            Ok(_) if !wild => Ok(Keys { root: root.to_owned() }),
            _ => {
                Err(Refusal::key(format!("root {} must be chunks joined by /, without * $ ? #", shown(root))))
            }
        }
    }

    /// The root.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The key of an object or entry.
    pub fn object(
        &self,
        plane: Plane,
        collection: &CollectionName,
        partition: impl Into<PartitionChunk>,
        key: &ObjectKey,
    ) -> KeyExpr<'static> {
        let mut text = self.head(plane, collection, partition.into());
        text.push('/');
        text.push_str(key.object.as_str());
        if let Some(entry) = &key.entry {
            text.push('/');
            text.push_str(entry.as_str());
        }
        checked(text)
    }

    /// The keys of a partition that match a path of object and entry chunks, such as `alice/**`.
    ///
    /// # Errors
    /// `INVALID_KEY` when the path is not made of chunks.
    pub fn matching(
        &self,
        plane: Plane,
        collection: &CollectionName,
        partition: impl Into<PartitionChunk>,
        path: &str,
    ) -> Result<KeyExpr<'static>, Refusal> {
        let text = format!("{}/{path}", self.head(plane, collection, partition.into()));
        KeyExpr::autocanonize(text).map_err(|_| Refusal::key(format!("{} is no key expression", shown(path))))
    }

    /// The key of a partition: transactions are asked on it.
    pub fn partition(
        &self,
        plane: Plane,
        collection: &CollectionName,
        partition: Partition,
    ) -> KeyExpr<'static> {
        checked(self.head(plane, collection, partition.into()))
    }

    /// All keys of a shard on a plane: what its server declares. It matches the partition's own key too.
    pub fn shard(&self, plane: Plane, collection: &CollectionName, partition: Partition) -> KeyExpr<'static> {
        checked(format!("{}/**", self.head(plane, collection, partition.into())))
    }

    /// Where zenoh-ext's advanced subscribers ask for the history of a shard, whose commits this clock
    /// stamps.
    pub fn cache(
        &self,
        collection: &CollectionName,
        partition: Partition,
        clock: [u8; 16],
    ) -> KeyExpr<'static> {
        let head = self.head(Plane::Event, collection, partition.into());
        checked(format!("{head}/**/@adv/pub/{:x}/uhlc/_", u128::from_le_bytes(clock)))
    }

    /// The key under which any node describes a collection.
    pub fn meta(&self, collection: &CollectionName) -> KeyExpr<'static> {
        checked(format!("{}/@meta/{collection}", self.root))
    }

    /// The key of an administered thing: `["shards", "users", "3"]`.
    ///
    /// # Errors
    /// `INVALID_KEY` when a chunk is none.
    pub fn admin(&self, path: &[&str]) -> Result<KeyExpr<'static>, Refusal> {
        let text = format!("{}/@admin/{}", self.root, path.join("/"));
        KeyExpr::try_from(text).map_err(|_| Refusal::key(format!("{} is no key", shown(&path.join("/")))))
    }

    /// The token of a node.
    ///
    /// # Errors
    /// `INVALID_KEY` when the name is no chunk.
    pub fn live_node(&self, name: &str) -> Result<KeyExpr<'static>, Refusal> {
        let text = format!("{}/@live/node/{name}", self.root);
        KeyExpr::try_from(text).map_err(|_| Refusal::key(format!("node name {} is no chunk", shown(name))))
    }

    /// The token that says that somebody serves a partition.
    pub fn live_shard(&self, collection: &CollectionName, partition: Partition) -> KeyExpr<'static> {
        checked(format!("{}/@live/shard/{collection}/{partition}", self.root))
    }

    /// What all keys of a partition begin with; events are made by the hundred thousand a second, so the
    /// string has room for most keys.
    fn head(&self, plane: Plane, collection: &CollectionName, partition: PartitionChunk) -> String {
        let mut text = String::with_capacity(KEY_BYTES);
        text.push_str(&self.root);
        for chunk in plane.chunk().into_iter().chain([collection.as_str()]) {
            text.push('/');
            text.push_str(chunk);
        }
        write!(text, "/{partition}").expect("a string takes all");
        text
    }

    /// Reads a key of ours back: the collection, partition and key of a reply or event.
    pub fn parse(&self, plane: Plane, key: &str) -> Option<(CollectionName, Partition, ObjectKey)> {
        let mut rest = key.strip_prefix(self.root.as_str())?.strip_prefix('/')?;
        if let Some(chunk) = plane.chunk() {
            rest = rest.strip_prefix(chunk)?.strip_prefix('/')?;
        }
        let mut chunks = rest.split('/');
        let collection = CollectionName::parse(chunks.next()?).ok()?;
        let partition = parse_partition(chunks.next()?)?;
        let object = ObjectId::parse(chunks.next()?).ok()?;
        let entry = chunks.next().map(EntryName::parse).transpose().ok()?;
        chunks.next().is_none().then_some((collection, partition, ObjectKey { object, entry }))
    }

    /// What a read of the data, near or event plane is for, at the shard that it reached. `None`: its
    /// concrete key belongs to another partition, which answers; stay silent.
    ///
    /// # Errors
    /// `INVALID_KEY`; `WRONG_PARTITION` when it names this partition but another owns the object.
    pub fn data_query(
        &self,
        plane: Plane,
        key: &str,
        shard: &ShardAddress,
    ) -> Result<Option<DataQuery>, Refusal> {
        let paths = self.paths(plane, key, shard);
        if let [path] = paths.as_slice()
            && !path.iter().any(|chunk| is_wild(chunk))
        {
            let names_partition = self.names_partition(plane, key, shard);
            let owned = owned_key(path, shard, names_partition)?;
            return Ok(owned.map(DataQuery::Concrete));
        }
        Ok(Some(DataQuery::Wildcard(Selection::new(paths))))
    }

    /// Whether a key names the shard's partition by its number.
    pub fn names_partition(&self, plane: Plane, key: &str, shard: &ShardAddress) -> bool {
        let root_chunks = self.root.split('/').count() + usize::from(plane.chunk().is_some());
        let mut chunks = key.split('/');
        !chunks.by_ref().take(root_chunks + 1).any(|chunk| chunk == "**")
            && chunks.next() == Some(shard.partition.to_string().as_str())
    }

    /// What a command, put or delete is for, at the shard that it reached. `None`: another partition
    /// owns its object and answers; stay silent.
    ///
    /// # Errors
    /// `INVALID_KEY` for wildcards other than `*` for the partition; `WRONG_PARTITION`.
    pub fn command_target(
        &self,
        plane: Plane,
        key: &str,
        shard: &ShardAddress,
    ) -> Result<Option<CommandTarget>, Refusal> {
        let head = match plane.chunk() {
            None => format!("{}/{}", self.root, shard.collection),
            Some(chunk) => format!("{}/{chunk}/{}", self.root, shard.collection),
        };
        let rest = key.strip_prefix(&head).and_then(|rest| rest.strip_prefix('/'));
        let Some(rest) = rest else {
            return Err(Refusal::key("a write names its collection, wildcards are not allowed in it"));
        };
        let (partition, path) = match rest.split_once('/') {
            Some((partition, path)) => (partition, path.split('/').collect()),
            None => (rest, Vec::new()),
        };
        let names_partition = partition == shard.partition.to_string();
        if !names_partition && partition != "*" {
            return Err(Refusal::key(format!("partition {} must be a number or *", shown(partition))));
        }
        if path.iter().any(|chunk| is_wild(chunk)) {
            return Err(Refusal::key("wildcards in the object or entry of a write are not allowed"));
        }
        match path.as_slice() {
            [] if plane == Plane::Command && names_partition => Ok(Some(CommandTarget::Partition)),
            [] if plane == Plane::Command => Err(Refusal::key("a transaction needs a concrete partition")),
            path => Ok(owned_key(path, shard, names_partition)?.map(CommandTarget::Key)),
        }
    }

    /// The object and entry chunks that are left when the head of the shard's keys is matched with the
    /// key's: more than one list when a `**` can end in several places.
    fn paths<'k>(&self, plane: Plane, key: &'k str, shard: &ShardAddress) -> Vec<Vec<&'k str>> {
        let chunks: Vec<&str> = key.split('/').collect();
        let partition = shard.partition.to_string();
        let mut head: Vec<&str> = self.root.split('/').collect();
        head.extend(plane.chunk());
        head.extend([shard.collection.as_str(), partition.as_str()]);
        // The places in the key at which the rest of the head may go on.
        let mut places = vec![0];
        for name in head {
            places = advance(&chunks, &places, name);
        }
        // `**` may stand for nothing too, but what follows it is then matched from it just as well.
        places.iter().filter_map(|place| chunks.get(*place..)).map(<[&str]>::to_vec).collect()
    }
}

/// The places behind one concrete chunk, from these places.
fn advance(chunks: &[&str], places: &[usize], name: &str) -> Vec<usize> {
    let mut next = Vec::new();
    for &start in places {
        let mut place = start;
        // A `**` may stand for nothing, for this chunk, or for more.
        while chunks.get(place) == Some(&"**") {
            if !name.starts_with('@') && !next.contains(&place) {
                next.push(place);
            }
            place += 1;
        }
        let matches = chunks.get(place).is_some_and(|chunk| chunk_matches(chunk, name));
        if matches && !next.contains(&(place + 1)) {
            next.push(place + 1);
        }
    }
    next
}

/// zenoh's own rules, verbatim chunks included.
fn chunk_matches(pattern: &str, name: &str) -> bool {
    if pattern == name {
        return true;
    }
    if !is_wild(pattern) {
        return false;
    }
    let (Ok(pattern), Ok(name)) = (KeyExpr::try_from(pattern), KeyExpr::try_from(name)) else { return false };
    pattern.intersects(&name)
}

fn is_wild(chunk: &str) -> bool {
    chunk.contains('*')
}

/// A concrete path as a key of this shard; `None` when another partition owns it and will answer.
fn owned_key(
    path: &[&str],
    shard: &ShardAddress,
    names_partition: bool,
) -> Result<Option<ObjectKey>, Refusal> {
    let owner = path.first().map(|object| owner_of(object, shard.partitions));
    // Of what is no key, too: one refusal says it, not one of each partition.
    if !names_partition && owner.is_some_and(|owner| owner != shard.partition) {
        return Ok(None);
    }
    let key = parse_path(path)?;
    match owner {
        Some(owner) if owner != shard.partition => Err(wrong_partition(&key.object, owner)),
        _ => Ok(Some(key)),
    }
}

fn parse_path(path: &[&str]) -> Result<ObjectKey, Refusal> {
    let (object, entry) = match path {
        [object] => (object, None),
        [object, entry] => (object, Some(EntryName::parse(entry)?)),
        _ => return Err(Refusal::key("a key is {collection}/{partition}/{object} or …/{object}/{entry}")),
    };
    Ok(ObjectKey { object: ObjectId::parse(object)?, entry })
}

pub(crate) fn wrong_partition(object: &ObjectId, owner: Partition) -> Refusal {
    let message = format!("object {} belongs to partition {owner}", shown(object.as_str()));
    Refusal::new(Code::WrongPartition, message).with("partition", owner.0)
}

fn parse_partition(chunk: &str) -> Option<Partition> {
    let partition = Partition(chunk.parse().ok()?);
    (partition.to_string() == chunk).then_some(partition)
}

fn checked(text: String) -> KeyExpr<'static> {
    KeyExpr::try_from(text).expect("the root, names and numbers were parsed as chunks")
}

/// The id of a partition's clock, which stamps its commits: the same on every replica, never zero.
pub fn partition_clock(incarnation: [u8; 16], partition: Partition) -> [u8; 16] {
    let named = [&incarnation[..], &partition.0.to_le_bytes()].concat();
    xxhash_rust::xxh3::xxh3_128(&named).max(1).to_le_bytes()
}

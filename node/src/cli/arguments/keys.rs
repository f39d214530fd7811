//! What the commands name: keys, patterns and shards.

use odgm_shard::object::{CollectionName, EntryName, ObjectId, ObjectKey};

/// A key of the command line: `collection/object[/entry]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyArgument {
    /// The collection.
    pub collection: CollectionName,
    /// The key in it.
    pub key: ObjectKey,
}

impl std::str::FromStr for KeyArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut chunks = text.split('/');
        let (Some(collection), Some(object)) = (chunks.next(), chunks.next()) else {
            return Err("a key is collection/object or collection/object/entry".into());
        };
        let entry = chunks.next();
        if chunks.next().is_some() {
            return Err("a key has at most three parts: collection/object/entry".into());
        }
        let refused = |error: odgm_shard::object::id::NameError| error.to_string();
        Ok(KeyArgument {
            collection: CollectionName::parse(collection).map_err(refused)?,
            key: ObjectKey {
                object: ObjectId::parse(object).map_err(refused)?,
                entry: entry.map(EntryName::parse).transpose().map_err(refused)?,
            },
        })
    }
}

impl std::fmt::Display for KeyArgument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.collection, self.key.object)?;
        self.key.entry.as_ref().map_or(Ok(()), |entry| write!(f, "/{entry}"))
    }
}

/// What of a collection is listed or watched: `collection[/object[/entry]]`, wildcards allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternArgument {
    /// The collection.
    pub collection: CollectionName,
    /// The object and entry chunks as zenoh takes them; `None` is the whole collection.
    pub pattern: Option<String>,
}

impl std::str::FromStr for PatternArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pattern) = match text.split_once('/') {
            Some((name, pattern)) => (name, Some(pattern)),
            None => (text, None),
        };
        let collection = CollectionName::parse(name).map_err(|error| error.to_string())?;
        if let Some(pattern) = pattern
            && pattern.split('/').any(|chunk| chunk.is_empty() || chunk.starts_with('@'))
        {
            return Err("a pattern has no empty parts and none that begin with @".into());
        }
        Ok(PatternArgument { collection, pattern: pattern.map(str::to_owned) })
    }
}

impl PatternArgument {
    /// No wildcards.
    pub fn key(&self) -> Option<KeyArgument> {
        format!("{}/{}", self.collection, self.pattern.as_ref()?).parse().ok()
    }
}

/// `collection/partition`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardArgument {
    /// The collection.
    pub collection: String,
    /// The partition.
    pub partition: u32,
}

impl std::str::FromStr for ShardArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "a shard is collection/partition, such as users/3".to_owned();
        let (collection, partition) = text.split_once('/').ok_or_else(refused)?;
        if collection != "@system" {
            CollectionName::parse(collection).map_err(|error| error.to_string())?;
        }
        let partition = partition.parse().map_err(|_| refused())?;
        Ok(ShardArgument { collection: collection.to_owned(), partition })
    }
}

/// The name of a collection.
pub(super) fn collection(text: &str) -> Result<CollectionName, String> {
    CollectionName::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::PatternArgument;

    #[test]
    fn a_pattern_without_wildcards_is_a_key() {
        let pattern: PatternArgument = "users/alice/name".parse().unwrap();
        assert_eq!(pattern.key().unwrap().to_string(), "users/alice/name");
        assert_eq!("users/*".parse::<PatternArgument>().unwrap().key(), None);
        assert_eq!("users".parse::<PatternArgument>().unwrap().key(), None);
    }
}

//! Which keys of a partition a read is for: key-expression wildcards over the object and entry chunks.
//!
//! A key's path is its object chunk, then its entry chunk if it has one. A selection is a set of
//! patterns over such paths with zenoh's rules: `*` is one chunk, `**` any number, `$*` any part of a
//! chunk. That keys have no wildcards makes intersection with them a plain match.

use crate::object::{EntryName, ObjectId, ObjectKey};

/// One chunk of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Chunk {
    /// `**`
    Any,
    /// `*`
    One,
    /// Parts between which anything may stand; a literal chunk is a single part.
    Parts(Vec<String>),
}

impl Chunk {
    fn parse(chunk: &str) -> Self {
        match chunk {
            "**" => Chunk::Any,
            "*" => Chunk::One,
            parts => Chunk::Parts(parts.split("$*").map(str::to_owned).collect()),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Chunk::Any | Chunk::One => true,
            Chunk::Parts(parts) => match parts.as_slice() {
                [] => name.is_empty(),
                [literal] => literal == name,
                [head, middle @ .., tail] => parts_match(head, middle, tail, name),
            },
        }
    }

    fn literal(&self) -> Option<&str> {
        match self {
            Chunk::Parts(parts) if parts.len() == 1 => Some(&parts[0]),
            _ => None,
        }
    }

    /// What every name that matches begins with.
    fn head(&self) -> &str {
        match self {
            Chunk::Parts(parts) => parts.first().map_or("", String::as_str),
            _ => "",
        }
    }
}

/// Leftmost matches of the middle parts leave the most room for the rest.
fn parts_match(head: &str, middle: &[String], tail: &str, name: &str) -> bool {
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    for part in middle {
        match rest.find(part.as_str()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(tail)
}

fn path_matches(pattern: &[Chunk], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((Chunk::Any, rest)), None) => path_matches(rest, path),
        (Some(_), None) => false,
        (Some((Chunk::Any, rest)), Some((_, names))) => {
            path_matches(rest, path) || path_matches(pattern, names)
        }
        (Some((chunk, rest)), Some((name, names))) => chunk.matches(name) && path_matches(rest, names),
    }
}

/// A set of patterns over the object and entry chunks; a key is in it when one matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    patterns: Vec<Vec<Chunk>>,
}

impl Selection {
    /// The keys whose path matches one of the patterns, each a list of chunks: `["alice", "**"]`.
    pub fn new<'a>(patterns: impl IntoIterator<Item = Vec<&'a str>>) -> Self {
        let parse = |pattern: Vec<&str>| pattern.into_iter().map(Chunk::parse).collect::<Vec<_>>();
        Selection { patterns: patterns.into_iter().map(parse).filter(|pattern| may_match(pattern)).collect() }
    }

    /// Every key.
    pub fn all() -> Self {
        Selection::new([vec!["**"]])
    }

    /// The one key.
    pub fn key(key: &ObjectKey) -> Self {
        let mut path = vec![key.object.as_str()];
        path.extend(key.entry.as_ref().map(EntryName::as_str));
        Selection::new([path])
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        match &key.entry {
            None => self.contains_own(&key.object),
            Some(entry) => {
                let path = [key.object.as_str(), entry.as_str()];
                self.patterns.iter().any(|pattern| path_matches(pattern, &path))
            }
        }
    }

    /// Whether an object's own value is in it.
    pub(crate) fn contains_own(&self, object: &ObjectId) -> bool {
        self.patterns.iter().any(|pattern| path_matches(pattern, &[object.as_str()]))
    }

    /// What the name of every entry of this object that is in it begins with; `None` when none is.
    pub(crate) fn entry_head(&self, object: &ObjectId) -> Option<&str> {
        let heads = self.patterns.iter().flat_map(|pattern| entry_heads(pattern, object.as_str()));
        heads.reduce(common_head)
    }

    /// What the id of every object in it begins with; `None` when it is empty.
    pub(crate) fn object_head(&self) -> Option<&str> {
        self.patterns.iter().map(|pattern| pattern.first().map_or("", Chunk::head)).reduce(common_head)
    }

    /// The one object that it is about, if its patterns name it.
    pub(crate) fn object(&self) -> Option<&str> {
        let mut ids = self.patterns.iter().map(|pattern| pattern.first().and_then(Chunk::literal));
        let first = ids.next()??;
        ids.all(|id| id == Some(first)).then_some(first)
    }
}

/// Paths have one or two chunks: a pattern that asks for none or for more matches nothing.
fn may_match(pattern: &[Chunk]) -> bool {
    let least = pattern.iter().filter(|chunk| **chunk != Chunk::Any).count();
    !pattern.is_empty() && least <= 2
}

/// The heads of the entry names that one pattern may match under an object.
fn entry_heads<'a>(pattern: &'a [Chunk], object: &str) -> Vec<&'a str> {
    let mut heads = Vec::new();
    for split in 0..=pattern.len() {
        let (objects, entries) = pattern.split_at(split);
        if path_matches(objects, &[object]) {
            // Behind a leading `**` the next chunk may match instead, and it ends the path or not.
            match entries {
                [Chunk::Any, ..] => heads.push(""),
                [chunk, rest @ ..] if rest.iter().all(|chunk| *chunk == Chunk::Any) => {
                    heads.push(chunk.head());
                }
                _ => {}
            }
            // `**` at the end of the object part may go on over the entry.
            if objects.last() == Some(&Chunk::Any) && entries.is_empty() {
                heads.push("");
            }
        }
    }
    heads
}

fn common_head<'a>(a: &'a str, b: &'a str) -> &'a str {
    let ends = a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y);
    let length = ends.map_or_else(|| a.len().min(b.len()), |((at, _), _)| at);
    &a[..length]
}

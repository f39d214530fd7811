//! `odgm get|put|delete|increment|touch|list|watch|txn`.

use std::path::PathBuf;

use clap::Args;
use odgm_shard::object::CollectionName;

use super::keys::{KeyArgument, PatternArgument, collection};

/// How fresh a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Consistency {
    /// Sees every write that was acknowledged before it.
    Linearizable,
    /// What the serving replica has applied.
    Local,
}

/// `odgm get`.
#[derive(Debug, Args)]
pub struct Get {
    /// collection/object[/entry]
    #[arg(required = true)]
    pub keys: Vec<KeyArgument>,
    /// How fresh; by default the strongest that the collection offers.
    #[arg(long, value_enum)]
    pub cons: Option<Consistency>,
    /// The bytes alone, without a line end.
    #[arg(long)]
    pub raw: bool,
}

/// `odgm put`.
#[derive(Debug, Args)]
pub struct Put {
    /// collection/object[/entry]
    pub key: KeyArgument,
    /// The value; - reads stdin.
    #[arg(required_unless_present = "file", conflicts_with = "file", allow_negative_numbers = true)]
    pub value: Option<String>,
    /// The file that holds the value.
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// The value's zenoh encoding, such as application/json.
    #[arg(long, default_value = "")]
    pub encoding: String,
    /// When the value ends, such as 30s.
    #[arg(long)]
    pub ttl: Option<String>,
    /// Only when the object has this revision.
    #[arg(long, group = "condition")]
    pub if_revision: Option<u64>,
    /// Only when the key has no value.
    #[arg(long, group = "condition")]
    pub if_absent: bool,
    /// Only when the key has a value.
    #[arg(long, group = "condition")]
    pub if_present: bool,
    /// The request id; a repeat with the same one gets the first answer.
    #[arg(long)]
    pub rid: Option<String>,
}

/// `odgm delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// collection/object[/entry], or a pattern of objects with --yes
    #[arg(required = true)]
    pub keys: Vec<PatternArgument>,
    /// Delete everything that a pattern matches.
    #[arg(long)]
    pub yes: bool,
    /// Only when the object has this revision.
    #[arg(long)]
    pub if_revision: Option<u64>,
    /// The request id; a repeat with the same one gets the first answer.
    #[arg(long)]
    pub rid: Option<String>,
}

/// `odgm increment`.
#[derive(Debug, Args)]
pub struct Increment {
    /// collection/object[/entry]
    pub key: KeyArgument,
    /// What to add.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    pub by: i64,
    /// The request id; a repeat with the same one gets the first answer.
    #[arg(long)]
    pub rid: Option<String>,
}

/// `odgm touch`.
#[derive(Debug, Args)]
pub struct Touch {
    /// collection/object[/entry]
    pub key: KeyArgument,
    /// The new time to live, or none.
    #[arg(long)]
    pub ttl: String,
    /// The request id; a repeat with the same one gets the first answer.
    #[arg(long)]
    pub rid: Option<String>,
}

/// `odgm list`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("bounds").multiple(true)))]
pub struct List {
    /// collection[/object[/entry]], wildcards allowed
    pub pattern: PatternArgument,
    /// Stop after so many.
    #[arg(long)]
    pub limit: Option<usize>,
    /// Print the values too.
    #[arg(long)]
    pub values: bool,
    /// Print only how many there are.
    #[arg(long, conflicts_with_all = ["values", "limit"])]
    pub count: bool,
    /// Only the objects that this index finds, in its order in each partition.
    #[arg(long, requires = "bounds")]
    pub index: Option<String>,
    /// With this value: a JSON scalar, or text as it is.
    #[arg(long, groups = ["bounds"], requires = "index", conflicts_with_all = ["ge", "lt"], allow_hyphen_values = true)]
    pub eq: Option<String>,
    /// With this value or a higher one.
    #[arg(long, groups = ["bounds"], requires = "index", allow_hyphen_values = true)]
    pub ge: Option<String>,
    /// With a lower value.
    #[arg(long, groups = ["bounds"], requires = "index", allow_hyphen_values = true)]
    pub lt: Option<String>,
    /// How fresh; by default the strongest that the collection offers.
    #[arg(long, value_enum)]
    pub cons: Option<Consistency>,
}

/// `odgm watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// collection[/object[/entry]], wildcards allowed
    pub pattern: PatternArgument,
    /// Replay from this revision first.
    #[arg(long, value_name = "REV")]
    pub from: Option<u64>,
    /// End after so many changes.
    #[arg(long)]
    pub count: Option<u64>,
}

/// `odgm txn`.
#[derive(Debug, Args)]
pub struct Txn {
    /// The collection.
    #[arg(value_parser = collection)]
    pub collection: CollectionName,
    /// JSON: {"if": […], "then": […], "else": […]}; - reads stdin.
    #[arg(long)]
    pub file: PathBuf,
    /// The request id; a repeat with the same one gets the first answer.
    #[arg(long)]
    pub rid: Option<String>,
}

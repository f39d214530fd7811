//! Refusals: the JSON of an error reply, and what each error of ours says in it.
//!
//! `{"code":"CONFLICT","message":"…","applied":"no","retry":false,"id":"…", …facts}`

use odgm_transport::session::{ErrorReply, Reply};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::object::id::NameError;
use crate::{Error, state};

/// The encoding of refusals, END records and transaction results.
pub const JSON: &str = "application/json";

/// Whether a refused command took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It did not, as far as the replica that answers knows.
    No,
    /// Not known.
    Unknown,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $effect:ident $retry:literal)*) => {
        /// Why a request was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// All codes.
            pub const ALL: &[Code] = &[$(Code::$variant,)*];

            /// Its name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The code of this name.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Code::$variant),)* _ => None }
            }

            /// Whether the command took effect.
            pub fn applied(self) -> Effect {
                match self { $(Code::$variant => Effect::$effect,)* }
            }

            /// Whether the same request, with the same request id, may succeed later.
            pub fn retry(self) -> bool {
                match self { $(Code::$variant => $retry,)* }
            }
        }
    };
}

codes! {
    /// The key is wrong for this plane.
    InvalidKey "INVALID_KEY" No false
    /// A parameter or the payload is wrong.
    InvalidParameter "INVALID_PARAMETER" No false
    /// A value is over the limit.
    TooLarge "TOO_LARGE" No false
    /// This kind of collection, or this version, cannot do it.
    Unsupported "UNSUPPORTED" No false
    /// Another partition owns the object.
    WrongPartition "WRONG_PARTITION" No false
    /// Not allowed.
    Forbidden "FORBIDDEN" No false
    /// The key has no value.
    NotFound "NOT_FOUND" No false
    /// The key has a value.
    Exists "EXISTS" No false
    /// The object has another revision.
    Conflict "CONFLICT" No false
    /// The history does not reach back that far.
    Compacted "COMPACTED" No false
    /// Unknown collection or partition.
    NoCollection "NO_COLLECTION" No false
    /// Another replica serves.
    NotLeader "NOT_LEADER" No true
    /// A queue or budget is full.
    Busy "BUSY" No true
    /// The disk is nearly full.
    ReadOnly "READ_ONLY" No true
    /// Over a quota.
    Quota "QUOTA" No true
    /// Nobody serves, or the server stops.
    Unavailable "UNAVAILABLE" Unknown true
    /// No outcome in time.
    Timeout "TIMEOUT" Unknown true
    /// A fault of ours, logged with `id`.
    Internal "INTERNAL" Unknown false
}

/// An error reply before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// In words.
    pub message: String,
    /// To find it by; a fault of ours is logged under it.
    pub id: Option<String>,
    /// What else the caller can use: `revision`, `partition`, `limit`, `entries`, `oldest`.
    pub facts: Map<String, Value>,
}

/// As it stands on the wire.
#[derive(Serialize, Deserialize)]
struct Wire {
    code: String,
    #[serde(default)]
    message: String,
    applied: Effect,
    retry: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(flatten)]
    facts: Map<String, Value>,
}

impl Refusal {
    /// A refusal without facts.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into(), id: None, facts: Map::new() }
    }

    /// With one more fact.
    #[must_use]
    pub fn with(mut self, fact: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(fact.to_owned(), value.into());
        self
    }

    /// With the id under which it is logged.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// As an error reply.
    pub fn encode(&self) -> ErrorReply {
        let wire = Wire {
            code: self.code.name().to_owned(),
            message: self.message.clone(),
            applied: self.code.applied(),
            retry: self.code.retry(),
            id: self.id.clone(),
            facts: self.facts.clone(),
        };
        let payload = serde_json::to_vec(&wire).expect("strings and JSON values are JSON");
        ErrorReply { payload: payload.into(), encoding: JSON.to_owned() }
    }

    /// As the reply to a request with these parameters. Its `id` is that of the log, when it was logged;
    /// else it is the same for each repeat of a `rid`, as the whole answer is; else the fresh one.
    pub fn reply_to(mut self, parameters: &str, fresh: impl FnOnce() -> Uuid) -> Reply {
        self.id.get_or_insert_with(|| {
            let rid = parameters.split(';').find_map(|pair| pair.strip_prefix("rid="));
            let id = rid.map_or_else(fresh, |rid| Uuid::new_v5(&Uuid::NAMESPACE_OID, rid.as_bytes()));
            id.simple().to_string()
        });
        Err(self.encode())
    }

    /// Reads an error reply of ours; `None` when it is another's, or an END record.
    pub fn decode(reply: &ErrorReply) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(&reply.payload).ok()?;
        let code = Code::parse(&wire.code)?;
        Some(Refusal { code, message: wire.message, id: wire.id, facts: wire.facts })
    }

    pub(crate) fn parameter(message: impl Into<String>) -> Self {
        Refusal::new(Code::InvalidParameter, message)
    }

    pub(crate) fn key(message: impl Into<String>) -> Self {
        Refusal::new(Code::InvalidKey, message)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Refusal::key(error.to_string())
    }
}

/// What an error says to a client. An `INTERNAL` one still needs its id, from whoever logs it; a
/// client learns nothing of paths or peers.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::NotLeader { .. } => Refusal::new(Code::NotLeader, "another replica serves this partition"),
            Error::Busy(_) => Refusal::new(Code::Busy, error.to_string()),
            Error::Unavailable(_) => Refusal::new(Code::Unavailable, error.to_string()),
            Error::Timeout(_) => Refusal::new(Code::Timeout, error.to_string()),
            Error::Invalid(message) => Refusal::parameter(message),
            Error::Unsupported(_) => Refusal::new(Code::Unsupported, error.to_string()),
            Error::Storage(_) | Error::Transport(_) | Error::Internal(_) => {
                Refusal::new(Code::Internal, "internal error")
            }
        }
    }
}

/// What the state machine's refusals say to a client.
impl From<state::Refusal> for Refusal {
    fn from(refused: state::Refusal) -> Self {
        match refused {
            state::Refusal::NotFound { entries } => not_found(entries),
            state::Refusal::Exists { revision } => {
                Refusal::new(Code::Exists, "the key has a value already").with("revision", revision)
            }
            state::Refusal::Conflict { revision } => {
                let message = match revision {
                    0 => "the object does not exist".to_owned(),
                    revision => format!("the object is at revision {revision}"),
                };
                Refusal::new(Code::Conflict, message).with("revision", revision)
            }
            state::Refusal::BadIncrement { reason } => Refusal::parameter(reason),
            state::Refusal::RidReused => Refusal::parameter("this rid was used for another command"),
        }
    }
}

/// The refusal of a read, or of `if_present`, of a key without value.
pub fn not_found(entries: u64) -> Refusal {
    Refusal::new(Code::NotFound, "the key has no value").with("entries", entries)
}

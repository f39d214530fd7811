//! Admission: parses a request and says what it needs. What is wrong, or cannot be done now, is
//! answered here; what another partition owns is left to it, in silence.

use std::sync::Arc;
use std::time::Duration;

use odgm_transport::session::{Query, Sample};
use openraft_rt::Instant as _;

use super::answer::{Answerer, Task};
use super::budget::Reservation;
use super::intake::{Arrived, Job};
use super::list::List;
use super::read::{Point, Read, What};
use super::refusal;
use super::write::Write;
use crate::protocol::request::{self, Body};
use crate::protocol::{
    Code, CommandRequest, Consistency, DataQuery, Plane, ReadParameters, ReadRequest, Refusal,
};
use crate::replication::Role;
use crate::runtime::Runtime;
use crate::state::{Command, Selection};

/// What an admitted request needs.
#[expect(clippy::large_enum_variant, reason = "moved once, from admission to the list of its kind")]
pub(super) enum Todo<R: Runtime> {
    /// It is answered, or not ours to answer.
    Nothing,
    /// A read, to be put together with others.
    Read(Read<R>),
    /// Anything else.
    Task(Task),
}

/// A request as it was parsed.
enum Asked {
    Read { what: What, linearizable: bool, timeout: Option<Duration> },
    Command(CommandRequest),
}

impl<R: Runtime> Answerer<R> {
    /// Looks at a request.
    pub(super) fn admit(self: &Arc<Self>, job: Job) -> Todo<R> {
        let Job { arrived, held } = job;
        let (plane, query) = match arrived {
            Arrived::Sample(sample) => return self.admit_sample(sample, held),
            Arrived::Cache(query) => return self.admit_cache(query, held),
            Arrived::Query(plane, query) => (plane, query),
        };
        let asked = match plane {
            Plane::Data | Plane::Near => self.read(plane, &query),
            Plane::Command => self.command(&query),
            Plane::Event => self.replay(&query),
        };
        match asked {
            Err(refused) => {
                self.refuse(plane, query, refused);
                Todo::Nothing
            }
            Ok(None) => Todo::Nothing,
            Ok(Some(Asked::Read { what, linearizable, timeout })) => {
                let (arrived, deadline) = self.times(timeout);
                let streamed_until = arrived + timeout.unwrap_or(self.limits.list_timeout);
                let read = Read { plane, query, what, linearizable, arrived, deadline, streamed_until, held };
                Todo::Read(read)
            }
            Ok(Some(Asked::Command(CommandRequest { target, command, timeout }))) => {
                let (arrived, deadline) = self.times(timeout);
                let write = Write { target, command, query, arrived, deadline, held };
                Todo::Task(Box::pin(self.clone().run_command(write)))
            }
        }
    }

    fn read(&self, plane: Plane, query: &Query) -> Result<Option<Asked>, Refusal> {
        let (keys, shard) = (self.voice.keys(), self.voice.shard());
        let request = request::read(keys, plane, shard, query.key.as_str(), &query.parameters)?;
        let Some(ReadRequest { query: asked, parameters }) = request else { return Ok(None) };
        if plane == Plane::Near {
            self.has_state()?;
        } else {
            self.serves()?;
        }
        self.is_incarnation(parameters.incarnation)?;
        let local = plane == Plane::Near || parameters.consistency == Some(Consistency::Local);
        let timeout = parameters.timeout;
        Ok(Some(Asked::Read { what: what(asked, parameters), linearizable: !local, timeout }))
    }

    fn command(&self, query: &Query) -> Result<Option<Asked>, Refusal> {
        let (keys, shard, limit) = (self.voice.keys(), self.voice.shard(), self.limits.value_bytes);
        let body = Body {
            payload: query.payload.clone(),
            encoding: query.encoding.clone(),
            attachment: query.attachment.clone(),
        };
        let request = request::command(keys, shard, limit, query.key.as_str(), &query.parameters, body)?;
        let Some(request) = request else { return Ok(None) };
        self.serves()?;
        self.has_room_for(&request.command)?;
        Ok(Some(Asked::Command(request)))
    }

    fn replay(&self, query: &Query) -> Result<Option<Asked>, Refusal> {
        let (keys, shard) = (self.voice.keys(), self.voice.shard());
        let Some(replay) = request::replay(keys, shard, query.key.as_str(), &query.parameters)? else {
            return Ok(None);
        };
        self.serves()?;
        self.is_incarnation(replay.incarnation)?;
        let timeout = replay.timeout;
        Ok(Some(Asked::Read { what: What::Replay(replay), linearizable: true, timeout }))
    }

    /// What can't be answered ends without one: the subscriber goes on with what comes.
    fn admit_cache(&self, query: Query, held: Reservation) -> Todo<R> {
        let (keys, shard, now) = (self.voice.keys(), self.voice.shard(), R::wall_clock());
        let request = request::cache(keys, shard, query.key.as_str(), &query.parameters, now);
        let Some(request) = request.filter(|_| self.serves().is_ok()) else { return Todo::Nothing };
        let (arrived, deadline) = self.times(None);
        let streamed_until = arrived + self.limits.list_timeout;
        let (plane, what) = (Plane::Event, What::Cache(request));
        Todo::Read(Read { plane, query, what, linearizable: true, arrived, deadline, streamed_until, held })
    }

    fn is_incarnation(&self, wanted: Option<[u8; 16]>) -> Result<(), Refusal> {
        if wanted.is_none_or(|wanted| wanted == self.voice.incarnation()) {
            return Ok(());
        }
        let history = self.state.view().history().map_err(refusal::of)?;
        Err(self.compacted("the collection has another incarnation", history.oldest))
    }

    fn admit_sample(self: &Arc<Self>, sample: Sample, held: Reservation) -> Todo<R> {
        let (keys, shard, limit) = (self.voice.keys(), self.voice.shard(), self.limits.value_bytes);
        let Sample { key, payload, encoding, attachment, .. } = sample;
        let body = Body { payload, encoding, attachment };
        let parsed = request::plain(keys, shard, limit, key.as_str(), body);
        let admitted = parsed.and_then(|command| {
            self.serves()?;
            command.as_ref().map_or(Ok(()), |command| self.has_room_for(command))?;
            Ok(command)
        });
        match admitted {
            Ok(Some(command)) => {
                let (_, deadline) = self.times(None);
                Todo::Task(Box::pin(self.clone().run_sample(command, deadline, held)))
            }
            Ok(None) => Todo::Nothing,
            Err(refused) => {
                self.metrics.sample_refused(refused.code.name());
                Todo::Nothing
            }
        }
    }

    /// Whether this replica serves, as far as it knows; the barrier and the log know better.
    fn serves(&self) -> Result<(), Refusal> {
        let status = self.status.borrow();
        match status.role {
            Role::Serving => Ok(()),
            Role::Following => Err(refusal::not_leader(status.serving)),
            Role::Leaderless => Err(Refusal::new(Code::Unavailable, "nobody serves this partition now")),
            Role::Stopped => Err(Refusal::new(Code::Unavailable, "this replica stopped")),
        }
    }

    /// Whether the disk has room for what a command may add; deletes free some in the end.
    fn has_room_for(&self, command: &Command) -> Result<(), Refusal> {
        if self.budget.is_disk_full() && command.operation.may_add() {
            let message = "the disk of the serving node is nearly full: only deletes are taken";
            return Err(Refusal::new(Code::ReadOnly, message));
        }
        Ok(())
    }

    /// Whether this replica has anything to show: one that is being filled would call everything
    /// absent.
    fn has_state(&self) -> Result<(), Refusal> {
        let status = self.status.borrow();
        match status.role {
            Role::Stopped => Err(Refusal::new(Code::Unavailable, "this replica stopped")),
            _ if status.applied.is_none() => {
                Err(Refusal::new(Code::Unavailable, "this replica has no state yet"))
            }
            _ => Ok(()),
        }
    }

    /// Now, and when the request must be answered.
    fn times(&self, asked: Option<Duration>) -> (R::Instant, R::Instant) {
        let now = R::Instant::now();
        (now, now + asked.unwrap_or(self.limits.timeout))
    }
}

fn what(asked: DataQuery, parameters: ReadParameters) -> What {
    let ReadParameters { missing_empty, keys_only, count_only, end, limit, after, find, .. } = parameters;
    let (selection, concrete) = match asked {
        DataQuery::Concrete(key) if !end && !count_only => {
            return What::Point(Point { key, missing_empty, keys_only });
        }
        DataQuery::Concrete(key) => (Selection::key(&key), Some(key)),
        DataQuery::Wildcard(selection) => (selection, None),
    };
    let concrete = concrete.filter(|_| !missing_empty && !count_only);
    let end = end || count_only;
    What::List(List { selection, concrete, after, find, limit, keys_only, count_only, end })
}

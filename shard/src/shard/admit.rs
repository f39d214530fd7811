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
use crate::protocol::{Code, Consistency, DataQuery, Plane, ReadRequest, Refusal};
use crate::replication::Role;
use crate::runtime::Runtime;
use crate::state::Selection;

/// What an admitted request needs.
pub(super) enum Todo<R: Runtime> {
    /// It is answered, or not ours to answer.
    Nothing,
    /// A read, to be put together with others.
    Read(Read<R>),
    /// Anything else.
    Task(Task),
}

/// The answer to a request; `None` is silence.
type Admitted<R> = Result<Option<Todo<R>>, (Query, Refusal)>;

impl<R: Runtime> Answerer<R> {
    /// Looks at a request.
    pub(super) fn admit(self: &Arc<Self>, job: Job) -> Todo<R> {
        let Job { arrived, held } = job;
        let (plane, admitted) = match arrived {
            Arrived::Sample(sample) => return self.admit_sample(sample, held),
            Arrived::Query(Plane::Command, query) => (Plane::Command, self.admit_command(query, held)),
            Arrived::Query(Plane::Event, query) => (Plane::Event, self.admit_replay(query)),
            Arrived::Query(plane, query) => (plane, self.admit_read(plane, query, held)),
        };
        match admitted {
            Ok(todo) => todo.unwrap_or(Todo::Nothing),
            Err((query, refused)) => {
                self.refuse(plane, query, refused);
                Todo::Nothing
            }
        }
    }

    fn admit_read(&self, plane: Plane, query: Query, held: Reservation) -> Admitted<R> {
        let (keys, shard) = (self.voice.keys(), self.voice.shard());
        let parsed = request::read(keys, plane, shard, query.key.as_str(), &query.parameters);
        let ReadRequest { query: asked, parameters } = match parsed {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(None),
            Err(refused) => return Err((query, refused)),
        };
        let ready = if plane == Plane::Near { self.has_state() } else { self.serves() };
        let ready = ready.and_then(|()| match parameters.incarnation {
            Some(wanted) if wanted != self.voice.incarnation() => {
                Err(Refusal::new(Code::Compacted, "the collection has another incarnation"))
            }
            _ => Ok(()),
        });
        if let Err(refused) = ready {
            return Err((query, refused));
        }
        let local = plane == Plane::Near || parameters.consistency == Some(Consistency::Local);
        let what = match asked {
            DataQuery::Concrete(key) if !parameters.end && !parameters.count_only => What::Point(Point {
                key,
                missing_empty: parameters.missing_empty,
                keys_only: parameters.keys_only,
            }),
            asked => {
                let (selection, concrete) = match asked {
                    DataQuery::Concrete(key) => (Selection::key(&key), Some(key)),
                    DataQuery::Wildcard(selection) => (selection, None),
                };
                What::List(List {
                    selection,
                    concrete: concrete.filter(|_| !parameters.missing_empty && !parameters.count_only),
                    after: parameters.after,
                    limit: parameters.limit,
                    keys_only: parameters.keys_only,
                    count_only: parameters.count_only,
                    end: parameters.end || parameters.count_only,
                })
            }
        };
        let default = match what {
            What::Point(_) => self.limits.timeout,
            What::List(_) => self.limits.list_timeout,
        };
        let (arrived, deadline) = self.times(parameters.timeout, default);
        Ok(Some(Todo::Read(Read { plane, query, what, linearizable: !local, arrived, deadline, held })))
    }

    fn admit_command(self: &Arc<Self>, query: Query, held: Reservation) -> Admitted<R> {
        let (keys, shard, limit) = (self.voice.keys(), self.voice.shard(), self.limits.value_bytes);
        let body = Body {
            payload: query.payload.clone(),
            encoding: query.encoding.clone(),
            attachment: query.attachment.clone(),
        };
        let parsed = request::command(keys, shard, limit, query.key.as_str(), &query.parameters, body);
        let parsed = parsed.and_then(|request| match request {
            Some(request) => self.serves().map(|()| Some(request)),
            None => Ok(None),
        });
        let request = match parsed {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(None),
            Err(refused) => return Err((query, refused)),
        };
        let (arrived, deadline) = self.times(request.timeout, self.limits.timeout);
        let (target, command) = (request.target, request.command);
        let write = Write { target, command, query, arrived, deadline, held };
        Ok(Some(Todo::Task(Box::pin(self.clone().run_command(write)))))
    }

    fn admit_replay(&self, query: Query) -> Admitted<R> {
        let (keys, shard) = (self.voice.keys(), self.voice.shard());
        match request::replay(keys, shard, query.key.as_str(), &query.parameters) {
            Ok(()) => Ok(None),
            Err(refused) => Err((query, refused)),
        }
    }

    fn admit_sample(self: &Arc<Self>, sample: Sample, held: Reservation) -> Todo<R> {
        let (keys, shard, limit) = (self.voice.keys(), self.voice.shard(), self.limits.value_bytes);
        let Sample { key, payload, encoding, attachment, .. } = sample;
        let body = Body { payload, encoding, attachment };
        let parsed = request::plain(keys, shard, limit, key.as_str(), body);
        match parsed.and_then(|command| self.serves().map(|()| command)) {
            Ok(Some(command)) => {
                let (_, deadline) = self.times(None, self.limits.timeout);
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

    fn times(&self, asked: Option<Duration>, default: Duration) -> (R::Instant, R::Instant) {
        let now = R::Instant::now();
        (now, now + asked.unwrap_or(default))
    }
}

//! Writes: acknowledged commands, and plain puts and deletes that nobody is told about.

use std::sync::Arc;

use odgm_transport::session::Query;
use openraft_rt::Instant as _;

use super::answer::Answerer;
use super::budget::Reservation;
use super::refusal;
use super::worker::Finished;
use crate::Error;
use crate::protocol::{CommandTarget, Plane, Refusal};
use crate::runtime::Runtime;
use crate::state::{Command, Outcome};

/// A command that was admitted.
#[derive(Debug)]
pub(super) struct Write<R: Runtime> {
    pub(super) target: CommandTarget,
    pub(super) command: Command,
    pub(super) query: Query,
    pub(super) arrived: R::Instant,
    pub(super) deadline: R::Instant,
    pub(super) held: Reservation,
}

impl<R: Runtime> Answerer<R> {
    /// Runs a command and answers it.
    pub(super) async fn run_command(self: Arc<Self>, write: Write<R>) -> Finished {
        let Write { target, command, query, arrived, deadline, held } = write;
        let outcome = match R::timeout_at(deadline, self.state.write(command)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Timeout(deadline - arrived)),
        };
        match outcome.map_err(refusal::of).and_then(|outcome| self.voice.outcome(&target, outcome)) {
            Ok(sample) => {
                self.metrics.commands_ok.increment(1);
                self.metrics.command_seconds.record(arrived.elapsed());
                query.respond(Ok(sample));
            }
            Err(refused) => self.refuse(Plane::Command, query, refused),
        }
        drop(held);
        Finished::default()
    }

    /// Proposes a plain put or delete. Nobody waits for it: refusals are counted.
    pub(super) async fn run_sample(
        self: Arc<Self>,
        command: Command,
        deadline: R::Instant,
        held: Reservation,
    ) -> Finished {
        let refused = match R::timeout_at(deadline, self.state.write(command)).await {
            Ok(Ok(Outcome::Refused(refused))) => Some(Refusal::from(refused).code.name()),
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(refusal::of(error).code.name()),
            Err(_) => Some("TIMEOUT"),
        };
        match refused {
            None => self.metrics.samples.increment(1),
            Some(code) => self.metrics.sample_refused(code),
        }
        drop(held);
        Finished::default()
    }
}

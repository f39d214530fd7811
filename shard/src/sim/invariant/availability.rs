//! No key stays unanswered for three seconds while a replica that can be reached serves it.

use std::time::Duration;

use super::Invariant;
use crate::sim::watch::{Facts, Seen, Spot};

/// How long a client may be without any answer.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Availability;

impl Invariant for Availability {
    fn name(&self) -> &'static str {
        "availability"
    }

    fn source(&self) -> &'static str {
        "issue 5; INTERFACE §3"
    }

    fn see(&mut self, _: &Facts, _: Spot, seen: &Seen) -> Result<(), String> {
        match seen {
            Seen::Unanswered { object, waited, reachable: true } if *waited >= PATIENCE => {
                Err(format!("{object} was not answered for {waited:?} while a replica served it"))
            }
            _ => Ok(()),
        }
    }
}

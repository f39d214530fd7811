//! The exchanger of a replica: leads the exchanges with the replicas of higher ids, each interval, and at once with one
//! that comes into sight; and does what time brings to the table. Replicas that do not compare each interval compare
//! once it is quiet after something was sent: a message may be lost without a link that is seen to end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use openraft_rt::Instant as _;
use tokio_util::sync::CancellationToken;

use super::exchange::Exchange;
use super::message;
use super::options::Policy;
use super::replica::{Core, is_fatal, lock};
use super::traffic::Traffic;
use crate::Result;
use crate::cluster::ReplicaRecord;
use crate::object::ReplicaId;
use crate::runtime::{Runtime, ntp64};

/// How long one request of an exchange may take.
const ANSWER: Duration = Duration::from_secs(2);

/// After how many intervals what was sent is compared though more is being sent.
const UNQUIET: u32 = 10;

/// When what was sent to the others is compared, since nobody answers it.
#[derive(Debug, Default)]
struct Sent {
    /// Intervals since the first that was not compared.
    intervals: u32,
}

impl Sent {
    /// Once an interval: whether it is time to compare. `more`: something was sent since the last call.
    fn is_due(&mut self, more: bool) -> bool {
        if more || self.intervals > 0 {
            self.intervals += 1;
        }
        let due = self.intervals > 0 && (!more || self.intervals > UNQUIET);
        if due {
            self.intervals = 0;
        }
        due
    }
}

/// What the exchanger knows of another replica.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    in_sight: bool,
    /// It has tombstones to agree on.
    buries: bool,
}

/// Leads exchanges with the replicas of higher ids, until `stop`.
pub(super) async fn lead<R: Runtime>(core: Arc<Core>, lost: Arc<AtomicBool>, stop: CancellationToken) {
    let mut peers = core.router.links().watch();
    let mut known: BTreeMap<ReplicaId, Known> = BTreeMap::new();
    let mut sent = Sent::default();
    let mut next = R::Instant::now();
    while !core.has_failed() {
        peers.borrow_and_update();
        core.look();
        let is_due = R::Instant::now() >= next;
        if is_due {
            next = R::Instant::now() + core.options.interval;
            let unsure =
                sent.is_due(core.spread.swap(false, Ordering::SeqCst)) && core.policy() != Policy::Always;
            // What did not find room was not told to whoever sent it: it may be of any of them.
            if lost.swap(false, Ordering::SeqCst) || unsure {
                lock(&core.owed).extend(core.others().iter().map(|other| other.replica));
            }
            if let Err(error) = keep::<R>(&core).await {
                core.fail(&error);
                break;
            }
        }
        let (mut partners, mut nudged) = (Vec::new(), Vec::new());
        if core.is_placed() {
            for other in core.others() {
                let in_sight = core.router.sees(other.node);
                let before =
                    known.insert(other.replica, Known { in_sight, ..known_of(&known, other.replica) });
                let met = in_sight && !before.is_some_and(|before| before.in_sight);
                // What this one owes, the other finds out by the exchange that it leads.
                let owes = is_due && lock(&core.owed).remove(&other.replica);
                let regularly = is_due && core.policy() == Policy::Always;
                if in_sight && other.replica > core.me && (met || owes || regularly) {
                    partners.push(other);
                } else if in_sight && other.replica < core.me && (met || owes) {
                    nudged.push(other);
                }
            }
        }
        let exchanges = partners.into_iter().map(|other| {
            let buries = known_of(&known, other.replica).buries;
            let core = core.clone();
            async move { (other.replica, exchange_with::<R>(&core, other, buries).await) }
        });
        // Answered, since nobody else would notice that one was lost.
        let nudges = nudged.into_iter().map(|other| {
            let core = core.clone();
            let buries = known_of(&known, other.replica).buries;
            async move {
                let request =
                    core.router.request(other.node, core.route(other.replica), &message::nudge(), ANSWER);
                (other.replica, request.await.map(|_| buries))
            }
        });
        let talks = join(join_all(exchanges), join_all(nudges));
        let Some((ended, heard)) = stop.run_until_cancelled(talks).await else { break };
        for (other, outcome) in ended.into_iter().chain(heard) {
            match outcome {
                Ok(buries) => known.entry(other).or_default().buries = buries,
                Err(error) if is_fatal(&error) => core.fail(&error),
                Err(error) => {
                    tracing::debug!(group = %core.group, replica = %other, %error, "an exchange broke off");
                    lock(&core.owed).insert(other);
                }
            }
        }
        let pause = async {
            tokio::select! {
                biased;
                () = R::sleep_until(next) => {}
                _ = peers.changed() => {}
                () = core.wake.notified() => {}
            }
        };
        if stop.run_until_cancelled(pause).await.is_none() {
            break;
        }
    }
}

fn known_of(known: &BTreeMap<ReplicaId, Known>, replica: ReplicaId) -> Known {
    known.get(&replica).copied().unwrap_or_default()
}

/// What time brings: held entries, and tombstones that nobody needs.
async fn keep<R: Runtime>(core: &Arc<Core>) -> Result<()> {
    let core = core.clone();
    R::blocking(move || {
        let now = R::wall_clock();
        let mut table = lock(&core.table);
        if core.replaced.swap(false, Ordering::SeqCst) {
            table.reconsider();
        }
        let merged = table.release(now, core.options.writes.durability)?;
        (core.sink)(merged.changes);
        match core.policy() {
            Policy::Always if core.is_placed() => {
                let others = core.others().into_iter().map(|record| record.replica).collect();
                table.collect(&others, now)?;
            }
            Policy::Always => {}
            Policy::OnMeeting { retain } => {
                table.collect_until(now.saturating_sub(ntp64(retain)))?;
            }
        }
        core.note(&table);
        Ok(())
    })
    .await
}

/// One exchange; says whether the other has tombstones to agree on.
async fn exchange_with<R: Runtime>(core: &Arc<Core>, other: ReplicaRecord, buries: bool) -> Result<bool> {
    let (mut exchange, mut counted) = (Exchange::new(other.replica), Traffic::default());
    let agrees = core.policy() == Policy::Always;
    loop {
        let (table, mut stepping) = (core.clone(), exchange);
        let (stepped, request) = R::blocking(move || {
            let mut table = lock(&table.table);
            let agree = agrees && (buries || table.tombstones() > 0);
            let request = stepping.next(&mut table, agree, R::wall_clock());
            (stepping, request)
        })
        .await;
        exchange = stepped;
        core.count(exchange.traffic().since(counted));
        counted = exchange.traffic();
        let Some(request) = request? else { return Ok(exchange.other_buries()) };
        let response = core.router.request(other.node, core.route(other.replica), &request, ANSWER).await?;
        let (table, mut stepping) = (core.clone(), exchange);
        let (stepped, answered) = R::blocking(move || {
            let mut locked = lock(&table.table);
            let answered = stepping.answered(&mut locked, &response, R::wall_clock());
            let answered = answered.map(|changes| (table.sink)(changes));
            table.note(&locked);
            (stepping, answered)
        })
        .await;
        exchange = stepped;
        answered?;
    }
}

/// Hands the own writes of a replica that leaves to one that stays.
pub(super) async fn hand_over_to<R: Runtime>(core: &Arc<Core>, other: ReplicaRecord) -> Result<()> {
    let mut from = Bytes::new();
    loop {
        let reading = core.clone();
        let at = from.clone();
        let (message, rest) = R::blocking(move || message::inheritance(&lock(&reading.table), at)).await?;
        core.router.request(other.node, core.route(other.replica), &message, ANSWER).await?;
        match rest {
            Some(rest) => from = rest,
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_compared_once_when_it_is_quiet() {
        let mut sent = Sent::default();
        let due: Vec<bool> =
            [false, true, true, false, false, true, false].map(|more| sent.is_due(more)).into();
        assert_eq!(due, [false, false, false, true, false, false, true]);
    }

    #[test]
    fn what_never_ends_is_compared_now_and_then() {
        let mut sent = Sent::default();
        let due = (0..100).filter(|_| sent.is_due(true)).count();
        assert_eq!(due, 100 / (UNQUIET as usize + 1));
    }
}

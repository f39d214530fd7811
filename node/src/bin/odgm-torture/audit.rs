//! The checks: each object's history when its act is over, and everything there is at the end.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use odgm_shard::client::{ClientError, Consistency, GridClient, Selected};
use odgm_shard::sim::history::{Action, Answer, Operation};
use odgm_shard::sim::linearize::{Verdict, check};

use crate::door::Door;
use crate::record::{Acknowledged, Closed, Last};
use crate::stage::key;
use crate::watcher::{Sight, Told};
use crate::worker::Surroundings;

/// Between two looks for an act that is over.
const PAUSE: Duration = Duration::from_millis(500);
/// The client number of the reads that close a history.
const CLOSER: u64 = 1_000_000;
/// Objects a page.
const PAGE: usize = 500;

/// Closes the acts that are over, until the workers are gone and all acts are closed.
pub(crate) async fn close_acts(around: Arc<Surroundings>, mut door: Door) {
    let mut next = 0;
    loop {
        let gone = around.gone.load(Ordering::SeqCst);
        // Without workers the present act is over too.
        let over = if gone { around.stage.present() + 1 } else { around.stage.over() };
        while next < over {
            for object in around.stage.objects(next) {
                close(&around, &mut door, object).await;
            }
            next += 1;
        }
        if gone {
            return door.close().await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads an object that nobody changes any more, and checks its history.
async fn close(around: &Surroundings, door: &mut Door, object: String) {
    let (called, found) = loop {
        let called = Instant::now();
        if let Some(client) = door.client().await {
            match read(client, around, &object).await {
                Ok(found) => break (called, found),
                Err(_) => door.reopen().await,
            }
        }
    };
    let operation = reading(around, &object, called, &found);
    around.record.add(around.stage.partition(&object), operation);
    let history = around.record.take(&object);
    let count = history.len() as u64;
    let unsure = history
        .iter()
        .any(|operation| operation.answer == Answer::Unknown && operation.action != Action::Read);
    let history = Arc::new(history);
    let checked = history.clone();
    let verdict = tokio::task::spawn_blocking(move || check(&checked)).await.unwrap_or(Verdict::Undecided);
    judge(around, &object, &history, &verdict);
    let open = unsure.then(|| Arc::unwrap_or_clone(history));
    around.record.close(object, count, Closed { last: found, open });
}

fn judge(around: &Surroundings, object: &str, history: &[Operation], verdict: &Verdict) {
    let Verdict::Linearizable = verdict else {
        let kept = around.record.keep(object, history);
        let kept = kept.map_or_else(|error| error.to_string(), |path| path.display().to_string());
        around.record.violated(format!("{object}: {verdict:?}; its history: {kept}"));
        return;
    };
}

async fn read(client: &GridClient, around: &Surroundings, object: &str) -> Result<Last, ClientError> {
    let found = client.find(&around.stage.collection, &key(object), Consistency::Linearizable).await?;
    Ok(found.map(|found| (String::from_utf8_lossy(&found.value).into_owned(), found.revision)))
}

fn reading(around: &Surroundings, object: &str, called: Instant, found: &Last) -> Operation {
    let answer = match found.clone() {
        Some((value, revision)) => Answer::Value { value, revision },
        None => Answer::Absent,
    };
    let stage = &around.stage;
    let (called, answered) = (stage.nanos(called), stage.nanos(Instant::now()));
    Operation { client: CLOSER, object: object.to_owned(), action: Action::Read, called, answered, answer }
}

/// All objects, and each partition's revision.
type Everything = (BTreeMap<String, (String, u64)>, Vec<u64>);

async fn everything(client: &GridClient, around: &Surroundings) -> Result<Everything, ClientError> {
    let mut lister = client.list(Selected {
        collection: around.stage.collection.clone(),
        pattern: "*".to_owned(),
        partition: None,
        values: true,
        consistency: Consistency::Linearizable,
        page: PAGE,
        find: None,
    });
    let (mut objects, mut revisions) = (BTreeMap::new(), vec![0; around.stage.partitions as usize]);
    while let Some(page) = lister.next_page().await? {
        revisions[page.partition.0 as usize] = page.revision;
        for listed in page.objects {
            let value = String::from_utf8_lossy(&listed.found.value).into_owned();
            objects.insert(listed.key.object.as_str().to_owned(), (value, listed.found.revision));
        }
    }
    Ok((objects, revisions))
}

/// Lists all objects and holds them against what was acknowledged. Gives the revisions of the partitions.
///
/// # Errors
/// When nobody answers within `patience`.
pub(crate) async fn read_all(
    around: &Surroundings,
    door: &mut Door,
    patience: Duration,
) -> anyhow::Result<(Vec<u64>, usize)> {
    let start = Instant::now();
    let (called, (mut objects, revisions)) = loop {
        let called = Instant::now();
        if let Some(client) = door.client().await {
            match everything(client, around).await {
                Ok(everything) => break (called, everything),
                Err(error) if start.elapsed() > patience => return Err(error).context("listing all objects"),
                Err(_) => door.reopen().await,
            }
        } else if start.elapsed() > patience {
            bail!("no node lets anybody in");
        }
    };
    let count = objects.len();
    for (object, Closed { last, open }) in around.record.closed() {
        let found = objects.remove(&object);
        match open {
            _ if found == last => {}
            Some(mut history) => {
                history.push(reading(around, &object, called, &found));
                judge(around, &object, &history, &check(&history));
            }
            None => around
                .record
                .violated(format!("{object}: {last:?} was read last, and now there is {found:?}")),
        }
    }
    for object in objects.keys() {
        around.record.violated(format!("{object} is there, and nobody wrote it"));
    }
    Ok((revisions, count))
}

/// Waits until the watchers have seen these revisions; whether they have.
pub(crate) async fn await_sights(
    sights: &[(u32, Arc<Sight>)],
    revisions: &[u64],
    patience: Duration,
) -> bool {
    let start = Instant::now();
    let complete = || sights.iter().all(|(partition, sight)| sight.count() >= revisions[*partition as usize]);
    while !complete() && start.elapsed() < patience {
        tokio::time::sleep(PAUSE).await;
    }
    complete()
}

/// Holds what a watcher saw against what was acknowledged; what is wrong, one line each.
pub(crate) fn compare(
    acknowledged: &Acknowledged,
    possible: &HashSet<u64>,
    told: &[Told],
    revision: u64,
) -> Vec<String> {
    let mut wrong = Vec::new();
    if told.len() as u64 != revision {
        wrong.push(format!("{} events of {revision} changes", told.len()));
    }
    if acknowledged.len() as u64 > revision {
        wrong.push(format!("revision {} was acknowledged, and the last is {revision}", acknowledged.len()));
    }
    for (revision, (change, any)) in (1..).zip(told) {
        match acknowledged.get(revision - 1).copied().unwrap_or(0) {
            0 if !possible.contains(change) && !possible.contains(any) => {
                wrong.push(format!("event {revision} is of a change that nobody made"));
            }
            0 => {}
            known if known != *change => {
                wrong.push(format!("event {revision} is not the change that was acknowledged"));
            }
            _ => {}
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_tell_what_was_acknowledged_pass_and_others_do_not() {
        let told = [(1, 10), (2, 10), (3, 11)];
        let possible = HashSet::from([2, 11]);
        assert_eq!(compare(&vec![1], &possible, &told, 3), [""; 0]);
        assert_eq!(compare(&vec![1, 2], &possible, &told, 4), ["3 events of 4 changes"]);
        assert_eq!(
            compare(&vec![1, 9], &possible, &told, 3),
            ["event 2 is not the change that was acknowledged"]
        );
        assert_eq!(compare(&vec![0, 2], &possible, &told, 3), ["event 1 is of a change that nobody made"]);
        let late = compare(&vec![1, 2, 3, 4], &possible, &told, 3);
        assert_eq!(late, ["revision 4 was acknowledged, and the last is 3"]);
    }
}

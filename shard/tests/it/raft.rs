//! Groups of Raft replicas over the links of a simulated network: what a node relies on.

mod grid;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use grid::{GROUP, Grid, Layers, PATIENCE, Shard, name, put, read, status, write};
use odgm_shard::Error;
use odgm_shard::object::{NodeId, ReplicaId};
use odgm_shard::replication::raft::RaftOptions;
use odgm_shard::replication::{Role, ShardState};
use odgm_shard::state::{
    Change, Command, Due, HistoryBounds, IndexQuery, IndexSource, IndexSpec, Operation, Retain, Selection,
    Settings, Upkeep,
};
use odgm_storage::data::Direction;
use odgm_transport::link::{Class, PeerId};

/// With the patience of a machine that runs many tests at once.
fn options() -> RaftOptions {
    RaftOptions {
        heartbeat: Duration::from_millis(250),
        election_min: Duration::from_millis(1000),
        election_max: Duration::from_millis(1500),
        deadline: Duration::from_secs(15),
        ..RaftOptions::default()
    }
}

async fn a_single_replica_serves_at_once_and_again_after_a_restart(layers: Layers) {
    let mut grid = Grid::new(layers, options());
    grid.start(1, 1).await;
    let began = Instant::now();
    let members = [(ReplicaId(1), NodeId(1))].into();
    grid.shard(1).initialize(members).await.unwrap();
    grid.leader().await;
    assert!(began.elapsed() < Duration::from_secs(1), "served after {:?}", began.elapsed());
    write(grid.shard(1), "alice", "1").await;
    grid.shard(1).snapshot().await.unwrap();
    write(grid.shard(1), "alice", "2").await;

    let down = grid.crash(1).await;
    let began = Instant::now();
    grid.restart(down).await;
    grid.leader().await;
    assert!(began.elapsed() < Duration::from_secs(1), "served again after {:?}", began.elapsed());
    grid.shard(1).read_barrier().await.unwrap();
    assert_eq!(read(grid.shard(1), "alice").unwrap(), "2");
    // Founding is remembered.
    let others = [(ReplicaId(9), NodeId(9)), (ReplicaId(1), NodeId(1))].into();
    grid.shard(1).initialize(others).await.unwrap();
    assert_eq!(status(grid.shard(1)).voters, [(ReplicaId(1), NodeId(1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_replica_in_memory_serves_at_once_and_again_after_a_restart() {
    a_single_replica_serves_at_once_and_again_after_a_restart(Layers::Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_replica_on_disk_serves_at_once_and_again_after_a_restart() {
    a_single_replica_serves_at_once_and_again_after_a_restart(Layers::Disk).await;
}

async fn a_write_is_applied_everywhere_and_outlives_its_leader(layers: Layers) {
    let mut grid = Grid::founded(layers, 3, options()).await;
    let leader = grid.leader().await;
    for index in 0..50 {
        write(grid.shard(leader), &format!("o{index}"), format!("v{index}")).await;
    }
    grid.settled(leader).await;
    for node in grid.nodes.values() {
        assert_eq!(read(&node.shard, "o49").unwrap(), "v49");
        let told: Vec<u64> = node.changes.lock().unwrap().clone();
        assert_eq!(told, (1..=50).collect::<Vec<_>>(), "changes are told in order, once");
    }

    let down = grid.crash(leader).await;
    let next = grid.leader().await;
    assert_ne!(next, leader);
    grid.shard(next).read_barrier().await.unwrap();
    assert_eq!(read(grid.shard(next), "o0").unwrap(), "v0");
    write(grid.shard(next), "o0", "new").await;

    grid.restart(down).await;
    grid.settled(next).await;
    assert_eq!(read(grid.shard(leader), "o0").unwrap(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_in_memory_is_applied_everywhere_and_outlives_its_leader() {
    a_write_is_applied_everywhere_and_outlives_its_leader(Layers::Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_disk_is_applied_everywhere_and_outlives_its_leader() {
    a_write_is_applied_everywhere_and_outlives_its_leader(Layers::Disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_refuses_writes_and_barriers_and_names_the_leader() {
    let grid = Grid::founded(Layers::Memory, 3, options()).await;
    let leader = grid.leader().await;
    let follower = grid.nodes.keys().copied().find(|node| *node != leader).unwrap();
    let mut known = grid.shard(follower).status();
    let following = known.wait_for(|status| status.role == Role::Following);
    let serving = tokio::time::timeout(PATIENCE, following).await.unwrap().unwrap().serving;
    assert_eq!(serving, Some(NodeId(leader)));
    for refused in [
        grid.shard(follower).write(put("alice", "1")).await.map(drop),
        grid.shard(follower).read_barrier().await,
    ] {
        assert!(matches!(refused, Err(Error::NotLeader { serving: Some(NodeId(node)) }) if node == leader));
    }
}

/// All but one node are down, until that one says that nobody serves; then somebody does again.
async fn loses_the_others_for_a_while(grid: &mut Grid, node: u64) {
    let others: Vec<u64> = grid.nodes.keys().copied().filter(|other| *other != node).collect();
    let mut known = grid.shard(node).status();
    let mut down = Vec::new();
    for node in others {
        down.push(grid.crash(node).await);
    }
    let alone = known.wait_for(|status| status.role == Role::Leaderless && status.serving.is_none());
    tokio::time::timeout(PATIENCE, alone).await.unwrap().unwrap();
    for node in down {
        grid.restart(node).await;
    }
    grid.leader().await;
    let served = known.wait_for(|status| status.serving.is_some());
    tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_hears_nobody_says_so_and_follows_again_once_it_does() {
    let mut grid = Grid::founded(Layers::Memory, 3, options()).await;
    let leader = grid.leader().await;
    let last = grid.nodes.keys().copied().find(|node| *node != leader).unwrap();
    let mut known = grid.shard(last).status();
    let following = known.wait_for(|status| status.role == Role::Following);
    tokio::time::timeout(PATIENCE, following).await.unwrap().unwrap();
    loses_the_others_for_a_while(&mut grid, last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_lost_its_quorum_says_so_and_serves_again_once_it_has_one() {
    let mut grid = Grid::founded(Layers::Memory, 3, options()).await;
    let leader = grid.leader().await;
    write(grid.shard(leader), "alice", "1").await;
    loses_the_others_for_a_while(&mut grid, leader).await;
    let serving = grid.leader().await;
    assert_eq!(read(grid.shard(serving), "alice"), Some("1".into()));
}

/// Its heartbeats are answered, whether somebody writes or not.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_leader_goes_on_serving() {
    let grid = Grid::founded(Layers::Memory, 3, options()).await;
    let leader = grid.leader().await;
    let mut known = grid.shard(leader).status();
    let ended = known.wait_for(|status| status.role != Role::Serving);
    let ended = tokio::time::timeout(4 * options().election_max, ended).await;
    assert!(ended.is_err(), "{:?}", ended.map(|status| status.map(|status| status.role)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_leader_confirms_no_read_after_another_has_taken_over() {
    let options = RaftOptions { deadline: Duration::from_secs(3), ..options() };
    let grid = Grid::founded(Layers::Memory, 3, options).await;
    let old = grid.leader().await;
    write(grid.shard(old), "alice", "old").await;
    let others: BTreeSet<u64> = grid.nodes.keys().copied().filter(|node| *node != old).collect();
    let names: Vec<String> = others.iter().map(|node| name(*node)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    grid.network.partition(&[&name(old)], &names);

    let new = grid.leader_among(&others).await;
    write(grid.shard(new), "alice", "new").await;
    let confirmed = grid.shard(old).read_barrier().await;
    assert!(confirmed.is_err(), "a leader without a quorum confirmed a read");
    assert_eq!(read(grid.shard(old), "alice").unwrap(), "old");

    grid.network.heal();
    grid.settled(new).await;
    assert_eq!(read(grid.shard(old), "alice").unwrap(), "new");
}

/// The schedule in which a restarted voter forgets the lease that it granted: the third replica, long cut off,
/// asks it for its vote while the old leader still reads by that lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_voter_holds_the_lease_that_it_granted_before() {
    let options = RaftOptions {
        election_min: Duration::from_secs(3),
        election_max: Duration::from_secs(4),
        deadline: Duration::from_millis(300),
        ..options()
    };
    let mut grid = Grid::founded(Layers::Memory, 3, options.clone()).await;
    let old = grid.leader().await;
    write(grid.shard(old), "alice", "old").await;
    let others: Vec<u64> = grid.nodes.keys().copied().filter(|node| *node != old).collect();
    let [voter, absent] = others[..] else { panic!("three nodes") };
    for node in [voter, absent] {
        grid.settled(node).await;
    }
    grid.network.partition(&[&name(absent)], &[&name(old), &name(voter)]);
    tokio::time::sleep(options.election_max + options.heartbeat).await;

    let down = grid.crash(voter).await;
    grid.restart(down).await;
    // The name is that of a new session: cut before the leader speaks to it.
    grid.network.partition(&[&name(old)], &[&name(voter)]);
    let (mut reads, mut taken_over) = (0, false);
    let end = Instant::now() + 4 * options.election_max;
    let mut campaign = Instant::now();
    while Instant::now() < end && !taken_over {
        if Instant::now() >= campaign {
            campaign += Duration::from_millis(500);
            grid.shard(absent).campaign().await.unwrap();
        }
        taken_over = others.iter().any(|node| status(grid.shard(*node)).role == Role::Serving);
        let read = grid.shard(old).read_barrier().await.is_ok();
        assert!(!(taken_over && read), "the old leader reads after another one serves");
        reads += u32::from(read);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(reads > 0, "the old leader had no lease: nothing was tried");
    let seen = others.iter().map(|node| status(grid.shard(*node))).collect::<Vec<_>>();
    assert!(taken_over, "nobody took over: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_writers_share_log_entries() {
    let grid = Grid::founded(Layers::Disk, 3, options()).await;
    let leader = grid.shard(grid.leader().await).clone();
    let before = status(&leader).last_log_index.unwrap();
    let writers: Vec<_> = (0..1000)
        .map(|index| leader.write(put(&format!("o{index}"), format!("v{index}"))))
        .map(tokio::spawn)
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    leader.read_barrier().await.unwrap();
    assert_eq!(leader.view().revision(), 1000);
    let mut known = leader.status();
    let counted = known.wait_for(|status| status.last_log_index > Some(before));
    let entries =
        tokio::time::timeout(PATIENCE, counted).await.unwrap().unwrap().last_log_index.unwrap() - before;
    assert!(entries < 200, "{entries} entries for 1000 commands");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_bytes_than_the_budget_are_refused_as_busy() {
    let options = RaftOptions { inflight_bytes: 10_000, ..options() };
    let grid = Grid::founded(Layers::Memory, 1, options).await;
    let shard = grid.shard(1);
    assert!(matches!(shard.write(put("big", vec![0; 20_000])).await, Err(Error::Busy(_))));
    write(shard, "small", vec![0; 5_000]).await;
    // What was answered is given back.
    write(shard, "small", vec![1; 5_000]).await;
}

async fn fill(grid: &Grid, leader: u64, objects: usize) {
    for index in 0..objects {
        write(grid.shard(leader), &format!("o{index}"), vec![index as u8; 10_000]).await;
    }
}

/// What follows from the objects: the history, the deadlines, what an index finds.
fn derived(shard: &Shard) -> (HistoryBounds, Vec<Change>, Vec<Due>, Vec<String>) {
    let view = shard.view();
    let history = view.history().unwrap();
    let changes = view.changes(history.oldest, u64::MAX, Direction::Forward).map(Result::unwrap).collect();
    let (everything, query) = (
        Selection::all(),
        IndexQuery { name: "n".into(), from: std::ops::Bound::Unbounded, to: std::ops::Bound::Unbounded },
    );
    let found = view.find(&query, &everything, None).unwrap();
    let found = found.map(|row| row.unwrap().1.object.to_string()).collect();
    (history, changes, view.due(0, u64::MAX, 100).unwrap(), found)
}

async fn upkeep(shard: &Shard, upkeep: Upkeep) {
    shard.write(Command { rid: None, operation: Operation::Upkeep(upkeep) }).await.unwrap();
}

async fn a_replica_is_replaced_through_a_snapshot(layers: Layers) {
    let options = RaftOptions { keep_entries: 0, ..options() };
    let mut grid = Grid::founded(layers, 3, options).await;
    let leader = grid.leader().await;
    fill(&grid, leader, 200).await;
    let index = IndexSpec { name: "n".into(), source: IndexSource::Path("/n".into()) };
    let retain = Retain { count: 150, ..Retain::default() };
    let settings = Settings { history: Some(retain), indexes: vec![index] };
    upkeep(grid.shard(leader), Upkeep::Configure(settings)).await;
    upkeep(grid.shard(leader), Upkeep::IndexStep).await;
    for (object, value, ttl_ms) in [("n2", "{\"n\":2}", None), ("n1", "{\"n\":1}", Some(3_600_000))] {
        let mut command = put(object, value);
        if let Operation::Put { ttl_ms: wanted, .. } = &mut command.operation {
            *wanted = ttl_ms;
        }
        grid.shard(leader).write(command).await.unwrap();
    }
    let before = derived(grid.shard(leader));
    assert_eq!((before.0.oldest, before.0.last, before.1.len(), before.2.len()), (53, 202, 150, 1));
    assert_eq!(before.3, ["n1", "n2"]);
    grid.shard(leader).snapshot().await.unwrap();
    let mut known = grid.shard(leader).status();
    let purged = known.wait_for(|status| status.purged_log_index > Some(100));
    tokio::time::timeout(PATIENCE, purged).await.expect("the log is purged behind the snapshot").unwrap();

    let gone = grid.nodes.keys().copied().find(|node| *node != leader).unwrap();
    drop(grid.crash(gone).await);
    grid.start(4, 40).await;
    let shard = grid.shard(leader).clone();
    shard.add_learner(ReplicaId(40), NodeId(4)).await.unwrap();
    shard.add_learner(ReplicaId(40), NodeId(4)).await.unwrap();
    let index = shard.applied().unwrap().index;
    grid.shard(4).wait_applied(index, PATIENCE).await.unwrap();
    assert_eq!(read(grid.shard(4), "o150").unwrap(), vec![150; 10_000]);
    assert_eq!(derived(grid.shard(4)), before);

    let (add, remove) = (BTreeSet::from([ReplicaId(40)]), BTreeSet::from([ReplicaId(gone)]));
    shard.change_membership(add.clone(), remove.clone()).await.unwrap();
    shard.change_membership(add, remove).await.unwrap();
    let mut known = shard.status();
    let changed = known
        .wait_for(|status| status.voters.contains(&(ReplicaId(40), NodeId(4))) && status.voters.len() == 3);
    tokio::time::timeout(PATIENCE, changed).await.expect("the new replica votes").unwrap();
    write(&shard, "after", "replaced").await;
    grid.settled(leader).await;
    assert_eq!(read(grid.shard(4), "after").unwrap(), "replaced");

    // The new replica has its own snapshot to restart from.
    let down = grid.crash(4).await;
    grid.restart(down).await;
    grid.settled(leader).await;
    assert_eq!(read(grid.shard(4), "o0").unwrap(), vec![0; 10_000]);
    let after = derived(grid.shard(4));
    assert_eq!((after.0.oldest, after.1.len(), after.2, after.3), (54, 150, before.2, before.3));
}

/// Killed while its disk was slow: the log had not been written, the data had.
async fn data_ahead_of_the_log_are_gone_on_from(layers: Layers) {
    let mut grid = Grid::founded(layers, 3, options()).await;
    let leader = grid.leader().await;
    for index in 0..10 {
        write(grid.shard(leader), &format!("o{index}"), "v").await;
    }
    grid.settled(leader).await;
    let follower = grid.nodes.keys().copied().find(|node| *node != leader).unwrap();
    let applied = grid.shard(follower).applied().unwrap().index;
    let down = grid.crash(follower).await;
    down.lose_log_after(applied - 3);
    grid.restart(down).await;
    assert!(grid.shard(follower).applied().unwrap().index >= applied);
    write(grid.shard(leader), "after", "v").await;
    grid.settled(leader).await;
    assert_eq!(read(grid.shard(follower), "after").unwrap(), "v");
    // And again, from what it has now.
    let down = grid.crash(follower).await;
    grid.restart(down).await;
    grid.settled(leader).await;
    assert_eq!(read(grid.shard(follower), "o9").unwrap(), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_ahead_of_the_log_in_memory_are_gone_on_from() {
    data_ahead_of_the_log_are_gone_on_from(Layers::Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_ahead_of_the_log_on_disk_are_gone_on_from() {
    data_ahead_of_the_log_are_gone_on_from(Layers::Disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_in_memory_is_replaced_through_a_snapshot() {
    a_replica_is_replaced_through_a_snapshot(Layers::Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_on_disk_is_replaced_through_a_snapshot() {
    a_replica_is_replaced_through_a_snapshot(Layers::Disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_catches_up_by_a_snapshot_that_is_due_by_itself() {
    let options = RaftOptions { keep_entries: 0, snapshot_entries: 50, ..options() };
    let mut grid = Grid::founded(Layers::Disk, 3, options).await;
    let leader = grid.leader().await;
    write(grid.shard(leader), "first", "1").await;
    grid.settled(leader).await;
    let away = grid.nodes.keys().copied().find(|node| *node != leader).unwrap();
    let down = grid.crash(away).await;
    fill(&grid, leader, 200).await;
    let mut known = grid.shard(leader).status();
    let purged = known.wait_for(|status| status.purged_log_index > Some(50));
    tokio::time::timeout(PATIENCE, purged).await.expect("a snapshot was due").unwrap();

    grid.restart(down).await;
    grid.settled(leader).await;
    assert_eq!(read(grid.shard(away), "o199").unwrap(), vec![199; 10_000]);
    assert_eq!(read(grid.shard(away), "first").unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_on_request_and_removed_learners_are_forgotten() {
    let mut grid = Grid::founded(Layers::Memory, 3, options()).await;
    let leader = grid.leader().await;
    let next = grid.nodes.keys().copied().find(|node| *node != leader).unwrap();
    let refused = grid.shard(leader).transfer_leader(ReplicaId(99)).await;
    assert!(matches!(refused, Err(Error::Invalid(_))));
    grid.shard(leader).transfer_leader(ReplicaId(next)).await.unwrap();
    assert_eq!(grid.leader_among(&BTreeSet::from([next])).await, next);

    grid.start(4, 4).await;
    let shard = grid.shard(next);
    shard.add_learner(ReplicaId(4), NodeId(4)).await.unwrap();
    grid.settled(next).await;
    let progress = shard.progress();
    assert!(progress.iter().any(|peer| peer.replica == ReplicaId(4)), "{progress:?}");
    shard.remove_learner(ReplicaId(4)).await.unwrap();
    shard.remove_learner(ReplicaId(4)).await.unwrap();
    let mut known = shard.status();
    let forgotten = known.wait_for(|status| status.learners.is_empty());
    tokio::time::timeout(PATIENCE, forgotten).await.expect("the learner is removed").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_this_replica_is_refused() {
    let grid = Grid::founded(Layers::Memory, 2, options()).await;
    let ask = |version: u8, kind: u8, group: u64, target: u64| {
        let mut message = vec![1, version, kind];
        for number in [group, target, 1] {
            message.extend(number.to_le_bytes());
        }
        grid.nodes[&1].links.request(PeerId(2), Class::Control, message.into(), PATIENCE)
    };
    for (refused, reason) in [
        (ask(1, 3, 99, 2).await, "no replica of group 99"),
        (ask(1, 3, GROUP.0, 5).await, "replica 2 of the group is here"),
        (ask(9, 3, GROUP.0, 2).await, "malformed version"),
        (ask(1, 77, GROUP.0, 2).await, "malformed kind"),
        (ask(1, 3, GROUP.0, 2).await, "malformed message"),
    ] {
        let Err(odgm_transport::Error::Refused(said)) = refused else { panic!("{refused:?}") };
        assert!(said.contains(reason), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_replica_takes_nothing_and_may_be_closed_again() {
    let grid = Grid::founded(Layers::Memory, 1, options()).await;
    let shard = grid.shard(1);
    tokio::time::timeout(PATIENCE, shard.close()).await.unwrap();
    assert_eq!(status(shard).role, Role::Stopped);
    assert!(shard.write(put("alice", "1")).await.is_err());
    assert!(shard.read_barrier().await.is_err());
    tokio::time::timeout(PATIENCE, shard.close()).await.unwrap();
    assert_eq!(shard.group(), GROUP);
}

//! Who is in the group, and who leads it: what the node asks of a replica. All of it may be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft_rt::{Instant as _, WatchReceiver};

use super::RaftShard;
use super::types::{Member, Types};
use super::writes::refusal;
use crate::object::{NodeId, ReplicaId};
use crate::runtime::Runtime;
use crate::{Error, Result};

impl<R: Runtime> RaftShard<R> {
    /// Founds the group with these voters. On a founded group it changes nothing. Called on one of them,
    /// or on all of them with the same members.
    ///
    /// # Errors
    /// [`Error::Invalid`] when this replica is none of them.
    pub async fn initialize(&self, members: BTreeMap<ReplicaId, NodeId>) -> Result<()> {
        match self.raft.initialize(Self::members(members)).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(Error::Invalid(error.to_string()))
            }
            Err(RaftError::Fatal(fatal)) => Err(Error::Unavailable(fatal.to_string())),
        }
    }

    /// Adds a replica that learns and has no vote, and begins to send to it; does not wait until it has
    /// caught up (see [`RaftShard::progress`]). Idempotent. On the leader only.
    ///
    /// # Errors
    /// As [`RaftShard::change_membership`].
    pub async fn add_learner(&self, replica: ReplicaId, node: NodeId) -> Result<()> {
        let member = Member { node: node.0 };
        if self.member(replica) == Some(member) {
            return Ok(());
        }
        self.within_deadline(self.raft.add_learner(replica.0, member, false)).await
    }

    /// Gives votes to learners and removes voters, in one change. Removed voters leave the group.
    /// Idempotent. On the leader only; a leader that removes itself steps down afterwards.
    ///
    /// # Errors
    /// [`Error::Busy`] while another change is under way, [`Error::Invalid`] for a replica that is no learner yet
    /// and when no voter would be left, [`Error::NotLeader`]; [`Error::Timeout`] and
    /// [`Error::Unavailable`] leave it open whether it happened.
    pub async fn change_membership(
        &self,
        add: BTreeSet<ReplicaId>,
        remove: BTreeSet<ReplicaId>,
    ) -> Result<()> {
        let membership = self.raft.metrics().borrow_watched().membership_config.clone();
        let present: BTreeSet<u64> = membership.get_joint_config().last().cloned().unwrap_or_default();
        let mut target = present;
        target.extend(add.iter().map(|replica| replica.0));
        target.retain(|replica| !remove.contains(&ReplicaId(*replica)));
        if self.settled_voters().as_ref() == Some(&target) {
            return Ok(());
        }
        let change = ChangeMembers::ReplaceAllVoters(target);
        self.within_deadline(self.raft.change_membership(change, false)).await
    }

    /// Removes a learner. Idempotent. On the leader only.
    ///
    /// # Errors
    /// As [`RaftShard::change_membership`]; [`Error::Invalid`] for a voter.
    pub async fn remove_learner(&self, replica: ReplicaId) -> Result<()> {
        if self.member(replica).is_none() {
            return Ok(());
        }
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([replica.0]));
        self.within_deadline(self.raft.change_membership(change, false)).await
    }

    /// Hands leadership to a voter and waits until this replica no longer leads.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Invalid`] for no voter, and [`Error::Timeout`] when it did not happen within
    /// the options' deadline: this replica leads on then.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<()> {
        let (leads, voter, serving) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let leader = metrics.current_leader;
            let node =
                leader.and_then(|leader| membership.get_node(&leader)).map(|member| NodeId(member.node));
            (leader == Some(self.replica().0), membership.voter_ids().any(|voter| voter == to.0), node)
        };
        if !leads {
            return Err(Error::NotLeader { serving });
        }
        if !voter {
            return Err(Error::Invalid(format!("replica {to} has no vote")));
        }
        if to == self.replica() {
            return Ok(());
        }
        let asked = self.raft.trigger().transfer_leader(to.0).await;
        asked.map_err(|fatal| Error::Unavailable(fatal.to_string()))?;
        let me = self.replica().0;
        self.wait(self.options.deadline, move |metrics| {
            metrics.current_leader.is_some_and(|leader| leader != me)
        })
        .await
    }

    /// Campaigns now (with pre-vote), instead of waiting for the election timeout: for when the leader's node is
    /// known to be gone. The others refuse while they trust their leader's lease; and shortly after its start
    /// this replica does nothing, since it may have granted a lease before.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the replica is stopped.
    pub async fn campaign(&self) -> Result<()> {
        if self.embargo.is_some_and(|end| R::Instant::now() < end) {
            return Ok(());
        }
        let asked = self.raft.trigger().elect(true).await;
        asked.map_err(|fatal| Error::Unavailable(fatal.to_string()))
    }

    /// Forgets how long to wait before a replica is tried again: for when its node is known to be back.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the replica is stopped.
    pub async fn retry_now(&self, replica: ReplicaId) -> Result<()> {
        let asked = self.raft.trigger().reset_backoff([replica.0]).await;
        asked.map_err(|fatal| Error::Unavailable(fatal.to_string()))
    }

    fn member(&self, replica: ReplicaId) -> Option<Member> {
        self.raft.metrics().borrow_watched().membership_config.get_node(&replica.0).copied()
    }

    async fn within_deadline<T: Send>(
        &self,
        change: impl Future<Output = std::result::Result<T, RaftError<Types<R>, ClientWriteError<Types<R>>>>>
        + Send,
    ) -> Result<()> {
        let deadline = self.options.deadline;
        match R::timeout(deadline, change).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
            )))) => Err(Error::Busy("another change of membership is under way")),
            Ok(Err(RaftError::APIError(error))) => Err(refusal(error)),
            Ok(Err(RaftError::Fatal(fatal))) => Err(Error::Unavailable(fatal.to_string())),
            Err(_) => Err(Error::Timeout(deadline)),
        }
    }
}

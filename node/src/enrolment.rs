//! This node's membership of a cluster: durable before anybody is told, and never changed for another.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use odgm_shard::cluster::NodeRecord;
use odgm_shard::object::NodeId;
use odgm_storage::disk::Disk;
use tokio::sync::watch;
use uuid::Uuid;

use crate::identity::{Identity, Membership};

/// The membership, and the file it is kept in.
#[derive(Debug)]
pub(crate) struct Enrolment {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: Mutex<Identity>,
    known: watch::Sender<Option<Membership>>,
}

impl Enrolment {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, identity: Identity) -> Arc<Self> {
        let known = watch::Sender::new(identity.membership.clone());
        Arc::new(Enrolment { disk, dir, identity: Mutex::new(identity), known })
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).node
    }

    /// The membership, once there is one.
    pub(crate) fn membership(&self) -> watch::Receiver<Option<Membership>> {
        self.known.subscribe()
    }

    /// The cluster, once there is one.
    pub(crate) fn cluster(&self) -> Option<Uuid> {
        self.known.borrow().as_ref().map(|membership| membership.cluster)
    }

    /// Becomes a founding member. A repeat changes nothing. Waits for the disk.
    pub(crate) fn found(&self, cluster: Uuid, members: &[NodeRecord]) -> Result<(), String> {
        let me = self.node();
        let record = members
            .iter()
            .find(|member| member.id == me)
            .ok_or_else(|| format!("node {me} is not among the founding members"))?;
        self.enrol(Membership { cluster, system_replica: record.system_replica, founders: members.to_vec() })
    }

    /// Becomes a new member of a founded cluster. A repeat changes nothing. Waits for the disk.
    pub(crate) fn adopt(&self, cluster: Uuid, record: &NodeRecord) -> Result<(), String> {
        if record.id != self.node() {
            return Err(format!("the record is of node {}, this is node {}", record.id, self.node()));
        }
        self.enrol(Membership { cluster, system_replica: record.system_replica, founders: Vec::new() })
    }

    fn enrol(&self, membership: Membership) -> Result<(), String> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        match &identity.membership {
            Some(present) if *present == membership => return Ok(()),
            Some(present) => return Err(format!("this node belongs to cluster {} already", present.cluster)),
            None => {}
        }
        let enrolled = Identity { membership: Some(membership.clone()), ..identity.clone() };
        enrolled.save(&self.disk, &self.dir).map_err(|error| format!("{error:#}"))?;
        *identity = enrolled;
        drop(identity);
        tracing::info!(cluster = %membership.cluster, "this node belongs to its cluster");
        self.known.send_replace(Some(membership));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use odgm_shard::object::ReplicaId;
    use odgm_storage::disk::RealDisk;

    #[test]
    fn a_member_stays_what_it_is_and_remembers_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let identity = Identity::open(&disk, dir.path()).unwrap();
        let enrolment = Enrolment::new(disk.clone(), dir.path().to_path_buf(), identity);
        let record = NodeRecord {
            id: enrolment.node(),
            name: "a".into(),
            zone: String::new(),
            system_replica: ReplicaId(1),
        };
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        enrolment.found(one, std::slice::from_ref(&record)).unwrap();
        enrolment.found(one, std::slice::from_ref(&record)).unwrap();
        assert!(enrolment.found(two, std::slice::from_ref(&record)).unwrap_err().contains("already"));
        assert!(enrolment.adopt(two, &record).unwrap_err().contains("already"));
        let kept = Identity::open(&disk, dir.path()).unwrap().membership.unwrap();
        assert_eq!((kept.cluster, kept.founders), (one, vec![record]));
    }

    #[test]
    fn a_stranger_is_not_founded() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let identity = Identity::open(&disk, dir.path()).unwrap();
        let enrolment = Enrolment::new(disk, dir.path().to_path_buf(), identity);
        assert!(enrolment.found(Uuid::from_u128(1), &[]).is_err());
        assert_eq!(enrolment.cluster(), None);
    }
}

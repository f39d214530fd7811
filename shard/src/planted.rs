//! Bugs that a simulation can plant: it must find them, else it proves nothing.
//!
//! Without the feature `sim` there are none: `planted` is `false` and the code behind it is gone.

/// A bug as it was made somewhere, or nearly was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// An append is reported durable when it is queued.
    AcknowledgeBeforeFsync,
    /// A vote is given before it is durable.
    VoteBeforeFsync,
    /// A restarted voter forgets the lease that it granted.
    NoBootEmbargo,
    /// A conflicting suffix stays in the log.
    DropTruncation,
    /// An installed snapshot comes without the remembered answers.
    ForgetRequestIds,
    /// A new leader reads before an entry of its term is committed.
    ReadBeforeCommit,
    /// A failed fsync counts as one that succeeded.
    IgnoreFailedFsync,
    /// A replica that lost its disk comes back under its old id.
    ReuseReplicaId,
    /// A tombstone is forgotten before every replica has seen it.
    ForgetTombstone,
    /// A new leader does not publish what the last one may not have.
    SkipUnpublishedTail,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 10] = [
        Bug::AcknowledgeBeforeFsync,
        Bug::VoteBeforeFsync,
        Bug::NoBootEmbargo,
        Bug::DropTruncation,
        Bug::ForgetRequestIds,
        Bug::ReadBeforeCommit,
        Bug::IgnoreFailedFsync,
        Bug::ReuseReplicaId,
        Bug::ForgetTombstone,
        Bug::SkipUnpublishedTail,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Bug::AcknowledgeBeforeFsync => "acknowledge-before-fsync",
            Bug::VoteBeforeFsync => "vote-before-fsync",
            Bug::NoBootEmbargo => "no-boot-embargo",
            Bug::DropTruncation => "drop-truncation",
            Bug::ForgetRequestIds => "forget-request-ids",
            Bug::ReadBeforeCommit => "read-before-commit",
            Bug::IgnoreFailedFsync => "ignore-failed-fsync",
            Bug::ReuseReplicaId => "reuse-replica-id",
            Bug::ForgetTombstone => "forget-tombstone",
            Bug::SkipUnpublishedTail => "skip-unpublished-tail",
        }
    }

    /// The bug of this name.
    pub fn parse(name: &str) -> Option<Bug> {
        Bug::ALL.into_iter().find(|bug| bug.name() == name)
    }
}

#[cfg(feature = "sim")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in what runs on this thread from now on, or none.
#[cfg(feature = "sim")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted here.
#[cfg(feature = "sim")]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// No bug is planted in a node.
#[cfg(not(feature = "sim"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

//! What a replica sends to another one: appends in a pipeline, heartbeats, votes, transfers, snapshots.
//!
//! Appends of one stream are queued in order on the links and answered in any order; the answers are
//! handed on in order, and the first error ends the stream: openraft then finds the follower's place again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::{Either, select};
use odgm_transport::link::{Class, PeerId};
use odgm_transport::timer::BoxFuture;
use openraft::OptionalSend;
use openraft::RPCTypes;
use openraft::alias::VoteOf;
use openraft::base::BoxStream;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::clocks::Clocks;
use super::encode::Malformed;
use super::message::{self, Header, Install, InstallState, Kind};
use super::pipeline::{Flow, Pipeline, Sent};
use super::router::RaftRouter;
use super::snapshot::SnapshotHandle;
use super::types::{Member, Snapshot, Types};
use crate::object::GroupId;
use crate::runtime::{Runtime, unix_ms};

/// How long an append may wait for its answer: a disk may be slow, and a peer that left fails at once.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an append without entries waits for some. Followers learn of a commit so much later.
const HOLD: Duration = Duration::from_millis(5);
/// How long one request about a snapshot may wait.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a follower is asked how far it is with a snapshot.
const INSTALL_POLL: Duration = Duration::from_millis(100);

/// Makes the clients of one replica.
pub(crate) struct Network<R: Runtime> {
    pub(crate) router: Arc<RaftRouter<R>>,
    pub(crate) group: GroupId,
    pub(crate) replica: u64,
    pub(crate) window_bytes: usize,
    /// From when on an answer is late.
    pub(crate) late: Duration,
    /// Tells the append streams of this process apart.
    pub(crate) streams: Arc<AtomicU64>,
    /// What the others' clocks show.
    pub(crate) clocks: Arc<Clocks<R>>,
}

impl<R: Runtime> Network<R> {
    fn peer(&self, target: u64, member: &Member, kind: Kind) -> Peer<R> {
        Peer {
            router: self.router.clone(),
            group: self.group,
            replica: self.replica,
            target,
            to: PeerId(member.node),
            kind,
            window_bytes: self.window_bytes,
            late: self.late,
            streams: self.streams.clone(),
            clocks: self.clocks.clone(),
        }
    }
}

impl<R: Runtime> RaftNetworkFactory<Types<R>> for Network<R> {
    type Network = Peer<R>;

    async fn new_client(&mut self, target: u64, member: &Member) -> Peer<R> {
        self.peer(target, member, Kind::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, member: &Member) -> Peer<R> {
        self.peer(target, member, Kind::Heartbeat)
    }
}

/// Another replica of the group.
pub(crate) struct Peer<R: Runtime> {
    router: Arc<RaftRouter<R>>,
    group: GroupId,
    replica: u64,
    target: u64,
    to: PeerId,
    /// [`Kind::Append`] or [`Kind::Heartbeat`]: what its append streams are.
    kind: Kind,
    window_bytes: usize,
    late: Duration,
    streams: Arc<AtomicU64>,
    clocks: Arc<Clocks<R>>,
}

type Answer = BoxFuture<'static, odgm_transport::Result<Bytes>>;

impl<R: Runtime> Peer<R> {
    fn header(&self, kind: Kind) -> Header {
        Header { kind, group: self.group, target: self.target, sender: self.replica }
    }

    fn request(&self, class: Class, message: Bytes, timeout: Duration) -> Answer {
        Box::pin(self.router.links().request(self.to, class, message, timeout))
    }

    fn error(&self, action: RPCTypes, error: &odgm_transport::Error) -> RPCError<Types<R>> {
        self.failed(action)(error)
    }

    /// What a request that failed is to openraft.
    fn failed(
        &self,
        action: RPCTypes,
    ) -> impl Fn(&odgm_transport::Error) -> RPCError<Types<R>> + Send + use<R> {
        use odgm_transport::Error;
        let (id, target) = (self.replica, self.target);
        move |error| match error {
            Error::Timeout(timeout) => RPCError::Timeout(Timeout { action, id, target, timeout: *timeout }),
            Error::Unreachable(_) | Error::Refused(_) | Error::Session(_) => {
                RPCError::Unreachable(Unreachable::new(error))
            }
            other => RPCError::Network(NetworkError::new(other)),
        }
    }

    /// Notes the clock in front of an answer.
    fn hear_clock(&self, bytes: Bytes) -> Result<Bytes, Malformed> {
        hear_clock(&self.clocks, self.target, bytes)
    }

    async fn vote_by(
        &self,
        kind: Kind,
        request: &VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        let message = message::encode_vote_request(self.header(kind), request);
        let answer = self.request(Class::Control, message, option.hard_ttl()).await;
        let answer = answer.map_err(|error| self.error(RPCTypes::Vote, &error))?;
        let response = self.hear_clock(answer).and_then(message::decode_vote_response);
        response.map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }
}

fn hear_clock<R: Runtime>(clocks: &Clocks<R>, replica: u64, bytes: Bytes) -> Result<Bytes, Malformed> {
    let (wall, answer) = message::split_clock(bytes)?;
    clocks.hear(replica, wall);
    Ok(answer)
}

impl<R: Runtime> NetBackoff<Types<R>> for Peer<R> {
    fn backoff(&self) -> Option<Backoff> {
        // Short: what is sent to an absent peer fails here, at no cost; and until a replica that is back is sent
        // to, it has no part in a quorum, while the next node of a rolling restart may be told to stop.
        let pauses = [50, 100].into_iter().chain(std::iter::repeat(200));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }
}

impl<R: Runtime> NetStreamAppend<Types<R>> for Peer<R> {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> openraft::base::BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types<R>>, RPCError<Types<R>>>>, RPCError<Types<R>>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin + 'static,
    {
        let beats = self.kind == Kind::Heartbeat;
        let timeout = if beats { option.hard_ttl() } else { APPEND_TIMEOUT };
        let class = if beats { Class::Control } else { Class::Log };
        let hold = if beats { Duration::ZERO } else { HOLD };
        let flow = Flow { window_bytes: self.window_bytes, hold, late: self.late };
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let peer = &*self;
        let transmit = move |request| {
            let message = message::encode_append(peer.header(peer.kind), stream, request);
            let bytes = message.len();
            let (failed, answer) =
                (peer.failed(RPCTypes::AppendEntries), peer.request(class, message, timeout));
            let (clocks, target) = (peer.clocks.clone(), peer.target);
            let answer = async move {
                let bytes = answer.await.map_err(|error| failed(&error))?;
                // A heartbeat comes back with the follower's clock.
                let result = if beats { hear_clock(&clocks, target, bytes) } else { Ok(bytes) };
                result
                    .and_then(message::decode_append_result)
                    .map_err(|error| RPCError::Network(NetworkError::new(&error)))
            };
            Sent { bytes, answer: Box::pin(answer) }
        };
        let pipeline = Pipeline::<R, _, _>::new(flow, input, transmit);
        Box::pin(async move {
            let answers = futures_util::stream::unfold(Some(pipeline), |pipeline| async move {
                let mut pipeline = pipeline?;
                let answer = pipeline.next().await?;
                let goes_on = matches!(answer, Ok(Ok(_)));
                Some((answer, goes_on.then_some(pipeline)))
            });
            let answers: BoxStream<'s, _> = Box::pin(answers);
            Ok(answers)
        })
    }
}

impl<R: Runtime> NetVote<Types<R>> for Peer<R> {
    async fn vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        self.vote_by(Kind::Vote, &request, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        self.vote_by(Kind::PreVote, &request, option).await
    }
}

impl<R: Runtime> NetTransferLeader<Types<R>> for Peer<R> {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R>>, RPCError<Types<R>>> {
        let message = message::encode_transfer(self.header(Kind::Transfer), &request);
        let answer = self.request(Class::Control, message, option.hard_ttl()).await;
        let answer = answer.map_err(|error| self.error(RPCTypes::TransferLeader, &error))?;
        message::decode_transfer_result(answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }
}

impl<R: Runtime> NetSnapshot<Types<R>> for Peer<R> {
    type SnapshotData = SnapshotHandle;

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types<R>>,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let sending = std::pin::pin!(self.offer(vote, snapshot, option.hard_ttl()));
        match select(sending, std::pin::pin!(cancel)).await {
            Either::Left((sent, _)) => sent,
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }
}

impl<R: Runtime> Peer<R> {
    /// Offers a snapshot until the follower has it; gives up when it makes no progress for `idle`.
    async fn offer(
        &self,
        vote: VoteOf<Types<R>>,
        snapshot: Snapshot,
        idle: Duration,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let (set, id) = (snapshot.snapshot.set.clone(), snapshot.snapshot.meta.id);
        let created = unix_ms(R::wall_clock());
        let portable = R::blocking(move || set.portable(id, created)).await;
        // A full disk here is no reason to stop the group: openraft asks again later.
        let info = portable.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
        let install = Install { vote, id, stored_bytes: info.stored_bytes, meta: snapshot.meta };
        let message = message::encode_install(self.header(Kind::Install), &install);

        let mut progress: Option<(u64, u32)> = None;
        let most_idle_polls = u32::try_from(idle.as_millis() / INSTALL_POLL.as_millis()).unwrap_or(u32::MAX);
        loop {
            let answer = self.request(Class::Bulk, message.clone(), INSTALL_TIMEOUT).await;
            let answer = answer
                .map_err(|error| StreamingError::from(self.error(RPCTypes::InstallSnapshot, &error)))?;
            let state = message::decode_install_state(answer)
                .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
            match state {
                InstallState::Done(vote) => return Ok(SnapshotResponse::new(vote)),
                InstallState::Failed(reason) => {
                    return Err(StreamingError::Unreachable(Unreachable::from_string(reason)));
                }
                // Importing takes its time after the last byte: only a transfer can be idle.
                InstallState::Working(offset) if offset < install.stored_bytes => {
                    let polls = match progress {
                        Some((last, polls)) if last == offset => polls + 1,
                        _ => 0,
                    };
                    if polls > most_idle_polls {
                        return Err(StreamingError::Timeout(Timeout {
                            action: RPCTypes::InstallSnapshot,
                            id: self.replica,
                            target: self.target,
                            timeout: idle,
                        }));
                    }
                    progress = Some((offset, polls));
                }
                InstallState::Working(_) => {}
            }
            R::sleep(INSTALL_POLL).await;
        }
    }
}

//! What a replica receives from the others: appends in their streams, and everything else side by side.
//!
//! Appends of one stream reach openraft in order and many at a time, so that one fsync serves them all; the
//! answers go back as they become durable.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use odgm_transport::link::ReplyToken;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft_rt::Instant;
use tokio::sync::mpsc;

use super::encode::Malformed;
use super::message::{self, Kind};
use super::pull::Puller;
use super::router::Request;
use super::snapshot::SnapshotSet;
use super::state_machine::StateMachine;
use super::status::Heard;
use super::types::Types;
use crate::runtime::Runtime;

/// Appends that may wait inside one stream.
const STREAM_QUEUE: usize = 64;
/// Requests other than appends that are handled at once.
const AT_ONCE: usize = 64;
/// The largest range of a snapshot that is answered.
const MAX_PULL: u32 = 4 << 20;

pub(crate) type Raft<R> = openraft::Raft<Types<R>, StateMachine<R>>;

/// One stream of appends from one leader.
struct AppendStream<R: Runtime> {
    sender: u64,
    stream: u64,
    requests: mpsc::Sender<AppendEntriesRequest<Types<R>>>,
    /// In the order of the requests.
    replies: mpsc::Sender<ReplyToken>,
    answering: R::JoinHandle<()>,
}

impl<R: Runtime> AppendStream<R> {
    fn open(raft: &Raft<R>, sender: u64, stream: u64) -> Self {
        let (requests, receiver) = mpsc::channel(STREAM_QUEUE);
        // More than the requests that openraft has taken and not answered, so that it never waits for this.
        let (replies, mut tokens) = mpsc::channel::<ReplyToken>(4 * STREAM_QUEUE);
        let input = futures_util::stream::unfold(receiver, |mut receiver: mpsc::Receiver<_>| async move {
            receiver.recv().await.map(|request| (request, receiver))
        });
        let results = raft.stream_append(input);
        let answering = R::spawn(async move {
            let mut results = std::pin::pin!(results);
            while let Some(result) = results.next().await {
                let Some(token) = tokens.recv().await else { return };
                match result {
                    Ok(result) => token.send(message::encode_append_result(&result)),
                    Err(fatal) => token.refuse(fatal.to_string()),
                }
            }
        });
        AppendStream { sender, stream, requests, replies, answering }
    }

    /// Answers what openraft has taken, then ends.
    async fn close(self) {
        let AppendStream { requests, replies, answering, .. } = self;
        drop((requests, replies));
        if let Err(error) = answering.await {
            tracing::error!(%error, "a stream of appends failed");
        }
    }

    async fn push(&mut self, request: AppendEntriesRequest<Types<R>>, reply: ReplyToken) -> bool {
        // The token first: its answer may come as soon as the request is in.
        self.replies.send(reply).await.is_ok() && self.requests.send(request).await.is_ok()
    }
}

/// Takes appends until the mailbox is closed.
pub(crate) async fn serve_appends<R: Runtime>(
    raft: Raft<R>,
    heard: Arc<Heard<R>>,
    mut mailbox: mpsc::Receiver<Request>,
) {
    let mut current: Option<AppendStream<R>> = None;
    while let Some(request) = mailbox.recv().await {
        let sender = request.header.sender;
        let (stream, append) = match message::decode_append(request.body) {
            Ok(decoded) => decoded,
            Err(malformed) => {
                request.reply.refuse(malformed.to_string());
                continue;
            }
        };
        heard.note();
        let mut open = match current.take() {
            Some(open) if open.sender == sender && open.stream == stream => open,
            ended => {
                if let Some(ended) = ended {
                    ended.close().await;
                }
                AppendStream::open(&raft, sender, stream)
            }
        };
        // A stream that has ended, at a conflict, refuses what comes behind it: its leader begins another one.
        open.push(append, request.reply).await;
        current = Some(open);
    }
    if let Some(ended) = current {
        ended.close().await;
    }
}

fn with_own_clock<R: Runtime>(answer: &Bytes) -> Bytes {
    message::with_clock(R::wall_clock(), answer)
}

/// What the other requests need.
pub(crate) struct Desk<R: Runtime> {
    pub(crate) raft: Raft<R>,
    pub(crate) heard: Arc<Heard<R>>,
    pub(crate) snapshots: Arc<SnapshotSet>,
    pub(crate) puller: Puller<R>,
    pub(crate) started: R::Instant,
    /// Until when no vote is given, except to whom its leader hands over.
    pub(crate) embargo: Option<R::Instant>,
}

/// Handles everything but appends until the mailbox is closed.
pub(crate) async fn serve_others<R: Runtime>(desk: Desk<R>, mut mailbox: mpsc::Receiver<Request>) {
    let desk = &desk;
    let mut handling = FuturesUnordered::new();
    loop {
        if handling.len() >= AT_ONCE {
            handling.next().await;
            continue;
        }
        let request = if handling.is_empty() {
            mailbox.recv().await
        } else {
            match select(std::pin::pin!(mailbox.recv()), handling.next()).await {
                Either::Left((request, _)) => request,
                Either::Right(_) => continue,
            }
        };
        let Some(request) = request else { break };
        handling.push(desk.handle(request));
    }
    while handling.next().await.is_some() {}
    desk.puller.stop().await;
}

impl<R: Runtime> Desk<R> {
    async fn handle(&self, request: Request) {
        let Request { header, body, from, reply } = request;
        let answer = match header.kind {
            Kind::Append => Err("an append beside its stream".to_owned()),
            Kind::Heartbeat => self.heartbeat(message::decode_append(body)).await,
            Kind::Vote => match message::decode_vote_request(body) {
                Ok(request) if self.withholds_vote(&request) => {
                    Err("no vote shortly after the start".to_owned())
                }
                Ok(request) => match self.raft.vote(request).await {
                    Ok(response) => Ok(with_own_clock::<R>(&message::encode_vote_response(&response))),
                    Err(error) => Err(error.to_string()),
                },
                Err(malformed) => Err(malformed.to_string()),
            },
            Kind::PreVote => match message::decode_vote_request(body) {
                Ok(request) if self.withholds_vote(&request) => {
                    Err("no vote shortly after the start".to_owned())
                }
                Ok(request) => match self.raft.pre_vote(request).await {
                    Ok(response) => Ok(with_own_clock::<R>(&message::encode_vote_response(&response))),
                    Err(error) => Err(error.to_string()),
                },
                Err(malformed) => Err(malformed.to_string()),
            },
            Kind::Transfer => match message::decode_transfer(body) {
                Ok(request) => match self.raft.handle_transfer_leader(request).await {
                    Ok(response) => Ok(message::encode_transfer_result(&response)),
                    Err(error) => Err(error.to_string()),
                },
                Err(malformed) => Err(malformed.to_string()),
            },
            Kind::Install => match message::decode_install(body) {
                Ok(install) => {
                    let state = self.puller.offer(&self.raft, install, from, header.sender);
                    Ok(message::encode_install_state(&state))
                }
                Err(malformed) => Err(malformed.to_string()),
            },
            Kind::Pull => match message::decode_pull(body) {
                Ok(pull) => {
                    let (set, now) = (self.snapshots.clone(), self.started.elapsed());
                    let len = pull.len.min(MAX_PULL) as usize;
                    let read = R::blocking(move || set.read_stored(pull.id, pull.offset, len, now)).await;
                    read.map_err(|error| error.to_string())
                }
                Err(malformed) => Err(malformed.to_string()),
            },
        };
        match answer {
            Ok(answer) => reply.send(answer),
            Err(reason) => reply.refuse(reason),
        }
    }

    /// A lease that this replica granted before its start is not on disk: it holds it by granting no vote until the
    /// lease would be over.
    fn withholds_vote(&self, request: &VoteRequest<Types<R>>) -> bool {
        !request.leadership_transfer && self.embargo.is_some_and(|end| R::Instant::now() < end)
    }

    async fn heartbeat(
        &self,
        decoded: Result<(u64, AppendEntriesRequest<Types<R>>), Malformed>,
    ) -> Result<Bytes, String> {
        let (_, request) = decoded.map_err(|malformed| malformed.to_string())?;
        let matched = request.prev_log_id;
        match self.raft.append_entries(request).await {
            Ok(response) => {
                self.heard.note();
                let result = response.into_stream_result(matched, matched);
                Ok(with_own_clock::<R>(&message::encode_append_result::<R>(&result)))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

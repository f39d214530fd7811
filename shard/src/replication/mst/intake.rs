//! What comes to a replica: the commands of its clients, and the messages of the other replicas.

use std::sync::Arc;

use openraft_rt::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::replica::{Core, is_fatal, lock};
use super::router::Message;
use super::table::Written;
use super::{answer, message};
use crate::replication::queue::{Pending, WriteOptions, stopped};
use crate::replication::rid_window::RidWindow;
use crate::runtime::Runtime;

/// Writes what clients give, until the queue is gone, `stop`, or a failure of the data layer.
pub(super) async fn write<R: Runtime>(
    core: Arc<Core>,
    mut commands: mpsc::UnboundedReceiver<Pending>,
    stop: CancellationToken,
) {
    let mut batch = Vec::new();
    let mut window = RidWindow::<R::Instant>::new(core.options.writes.rid_window);
    while !core.has_failed() {
        let taken = commands.recv_many(&mut batch, core.options.writes.batch_commands);
        if stop.run_until_cancelled(taken).await.unwrap_or(0) == 0 {
            break;
        }
        let (given, waiters): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|pending| (pending.command, pending.waiter)).unzip();
        let now = R::wall_clock();
        let window_ms = window.ms(R::Instant::now(), now);
        let writing = core.clone();
        let written = R::blocking(move || {
            let WriteOptions { durability, .. } = writing.options.writes;
            let mut table = lock(&writing.table);
            let Written { outcomes, changes, entries } = table.write(given, now, window_ms, durability)?;
            let messages = message::push(&mut table, entries, now);
            (writing.sink)(changes);
            writing.note(&table);
            drop(table);
            writing.spread(&messages);
            Ok(outcomes)
        })
        .await;
        match written {
            Ok(outcomes) => {
                for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
                    waiter.answer(Ok(outcome));
                }
            }
            Err(error) => {
                if is_fatal(&error) {
                    core.fail(&error);
                }
                for waiter in waiters {
                    waiter.answer(Err(error.clone()));
                }
            }
        }
    }
    commands.close();
    while let Ok(pending) = commands.try_recv() {
        pending.waiter.answer(Err(stopped()));
    }
}

/// Takes what the other replicas send, until `stop`.
pub(super) async fn listen<R: Runtime>(
    core: Arc<Core>,
    mut messages: mpsc::Receiver<Message>,
    stop: CancellationToken,
) {
    while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
        let Message { sender, body, reply } = message;
        if message::is_nudge(&body) {
            lock(&core.owed).insert(sender);
            if let Some(reply) = reply {
                reply.send(message::done());
            }
            continue;
        }
        let answering = core.clone();
        let answer = R::blocking(move || {
            let now = R::wall_clock();
            let mut table = lock(&answering.table);
            let placed = answering.others().iter().any(|record| record.replica == sender);
            let (answer, changes) = if placed {
                answer::answer(&mut table, sender, &body, now)?
            } else {
                answer::answer_stranger(&mut table, &body, now)?
            };
            (answering.sink)(changes);
            answering.note(&table);
            Ok(answer)
        })
        .await;
        match (answer, reply) {
            (Ok(answer), Some(reply)) => reply.send(answer),
            (Ok(_), None) => {}
            (Err(error), reply) => {
                if is_fatal(&error) {
                    core.fail(&error);
                }
                if let Some(reply) = reply {
                    reply.refuse(error.to_string());
                }
            }
        }
    }
}

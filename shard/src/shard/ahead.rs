//! Reading ahead: while a long stream's replies are handed to its caller, another thread reads what comes next.
//!
//! Handing a reply to zenoh costs about as much as reading and encoding it, so that two threads send almost twice as
//! fast as one. What is short is read where it is sent: a thread costs more than its rows.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope};
use std::vec;

use bytes::Bytes;
use odgm_transport::session::Sample;

use crate::Result;

/// How many items are read before a thread is worth it.
const HERE: usize = 1024;
/// How many items are handed over together, at most.
const GROUP: usize = 256;
/// The bytes from which on a group is handed over.
const GROUP_BYTES: usize = 64 << 10;
/// How many groups wait: on a busy machine the two threads run in turn, not side by side.
const DEPTH: usize = 16;

/// The items of an iterator, in their order. It holds as many bytes as `DEPTH + 2` groups, or three items.
pub(super) struct Ahead<'scope, 'env, I: Iterator> {
    scope: &'scope Scope<'scope, 'env>,
    weigh: fn(&I::Item) -> usize,
    source: Source<I>,
    ready: vec::IntoIter<I::Item>,
}

enum Source<I: Iterator> {
    /// Read here: the items, and how many came.
    Here(I, usize),
    /// Read by a thread of the scope, which ends with the items or with the receiver.
    There(Receiver<Vec<I::Item>>),
    Ended,
}

impl<'scope, 'env, I> Ahead<'scope, 'env, I>
where
    I: Iterator<Item: Send> + Send + 'scope,
{
    /// `weigh` tells about how many bytes an item holds.
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, items: I, weigh: fn(&I::Item) -> usize) -> Self {
        Ahead { scope, weigh, source: Source::Here(items, 0), ready: Vec::new().into_iter() }
    }

    /// Goes on in a thread; here, when there is none to be had.
    fn hand_over(&self, items: I) -> Source<I> {
        let (groups, receiver) = sync_channel(DEPTH);
        let weigh = self.weigh;
        let shared = Arc::new(Mutex::new(Some(items)));
        let taken = shared.clone();
        let started = Builder::new().name("read-ahead".to_owned()).spawn_scoped(self.scope, move || {
            let items = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut items = items.into_iter().flatten();
            loop {
                let (group, bytes) = gather(&mut items, weigh);
                if group.is_empty() || groups.send(group).is_err() {
                    return;
                }
                // A large one takes the room of several.
                for _ in 1..(bytes / GROUP_BYTES).min(DEPTH) {
                    if groups.send(Vec::new()).is_err() {
                        return;
                    }
                }
            }
        });
        let left = || shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        match started {
            Ok(_) => Source::There(receiver),
            Err(error) => {
                tracing::debug!(%error, "nothing is read ahead");
                left().map_or(Source::Ended, |items| Source::Here(items, 0))
            }
        }
    }
}

fn gather<T>(items: &mut impl Iterator<Item = T>, weigh: fn(&T) -> usize) -> (Vec<T>, usize) {
    let (mut group, mut bytes) = (Vec::new(), 0);
    while group.len() < GROUP && bytes < GROUP_BYTES {
        let Some(item) = items.next() else { break };
        bytes += weigh(&item);
        group.push(item);
    }
    (group, bytes)
}

impl<'scope, I> Iterator for Ahead<'scope, '_, I>
where
    I: Iterator<Item: Send> + Send + 'scope,
{
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        loop {
            if let Some(item) = self.ready.next() {
                return Some(item);
            }
            match std::mem::replace(&mut self.source, Source::Ended) {
                Source::Here(mut items, came) if came < HERE => {
                    let item = items.next()?;
                    self.source = Source::Here(items, came + 1);
                    return Some(item);
                }
                Source::Here(items, _) => self.source = self.hand_over(items),
                Source::There(groups) => {
                    self.ready = groups.recv().ok()?.into_iter();
                    self.source = Source::There(groups);
                }
                Source::Ended => return None,
            }
        }
    }
}

/// About how many bytes a reply waits with.
pub(super) fn weight<T>(item: &Result<(T, Option<Sample>)>) -> usize {
    let Ok((_, Some(sample))) = item else { return 0 };
    sample.payload.as_ref().map_or(0, Bytes::len) + sample.attachment.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn all_items_come_in_their_order() {
        for length in [0, 1, HERE - 1, HERE, HERE + 1, HERE + GROUP, 10 * HERE + 7] {
            let came: Vec<usize> = thread::scope(|scope| Ahead::new(scope, 0..length, |_| 1).collect());
            assert!(came.into_iter().eq(0..length), "of {length}");
        }
    }

    #[test]
    fn what_is_short_is_read_by_its_own_thread() {
        let me = thread::current().id();
        let readers = (0..HERE).map(|_| thread::current().id());
        thread::scope(|scope| assert!(Ahead::new(scope, readers, |_| 1).all(|reader| reader == me)));
    }

    /// How many items were read at most beyond those that were taken, when each has so many bytes.
    fn most_ahead(weigh: fn(&usize) -> usize) -> usize {
        let read = AtomicUsize::new(0);
        let items = (0..100_000).inspect(|_| {
            read.fetch_add(1, Ordering::Relaxed);
        });
        let mut most = 0;
        thread::scope(|scope| {
            let mut ahead = Ahead::new(scope, items, weigh);
            for taken in 0..2 * HERE {
                assert_eq!(ahead.next(), Some(taken));
                most = most.max(read.load(Ordering::Relaxed) - taken);
            }
        });
        // Whoever goes away ends the reading.
        most.max(read.into_inner() - 2 * HERE)
    }

    #[test]
    fn no_more_is_held_than_the_groups_that_wait_or_three_large_items() {
        assert!(most_ahead(|_| GROUP_BYTES) <= DEPTH + 3);
        assert!(most_ahead(|_| 128 * GROUP_BYTES) <= 3);
    }
}

//! A replica as its object shard sees it, with every read barrier told to the [`Watch`].

use std::sync::Arc;

use odgm_transport::timer::BoxFuture;
use tokio::sync::watch;

use super::replica::Shard;
use super::watch::{Seen, Spot, Watch};
use crate::Result;
use crate::replication::{Offers, ShardState, ShardStatus};
use crate::state::{Command, ObjectView, Outcome};

/// One replica, watched.
#[derive(Debug, Clone)]
pub(crate) struct WatchedState {
    pub(crate) at: Spot,
    pub(crate) shard: Arc<Shard>,
    pub(crate) watch: Arc<Watch>,
}

impl ShardState for WatchedState {
    fn write(&self, command: Command) -> BoxFuture<'static, Result<Outcome>> {
        self.shard.write(command)
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<()>> {
        let committed = self.watch.with_facts(|facts| facts.committed_upto(self.at.group));
        let (this, barrier) = (self.clone(), self.shard.read_barrier());
        Box::pin(async move {
            barrier.await?;
            let applied = this.shard.applied().map(|position| position.index);
            this.watch.see(this.at, Seen::BarrierPassed { committed, applied });
            Ok(())
        })
    }

    fn offers(&self) -> Offers {
        self.shard.offers()
    }

    fn view(&self) -> ObjectView {
        self.shard.view()
    }

    fn status(&self) -> watch::Receiver<ShardStatus> {
        self.shard.status()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.shard.close()
    }
}

//! Three nodes, the wires between them and a way to ask them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use odgm_shard::object::CollectionName;

use crate::disk::Disk;
use crate::door::Door;
use crate::processes::{Processes, Setup};
use crate::proxy::Proxy;

/// How many nodes.
pub(crate) const NODES: usize = 3;
/// How long the nodes may take to be there at first.
const FOUNDING: Duration = Duration::from_secs(120);
/// How long a node may take to stop in good order.
const STOPPING: Duration = Duration::from_secs(90);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The cluster.
#[derive(Debug)]
pub(crate) struct Grid {
    nodes: Processes,
    pub(crate) proxy: Proxy,
    frozen: [bool; NODES],
    door: Door,
    collection: CollectionName,
    program: PathBuf,
    /// Behind the nodes: they end before their disks are taken away.
    disks: Vec<Disk>,
}

impl Grid {
    /// Starts the nodes, with their data in a directory or on disks of their own.
    ///
    /// # Errors
    /// When they do not come up.
    pub(crate) async fn start(
        dir: &Path,
        program: &Path,
        collection: CollectionName,
        settings: &[String],
        disks: Vec<Disk>,
    ) -> anyhow::Result<Self> {
        let setup = Setup {
            nodes: NODES,
            settings: settings.to_vec(),
            program: Some(program.to_owned()),
            dir: Some(dir.to_owned()),
            ..Setup::default()
        };
        let mut nodes = Processes::prepare(&setup);
        let ports: Vec<u16> = (0..NODES).map(|node| nodes.cluster_port(node)).collect();
        let proxy = Proxy::start(&ports).await.context("the proxy")?;
        for node in 0..NODES {
            nodes.set(node, &format!("cluster.peers=[{}]", proxy.peers(node).join(", ")));
        }
        for (node, disk) in disks.iter().enumerate() {
            nodes.set(node, &format!("node.data_dir={}", disk.data().display()));
        }
        let door = Door::new((0..NODES).map(|node| nodes.endpoint(node)).collect());
        let mut grid = Grid {
            nodes,
            proxy,
            frozen: [false; NODES],
            door,
            collection,
            program: program.to_owned(),
            disks,
        };
        grid.heal();
        let start = Instant::now();
        while !grid.unready().is_empty() || grid.leaders().await.contains(&None) {
            if let Some((node, end)) = grid.ended().first() {
                bail!("odgm-{node} ended ({end}):\n{}", grid.log(*node));
            }
            if start.elapsed() > FOUNDING {
                bail!("the nodes are not ready: {}", grid.reasons());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(grid)
    }

    pub(crate) fn count(&self) -> usize {
        NODES
    }

    /// A way in that begins with this node.
    pub(crate) fn door(&self, node: usize) -> Door {
        let mut endpoints: Vec<_> = (0..NODES).map(|node| self.nodes.endpoint(node)).collect();
        endpoints.rotate_left(node % NODES);
        Door::new(endpoints)
    }

    /// Starts what does not run, thaws what is frozen, repairs the wires.
    pub(crate) fn heal(&mut self) {
        self.proxy.heal();
        for node in 0..NODES {
            self.restart(node);
            self.thaw(node);
        }
    }

    /// Starts a node that does not run.
    pub(crate) fn restart(&mut self, node: usize) {
        if !self.nodes.is_started(node) {
            self.nodes.restart(node);
        }
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.frozen[node] = false;
        if self.nodes.is_started(node) {
            self.nodes.kill(node);
        }
    }

    pub(crate) fn kill_all(&mut self) {
        self.frozen = [false; NODES];
        self.nodes.kill_all();
    }

    pub(crate) fn freeze(&mut self, node: usize) {
        if self.nodes.is_started(node) {
            self.nodes.freeze(node);
            self.frozen[node] = true;
        }
    }

    pub(crate) fn thaw(&mut self, node: usize) {
        if std::mem::take(&mut self.frozen[node]) {
            self.nodes.thaw(node);
        }
    }

    /// SIGTERM; how it ended, when that was not as it should.
    pub(crate) async fn terminate(&mut self, node: usize) -> Option<String> {
        self.nodes.signal_stop(node);
        let start = Instant::now();
        loop {
            match self.nodes.ended(node) {
                Some(status) if status.success() => return None,
                Some(status) => return Some(status.to_string()),
                None if start.elapsed() > STOPPING => {
                    self.kill(node);
                    return Some(format!("nothing within {STOPPING:?}"));
                }
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Nodes that ended by themselves since they were started.
    pub(crate) fn ended(&mut self) -> Vec<(usize, ExitStatus)> {
        (0..NODES).filter_map(|node| Some((node, self.nodes.ended(node)?))).collect()
    }

    pub(crate) fn log(&self, node: usize) -> String {
        self.nodes.log(node)
    }

    /// Nodes that are not ready.
    pub(crate) fn unready(&self) -> Vec<usize> {
        let ready = |node: &usize| tokio::task::block_in_place(|| self.nodes.is_ready(*node));
        (0..NODES).filter(|node| !ready(node)).collect()
    }

    /// Why nodes are not ready.
    pub(crate) fn reasons(&self) -> String {
        let reasons = |node: usize| {
            let status = tokio::task::block_in_place(|| self.nodes.status(node)).unwrap_or_default();
            format!("odgm-{node}: {}", status["reasons"])
        };
        (0..NODES).map(reasons).collect::<Vec<_>>().join("; ")
    }

    /// Who serves each partition, as the grid says; nothing while it does not answer.
    pub(crate) async fn leaders(&mut self) -> Vec<Option<usize>> {
        let told = match self.door.client().await {
            Some(client) => client.meta(&self.collection).await.ok(),
            None => None,
        };
        let Some(meta) = told else {
            self.door.reopen().await;
            return Vec::new();
        };
        let number = |name: &String| name.strip_prefix("odgm-")?.parse().ok();
        meta.shards.iter().map(|shard| shard.serving.as_ref().and_then(number)).collect()
    }

    /// Has a partition's leader hand over.
    pub(crate) async fn transfer(&mut self, partition: u32) -> Result<(), String> {
        let path = format!("shards/{}/{partition}", self.collection);
        let told = match self.door.client().await {
            Some(client) => client.admin(&path, Some("transfer"), &[], None).await,
            None => return Err("no node lets anybody in".to_owned()),
        };
        if told.is_err() {
            self.door.reopen().await;
        }
        told.map(drop).map_err(|error| error.to_string())
    }

    /// Has an empty node take the place of the one of its name.
    ///
    /// # Errors
    /// What the grid answers, such as that no empty node was seen yet.
    pub(crate) async fn replace(&mut self, node: usize) -> Result<(), String> {
        let told = match self.door.client().await {
            Some(client) => client.admin(&format!("nodes/odgm-{node}"), Some("replace"), &[], None).await,
            None => return Err("no node lets anybody in".to_owned()),
        };
        if told.is_err() {
            self.door.reopen().await;
        }
        told.map(drop).map_err(|error| error.to_string())
    }

    /// Where a node keeps its data.
    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.disks.get(node).map_or_else(|| self.nodes.data_dir(node), Disk::data)
    }

    /// Takes the data of a node that does not run.
    pub(crate) fn empty(&self, node: usize) -> std::io::Result<()> {
        std::fs::remove_dir_all(self.data(node))
    }

    /// Has the program mend the data of a node that does not run: its exit code, and what it said.
    pub(crate) fn doctor(&self, node: usize) -> (Option<i32>, String) {
        let mut command = Command::new(&self.program);
        match command.args(["doctor", "--repair", "--data"]).arg(self.data(node)).output() {
            Ok(output) => (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => (None, error.to_string()),
        }
    }

    /// The disk of a node.
    ///
    /// # Errors
    /// When it has none of its own.
    pub(crate) fn disk(&mut self, node: usize) -> anyhow::Result<&mut Disk> {
        self.disks.get_mut(node).context("no disk of its own")
    }

    /// Stops all nodes in good order.
    pub(crate) async fn stop(&mut self) {
        self.heal();
        self.door.close().await;
        for node in 0..NODES {
            // The next run begins anew: how it ends is not asked here.
            let _ = self.terminate(node).await;
        }
    }
}

//! The configuration in the shapes of those who read it.

use odgm_transport::options::{Mode, SessionOptions};

use super::{NodeConfig, ZenohMode};

impl NodeConfig {
    /// How the clients' session is opened.
    pub fn client_session(&self) -> SessionOptions {
        let mode = match self.zenoh.mode {
            ZenohMode::Peer => Mode::Peer,
            ZenohMode::Client => Mode::Client,
            ZenohMode::Router => Mode::Router,
        };
        SessionOptions {
            mode,
            listen: self.zenoh.listen.clone(),
            connect: self.zenoh.connect.clone(),
            config: self.zenoh.config.clone(),
            connect_timeout: None,
        }
    }

    /// How the session between the nodes is opened.
    pub fn cluster_session(&self) -> SessionOptions {
        SessionOptions::cluster(self.cluster.listen.clone(), self.cluster.peers.clone())
    }
}

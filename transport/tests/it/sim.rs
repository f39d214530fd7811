//! The simulated network, on virtual time.

use std::sync::Arc;

use odgm_transport::Session;
use odgm_transport::sim::SimNetwork;
use odgm_transport::suite::Mesh;
use odgm_transport::timer::TokioTimer;

fn mesh() -> std::future::Ready<Mesh> {
    let timer = Arc::new(TokioTimer::current().expect("within a test's runtime"));
    let network = SimNetwork::new(7, timer.clone());
    let sessions = [network.session("one"), network.session("two"), network.session("three")];
    std::future::ready(Mesh { sessions: sessions.map(|session| session as Arc<dyn Session>), timer })
}

odgm_transport::transport_conformance!([#[tokio::test(start_paused = true)]], super::mesh);

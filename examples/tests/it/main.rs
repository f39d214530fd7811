//! Each example does what it says.

use std::net::TcpListener;
use std::time::Duration;

#[path = "../../embedded.rs"]
mod embedded;
#[path = "../../replication_kinds.rs"]
mod replication_kinds;
#[path = "../../three_nodes.rs"]
mod three_nodes;

/// Ports that nobody has now; the system does not give them out again at once.
fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("the system has a free port"));
    std::array::from_fn(|n| held[n].local_addr().expect("a bound listener has an address").port())
}

const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_embedded_node_keeps_what_it_acknowledged() {
    let data = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    tokio::time::timeout(DEADLINE, embedded::run(data.path(), free_ports(), &mut out))
        .await
        .unwrap()
        .unwrap();
    let expected = "put alice, version 2\n\
                    put alice on an old revision: CONFLICT\n\
                    visits: 5\n\
                    visits: 5\n\
                    after a restart, alice: hello again\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_of_three_nodes_serve_on_when_one_stops() {
    let data = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    let [a, b, c, d, e, f] = free_ports();
    let run = three_nodes::run(data.path(), [[a, b], [c, d], [e, f]], &mut out);
    tokio::time::timeout(DEADLINE, run).await.unwrap().unwrap();
    let expected = "three nodes serve\n\
                    odgm-2 reads: through odgm-0\n\
                    odgm-2 reads: without odgm-0\n\
                    odgm-2 saw alice change to: without odgm-0\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_kind_of_replication_takes_the_same_keys() {
    let data = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    let [a, b, c, d, e, f] = free_ports();
    let run = replication_kinds::run(data.path(), [[a, b], [c, d], [e, f]], &mut out);
    tokio::time::timeout(DEADLINE, run).await.unwrap().unwrap();
    let expected = "raft: alice is \"hello\", version 1\n\
                    raft: put if absent: EXISTS, increment: done\n\
                    mst: alice is \"hello\", version 0\n\
                    mst: put if absent: UNSUPPORTED, increment: UNSUPPORTED\n\
                    eventual: alice is \"hello\", version 0\n\
                    eventual: put if absent: UNSUPPORTED, increment: UNSUPPORTED\n\
                    none: alice is \"hello\", version 0\n\
                    none: put if absent: EXISTS, increment: done\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

//! Publishing and subscribing.

use bytes::Bytes;

use super::{Mesh, Seen, collect, key, ok, sample};
use crate::session::{Congestion, Priority, Sample, Session, Timestamp};

/// Publishes a marker until it arrives: a publication before the subscription is known is lost.
async fn connected(mesh: &Mesh, from: usize, seen: &Seen<Sample>) {
    let start = mesh.timer.now();
    while seen.len() == 0 {
        assert!(mesh.timer.now() - start < super::DEADLINE, "the subscription never works");
        put(mesh.sessions[from].as_ref(), sample("s/marker", b"marker"));
        mesh.timer.sleep(std::time::Duration::from_millis(10)).await;
    }
    // Markers under way come before what follows.
    put(mesh.sessions[from].as_ref(), sample("s/last", b"last"));
    mesh.until("the last marker", || seen.all().iter().any(|sample| sample.key.as_str() == "s/last")).await;
    seen.take();
}

fn put(session: &dyn Session, sample: Sample) {
    ok(session.publish(sample, Priority::Data, Congestion::Block));
}

fn numbers(samples: &[Sample]) -> Vec<u32> {
    let number = |sample: &Sample| {
        let payload = sample.payload.as_deref().expect("a value");
        u32::from_le_bytes(payload.try_into().expect("four bytes"))
    };
    samples.iter().map(number).collect()
}

/// One publisher, one priority, one order.
pub async fn samples_arrive_in_order(mesh: Mesh) {
    let seen = Seen::new();
    let _subscriber = ok(mesh.sessions[1].subscribe(&key("s/**"), collect(&seen)));
    connected(&mesh, 0, &seen).await;
    for number in 0..1_000_u32 {
        let payload = Some(Bytes::copy_from_slice(&number.to_le_bytes()));
        put(mesh.sessions[0].as_ref(), Sample { payload, ..sample("s/a", b"") });
    }
    mesh.until("all samples", || seen.len() >= 1_000).await;
    assert_eq!(numbers(&seen.all()), (0..1_000).collect::<Vec<_>>());
}

/// Everything that a sample has.
pub async fn a_sample_carries_encoding_attachment_and_timestamp(mesh: Mesh) {
    let seen = Seen::new();
    let _subscriber = ok(mesh.sessions[1].subscribe(&key("s/*"), collect(&seen)));
    connected(&mesh, 0, &seen).await;
    let full = Sample {
        encoding: "text/plain".into(),
        attachment: Some(Bytes::from_static(b"more")),
        timestamp: Some(Timestamp { time: 5 << 32, clock: *b"0123456789abcdef" }),
        ..sample("s/a", b"value")
    };
    put(mesh.sessions[0].as_ref(), full.clone());
    put(mesh.sessions[0].as_ref(), sample("s/b", b"bare"));
    mesh.until("both samples", || seen.len() >= 2).await;
    assert_eq!(seen.all(), [full, sample("s/b", b"bare")]);
}

/// A deletion is told apart from an empty value.
pub async fn a_delete_is_a_sample_without_payload(mesh: Mesh) {
    let seen = Seen::new();
    let _subscriber = ok(mesh.sessions[1].subscribe(&key("s/*"), collect(&seen)));
    connected(&mesh, 0, &seen).await;
    let gone = Sample { payload: None, ..sample("s/a", b"") };
    put(mesh.sessions[0].as_ref(), gone.clone());
    put(mesh.sessions[0].as_ref(), sample("s/a", b""));
    mesh.until("both samples", || seen.len() >= 2).await;
    assert_eq!(seen.all(), [gone, sample("s/a", b"")]);
}

/// A session does not hear itself.
pub async fn own_samples_are_not_received(mesh: Mesh) {
    let (own, other, heard) = (Seen::new(), Seen::new(), Seen::new());
    let _own = ok(mesh.sessions[0].subscribe(&key("s/**"), collect(&own)));
    let _heard = ok(mesh.sessions[0].subscribe(&key("s/**"), collect(&heard)));
    let _other = ok(mesh.sessions[1].subscribe(&key("s/**"), collect(&other)));
    connected(&mesh, 0, &other).await;
    put(mesh.sessions[0].as_ref(), sample("s/a", b"mine"));
    mesh.until("the sample at the other", || other.len() == 1).await;
    // By now an own sample would have arrived too: the other's do.
    connected(&mesh, 1, &own).await;
    mesh.until("the other's samples", || heard.len() > 0).await;
    assert!(heard.all().iter().all(|sample| sample.payload.as_deref() != Some(b"mine")));
}

/// A declared publisher, of the highest priority.
pub async fn a_declared_publisher_sends_in_order(mesh: Mesh) {
    let seen = Seen::new();
    let _subscriber = ok(mesh.sessions[1].subscribe(&key("s/**"), collect(&seen)));
    connected(&mesh, 0, &seen).await;
    let publisher = ok(mesh.sessions[0].publisher(&key("s/declared"), Priority::RealTime, Congestion::Block));
    for number in 0..1_000_u32 {
        ok(publisher.put(Bytes::copy_from_slice(&number.to_le_bytes())));
    }
    mesh.until("all samples", || seen.len() >= 1_000).await;
    assert_eq!(numbers(&seen.all()), (0..1_000).collect::<Vec<_>>());
}

//! Streams.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Mesh, Seen, links, ok};
use crate::Error;
use crate::link::{Incoming, Links, PeerId};
use crate::stream::{Pull, PullOptions, RangeRequest, STEP_BYTES, pull};

fn object() -> Bytes {
    (0..(3 << 20) + 12_345_u32).map(|at| (at % 253) as u8).collect()
}

/// Serves the ranges of one object; refuses the given ask.
fn serve(links: &Links, object: Bytes, refuse: Option<usize>) -> Seen<u64> {
    let asked = Seen::new();
    let log = asked.clone();
    links.serve(Arc::new(move |incoming: Incoming| {
        let reply = incoming.reply.expect("a request");
        let range = RangeRequest::decode(&incoming.payload).expect("a range");
        assert_eq!(range.name, "object");
        log.push(range.offset);
        if refuse == Some(log.len()) {
            return reply.refuse("not now".into());
        }
        let from = range.offset as usize;
        reply.send(object.slice(from..from + range.length as usize));
    }));
    asked
}

/// Whole, in steps, each asked for once.
pub async fn a_stream_is_pulled_in_order(mesh: Mesh) {
    let (one, other) = links::pair(&mesh).await;
    let asked = serve(&other, object(), None);
    let mut pulled = BytesMut::new();
    let options = PullOptions::new(Bytes::from_static(b"object"), object().len() as u64);
    let sink = |part: Bytes| {
        pulled.extend_from_slice(&part);
        Ok(())
    };
    ok(mesh.within("the stream", pull(one, PeerId(1), options, sink)).await);
    assert!(pulled.freeze() == object());
    let steps: Vec<u64> = (0..4).map(|step| step * u64::from(STEP_BYTES)).collect();
    assert_eq!(asked.all(), steps);
}

/// After an error nothing is lost and nothing comes twice.
pub async fn a_pull_resumes_at_its_offset(mesh: Mesh) {
    let (one, other) = links::pair(&mesh).await;
    serve(&other, object(), Some(2));
    let options =
        PullOptions { window: 1, ..PullOptions::new(Bytes::from_static(b"object"), object().len() as u64) };
    let mut pull = Pull::new(one.clone(), PeerId(1), options.clone());
    let mut pulled = BytesMut::new();
    pulled.extend(ok(mesh.within("the first part", pull.next()).await));
    assert_eq!(mesh.within("the refusal", pull.next()).await, Err(Error::Refused("not now".into())));
    assert_eq!(pull.offset(), u64::from(STEP_BYTES));
    // The same pull goes on, and so does another one from where the first stopped.
    pulled.extend(ok(mesh.within("the second part", pull.next()).await));
    let mut rest = Pull::new(one, PeerId(1), PullOptions { offset: pull.offset(), window: 4, ..options });
    while let Some(part) = ok(mesh.within("the rest", rest.next()).await) {
        pulled.extend_from_slice(&part);
    }
    assert!(pulled.freeze() == object());
}

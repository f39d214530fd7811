//! Promises about snapshots on their way between stores.

use uuid::Uuid;

use super::{Make, content, meta, read, stored, write};
use crate::Error;
use crate::snapshot::FRAME_BYTES;

/// The stored form makes the same snapshot elsewhere, also when it is sent twice.
pub fn a_snapshot_can_be_sent(make: Make<'_>) {
    let (here, there) = (make(), make());
    let content = content(5 * FRAME_BYTES / 2);
    let info = write(&*here, meta(4), &content);
    let mut receiver = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    assert_eq!(receiver.offset(), 0);
    for piece in stored(&*here, &info).chunks(100_000) {
        receiver.write(piece).expect("write");
    }
    assert!(there.list().expect("list").is_empty());
    assert_eq!(receiver.finish().expect("finish"), info);
    assert_eq!(there.list().expect("list"), std::slice::from_ref(&info));
    assert!(read(&*there, info.meta.id) == content);
    let again = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    assert_eq!(again.offset(), info.stored_bytes, "nothing is left to send");
    assert_eq!(again.finish().expect("finish"), info);
}

/// A transfer goes on behind the last sound frame of what came before it broke off.
pub fn a_broken_transfer_is_taken_up(make: Make<'_>) {
    let (here, there) = (make(), make());
    let content = content(4 * FRAME_BYTES);
    let info = write(&*here, meta(4), &content);
    let all = stored(&*here, &info);
    for sent in [10, 100, all.len() / 2, all.len() - 40, all.len()] {
        let mut receiver = there.receive(info.meta.id, info.stored_bytes).expect("receive");
        let offset = receiver.offset() as usize;
        if sent > offset {
            receiver.write(&all[offset..sent]).expect("write");
        }
        drop(receiver);
        let taken_up = there.receive(info.meta.id, info.stored_bytes).expect("receive").offset() as usize;
        assert!(taken_up <= sent.max(offset) && taken_up + FRAME_BYTES + 100 >= sent, "{taken_up} of {sent}");
    }
    let mut receiver = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    assert!(receiver.offset() as usize > FRAME_BYTES);
    let offset = receiver.offset() as usize;
    receiver.write(&all[offset..]).expect("write");
    assert_eq!(receiver.finish().expect("finish"), info);
    assert!(read(&*there, info.meta.id) == content);
}

/// Bytes that are missing, too many or changed make no snapshot; the next transfer starts anew.
pub fn a_damaged_transfer_is_refused(make: Make<'_>) {
    let (here, there) = (make(), make());
    let info = write(&*here, meta(4), &content(2 * FRAME_BYTES));
    let all = stored(&*here, &info);
    let mut short = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    short.write(&all[..all.len() - 1]).expect("write");
    assert!(matches!(short.finish(), Err(Error::Corrupt { .. })));
    let mut long = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    let offset = long.offset() as usize;
    assert!(matches!(long.write(&[&all[offset..], b"x"].concat()), Err(Error::TooLarge { .. })));
    drop(long);
    let mut damaged = all.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let other = Uuid::from_u128(1);
    for (id, bytes) in [(other, &all), (other, &damaged), (info.meta.id, &damaged)] {
        let mut receiver = there.receive(id, info.stored_bytes).expect("receive");
        let offset = receiver.offset() as usize;
        // What a frame before the damage already held is kept, and is sound.
        let bytes = if offset > middle { &all } else { bytes };
        receiver.write(&bytes[offset..]).expect("write");
        let finished = receiver.finish();
        if offset <= middle {
            assert!(matches!(finished, Err(Error::Corrupt { .. })), "{finished:?}");
            assert!(there.list().expect("list").is_empty());
        }
    }
    there.delete(info.meta.id).expect("delete");
    let mut receiver = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    assert_eq!(receiver.offset(), 0, "what failed is not taken up");
    receiver.write(&all).expect("write");
    receiver.finish().expect("finish");
}

/// A stream of the stored form is taken over whole; cut, damaged or foreign it is refused, and lists nothing.
pub fn a_snapshot_is_installed_from_a_stream(make: Make<'_>) {
    let (here, there) = (make(), make());
    let content = content(3 * FRAME_BYTES);
    let info = write(&*here, meta(4), &content);
    let all = stored(&*here, &info);
    let total = all.len() as u64;
    for short in [0, 39, 40, all.len() / 2, all.len() - 1] {
        let cut = there.install(total, &mut &all[..short]);
        assert!(matches!(cut, Err(Error::Corrupt { .. })), "{short}: {cut:?}");
        assert!(there.list().expect("list").is_empty());
    }
    let foreign = there.install(total, &mut std::io::repeat(7));
    assert!(matches!(foreign, Err(Error::Corrupt { offset: 0, .. })), "{foreign:?}");
    let long = there.install(total - 1, &mut &all[..]);
    assert!(matches!(long, Err(Error::TooLarge { .. })), "{long:?}");
    assert_eq!(there.install(total, &mut &all[..]).expect("install"), info);
    assert!(read(&*there, info.meta.id) == content);
    assert_eq!(there.install(total, &mut &all[..]).expect("again"), info);

    let elsewhere = make();
    let mut damaged = all.clone();
    damaged[all.len() / 2] ^= 1;
    let refused = elsewhere.install(total, &mut &damaged[..]);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    assert_eq!(elsewhere.install(total, &mut &all[..]).expect("the sound one is taken"), info);
}

//! The attachment against zenoh-ext's own serialization.

use bytes::Bytes;
use odgm_shard::protocol::Attachment;
use proptest::prelude::*;

type Tuple = (u8, u64, u64, u64, u64, Vec<u8>, Vec<u8>);

proptest! {
    #[test]
    fn the_attachment_is_zenoh_exts_serialization_of_the_tuple(
        numbers in any::<[u64; 4]>(),
        incarnation in any::<[u8; 16]>(),
        user in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let [revision, created_revision, version, expires_unix_ms] = numbers;
        let attachment = Attachment {
            revision, created_revision, version, expires_unix_ms, incarnation, user: user.clone().into(),
        };
        let tuple: Tuple =
            (1, revision, created_revision, version, expires_unix_ms, incarnation.to_vec(), user);
        let theirs = zenoh_ext::z_serialize(&tuple);
        prop_assert_eq!(&attachment.encode()[..], &theirs.to_bytes()[..]);
        prop_assert_eq!(Attachment::decode(&attachment.encode()), Some(attachment));
    }

    #[test]
    fn garbage_is_no_attachment_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let bytes = Bytes::from(bytes);
        if let Some(attachment) = Attachment::decode(&bytes) {
            prop_assert_eq!(Attachment::decode(&attachment.encode()), Some(attachment));
        }
    }
}

#[test]
fn a_cut_or_extended_attachment_is_refused() {
    let whole = Attachment { user: "tag".into(), ..Attachment::default() }.encode();
    for length in 0..whole.len() {
        assert_eq!(Attachment::decode(&whole.slice(..length)), None, "{length}");
    }
    assert_eq!(Attachment::decode(&[&whole[..], b"x"].concat().into()), None);
    assert_eq!(Attachment::decode(&[&[2], &whole[1..]].concat().into()), None);
}

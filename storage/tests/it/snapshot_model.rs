//! Every store of snapshots behaves as a map of contents, whatever the script and the codec.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use odgm_storage::disk::SimDisk;
use odgm_storage::snapshot::suite::meta;
use odgm_storage::snapshot::{
    Compression, FileSnapshots, MemorySnapshots, RaftSnapshotStorage, SnapshotOptions,
};
use proptest::prelude::*;

use crate::snapshot_script::{Model, after, content_of, held, run, script};

const DIR: &str = "/snapshots";

fn any_options() -> impl Strategy<Value = SnapshotOptions> {
    let codec = prop_oneof![
        (Just(Compression::Zstd), 1..6),
        (Just(Compression::Gzip), 1..10),
        (Just(Compression::Lz4), Just(1)),
        (Just(Compression::None), Just(1)),
    ];
    codec.prop_map(|(compression, level)| SnapshotOptions { compression, level })
}

fn follows_the_model(store: &dyn RaftSnapshotStorage, seed: u64, reopen: &dyn Fn() -> Option<Model>) {
    let mut model = Model::new();
    for op in script(seed, 40) {
        run(store, &model, op).unwrap();
        model = after(&model, op);
        assert_eq!(held(store, "running"), model, "{op:?}");
        let latest = store.latest().unwrap().map(|info| info.meta.position.unwrap().index);
        assert_eq!(latest, model.keys().next_back().copied());
        if let Some(found) = reopen() {
            assert_eq!(found, model, "reopened after {op:?}");
        }
    }
    for index in model.into_keys() {
        let (id, content) = (meta(index).id, content_of(index));
        for from in [0, content.len() / 3, content.len()] {
            let mut found = Vec::new();
            store.read_from(id, from as u64).unwrap().read_to_end(&mut found).unwrap();
            assert!(found == content[from..]);
        }
        assert_eq!(store.verify(id).unwrap().content_bytes, content.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn files_behave_as_a_map_of_contents(seed: u64, options in any_options()) {
        let disk = SimDisk::new(seed);
        let open = || {
            FileSnapshots::open(Arc::new(disk.clone()), Path::new(DIR), options.clone()).unwrap()
        };
        follows_the_model(&*open(), seed, &|| Some(held(&*open(), "reopened")));
    }

    #[test]
    fn memory_behaves_as_a_map_of_contents(seed: u64, options in any_options()) {
        follows_the_model(&*MemorySnapshots::new(options).unwrap(), seed, &|| None);
    }
}

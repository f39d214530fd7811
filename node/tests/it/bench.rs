//! `odgm bench storage` and `odgm bench events` from the outside: what they print, not how fast it is.

use serde_json::Value;

use crate::cli::{odgm, stderr, stdout};

/// What the documents' tables ask of the storage layers: the beginning of the row's name, and its unit.
const ASKED: [(&str, &str); 25] = [
    ("log: entries of 256 B", "entries/s"),
    ("log: append local", "ms"),
    ("log: read one entry of 1 KiB out of the files", "ms"),
    ("log: catch-up", "MB/s"),
    ("log: encoding of a record", "% over payload"),
    ("log: file in batches of 16", "% over payload"),
    ("log / bare, batches of 1, the next from the callback", "ratio"),
    ("log / bare, batches of 1, a thread waits", "ratio"),
    ("log / bare, batches of 16, the next from the callback", "ratio"),
    ("log / bare, batches of 16, a thread waits", "ratio"),
    ("log / bare, batches of 256, the next from the callback", "ratio"),
    ("log / bare, batches of 256, a thread waits", "ratio"),
    ("log: bytes written per payload byte", "ratio"),
    ("snapshot zstd: write", "MB/s"),
    ("snapshot zstd: read", "MB/s"),
    ("snapshot zstd: saved", "%"),
    ("snapshot zstd: written and durable", "s"),
    ("data: get, cached", "ms"),
    ("data: get, from disk", "ms"),
    ("data: durable write", "ms"),
    ("data: transactions, durable", "transactions/s"),
    ("data: transactions, behind a log", "transactions/s"),
    ("data: range scan", "MB/s"),
    ("data: point queries", "queries/s"),
    ("data: longest write during a checkpoint", "ms"),
];

#[test]
fn bench_storage_prints_every_row_with_its_target_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let output = odgm(&["bench", "storage", "--quick", "--json", "--dir", path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

    let printed: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(printed["machine"]["cpus"].as_u64().unwrap() > 0);
    let rows = printed["rows"].as_array().unwrap();
    let row = |name: &str| {
        let found: Vec<_> =
            rows.iter().filter(|row| row["name"].as_str().unwrap().starts_with(name)).collect();
        assert_eq!(found.len(), 1, "rows {name:?} of {rows:#?}");
        found[0]
    };
    for limit in ["fdatasync", "sequential write", "sequential read"] {
        assert!(row(limit)["value"].as_f64().unwrap() > 0.0, "{limit}");
    }
    for (name, unit) in ASKED {
        let row = row(name);
        assert_eq!(row["unit"], unit, "{row}");
        assert!(row["value"].is_f64() && row["target"].is_f64() && row["met"].is_boolean(), "{row}");
        if !matches!(unit, "%" | "s" | "ratio" | "% over payload") {
            assert!(row["p50"].as_f64().unwrap() <= row["p99"].as_f64().unwrap(), "{row}");
        }
    }
    // These do not depend on the machine: the encoding is what it is, and so is the corpus.
    for name in ["log: encoding", "log: bytes written", "snapshot zstd: saved"] {
        assert_eq!(row(name)["met"], true, "{}", row(name));
    }
    let file = row("log: file in batches")["value"].as_f64().unwrap();
    assert!(file < 50.0, "new segments are counted as overhead: {file} %");
    for codec in ["zstd", "lz4", "gzip", "none"] {
        assert!(row(&format!("snapshot {codec}: write"))["value"].as_f64().unwrap() > 0.0, "{codec}");
    }
    assert!(row("snapshot none: saved")["value"].as_f64().unwrap() < 1.0);
}

#[test]
fn bench_storage_refuses_a_directory_that_is_not_there() {
    let output = odgm(&["bench", "storage", "--quick", "--dir", "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("/nowhere/at/all"), "{output:?}");
    assert!(output.stdout.is_empty());
}

#[test]
fn bench_events_finds_every_change_at_every_subscriber_through_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut arguments = vec!["bench", "events", "--json", "--kill", "--dir", dir.path().to_str().unwrap()];
    let small =
        "--sessions 3 --subscribers 2 --changes 400 --behind 1500 --clients 4 --rounds 1 --duration 200ms";
    arguments.extend(small.split(' '));
    let output = odgm(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

    let printed: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let rows = printed["rows"].as_array().unwrap();
    let row = |name: &str| {
        let found = rows.iter().find(|row| row["name"].as_str().unwrap().starts_with(name));
        found.unwrap_or_else(|| panic!("no row {name:?} in {rows:#?}"))
    };
    assert_eq!(row("subscribers with all changes")["value"], 6.0);
    for name in
        ["changes put", "deliveries", "puts with history", "puts beside a catch-up", "catch-up, direct"]
    {
        assert!(row(name)["value"].as_f64().unwrap() > 0.0, "{}", row(name));
        assert!(row(name)["errors"].is_null(), "{}", row(name));
    }
    for name in [
        "puts with/without history",
        "catch-up/stream, direct",
        "catch-up/stream, through another node",
        "catch-up/stream, direct, beside puts",
        "puts beside a catch-up/alone",
    ] {
        assert!(row(name)["target"].is_f64() && row(name)["met"].is_boolean(), "{}", row(name));
    }
}

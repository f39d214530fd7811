//! That the forms which the documents show are understood, and wrong ones are not.

use clap::{CommandFactory, Parser};

use super::Cli;

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_form_is_understood() {
    for line in [
        "start",
        "start --config f.yaml --set node.name=a --set zenoh.listen=tcp/[::]:7447",
        "get users/alice",
        "get users/alice/name --connect tcp/10.0.0.1:7447 -o json",
        "--connect tcp/10.0.0.1:7447,tcp/10.0.0.2:7447 get users/alice",
        "put users/alice VALUE",
        "put users/alice -",
        "put users/n -5",
        "put users/alice --file f",
        "put users/alice v --if-revision 7 --encoding text/plain",
        "delete users/alice",
        "delete users/* --yes",
        "increment n/a --by -2",
        "touch users/alice --ttl 30s",
        "list users",
        "list users/alice/** --limit 10",
        "watch users --from 7",
        "watch users/a$*",
        "txn users --file -",
        "meta users",
        "collection create users --partitions 8 --replicas 3",
        "collection update users --file f",
        "collection list",
        "collection describe users",
        "collection delete users",
        "cluster status",
        "node list",
        "node drain a",
        "node undrain a",
        "node remove a",
        "node replace a",
        "shard status users/3",
        "shard transfer users/3 --to b",
        "shard snapshot users/3",
        "shard compact users/3",
        "snapshot list users/3",
        "snapshot export users/3 f",
        "snapshot import f users --overwrite",
        "snapshot verify f",
        "bench kv --json",
        "bench kv --clients 1,64 --size 1024",
        "bench events --json",
        "bench events --parts behind,fanout --sessions 20 --subscribers 50 --changes 100000 --kill",
        "bench storage",
        "bench storage --quick --json --dir d",
        "bench snapshot",
        "config show",
        "config check --config f.yaml",
        "doctor --data d",
        "doctor --data d --json --repair",
        "doctor --data d --migrate log=fjall",
    ] {
        let arguments = std::iter::once("odgm").chain(line.split(' '));
        if let Err(error) = Cli::try_parse_from(arguments) {
            panic!("odgm {line}: {error}");
        }
    }
}

#[test]
fn wrong_usage_is_refused() {
    for line in [
        "",
        "gte users/alice",
        "get",
        "get users",
        "get users/a/b/c",
        "get users/*",
        "get Users/a",
        "put users/alice",
        "put users/alice v --file f",
        "put users/alice v --if-absent --if-present",
        "put users/@a v",
        "increment n/a --by x",
        "list users//a",
        "shard status users",
        "shard status users/x",
        "start --set a",
        "get users/a --timeout 3",
        "get users/a -o xml",
        "bench storage --fast",
        "bench events --parts all",
        "bench storage 3",
        "bench storage --dir",
        "doctor --data d --migrate data=memory",
        "doctor --data d --migrate log=memory_log",
        "doctor --data d --migrate log=fjall --repair",
    ] {
        let arguments = std::iter::once("odgm").chain(line.split(' ').filter(|part| !part.is_empty()));
        assert!(Cli::try_parse_from(arguments).is_err(), "odgm {line}");
    }
}

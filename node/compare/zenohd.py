"""odgm beside zenohd with its storage manager: what was seen on each side, as one table.

Five scenarios, each on fresh processes of this machine, by the same client (eclipse-zenoh for Python): an acknowledged
write and SIGKILL, a delete and restarts, an attachment, a slow reader of many objects, and two replicas that were cut
from each other. docs/zenohd.md has what was seen.

    node/compare/build-zenohd.sh /var/tmp/zenohd      # zenohd 1.10.2, its storage manager, RocksDB and files behind it;
                                                      # needs libclang, and says how to use the system's RocksDB
    python3 -m venv /var/tmp/venv && /var/tmp/venv/bin/pip install eclipse-zenoh==1.10.2
    cargo build --release
    /var/tmp/venv/bin/python node/compare/zenohd.py --odgm target/release/odgm \
        --zenohd /var/tmp/zenohd/target/release/zenohd --plugins /var/tmp/zenohd/target/release

With all scenarios it runs for about an hour. strace is used where there is one, to count fsyncs. Nothing is left behind
but what --keep keeps.
"""
import argparse, functools, importlib.metadata, itertools, json, os, pathlib, platform, shutil, signal, subprocess, sys
import tempfile, time, zenoh

sys.dont_write_bytecode = True
import scenarios
from systems import Odgm, Zenohd

SCENARIOS = ["acknowledged write", "delete", "attachment", "slow reader", "convergence"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = lambda text: pathlib.Path(text).resolve()
    parser.add_argument("--odgm", type=path, help="the program; without it only the other side runs")
    parser.add_argument("--zenohd", type=path, help="the program")
    parser.add_argument("--plugins", type=path, help="the directory of its plugins, by default its own")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be given again")
    parser.add_argument("--system", action="append", help="only columns whose name begins so; may be given again")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=path, help="where the data go: on the disk that is to be measured")
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    parser.add_argument("--json", action="store_true", help="the figures instead of the table")
    return parser.parse_args()


def runs(args, place):
    """Each scenario for each system: the scenario, the column, and what to call."""
    odgm = lambda kind, nodes, wires=None: Odgm(args.odgm, place(), nodes, kind, wires)
    zenohd = lambda volume, nodes, interval=None, wires=None: Zenohd(
        args.zenohd, args.plugins or args.zenohd.parent, place(), nodes, volume, interval, wires)
    bind, rounds = functools.partial, args.rounds
    if args.odgm:
        for kind, nodes in (("raft", 3), ("mst", 2)):
            start = bind(odgm, kind, nodes)
            yield "acknowledged write", f"odgm {kind}", bind(scenarios.acknowledged, system="odgm", start=start, rounds=rounds)
            yield "delete", f"odgm {kind}", bind(scenarios.deletes, start=start, replicated=start, rounds=rounds)
            yield "attachment", f"odgm {kind}", bind(scenarios.attachment, start=start, rounds=rounds)
        start = bind(odgm, "raft", 3)
        yield "slow reader", "odgm raft, at the leader", bind(scenarios.slow_reader, start=start, rounds=rounds)
        yield "slow reader", "odgm raft, at a follower", bind(
            scenarios.slow_reader, start=start, rounds=rounds, elsewhere=True)
        yield "convergence", "odgm mst", bind(
            scenarios.convergence, start=bind(odgm, "mst", 2), rounds=rounds)
    if args.zenohd:
        for volume, name in (("rocksdb", "zenohd RocksDB"), ("fs", "zenohd files"), ("memory", "zenohd memory")):
            one = bind(zenohd, volume, 1)
            yield "acknowledged write", name, bind(scenarios.acknowledged, system="zenohd", start=one, rounds=rounds)
            if volume == "rocksdb":
                yield "delete", name, bind(
                    scenarios.deletes, start=one, replicated=bind(zenohd, volume, 2), rounds=rounds)
            if volume != "memory":
                yield "attachment", name, bind(scenarios.attachment, start=one, rounds=rounds)
        for nodes, name in ((1, "zenohd RocksDB"), (2, "zenohd RocksDB, two replicas")):
            yield "slow reader", name, bind(
                scenarios.slow_reader, start=bind(zenohd, "rocksdb", nodes), rounds=rounds)
        for interval, name in ((None, "zenohd RocksDB"), (1.0, "zenohd RocksDB, interval 1 s")):
            start = lambda wires, interval=interval: zenohd("rocksdb", 2, interval, wires)
            yield "convergence", name, bind(scenarios.convergence, start=start, rounds=rounds)


def cell(values):
    """The values of the rounds: one when all are the same."""
    shown = []
    for value in values:
        if isinstance(value, dict):
            value = ", ".join(f"{name} {part}" for name, part in value.items())
        if isinstance(value, list):
            value = " and ".join(map(str, value))
        words = {True: "yes", False: "no", None: "none"}
        shown.append(words[value] if value is None or isinstance(value, bool) else str(value))
    return shown[0] if len(set(shown)) == 1 else "; ".join(shown)


def table(rows):
    lines = []
    for scenario, group in itertools.groupby(rows, key=lambda row: row["scenario"]):
        group = list(group)
        columns = list(dict.fromkeys(column for row in group for column in row["seen"]))
        lines += ["", f"| {scenario} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for row in group:
            cells = [cell(row["seen"][column]) if column in row["seen"] else "" for column in columns]
            lines.append(f"| {row['name'].strip()} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def version(program, *flags):
    return subprocess.run([program, *flags], capture_output=True, text=True).stdout.strip().splitlines()[-1]


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started ends with it
    if not (args.odgm or args.zenohd):
        sys.exit("neither --odgm nor --zenohd is given")
    directory, numbers = pathlib.Path(tempfile.mkdtemp(prefix="odgm-zenohd-", dir=args.dir)), itertools.count()
    place = lambda: directory / str(next(numbers))
    rows = {}
    chosen = [run for run in runs(args, place)
              if run[0] in (args.scenario or SCENARIOS) and (not args.system or run[1].startswith(tuple(args.system)))]
    try:
        for scenario, column, call in sorted(chosen, key=lambda run: SCENARIOS.index(run[0])):
            print(f"{time.strftime('%H:%M:%S')} {scenario}: {column}", file=sys.stderr)
            figures = scenarios.Figures()
            try:
                call(figures)
            except Exception as error:  # one side's trouble is a result too, and does not end the others
                print(f"{scenario}, {column}: {error!r}", file=sys.stderr)
                figures.note("ended early", repr(error))
            for name, values in figures.items():
                row = rows.setdefault((scenario, name), {"scenario": scenario, "name": name.strip(), "seen": {}})
                row["seen"][column] = values
            if not args.keep:
                for entry in directory.iterdir():
                    shutil.rmtree(entry, ignore_errors=True)
    finally:
        if args.keep:
            print(f"data and logs are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg(),
               "eclipse-zenoh": importlib.metadata.version("eclipse-zenoh")}
    for program in filter(None, (args.odgm, args.zenohd)):
        machine[program.name] = version(program, "--version")
    rows = list(rows.values())
    print(json.dumps({"machine": machine, "rows": rows}, indent=1) if args.json else table(rows))


if __name__ == "__main__":
    main()

"""What is done to both systems, and what is counted."""
import contextlib, multiprocessing, random, shutil, signal, statistics, subprocess, threading, time, zenoh

from systems import BLOCK, NONE, Unknown, connect, until
from wires import Wires

VALUE = b"v" * 256


class Figures(dict):
    """By name, one value a round: it has what was seen before a scenario ended early, too."""

    def note(self, name, value):
        self.setdefault(name, []).append(value)


def milliseconds(seconds):
    return round(seconds * 1000, 2)


def percentiles(seconds):
    return {"p50": milliseconds(statistics.median(seconds)), "max": milliseconds(max(seconds))}


# ---- acknowledged writes


def acknowledged(figures, system, start, rounds, count=1000):
    """Writes, then SIGKILL of every process at once, and what is there after a restart."""

    for _ in range(rounds):
        for pause in (0, 1):
            with start() as servers:
                client = servers.client()
                began = time.monotonic()
                for number in range(count):
                    client.put(f"plain-{number}", VALUE)
                took = time.monotonic() - began
                time.sleep(pause)
                servers.end()
                if pause == 0:
                    figures.note(f"ms in which {count} plain puts returned", milliseconds(took))
                    nobody(figures, system, client)
                servers.restart()
                client = servers.client()
                there = sum(client.get(f"plain-{number}") is not None for number in range(count))
                when = f"{pause} s after the last put" if pause else "at once"
                figures.note(f"plain puts, of {count}, there after SIGKILL {when} and a restart", there)

        with start() as servers:
            client, took = servers.client(), []
            for number in range(count):
                began = time.monotonic()
                client.write(f"known-{number}", VALUE)
                took.append(time.monotonic() - began)
            servers.end()
            figures.note("ms until a write is known to be stored", percentiles(took))
            servers.restart()
            client = servers.client()
            there = sum(client.get(f"known-{number}") is not None for number in range(count))
            figures.note(f"known writes, of {count}, there after SIGKILL at once and a restart", there)
        figures.note("fsyncs a write, all processes", fsyncs(start))


def nobody(figures, system, client):
    """What a writer hears while no server runs."""
    returned = 0
    with contextlib.suppress(zenoh.ZError):
        for number in range(10):
            client.put(f"nobody-{number}", VALUE)
            returned += 1
    figures.note("plain puts, of 10, that returned without an error while no server ran", returned)
    if system == "odgm":
        told = 0
        for number in range(3):
            try:
                client.command(f"nobody-{number}", "put", VALUE, attempts=1, timeout=2)
            except (Unknown, zenoh.ZError):
                told += 1
        figures.note("commands, of 3, that were not acknowledged while no server ran", told)


def fsyncs(start, count=200):
    """By strace, of writes one after the other that the client waits for."""
    if not shutil.which("strace"):
        return None
    with start() as servers:
        client = servers.client()
        client.write("first", VALUE)
        tracers = []
        for process in servers.processes:
            command = ["strace", "-f", "-c", "-U", "calls,name", "-e", "trace=fsync,fdatasync,sync_file_range,msync",
                       "-o", process.directory / "strace", "-p", str(process.running.pid)]
            tracers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
            tracers[-1].stderr.readline()  # that it is attached
        for number in range(count):
            client.write(f"traced-{number}", VALUE)
        calls = 0
        for tracer, process in zip(tracers, servers.processes):
            tracer.send_signal(signal.SIGINT)
            tracer.wait(timeout=60)
            lines = (process.directory / "strace").read_text().splitlines()
            calls += sum(int(line.split()[0]) for line in lines if line.split()[-1:] and "sync" in line.split()[-1])
        return round(calls / count, 2)


# ---- deletes


def deletes(figures, start, replicated, rounds, count=20, watch=30):
    """Deletes, restarts, and which keys come back within `watch` seconds."""
    keys = [f"key-{number}" for number in range(count)]

    for _ in range(rounds):
        with start() as servers:
            client = servers.client()
            for key in keys:
                client.write(key, VALUE)
            for key in keys:
                client.delete(key)
            servers.restart()
            client = servers.client()
            there = sum(client.get(key) is not None for key in keys)
            figures.note(f"deleted keys, of {count}, there after SIGKILL and restart", there)

        for also_others in (False, True):
            with replicated() as servers:
                last = len(servers.processes) - 1
                clients = [servers.client(number) for number in range(last + 1)]
                for key in keys:
                    clients[0].write(key, VALUE)
                until("every replica has the keys", lambda: all(len(client.list() or ()) == count for client in clients))
                servers.end([last])
                for key in keys:
                    clients[0].delete(key)
                servers.hang_up()
                if also_others:
                    servers.end(range(last))
                    servers.start(range(last))
                    assert all(servers.client().get(key) is None for key in keys)
                    servers.hang_up()
                servers.start([last])
                clients = [servers.client(number) for number in range(last + 1)]
                began, seen, gone = time.monotonic(), [None] * len(clients), None
                while time.monotonic() - began < watch:
                    lists = [client.list() for client in clients]  # a replica that is silent for now has what it had
                    seen = [before if found is None else len(found) for found, before in zip(lists, seen)]
                    if any(seen) or None in seen:
                        gone = None
                    elif gone is None:
                        gone = time.monotonic() - began
                    time.sleep(0.25)
                restarted = "with the others restarted meanwhile" if also_others else "while one replica was down"
                figures.note(f"deleted keys, of {count}, {restarted}: on each replica {watch} s after it is back", seen)
                figures.note(f"… {restarted}: s until no replica has one", gone and round(gone, 1))


# ---- attachments


def attachment(figures, start, rounds):

    for _ in range(rounds):
        with start() as servers:
            for when in ("after a put", "after a restart"):
                client = servers.client()
                if when == "after a put":
                    client.write("card", b"{}", attachment=b"by=alice", encoding="application/json")
                else:
                    servers.restart()
                    client = servers.client()
                found = client.get("card")
                figures.note(f"attachment, {when}", found.attachment and found.attachment.decode())
                figures.note(f"encoding, {when}", found.encoding)
                figures.note(f"has a timestamp, {when}", found.timestamp is not None)


# ---- a slow reader


def read(endpoint, selector, pause, stop, told):
    """Of a process of its own: all replies of a wildcard, `pause` seconds each, and `stop` seconds after the 100th."""
    with connect(endpoint) as session:
        told.put("ready")
        began, replies, keys, errors = time.monotonic(), 0, set(), []
        for reply in session.get(selector, zenoh.handlers.FifoChannel(16), consolidation=NONE, timeout=60):
            if reply.ok:
                replies += 1
                keys.add(str(reply.ok.key_expr))
                time.sleep(pause)
                if replies == 100:
                    time.sleep(stop)
            else:
                errors.append(reply.err.payload.to_bytes()[:200].decode(errors="replace"))
        objects = sum("/big-" in key for key in keys)
        told.put((objects, errors, time.monotonic() - began))


class Memory:
    """The greatest growth of one process while it is watched."""

    def __init__(self, processes):
        self.processes, self.over = processes, threading.Event()
        self.before = self.most = [process.resident() for process in processes]
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while not self.over.wait(0.05):
            self.most = [max(most, process.resident()) for most, process in zip(self.most, self.processes)]

    def end(self):
        """MiB before and at most, of the process that grew most."""
        self.over.set()
        self.thread.join()
        before, most = max(zip(self.before, self.most), key=lambda pair: pair[1] - pair[0])
        return {"before": before >> 20, "max": most >> 20}


def others(client, count, while_true):
    """Another client: a read and a write in turns, and how many of them came to nothing."""
    reads, writes, failed, number = [], [], 0, 0
    while while_true():
        for took, ask in (
            (reads, lambda: client.get(f"big-{random.randrange(count)}") is not None),
            (writes, lambda: client.write(f"other-{number % 100}", str(number).encode()) or True),
        ):
            began = time.monotonic()
            try:
                failed += not ask()
            except (Unknown, zenoh.ZError):
                failed += 1
            took.append(time.monotonic() - began)
        number += 1
    return percentiles(reads), percentiles(writes), failed


def slow_reader(figures, start, rounds, elsewhere=False, count=10_000, size=4096, pause=0.002, stop=8):
    """All clients are at the node that serves, or all at another one."""

    for _ in range(rounds):
        with start() as servers:
            place = (servers.serving() + elsewhere) % len(servers.processes)
            client = servers.client(place)
            load(client, count, size)
            alone_until = time.monotonic() + 5
            reads, writes, _ = others(client, count, lambda: time.monotonic() < alone_until)
            figures.note("ms of a read, nobody else", reads), figures.note("ms of a known write, nobody else", writes)
            for name, each, stands in (("slow", pause, 0), ("stopped", 0, stop)):
                spawn = multiprocessing.get_context("spawn")
                told = spawn.Queue()
                reader = spawn.Process(target=read, args=(servers.endpoint(place), client.every, each, stands, told))
                reader.start()
                told.get(timeout=120)
                memory = Memory(servers.processes)
                reads, writes, failed = others(client, count, lambda: reader.is_alive() and told.empty())
                objects, errors, took = told.get(timeout=120)
                reader.join()
                figures.note(f"{name} reader: objects, of {count}", objects)
                figures.note(f"{name} reader: knows whether that is all", knows(errors))
                figures.note(f"{name} reader: s", round(took, 1))
                figures.note(f"{name} reader: ms of another's read", reads)
                figures.note(f"{name} reader: ms of another's known write", writes)
                figures.note(f"{name} reader: requests of the other that came to nothing", failed)
                figures.note(f"{name} reader: MiB of the process that grew most", memory.end())


def knows(errors):
    """By an END, or by an error that says that something is missing."""
    if any('"END"' in error for error in errors):
        return "END"
    return "; ".join(sorted(set(errors))) or "no"


def load(client, count, size):
    """Objects, in batches, each batch seen before the next."""
    value = random.Random(1).randbytes(size)
    for first in range(0, count, 200):
        for number in range(first, min(first + 200, count)):
            client.put(f"big-{number}", value)
        until("the objects are there", lambda: client.get(f"big-{min(first + 200, count) - 1}"))
    until("all objects are there", lambda: len(client.list() or ()) >= count, every=0.5)


# ---- a cut


def convergence(figures, start, rounds, cut_seconds=15, watch=120):
    """Writes and deletes on both sides of a cut, and how long after it both replicas answer the same."""

    def numbered(prefix, first, count):
        return [f"{prefix}-{number}" for number in range(first, first + count)]

    for _ in range(rounds):
        wires = Wires()
        with start(wires) as servers:
            a, b = servers.client(0), servers.client(1)
            kept = numbered("kept", 0, 100)
            gone = numbered("gone", 0, 200)
            revived, again = numbered("revived", 0, 20), numbered("again", 0, 20)
            expected = {}

            def write(client, keys, value):
                for key in keys:
                    client.write(key, value)
                    expected[key] = value

            def delete(client, keys):
                for key in keys:
                    client.delete(key)
                    expected.pop(key, None)

            write(a, kept + gone + revived + again, b"before")
            until("the replicas are equal", lambda: a.list() == expected == b.list(), seconds=watch, every=0.5)
            wires.cut()
            cut = time.monotonic()
            write(a, numbered("a", 0, 400) + numbered("both", 0, 100), b"of a")
            delete(a, gone[:100] + revived)
            write(b, numbered("b", 0, 400) + numbered("both", 0, 100), b"of b")
            delete(b, gone[100:])
            write(b, revived, b"after the delete")
            write(b, again, b"before the delete")
            delete(a, again)
            figures.note("s of writing", round(time.monotonic() - cut, 1))
            time.sleep(max(0, cut_seconds - (time.monotonic() - cut)))
            assert a.list() != b.list(), "there was no cut"
            wires.heal()
            healed, equal, right = time.monotonic(), None, None
            while time.monotonic() - healed < watch and right is None:
                of_a, of_b = a.list(), b.list()
                now = round(time.monotonic() - healed, 1)
                equal = (equal or now) if of_a == of_b is not None else None
                right = now if of_a == expected == of_b else None
                time.sleep(0.1)
            figures.note("s until both replicas answer the same", equal)
            figures.note("s until both have the newest of each key", right)
            final = {**(of_a or {}), **(of_b or {})}
            figures.note("deleted keys that are there at the end", sum(key not in expected for key in final))
            figures.note("keys that are missing or old at the end", sum(
                any(found is None or found.get(key) != value for found in (of_a, of_b)) for key, value in expected.items()))

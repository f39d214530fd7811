"""odgm and zenohd as processes of this machine, and a client of each that speaks plain zenoh.

Both have the same methods. What differs is what an answer says: an odgm client knows whether a write is stored, and
whether a key is absent; with a storage behind zenohd `put` tells nothing, and no reply may mean anything.
"""
import contextlib, dataclasses, json, os, pathlib, signal, socket, subprocess, time, urllib.request, uuid, zenoh
from zenoh.ext import UInt8, UInt64, z_deserialize

BLOCK = zenoh.CongestionControl.BLOCK
NONE = zenoh.ConsolidationMode.NONE


class Unknown(Exception):
    """Nobody said whether the write is stored, or whether the key is there."""


@dataclasses.dataclass
class Found:
    value: bytes
    encoding: str
    attachment: bytes | None
    timestamp: object


def until(what, holds, seconds=120, every=0.05):
    """What `holds` gave when it first held, and how long that took."""
    start = time.monotonic()
    while not (value := holds()):
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(every)
    return value, time.monotonic() - start


def free_ports(count):
    with contextlib.ExitStack() as held:
        taken = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in taken]


def connect(endpoint):
    config = zenoh.Config()
    for key, value in {
        "mode": "client", "connect/endpoints": [endpoint], "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False, "connect/timeout_ms": 20000,
    }.items():
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


class Process:
    def __init__(self, command, directory, env=None):
        self.command, self.directory, self.env = command, directory, {**os.environ, **(env or {})}
        self.running = None

    def start(self):
        log = open(self.directory / "log", "ab")
        self.running = subprocess.Popen(self.command, cwd=self.directory, env=self.env, stdout=log, stderr=log)

    def end(self, how=signal.SIGKILL):
        if self.running and self.running.poll() is None:
            self.running.send_signal(how)
            self.running.wait(timeout=60)

    def resident(self):
        """Bytes; none of a process that has ended."""
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{self.running.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0


class Servers:
    """The processes of one system; `processes` and `is_ready` are the subclass's."""

    def __enter__(self):
        self.sessions = []
        try:
            self.start(range(len(self.processes)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.hang_up()
        for process in self.processes:
            process.end()

    def start(self, which):
        for number in which:
            self.processes[number].start()
        for number in which:
            until(f"{self.processes[number].directory} is ready", lambda: self.is_ready(number))

    def end(self, which=None, how=signal.SIGKILL):
        for process in self.processes if which is None else [self.processes[number] for number in which]:
            if process.running.poll() is None:
                process.running.send_signal(how)
        for process in self.processes if which is None else [self.processes[number] for number in which]:
            process.end(how)

    def restart(self, how=signal.SIGKILL):
        """All of them, at once."""
        self.end(how=how)
        self.hang_up()
        self.start(range(len(self.processes)))

    def open(self, number):
        session = connect(self.endpoint(number))
        self.sessions.append(session)
        return session

    def hang_up(self):
        for session in self.sessions:
            session.close()
        self.sessions.clear()


class Odgm(Servers):
    def __init__(self, program, directory, nodes, kind, wires=None):
        self.ports, self.processes = [free_ports(3) for _ in range(nodes)], []
        lead = wires.lead if wires else lambda port: port
        for number, (client, cluster, http) in enumerate(self.ports):
            home = directory / f"odgm-{number}"
            home.mkdir(parents=True)
            others = [ports for ports in self.ports if ports[0] != client]
            endpoints = lambda ports: json.dumps([f"tcp/127.0.0.1:{port}" for port in ports])
            settings = {
                "node.name": f"odgm-{number}", "node.data_dir": str(home / "data"),
                "cluster.listen": endpoints([cluster]), "cluster.peers": endpoints([lead(other[1]) for other in others]),
                "cluster.expected_nodes": nodes, "cluster.bootstrap": "odgm-0",
                "zenoh.listen": endpoints([client]), "zenoh.connect": endpoints([lead(other[0]) for other in others]),
                "http.listen": f"127.0.0.1:{http}",
                "collections": f"[{{name: default, partitions: 1, replicas: {nodes}, replication: {kind}}}]",
            }
            if wires:  # gossip would tell of a way around them
                settings["zenoh.config"] = "{scouting: {gossip: {enabled: false}}}"
            command = [program, "start", *(f"--set={key}={value}" for key, value in settings.items())]
            self.processes.append(Process(command, home))

    def endpoint(self, number):
        return f"tcp/127.0.0.1:{self.ports[number][0]}"

    def is_ready(self, number):
        """It is in the grid, and a command that is sent to it is acknowledged."""
        with contextlib.suppress(OSError, zenoh.ZError, Unknown):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[number][2]}/readyz", timeout=2):
                with connect(self.endpoint(number)) as session:
                    OdgmClient(session).command(f"probe-{number}", "put", "x", attempts=1)
                    return True

    def serving(self):
        """The node that serves the partition."""
        with connect(self.endpoint(0)) as session:
            (name,) = {json.loads(reply.ok.payload.to_bytes())["shards"][0]["serving"]
                       for reply in session.get("odgm/@meta/default") if reply.ok}
            return int(name.removeprefix("odgm-"))

    def client(self, number=0):
        return OdgmClient(self.open(number))


class OdgmClient:
    every = "odgm/default/0/*?end=1"

    def __init__(self, session):
        self.session = session

    def ask(self, selector, payload=None, attempts=60, timeout=5, **more):
        """No reply means unknown: it is asked again, with the same rid. None when it is absent."""
        for attempt in range(attempts):
            refusals = []
            for reply in self.session.get(selector, payload=payload, timeout=timeout, **more):
                if reply.ok:
                    return reply.ok
                if reply.err.encoding == zenoh.Encoding.APPLICATION_JSON:
                    refusals.append(json.loads(reply.err.payload.to_bytes()))
            for refusal in refusals:
                if refusal["code"] == "NOT_FOUND":
                    return None
                if not refusal["retry"]:
                    raise LookupError(refusal)
            if attempt + 1 < attempts:
                time.sleep(0.1)
        raise Unknown(selector)

    def command(self, object, op, payload=None, **more):
        return self.ask(f"odgm/@cmd/default/0/{object}?op={op};rid={uuid.uuid4().hex}", payload, **more)

    def write(self, object, value, **more):
        """Returns when it is acknowledged."""
        self.command(object, "put", value, **more)

    def delete(self, object):
        self.command(object, "delete")

    def put(self, object, value, **more):
        """zenoh's own put, which is not acknowledged."""
        self.session.put(f"odgm/default/0/{object}", value, congestion_control=BLOCK, **more)

    def get(self, object):
        sample = self.ask(f"odgm/default/0/{object}")
        if sample is None:
            return None
        shape = tuple[UInt8, UInt64, UInt64, UInt64, UInt64, bytes, bytes]
        attachment = z_deserialize(shape, sample.attachment)[-1]
        return Found(sample.payload.to_bytes(), str(sample.encoding), attachment or None, sample.timestamp)

    def list(self):
        """The value of each object on the replica that this client is connected to; None when it is not complete."""
        own = str(self.session.info.peers_zid()[0]) if self.session.info.peers_zid() else None
        found, ended = {}, False
        near = "odgm/@near/default/0/*?end=1"
        for reply in self.session.get(near, target=zenoh.QueryTarget.ALL, consolidation=NONE, timeout=30):
            if str(reply.replier_id.zid if reply.replier_id else None) != own:
                continue
            if reply.ok:
                found[str(reply.ok.key_expr).split("/")[4]] = reply.ok.payload.to_bytes()
            elif reply.err.encoding == zenoh.Encoding.APPLICATION_JSON:
                ended |= json.loads(reply.err.payload.to_bytes())["code"] == "END"
        return without_probes(found) if ended else None


class Zenohd(Servers):
    """Routers in a line, each with a storage; the storages are replicas of each other when there are several."""

    def __init__(self, program, plugins, directory, nodes, volume, interval=None, wires=None):
        self.ports, self.processes = free_ports(nodes), []
        self.ids = [f"a{number}a{number}" for number in range(nodes)]
        lead = wires.lead if wires else lambda port: port
        library = volume if volume != "memory" else None
        for number, port in enumerate(self.ports):
            home = directory / f"zenohd-{number}"
            home.mkdir(parents=True)
            storage = {"key_expr": "grid/**", "strip_prefix": "grid", "volume": volume, "complete": True}
            if library:
                storage["volume"] = {"id": volume, "dir": "grid"} | ({"create_db": True} if volume == "rocksdb" else {})
            if nodes > 1:
                storage["replication"] = {"interval": interval} if interval else {}
            config = {
                "mode": "router", "id": self.ids[number],
                "listen": {"endpoints": [f"tcp/127.0.0.1:{port}"]},
                "connect": {
                    "endpoints": [f"tcp/127.0.0.1:{lead(other)}" for other in self.ports[:number]],
                    "timeout_ms": -1, "exit_on_failure": False,
                    "retry": {"period_init_ms": 500, "period_max_ms": 500},
                },
                "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
                "timestamping": {"enabled": True},
                "plugins": {"storage_manager": {
                    "__required__": True, "__path__": [str(plugins / "libzenoh_plugin_storage_manager.so")],
                    "volumes": {volume: {"__path__": [str(plugins / f"libzenoh_backend_{library}.so")]}} if library else {},
                    "storages": {"grid": storage},
                }},
            }
            (home / "zenohd.json5").write_text(json.dumps(config, indent=2))
            roots = {"ZENOH_BACKEND_ROCKSDB_ROOT": str(home / "data"), "ZENOH_BACKEND_FS_ROOT": str(home / "data")}
            (home / "data").mkdir()
            self.processes.append(Process([program, "-c", "zenohd.json5"], home, roots))

    def endpoint(self, number):
        return f"tcp/127.0.0.1:{self.ports[number]}"

    def is_ready(self, number):
        """Its own storage answers for a key that was put through it."""
        with contextlib.suppress(zenoh.ZError), connect(self.endpoint(number)) as session:
            probe = f"grid/probe-{number}"
            session.put(probe, "x", congestion_control=BLOCK)
            return bool(ask_one(session, probe, self.ids[number]))

    def serving(self):
        return 0

    def client(self, number=0):
        return ZenohdClient(self.open(number), self.ids[number])


def without_probes(found):
    return {key: value for key, value in found.items() if not key.startswith("probe-")}


def ask_one(session, selector, replier):
    """What one replica answers."""
    found = {}
    for reply in session.get(selector, target=zenoh.QueryTarget.ALL, consolidation=NONE, timeout=30):
        if reply.ok and str(reply.replier_id.zid) == replier:
            found[str(reply.ok.key_expr).split("/")[1]] = reply.ok.payload.to_bytes()
    return found


class ZenohdClient:
    every = "grid/*"

    def __init__(self, session, id):
        self.session, self.id = session, id

    def put(self, object, value, **more):
        self.session.put(f"grid/{object}", value, congestion_control=BLOCK, **more)

    def write(self, object, value, **more):
        """Puts, and reads back until the value is seen: what a client can do to know."""
        self.put(object, value, **more)
        for _ in range(1000):
            if (found := self.get(object)) and found.value == value:
                return
            time.sleep(0.0005)
        raise Unknown(object)

    def delete(self, object):
        """And reads until it is gone."""
        self.session.delete(f"grid/{object}", congestion_control=BLOCK)
        for _ in range(1000):
            if self.get(object) is None:
                return
            time.sleep(0.0005)
        raise Unknown(object)

    def get(self, object):
        for reply in self.session.get(f"grid/{object}", timeout=30):
            if reply.ok:
                attachment = reply.ok.attachment and reply.ok.attachment.to_bytes()
                return Found(reply.ok.payload.to_bytes(), str(reply.ok.encoding), attachment, reply.ok.timestamp)
        return None

    def list(self):
        """The value of each key in the storage of the router that this client is connected to."""
        return without_probes(ask_one(self.session, "grid/*", self.id))

"""Watch a key and miss nothing, over lost connections and changes of leader, with nothing but eclipse-zenoh 1.x:
python watch_resume.py COLLECTION/PARTITION [COUNT] [endpoint of a node]

It keeps, by itself or in a file, the last revision that it saw. A jump of the revision is filled by a replay
(from=), what comes again is dropped, and of another incarnation, or where the history has gone, all is listed again.
"""
import json, queue, sys, time, zenoh
from zenoh.ext import UInt8, UInt64, z_deserialize

def numbers(sample):
    _, revision, *_, incarnation, _ = z_deserialize(
        tuple[UInt8, UInt64, UInt64, UInt64, UInt64, bytes, bytes], sample.attachment)
    return revision, incarnation.hex()

def refusal(reply):  # what odgm refuses is JSON; zenoh's own errors are not
    is_json = reply.err.encoding == zenoh.Encoding.APPLICATION_JSON
    return json.loads(reply.err.payload.to_bytes()) if is_json else {"code": "TIMEOUT"}

class Watch:
    """The changes of one partition, each once and in order; `last` and `incarnation` are all that is to be kept."""
    def __init__(self, session, shard, last=0, incarnation=None):
        self.session, self.shard, self.last, self.incarnation = session, shard, last, incarnation
        self.live = queue.Queue()
        self.subscriber = session.declare_subscriber(f"odgm/@ev/{shard}/**", self.live.put)

    def ask(self, selector):
        """Samples as they come; at the end the END record, or raises."""
        while True:
            refused = None
            for reply in self.session.get(selector, consolidation=zenoh.ConsolidationMode.NONE, timeout=30):
                if reply.ok:
                    yield reply.ok
                elif (refused := refusal(reply))["code"] == "END":
                    return refused
                elif refused["code"] == "COMPACTED":
                    raise LookupError("COMPACTED")
            time.sleep(0.2)  # nobody serves now, or it was cut short: what came is dropped by its revision
            if "from=" in selector:
                selector = self.replay()

    def replay(self):
        incarnation = f";incarnation={self.incarnation}" if self.incarnation else ""
        return f"odgm/@ev/{self.shard}/**?from={self.last + 1};end=1{incarnation}"

    def fill(self):
        """What is missing up to now, from the history."""
        for sample in self.ask(self.replay()):
            revision, self.incarnation = numbers(sample)
            if revision > self.last:
                self.last = revision
                yield "replay", sample

    def list(self):
        """All there is, when the history does not reach back: the caller starts anew from it."""
        replies = self.ask(f"odgm/{self.shard}/**?end=1")
        while True:
            try:
                yield "list", next(replies)
            except StopIteration as end:
                self.last, self.incarnation = end.value["revision"], end.value["incarnation"]
                return

    def catch_up(self):
        try:
            yield from self.fill()
        except LookupError:
            self.last, self.incarnation = 0, None
            yield from self.list()

    def __iter__(self):
        yield from self.catch_up()
        while True:
            try:
                sample = self.live.get(timeout=2)
            except queue.Empty:  # a connection that was lost tells nothing: look now and then
                yield from self.catch_up()
                continue
            revision, incarnation = numbers(sample)
            if incarnation == self.incarnation and revision <= self.last:
                continue  # published again by a new leader, or replayed already
            if incarnation == self.incarnation and revision == self.last + 1:
                self.last = revision
                yield "live", sample
            else:
                yield from self.catch_up()

if __name__ == "__main__":
    shard, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None
    config = zenoh.Config()
    config.insert_json5("mode", '"client"')
    config.insert_json5("connect/endpoints", json.dumps(sys.argv[3:] or ["tcp/127.0.0.1:7447"]))
    with zenoh.open(config) as session:
        watch = Watch(session, shard)
        for seen, (how, sample) in enumerate(watch, 1):
            kind = "put" if sample.kind == zenoh.SampleKind.PUT else "delete"
            key = str(sample.key_expr).split("/", 4 if how != "list" else 3)[-1]
            print(f"{how}: {kind} {key} revision {numbers(sample)[0]}", flush=True)
            if seen == count:
                break
        print(f"go on from revision {watch.last + 1} of incarnation {watch.incarnation}")

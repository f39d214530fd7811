"""zenoh's own AdvancedSubscriber, from Python, on a running node: history, then what comes, once and in order."""
import json, queue, uuid, zenoh
from zenoh.ext import HistoryConfig, UInt8, UInt64, declare_advanced_subscriber, z_deserialize

config = zenoh.Config()
config.insert_json5("mode", '"client"')
config.insert_json5("connect/endpoints", '["tcp/127.0.0.1:7447"]')


def revision(sample):
    return z_deserialize(tuple[UInt8, UInt64, UInt64, UInt64, UInt64, bytes, bytes], sample.attachment)[1]


def put(session, object):
    selector = f"odgm/@cmd/default/*/{object}?op=put;rid={uuid.uuid4().hex}"
    assert any(reply.ok for reply in session.get(selector, payload="x", timeout=10)), object


with zenoh.open(config) as session:
    for number in range(40):
        put(session, f"before-{number}")
    events = queue.Queue()
    subscriber = declare_advanced_subscriber(
        session, "odgm/@ev/default/**", events.put, history=HistoryConfig())
    for number in range(40):
        put(session, f"after-{number}")
    last, ours = {}, set()
    while len(ours) < 80:
        event = events.get(timeout=30)
        partition, object = str(event.key_expr).split("/")[3:5]
        assert revision(event) == last.get(partition, revision(event) - 1) + 1, (event.key_expr, last)
        last[partition] = revision(event)
        ours |= {object} & {f"{when}-{number}" for when in ("before", "after") for number in range(40)}
    print("an advanced subscriber saw", len(ours), "changes of", len(last), "partitions in order")
    subscriber.undeclare()

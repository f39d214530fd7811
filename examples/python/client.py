"""A client of odgm with nothing but eclipse-zenoh 1.x: python client.py [endpoint of a node]"""
import json, queue, sys, time, urllib.parse, uuid, zenoh
from zenoh.ext import UInt8, UInt64, z_deserialize

config = zenoh.Config()
config.insert_json5("mode", '"client"')
config.insert_json5("connect/endpoints", json.dumps(sys.argv[1:] or ["tcp/127.0.0.1:7447"]))

def numbers(sample):  # of the attachment of every reply and event; a plain int would misread it
    format, *numbers, incarnation, attachment = z_deserialize(
        tuple[UInt8, UInt64, UInt64, UInt64, UInt64, bytes, bytes], sample.attachment)
    return dict(zip(("revision", "created_revision", "version", "expires_unix_ms"), numbers))

def is_json(reply):  # what odgm refuses is JSON; zenoh's own errors, such as a timeout, are not
    return reply.err.encoding == zenoh.Encoding.APPLICATION_JSON

def ask(session, key, payload=None, **parameters):
    """No reply means unknown, never absent: it is asked again, and with the same rid a command still runs once."""
    selector = f"{key}?" + ";".join(f"{k}={urllib.parse.quote(str(v))}" for k, v in parameters.items())
    for _ in range(60):
        refusals = []
        for reply in session.get(selector, payload=payload, encoding="text/plain", timeout=5):
            if reply.ok:
                return reply.ok  # the first success decides, a refusal when the query has ended
            refusals += [json.loads(reply.err.payload.to_bytes())] if is_json(reply) else []
        for refusal in refusals:
            if not refusal["retry"]:
                raise LookupError(refusal["code"])
        time.sleep(0.2)
    raise TimeoutError(f"{key}: outcome unknown")

def command(session, object, op, payload=None, **parameters):
    return ask(session, f"odgm/@cmd/default/*/{object}", payload, op=op, rid=uuid.uuid4().hex, **parameters)

def objects(session):
    """One consistent view of each partition; complete when every partition has sent its END, else asked again."""
    for _ in range(60):
        found, partitions, ended = {}, 0, set()
        for reply in session.get("odgm/default/*/*?end=1", consolidation=zenoh.ConsolidationMode.NONE):
            if reply.ok:
                found[str(reply.ok.key_expr).split("/")[3]] = reply.ok.payload.to_string()
            elif is_json(reply) and (end := json.loads(reply.err.payload.to_bytes()))["code"] == "END":
                partitions, ended = end["partitions"], ended | {end["partition"]}
        if partitions and len(ended) == partitions:
            return found
        time.sleep(0.2)
    raise TimeoutError("no complete list")

with zenoh.open(config) as session:
    events = queue.Queue()
    watch = session.declare_subscriber("odgm/@ev/default/*/alice/**", events.put)
    command(session, "alice", "delete")  # of what is absent: succeeds without an event
    first = numbers(command(session, "alice", "put", "hello", if_absent=1))
    second = numbers(command(session, "alice", "put", "hello again", if_revision=first["revision"]))
    print("put alice, version", second["version"])
    try:
        command(session, "alice", "put", "too late", if_revision=first["revision"])
    except LookupError as refused:
        print("put alice on an old revision:", refused)
    print("get alice:", ask(session, "odgm/default/*/alice").payload.to_string())
    print("list:", json.dumps(objects(session), sort_keys=True))
    session.put("odgm/default/*/alice/note", "plain")  # not acknowledged: its event says that it is committed
    seen = None
    while seen != ("put", "note"):
        event = events.get(timeout=10)
        key, kind = str(event.key_expr), "put" if event.kind == zenoh.SampleKind.PUT else "delete"
        print("watch:", kind, key, event.payload.to_string(), "revision", numbers(event)["revision"])
        seen = kind, key.split("/")[-1]

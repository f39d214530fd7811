"""One client for every kind of collection, since it asks for no condition: python kinds.py ENDPOINT COLLECTION…"""
import json, sys, time, urllib.parse, uuid, zenoh

config = zenoh.Config()
config.insert_json5("mode", '"client"')
config.insert_json5("connect/endpoints", json.dumps(sys.argv[1:2]))

def ask(session, key, payload=None, **parameters):
    """The first success; None when the key is absent; asked again, with the same rid, while the outcome is unknown."""
    selector = f"{key}?" + ";".join(f"{k}={urllib.parse.quote(str(v))}" for k, v in parameters.items())
    for _ in range(60):
        for reply in session.get(selector, payload=payload, encoding="text/plain", timeout=5):
            if reply.ok:
                return reply.ok.payload.to_string()
            if reply.err.encoding == zenoh.Encoding.APPLICATION_JSON:
                refusal = json.loads(reply.err.payload.to_bytes())
                if refusal["code"] == "NOT_FOUND":
                    return None
                if not refusal["retry"]:
                    raise LookupError(refusal["code"])
        time.sleep(0.2)
    raise TimeoutError(f"{key}: outcome unknown")

def names(session, collection):
    """A list is complete when every partition has sent its END."""
    for _ in range(60):
        found, partitions, ended = [], 0, set()
        for reply in session.get(f"odgm/{collection}/*/*?end=1", consolidation=zenoh.ConsolidationMode.NONE):
            if reply.ok:
                found.append(str(reply.ok.key_expr).split("/")[3])
            elif reply.err.encoding == zenoh.Encoding.APPLICATION_JSON:
                end = json.loads(reply.err.payload.to_bytes())
                if end["code"] == "END":
                    partitions, ended = end["partitions"], ended | {end["partition"]}
        if partitions and len(ended) == partitions:
            return sorted(found)
        time.sleep(0.2)
    raise TimeoutError("no complete list")

with zenoh.open(config) as session:
    for collection in sys.argv[2:]:
        def command(key, op, payload=None):
            ask(session, f"odgm/@cmd/{collection}/*/{key}", payload, op=op, rid=uuid.uuid4().hex)
        command("alice", "put", "hello")
        command("alice/mail", "put", "alice@example.org")
        command("bob", "put", "gone soon")
        command("bob", "delete")
        mail = ask(session, f"odgm/{collection}/*/alice/mail")
        print(f"{collection}: {names(session, collection)}, mail {mail}, bob {ask(session, f'odgm/{collection}/*/bob')}")

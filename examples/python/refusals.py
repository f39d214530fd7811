"""What each kind of collection refuses, with its reason: python refusals.py ENDPOINT COLLECTION…"""
import json, sys, time, zlib, zenoh

config = zenoh.Config()
config.insert_json5("mode", '"client"')
config.insert_json5("connect/endpoints", json.dumps(sys.argv[1:2]))

def answer(session, selector, payload=None):
    """`done`, or the refusal; what is not known yet is asked again."""
    for _ in range(60):
        for reply in session.get(selector, payload=payload, timeout=5):
            if reply.ok:
                return "done", ""
            if reply.err.encoding == zenoh.Encoding.APPLICATION_JSON:
                refusal = json.loads(reply.err.payload.to_bytes())
                if not refusal["retry"]:
                    return refusal["code"], refusal["message"]
        time.sleep(0.2)
    raise TimeoutError(selector)

with zenoh.open(config) as session:
    for collection in sys.argv[2:]:
        meta = next(iter(session.get(f"odgm/@meta/{collection}"))).ok
        meta = json.loads(meta.payload.to_bytes())
        kind, owner = meta["replication"], zlib.crc32(b"refused") % meta["partitions"]
        object, partition = f"odgm/@cmd/{collection}/*/refused", f"odgm/@cmd/{collection}/{owner}"
        asked = {
            "put": (f"{object}?op=put", "1"),
            "if_revision": (f"{object}?op=put;if_revision=1", "2"),
            "if_absent": (f"{object}?op=put;if_absent=1", "2"),
            "if_present": (f"{object}?op=put;if_present=1", "2"),
            "delete if_revision": (f"{object}?op=delete;if_revision=999999", None),
            "increment": (f"{object}?op=increment", None),
            "txn": (f"{partition}?op=txn", '{"then":[]}'),
            "txn with if": (f"{partition}?op=txn", '{"if":[{"object":"refused","absent":true}],"then":[]}'),
            "linearizable read": (f"odgm/{collection}/*/refused?cons=linearizable", None),
        }
        for what, (selector, payload) in asked.items():
            code, message = answer(session, selector, payload)
            print(f"{kind}: {what}: {code}" + (f" ({message})" if code == "UNSUPPORTED" else ""))

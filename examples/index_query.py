"""Secondary indexes with nothing but eclipse-zenoh 1.x: python index_query.py [endpoint of a node]"""
import json, sys, time, urllib.parse, uuid, zenoh

config = zenoh.Config()
config.insert_json5("mode", '"client"')
config.insert_json5("connect/endpoints", json.dumps(sys.argv[1:] or ["tcp/127.0.0.1:7447"]))

def ask(session, key, payload=None, **parameters):
    """All samples of a complete answer; asked again while it is not."""
    selector = f"{key}?" + ";".join(f"{k}={urllib.parse.quote(str(v))}" for k, v in parameters.items())
    for _ in range(60):
        samples, ends, refused = [], [], []
        for reply in session.get(selector, payload=payload, consolidation=zenoh.ConsolidationMode.NONE, timeout=10):
            if reply.ok:
                samples.append(reply.ok)
            elif reply.err.encoding == zenoh.Encoding.APPLICATION_JSON:
                record = json.loads(reply.err.payload.to_bytes())
                (ends if record["code"] == "END" else refused).append(record)
        if any(not refusal["retry"] for refusal in refused):
            raise LookupError(refused[0]["code"])
        if len(ends) == ends[0]["partitions"] if ends else samples:
            return samples
        time.sleep(0.2)
    raise TimeoutError(f"{key}: outcome unknown")

def admin(session, op, body=None):
    payload = json.dumps(body) if body else None
    return ask(session, "odgm/@admin/collections/people", payload, op=op, rid=uuid.uuid4().hex)

def find(session, **query):
    """The objects of all partitions that an index finds. Each partition is in order: merge by the value."""
    found = ask(session, "odgm/people/*/*", end=1, **query)
    return sorted((json.loads(s.payload.to_bytes())["age"], str(s.key_expr).split("/")[-1]) for s in found)

with zenoh.open(config) as session:
    try:
        admin(session, "delete")
    except LookupError:
        pass  # there was none
    admin(session, "create", {"partitions": 4, "indexes": [{"name": "age", "path": "/age"}]})
    for name, age, city in [("alice", 30, "Oslo"), ("bob", 7, "Paris"), ("carol", 30, "Paris"), ("dave", 61, "Oslo")]:
        ask(session, f"odgm/@cmd/people/*/{name}", json.dumps({"age": age, "city": city}), op="put", rid=uuid.uuid4().hex)
    print("30:", find(session, index="age", eq=30))
    print("18 to 65:", find(session, index="age", ge=18, lt=65))
    # A new index takes in what is there; asked at once, the answer waits for it. What is not named is dropped.
    admin(session, "update", {"indexes": [{"name": "city", "path": "/city"}]})
    print("in Paris:", find(session, index="city", eq="Paris"))
    try:
        find(session, index="age", eq=30)
    except LookupError as refused:
        print("by age:", refused)
    admin(session, "delete")

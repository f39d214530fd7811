"""A real node, from an empty directory: what the Python example and the README say must work as it stands.

node.py PROGRAM, run with a Python that has eclipse-zenoh.
"""
import json, os, pathlib, re, signal, subprocess, sys, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = pathlib.Path(sys.argv[1]).resolve()
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def until(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def run(*command, directory, code=0):
    """Its standard output; ends the check when it exits otherwise than expected."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    shown = " ".join(str(part).split("\n")[0] for part in command)
    if done.returncode != code:
        sys.exit(f"{shown}: exit code {done.returncode}, expected {code}\n{done.stdout}{done.stderr}")
    print(f"$ {shown}\n{done.stdout}", end="")
    return done.stdout


def stop(node):
    if node.poll() is None:
        node.send_signal(signal.SIGTERM)
    if (code := node.wait(timeout=60)) != 0:
        sys.exit(f"the node ended with {code} on SIGTERM")


def one_node(directory):
    """The README's two commands: its first starts a node, its Python and its command line talk to it."""
    log = open(directory / "node.log", "wb")
    node = subprocess.Popen([PROGRAM, "start"], cwd=directory, stderr=log, stdout=log)
    try:
        until("the node is ready", lambda: node.poll() is not None or answers("http://127.0.0.1:8090/readyz"))
        for script in blocks("python"):
            run(sys.executable, "-c", script, directory=directory)
        printed = run(sys.executable, ROOT / "examples/python/client.py", directory=directory)
        for line in ("put alice, version 2", "put alice on an old revision: CONFLICT", "get alice: hello again"):
            assert line in printed.splitlines(), (line, printed)
        printed = run(sys.executable, ROOT / "examples/index_query.py", directory=directory)
        assert printed.splitlines() == [
            "30: [(30, 'alice'), (30, 'carol')]",
            "18 to 65: [(30, 'alice'), (30, 'carol'), (61, 'dave')]",
            "in Paris: [(7, 'bob'), (30, 'carol')]",
            "by age: INVALID_PARAMETER",
        ], printed
        watched(directory)
        run(sys.executable, ROOT / ".ci/advanced.py", directory=directory)
        for block in blocks("sh"):
            for line in block.splitlines():
                if line.startswith("odgm ") and not line.startswith(("odgm start", "odgm watch", "odgm bench", "odgm node")):
                    run("bash", "-c", f'odgm() {{ "{PROGRAM}" "$@"; }}; {line}', directory=directory)
        run(PROGRAM, "get", "default/nobody", directory=directory, code=1)
        assert answers("http://127.0.0.1:8090/metrics") and answers("http://127.0.0.1:8090/status")
    except BaseException:
        sys.stderr.write((directory / "node.log").read_text()[-8000:])
        raise
    finally:
        stop(node)


def watched(directory):
    """examples/watch_resume.py: what was before it came, what comes, and what an end of time brings."""
    meta = json.loads(run(PROGRAM, "meta", "default", "-o", "json", directory=directory))
    assert meta["partitions"] == 4
    before = run(PROGRAM, "put", "default/alice", "before", "-o", "json", directory=directory)
    last = json.loads(before)["revision"]
    watch = subprocess.Popen([sys.executable, ROOT / "examples/watch_resume.py", "default/3", str(last + 2)],
                             cwd=directory, stdout=subprocess.PIPE, text=True)
    replayed = [watch.stdout.readline().strip() for _ in range(last)]
    assert replayed[-1] == f"replay: put alice revision {last}", replayed
    run(PROGRAM, "put", "default/alice", "for a moment", "--ttl", "1s", directory=directory)
    out, _ = watch.communicate(timeout=60)
    print(out, end="")
    seen = [line.split(": ", 1)[1] for line in out.splitlines()[:2]]
    assert seen == [f"put alice revision {last + 1}", f"delete alice revision {last + 2}"], out


def three_nodes(directory):
    """examples/three-nodes: the client speaks to the last of them, then all stop at one signal."""
    script = subprocess.Popen([ROOT / "examples/three-nodes/run.sh", directory / "three"], stdout=subprocess.PIPE,
                              text=True, env=os.environ | {"ODGM": str(PROGRAM)})
    try:
        line = script.stdout.readline()
        assert line.startswith("three nodes serve"), line
        run(sys.executable, ROOT / "examples/python/client.py", "tcp/127.0.0.1:7467", directory=directory)
        status = json.load(urllib.request.urlopen("http://127.0.0.1:8092/status", timeout=5))
        print("status of odgm-2:", sorted(status))
    finally:
        script.send_signal(signal.SIGTERM)
        script.wait(timeout=60)


with tempfile.TemporaryDirectory() as temporary:
    one_node(pathlib.Path(temporary))
    three_nodes(pathlib.Path(temporary))

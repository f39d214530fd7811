"""TCP connections through this process, so that they can be cut.

A cut closes what is open and refuses what is new, as node/tests/it/wires.rs does.
"""
import contextlib, socket, threading


class Wires:
    def __init__(self):
        self.is_cut, self.open, self.lock = False, set(), threading.Lock()

    def lead(self, port):
        """A port of this process that leads to the given one."""
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()
        return listener.getsockname()[1]

    def cut(self):
        with self.lock:
            self.is_cut = True
            for end in self.open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def heal(self):
        with self.lock:
            self.is_cut = False

    def _accept(self, listener, port):
        while True:
            near, _ = listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", port), timeout=5)
            except OSError:
                near.close()
                continue
            with self.lock:
                if self.is_cut:
                    near.close(), far.close()
                    continue
                self.open |= {near, far}
            for end in (near, far):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self.lock:
            self.open -= {source, sink}
        # The other direction may still hold the sockets: they are closed when both have let them go.

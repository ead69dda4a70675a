"""A client of a quorate cluster in Python: requests with retries, typed errors, a session, and a reader of events.

    anywhere(nodes, call)    makes a repeatable call at one node after the other until one answers
    Session                  kept alive in the background; knows when its locks must be considered lost
    Reader                   events after a revision, over lost connections, each exactly once

A node is any object with `store` and `cluster` (the stubs of the two services) and `alive` (whether to call it).
"""

import os
import queue
import threading
import time

import grpc
from grpc_status import rpc_status
from quorate.v1 import cluster_pb2, store_pb2, types_pb2

TIMEOUT = 120  # seconds: how long an expected step may take before the test fails



def name(since=0):
    """A name for a request, which makes it safe to repeat. `since`: a revision that was read before."""
    return types_pb2.RequestName(nonce=os.urandom(16), since=since)


def failure(error):
    """The typed reason of a failed call: `failure(e).rejected.not_holder` and so on."""
    status = rpc_status.from_call(error)
    assert status is not None and len(status.details) == 1, f"no details: {error}"
    found = cluster_pb2.Failure()
    assert status.details[0].Unpack(found), f"not a Failure: {status.details[0].type_url}"
    return found


def refused(call, case):
    """Makes a call that the rules must reject with `case`, and returns the details of the rejection."""
    try:
        answer = call()
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        rejected = failure(error).rejected
        assert rejected.code == case and rejected.WhichOneof("kind") == case, error
        return getattr(rejected, case)
    raise AssertionError(f"expected a rejection as {case}, got: {answer}")


def anywhere(nodes, call):
    """Calls one node after the other until one answers. Only for repeatable calls: reads, and requests with a name."""
    give_up = time.monotonic() + TIMEOUT
    while True:
        for node in [node for node in nodes if node.alive]:
            try:
                return call(node)
            except grpc.RpcError as error:
                # A rejection by the rules is the same at every node. Only a call that failed to get through is repeated.
                passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
                if error.code() not in passing or time.monotonic() > give_up:
                    raise
        time.sleep(0.1)


class Session(threading.Thread):
    """A session, kept alive in the background until `silence` is called or the session ends."""

    def __init__(self, nodes, label, ttl, lock_delay):
        """Opens the session. `ttl` and `lock_delay` are in seconds."""
        super().__init__(daemon=True)
        self.nodes, self.label, self.ttl = nodes, label, ttl
        self.quiet, self.over = threading.Event(), None
        request = store_pb2.OpenSessionRequest(
            name=name(), ttl_ms=int(ttl * 1000), lock_delay_ms=int(lock_delay * 1000), label=label
        )
        # The time to live counts from the *sending* of a call that was answered. Its locks are safe for that long.
        self.sent = time.monotonic()
        self.number = anywhere(nodes, lambda node: node.store.OpenSession(request, timeout=30)).session
        self.start()

    def run(self):
        request = store_pb2.KeepAliveRequest(session=self.number)
        while not self.quiet.wait(self.ttl / 8):
            for node in [node for node in self.nodes if node.alive]:
                sent = time.monotonic()
                try:
                    answer = node.store.KeepAlive(request, timeout=self.ttl / 3)
                except grpc.RpcError:
                    continue  # no answer, so the session is not prolonged: try the next node
                if answer.WhichOneof("result") == "ended":
                    unheard = time.monotonic() - self.sent
                    why = "before its time" if unheard < self.ttl else "kept from its keep-alives for that long"
                    self.over = f"{self.label}'s session ended {unheard:.2f} s after a keep-alive: {why}"
                    return
                self.sent = sent
                break

    def silence(self):
        """Stops the keep-alives. Returns the time at which the last answered keep-alive was sent."""
        self.quiet.set()
        self.join()
        assert self.over is None, self.over
        return self.sent

    def try_lock(self, nodes, lock):
        """Acquires a lock if it is free. Returns its token."""
        request = store_pb2.LockRequest(request=name(self.number), session=self.number, name=lock)
        return anywhere(nodes, lambda node: node.store.Lock(request, timeout=30)).token

    def lock(self, node, lock, wait):
        """Acquires a lock, waiting up to `wait` seconds. Returns a future; cancelling it withdraws the request."""
        request = store_pb2.LockRequest(request=name(self.number), session=self.number, name=lock)
        request.wait_ms = int(wait * 1000)
        return node.store.Lock.future(request, timeout=wait + 30)


class Reader(threading.Thread):
    """Reads events after a revision, at one node after the other, and keeps them in `told`."""

    def __init__(self, nodes, after, topics, at):
        """Starts after the revision `after`, at the node `at`."""
        super().__init__(daemon=True)
        self.nodes, self.after, self.topics, self.at = nodes, after, topics, at
        self.told, self.news, self.stream = [], queue.Queue(), None
        self.reconnected, self.done = 0, False
        self.start()

    def run(self):
        while not self.done:
            # Events of one entry share a revision. So it resumes before the last revision and skips known events.
            last = self.told[-1].revision if self.told else None
            after = self.after if last is None else last - 1
            known = sum(event.revision == last for event in self.told)
            request = store_pb2.WatchRequest(after_revision=after, topics=self.topics)
            self.stream = self.at.store.Watch(request)
            try:
                for item in self.stream:
                    kind = item.WhichOneof("item")
                    if kind != "event":
                        # A longer run would have to replace what it knows by the state in the gap.
                        self.news.put(AssertionError(f"this run is short enough to keep every event, but there was a {kind}"))
                        return
                    if item.event.revision == last and known > 0:
                        known -= 1
                        continue
                    self.told.append(item.event)
                    self.news.put(item.event)
            except grpc.RpcError:
                pass  # the node or the connection is gone: continue at another node
            others = [node for node in self.nodes if node.alive and node is not self.at]
            if others:
                self.at = others[self.reconnected % len(others)]
            self.reconnected += 1
            time.sleep(0.05)

    def break_off(self):
        """Drops the connection. The reader continues at another node."""
        self.stream.cancel()

    def stop(self):
        """Stops reading."""
        self.done = True
        while self.is_alive():
            # Repeated in case the thread is between two connections.
            self.stream.cancel()
            self.join(timeout=0.5)

    def until(self, kind, wanted=lambda event: True):
        """Waits for the next event of `kind` that `wanted` accepts."""
        while True:
            event = self.news.get(timeout=TIMEOUT)
            if isinstance(event, AssertionError):
                raise event
            if event.WhichOneof("kind") == kind and wanted(getattr(event, kind)):
                return event

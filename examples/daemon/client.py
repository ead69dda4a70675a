"""A client of a quorate cluster, in as many lines as it takes: requests, errors, a session, a reader of events.

    anywhere(nodes, call)    what may be repeated is asked at one node after the other
    Session                  kept alive in the background; knows by when its locks have to be taken for lost
    Reader                   events from a revision on, over lost connections, without a loss and without doubles

A node is anything with `store` and `cluster` (the stubs of the two services) and `alive` (whether to ask it at all).
"""

import os
import queue
import threading
import time

import grpc
from grpc_status import rpc_status
from quorate.v1 import cluster_pb2, raft_pb2, store_pb2

TIMEOUT = 120  # seconds: how long anything may take that has to happen



def name(since=0):
    """A name for a request, so that asking again is not asking twice. `since`: a revision that was read before."""
    return raft_pb2.RequestName(nonce=os.urandom(16), since=since)


def failure(error):
    """The typed reason of a failed call: `failure(e).rejected.not_holder` and so on."""
    status = rpc_status.from_call(error)
    assert status is not None and len(status.details) == 1, f"no details: {error}"
    found = cluster_pb2.Failure()
    assert status.details[0].Unpack(found), f"not a Failure: {status.details[0].type_url}"
    return found


def refused(call, case):
    """Makes a call that the rules have to refuse, and returns what they say."""
    try:
        answer = call()
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        rejected = failure(error).rejected
        assert rejected.code == case and rejected.WhichOneof("kind") == case, error
        return getattr(rejected, case)
    raise AssertionError(f"this was to be refused as {case}, and was answered: {answer}")


def anywhere(nodes, call):
    """Asks one node after the other until one answers. For what may be repeated: reads, and a request with a name."""
    give_up = time.monotonic() + TIMEOUT
    while True:
        for node in [node for node in nodes if node.alive]:
            try:
                return call(node)
            except grpc.RpcError as error:
                # Whatever the rules say, they say at every node: only what did not get through is asked again.
                passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
                if error.code() not in passing or time.monotonic() > give_up:
                    raise
        time.sleep(0.1)


class Session(threading.Thread):
    """A session that is kept alive in the background, until `silence` or its end."""

    def __init__(self, nodes, label, ttl, lock_delay):
        """Opens it. `ttl` and `lock_delay` in seconds."""
        super().__init__(daemon=True)
        self.nodes, self.label, self.ttl = nodes, label, ttl
        self.quiet, self.over = threading.Event(), None
        request = store_pb2.OpenSessionRequest(
            name=name(), ttl_ms=int(ttl * 1000), lock_delay_ms=int(lock_delay * 1000), label=label
        )
        # The time to live counts from the *sending* of what was answered. Until then its locks may be relied on.
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
                    continue  # nothing is known, and nothing prolonged: ask the next node
                if answer.WhichOneof("result") == "ended":
                    unheard = time.monotonic() - self.sent
                    why = "before its time" if unheard < self.ttl else "kept from its keep-alives for that long"
                    self.over = f"{self.label}'s session ended {unheard:.2f} s after a keep-alive: {why}"
                    return
                self.sent = sent
                break

    def silence(self):
        """Says nothing any more, and returns when the last keep-alive that was answered had been sent."""
        self.quiet.set()
        self.join()
        assert self.over is None, self.over
        return self.sent

    def try_lock(self, nodes, lock):
        """Takes a lock if it is free. Returns the token."""
        request = store_pb2.LockRequest(request=name(self.number), session=self.number, name=lock)
        return anywhere(nodes, lambda node: node.store.Lock(request, timeout=30)).token

    def lock(self, node, lock, wait):
        """Asks for a lock, in line for `wait` seconds. A future: cancelled, the request leaves the line."""
        request = store_pb2.LockRequest(request=name(self.number), session=self.number, name=lock)
        request.wait_ms = int(wait * 1000)
        return node.store.Lock.future(request, timeout=wait + 30)


class Reader(threading.Thread):
    """Reads events from a revision on, at one node after the other, and keeps what it was told."""

    def __init__(self, nodes, after, topics, at):
        """Begins after the revision `after`, at the node `at`."""
        super().__init__(daemon=True)
        self.nodes, self.after, self.topics, self.at = nodes, after, topics, at
        self.told, self.news, self.stream = [], queue.Queue(), None
        self.reconnected, self.done = 0, False
        self.start()

    def run(self):
        while not self.done:
            # Several events of one entry share its revision. So: from before the last one, and past what is known.
            last = self.told[-1].revision if self.told else None
            after = self.after if last is None else last - 1
            known = sum(event.revision == last for event in self.told)
            request = store_pb2.WatchRequest(after_revision=after, topics=self.topics)
            self.stream = self.at.store.Watch(request)
            try:
                for item in self.stream:
                    kind = item.WhichOneof("item")
                    if kind != "event":
                        # A longer story has to take the gap's parts in place of what it knew.
                        self.news.put(AssertionError(f"this story is short and all there, and yet there is a {kind}"))
                        return
                    if item.event.revision == last and known > 0:
                        known -= 1
                        continue
                    self.told.append(item.event)
                    self.news.put(item.event)
            except grpc.RpcError:
                pass  # the node is gone, or the connection: on at another
            others = [node for node in self.nodes if node.alive and node is not self.at]
            if others:
                self.at = others[self.reconnected % len(others)]
            self.reconnected += 1
            time.sleep(0.05)

    def break_off(self):
        """Loses the connection: it goes on at another node."""
        self.stream.cancel()

    def stop(self):
        """Reads no more."""
        self.done = True
        while self.is_alive():
            # Again, should it have been between two connections.
            self.stream.cancel()
            self.join(timeout=0.5)

    def until(self, kind, wanted=lambda event: True):
        """The next event of a kind that is wanted."""
        while True:
            event = self.news.get(timeout=TIMEOUT)
            if isinstance(event, AssertionError):
                raise event
            if event.WhichOneof("kind") == kind and wanted(getattr(event, kind)):
                return event

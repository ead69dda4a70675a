"""Tests `client.py` against three real nodes, one of which is killed: locks, records, queues and events.

    python client_test.py DAEMON [-v]      DAEMON is the built example; `.ci/python` builds it and runs this

      ada ──OpenSession, KeepAlive──▶ n2 ┐            Ada holds the lock "writer", bob waits for it. Ada falls silent:
      bob ──OpenSession, KeepAlive──▶ n3 ├─ one log   her session ends, and after the lock delay bob gets the lock
      reader ──Watch──▶ n1, then n2 …    ┘            with a larger token. From then on, ada's token is refused.
                        ✗ kill -9

Only lower bounds on times are asserted, so a slow machine does not fail the test. The exception is a machine so slow that
a client sends no keep-alive for its whole time to live: it rightly loses its session. The exit code is 0 on success.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time

import grpc
from client import TIMEOUT, Reader, Session, anywhere, failure, name, refused
from quorate.v1 import cluster_pb2, cluster_pb2_grpc, store_pb2, store_pb2_grpc, types_pb2

TTL, LOCK_DELAY = 4.0, 1.0  # seconds


# ------------------------------------------------------------------------------------------------------------ the nodes


class Node:
    """A daemon's process, and a channel to it."""

    def __init__(self, daemon, number, folder, *way, verbose=False):
        log = None if verbose else subprocess.DEVNULL
        command = [daemon, str(number), os.path.join(folder, f"n{number}"), "127.0.0.1:0", *way]
        self.number, self.alive = number, True
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    def ready(self):
        """Waits for the line `ready n1#1 127.0.0.1:PORT`."""
        line = self.process.stdout.readline().split()
        assert line[:1] == ["ready"], f"n{self.number} ended with {self.process.wait()}; -v shows why"
        self.identity, self.address = line[1:]
        channel = grpc.insecure_channel(self.address)
        self.store, self.cluster = store_pb2_grpc.StoreStub(channel), cluster_pb2_grpc.ClusterStub(channel)
        print(f"  {self.identity} serves at {self.address}")
        return self

    def kill(self):
        """Kills this process with SIGKILL."""
        self.alive = False
        self.process.kill()
        self.process.wait()


# ------------------------------------------------------------------------------------------------------------ the story


def holds(lock, token):
    return store_pb2.Check(holds=types_pb2.LockToken(name=lock, token=token))


def put(key, value):
    return store_pb2.Change(put=store_pb2.Put(key=key, value=value))


def write(nodes, changes, checks=(), named=None):
    while True:
        request = store_pb2.WriteRequest(name=named or name(), checks=checks, changes=changes)
        try:
            return anywhere(nodes, lambda node: node.store.Write(request, timeout=30)).revision
        except grpc.RpcError as error:
            # The node lost its leader and made sure that this request never takes effect. A new request may be made.
            if named or error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise
            if failure(error).rejected.WhichOneof("kind") != "void":
                raise


def read(node, key):
    request = store_pb2.GetRequest(key=key, reading=store_pb2.Reading(linearizable=True))
    return anywhere([node], lambda node: node.store.Get(request, timeout=30)).record


def take(node, token, named=None):
    request = store_pb2.TakeRequest(name=named or name(token), queue="writer", token=token)
    return anywhere([node], lambda node: node.store.Take(request, timeout=30))


def push(lock, value):
    return store_pb2.Change(push=store_pb2.Push(queue=lock, value=value))


def acknowledge(item, token):
    return store_pb2.Change(acknowledge=store_pb2.Acknowledge(queue=item.queue, item=item.item, token=token))


def line_of(node, lock):
    """The present number of waiters for a lock."""
    request = store_pb2.GetLockRequest(name=lock, reading=store_pb2.Reading(linearizable=True))
    return len(anywhere([node], lambda node: node.store.GetLock(request, timeout=30)).lock.waiters)


def until(claim, holding):
    give_up = time.monotonic() + TIMEOUT
    while not holding():
        assert time.monotonic() < give_up, f"never: {claim}"
        time.sleep(0.05)


def records_and_requests(nodes):
    n1, n2, n3 = nodes
    first = write([n1], [put("config/size", b"small")])
    assert read(n3, "config/size").version == first, "written at one node, read at another"
    as_first = store_pb2.Check(version=store_pb2.VersionIs(key="config/size", version=first))
    second = write([n2], [put("config/size", b"large")], [as_first])
    conflict = refused(lambda: write([n3], [put("config/size", b"tiny")], [as_first]), "version")
    assert (conflict.expected, conflict.found) == (first, second), conflict
    assert read(n1, "config/size").value == b"large"
    again = name()
    done = {write([node], [push("audit", b"once")], named=again) for node in nodes}
    assert len(done) == 1, f"one request, made at three nodes, took effect at {done}"
    print("  compare-and-set, and a request that was made three times and took effect once")


def holding(nodes, ada, bob):
    """Ada holds the lock and works under it; bob waits. Returns her token and the future of his request."""
    n1, n2, n3 = nodes
    token = ada.try_lock([n2], "writer")
    held = refused(lambda: bob.try_lock([n3], "writer"), "lock_held")
    assert (held.holder.session, held.token) == (ada.number, token), held
    waiting = bob.lock(n3, "writer", wait=TIMEOUT)
    until("bob waits for the lock", lambda: line_of(n1, "writer") == 1)
    given_up = bob.lock(n2, "writer", wait=TIMEOUT)
    until("bob's second request waits", lambda: line_of(n1, "writer") == 2)
    given_up.cancel()
    until("the cancelled request is withdrawn", lambda: line_of(n1, "writer") == 1)

    write([n1], [push("writer", b"job 1"), push("writer", b"job 2")])
    one = take(n2, token).item
    twice = name()
    two, same = take(n2, token, twice).item, take(n3, token, twice).item
    assert (one.value, two.value, same.item) == (b"job 1", b"job 2", two.item), (one, two, same)
    assert take(n2, token).WhichOneof("result") == "empty", "no item is taken twice under one token"
    write([n2], [acknowledge(one, token), put("done/1", b"by ada")], [holds("writer", token)])

    # A session that is kept alive outlives its time to live.
    time.sleep(TTL * 1.5)
    assert ada.over is None, ada.over
    write([n3], [put("done/ada", b"still")], [holds("writer", token)])
    assert not waiting.done()
    print(f"  ada holds the lock under {token}, and bob waits for it")
    return token, waiting


def passing_on(nodes, ada, bob, token, waiting):
    """Ada falls silent, and bob gets the lock. Returns his token."""
    n1, n2, n3 = nodes
    heard = ada.silence()
    newer = waiting.result(timeout=TIMEOUT).token
    waited = time.monotonic() - heard
    assert newer > token, f"the new token {newer} is not larger than {token}"
    assert waited >= TTL + LOCK_DELAY, f"the lock passed on {waited:.2f} s after a keep-alive that promised {TTL} s"
    print(f"  bob has it under {newer}, {waited:.2f} s after ada's last keep-alive; {TTL + LOCK_DELAY} s were promised")

    late = refused(lambda: write([n2], [put("done/2", b"by ada")], [holds("writer", token)]), "not_holder")
    assert (late.token, late.current) == (token, newer), late
    refused(lambda: take(n2, token), "not_holder")
    alive = store_pb2.KeepAliveRequest(session=ada.number)
    ended = anywhere([n1], lambda node: node.store.KeepAlive(alive, timeout=30))
    assert ended.WhichOneof("result") == "ended", ended
    print("  ada's late write is refused: not_holder")
    left = take(n3, newer).item
    assert (left.value, left.again) == (b"job 2", True), f"bob did not get the item that ada had taken: {left}"
    write([n3], [acknowledge(left, newer), put("done/2", b"by bob")], [holds("writer", newer)])
    return newer


def listing(nodes):
    found, after = [], ""
    while True:
        request = store_pb2.ListRequest(prefix="done/", limit=2, after_key=after)
        page = anywhere(nodes, lambda node: node.store.List(request, timeout=30))
        found += [(record.key, record.value) for record in page.records]
        if not page.more:
            break
        after = page.records[-1].key
    assert found == [("done/1", b"by ada"), ("done/2", b"by bob"), ("done/ada", b"still")], found
    print("  the records with a prefix, page by page")


def killing(nodes, bob, token, reader):
    """Kills the leader. The session, the lock and the reader continue at the other nodes."""
    status = anywhere(nodes, lambda node: node.cluster.Status(cluster_pb2.StatusRequest(), timeout=30))
    victim = next(node for node in nodes if node.number == status.local.leader)
    before = reader.reconnected
    if reader.at is not victim:
        reader.break_off()
    victim.kill()
    print(f"  kill -9 to {victim.identity}, which led")
    written = write(nodes, [put("done/3", b"without it")], [holds("writer", token)])
    event = reader.until("put", lambda put: put.key == "done/3")
    assert event.revision == written, (event, written)
    assert reader.reconnected > before, "the reader did not reconnect"
    assert bob.over is None, bob.over
    print("  bob's session, his lock and the reader continued without it")
    return victim


def main():
    daemon, verbose = sys.argv[1], "-v" in sys.argv[2:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    begun, nodes = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="quorate-") as folder:
        try:
            print("three nodes")
            nodes.append(Node(daemon, 1, folder, "found", verbose=verbose))
            nodes[0].ready()
            for number in (2, 3):
                nodes.append(Node(daemon, number, folder, "join", nodes[0].address, verbose=verbose))
                nodes[-1].ready()
            story(daemon, folder, nodes, verbose)
        finally:
            for node in nodes:
                node.kill()
    print(f"every check passed, in {time.monotonic() - begun:.1f} s")


def story(daemon, folder, nodes, verbose):
    print("records")
    begin = nodes[0].cluster.Status(cluster_pb2.StatusRequest()).committed.revision
    # Only what clients did: without the topics of members and leaders.
    topics = [store_pb2.TOPIC_LOCKS, store_pb2.TOPIC_RECORDS, store_pb2.TOPIC_QUEUES, store_pb2.TOPIC_SESSIONS]
    reader = Reader(nodes, begin, topics, at=nodes[0])
    records_and_requests(nodes)

    print("locks")
    ada, bob = Session(nodes, "ada", TTL, LOCK_DELAY), Session(nodes, "bob", 10 * TTL, LOCK_DELAY)
    token, waiting = holding(nodes, ada, bob)
    reader.until("lock_granted", lambda granted: granted.token == token)
    reader.break_off()  # it continues at another node, after the last revision that it saw
    newer = passing_on(nodes, ada, bob, token, waiting)
    released = reader.until("session_ended", lambda ended: ended.session == ada.number)
    assert not released.session_ended.clean
    reader.until("lock_delayed", lambda delayed: delayed.token == token)
    reader.until("lock_granted", lambda granted: granted.token == newer)
    assert reader.reconnected > 0
    listing(nodes)

    print("one node less")
    victim = killing(nodes, bob, newer, reader)
    returned = Node(daemon, victim.number, folder, "resume", verbose=verbose)
    nodes.append(returned)
    returned.ready()

    print("the end")
    unlock = store_pb2.UnlockRequest(session=bob.number, name="writer", token=newer)
    anywhere(nodes, lambda node: node.store.Unlock(unlock, timeout=30))
    bob.silence()
    close = store_pb2.CloseSessionRequest(session=bob.number)
    end = anywhere(nodes, lambda node: node.store.CloseSession(close, timeout=30)).revision
    assert reader.until("session_ended", lambda ended: ended.session == bob.number).session_ended.clean

    connections = reader.reconnected + 1
    reader.stop()
    assert reader.told[-1].revision == end
    # Reading over several nodes yields the same events as reading from one node.
    whole = Reader([returned], begin, topics, at=returned)
    whole.until("session_ended", lambda ended: ended.session == bob.number)
    whole.stop()
    parts, one = ([event.SerializeToString() for event in each.told] for each in (reader, whole))
    assert parts == one, f"{len(parts)} events over several nodes, {len(one)} from one"
    print(f"  {len(parts)} events over {connections} connections, none lost, none twice")


if __name__ == "__main__":
    main()

"""A client in another language: locks, records, queues and events of three real nodes, one of which is killed.

    python client_test.py DAEMON [-v]      DAEMON is the built example; `.ci/python` prepares everything and runs this

      ada ──OpenSession, KeepAlive──▶ n2 ┐            Ada holds the lock "writer", bob waits in line. Ada falls silent:
      bob ──OpenSession, KeepAlive──▶ n3 ├─ one log   her session ends, the lock is held back for a while, then it is
      reader ──Watch──▶ n1, then n2 …    ┘            bob's, with a larger token, and hers is refused from then on.
                        ✗ kill -9

Times are only ever asserted from below, so that a slow machine fails nothing; unless it keeps a client from all of its
keep-alives for a whole time to live, which then loses its session, as it must. Ends with 0 if everything held.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time

import grpc
from client import TIMEOUT, Reader, Session, anywhere, failure, name, refused
from quorate.v1 import cluster_pb2, cluster_pb2_grpc, raft_pb2, store_pb2, store_pb2_grpc

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
        """Waits for `ready n1#1 127.0.0.1:PORT`."""
        line = self.process.stdout.readline().split()
        assert line[:1] == ["ready"], f"n{self.number} ended with {self.process.wait()}; -v shows why"
        self.identity, self.address = line[1:]
        channel = grpc.insecure_channel(self.address)
        self.store, self.cluster = store_pb2_grpc.StoreStub(channel), cluster_pb2_grpc.ClusterStub(channel)
        print(f"  {self.identity} serves at {self.address}")
        return self

    def kill(self):
        """kill -9, to this process and no other."""
        self.alive = False
        self.process.kill()
        self.process.wait()


# ------------------------------------------------------------------------------------------------------------ the story


def holds(lock, token):
    return store_pb2.Check(holds=raft_pb2.LockToken(name=lock, token=token))


def put(key, value):
    return store_pb2.Change(put=store_pb2.Put(key=key, value=value))


def write(nodes, changes, checks=(), named=None):
    while True:
        request = store_pb2.WriteRequest(name=named or name(), checks=checks, changes=changes)
        try:
            return anywhere(nodes, lambda node: node.store.Write(request, timeout=30)).revision
        except grpc.RpcError as error:
            # A node that lost its leader in the middle made sure that this request never happens: a new one may.
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
    """How many wait for a lock, as of now."""
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
    assert len(done) == 1, f"one request, asked at three nodes, took effect at {done}"
    print("  compare-and-set, and a request that was asked three times and took effect once")


def holding(nodes, ada, bob):
    """Ada has the lock and works under it; bob waits. Returns her token, and his place in line."""
    n1, n2, n3 = nodes
    token = ada.try_lock([n2], "writer")
    held = refused(lambda: bob.try_lock([n3], "writer"), "lock_held")
    assert (held.holder.session, held.token) == (ada.number, token), held
    waiting = bob.lock(n3, "writer", wait=TIMEOUT)
    until("bob is in line", lambda: line_of(n1, "writer") == 1)
    given_up = bob.lock(n2, "writer", wait=TIMEOUT)
    until("a second request of bob's is in line", lambda: line_of(n1, "writer") == 2)
    given_up.cancel()
    until("the cancelled one has left it", lambda: line_of(n1, "writer") == 1)

    write([n1], [push("writer", b"job 1"), push("writer", b"job 2")])
    one = take(n2, token).item
    twice = name()
    two, same = take(n2, token, twice).item, take(n3, token, twice).item
    assert (one.value, two.value, same.item) == (b"job 1", b"job 2", two.item), (one, two, same)
    assert take(n2, token).WhichOneof("result") == "empty", "nothing is given out twice under one token"
    write([n2], [acknowledge(one, token), put("done/1", b"by ada")], [holds("writer", token)])

    # Kept alive, a session outlives its time to live.
    time.sleep(TTL * 1.5)
    assert ada.over is None, ada.over
    write([n3], [put("done/ada", b"still")], [holds("writer", token)])
    assert not waiting.done()
    print(f"  ada holds the lock under {token}, and bob waits in line")
    return token, waiting


def passing_on(nodes, ada, bob, token, waiting):
    """Ada falls silent. Returns bob's token."""
    n1, n2, n3 = nodes
    heard = ada.silence()
    newer = waiting.result(timeout=TIMEOUT).token
    waited = time.monotonic() - heard
    assert newer > token, f"tokens grow: {token}, {newer}"
    assert waited >= TTL + LOCK_DELAY, f"passed on {waited:.2f} s after a keep-alive that promised {TTL} s"
    print(f"  bob has it under {newer}, {waited:.2f} s after ada's last keep-alive; {TTL + LOCK_DELAY} s were promised")

    late = refused(lambda: write([n2], [put("done/2", b"by ada")], [holds("writer", token)]), "not_holder")
    assert (late.token, late.current) == (token, newer), late
    refused(lambda: take(n2, token), "not_holder")
    alive = store_pb2.KeepAliveRequest(session=ada.number)
    ended = anywhere([n1], lambda node: node.store.KeepAlive(alive, timeout=30))
    assert ended.WhichOneof("result") == "ended", ended
    print("  ada's late write is refused: not_holder")
    left = take(n3, newer).item
    assert (left.value, left.again) == (b"job 2", True), f"what ada had taken is there for bob: {left}"
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
    """The leader is killed; the session, the lock and the reader go on at the others."""
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
    assert reader.reconnected > before, "it went on at another node"
    assert bob.over is None, bob.over
    print("  bob's session, his lock and the reader have gone on without it")
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
    print(f"everything held, in {time.monotonic() - begun:.1f} s")


def story(daemon, folder, nodes, verbose):
    print("records")
    begin = nodes[0].cluster.Status(cluster_pb2.StatusRequest()).committed.revision
    # Without the topics of members and leaders: what is read here is what clients did.
    topics = [store_pb2.TOPIC_LOCKS, store_pb2.TOPIC_RECORDS, store_pb2.TOPIC_QUEUES, store_pb2.TOPIC_SESSIONS]
    reader = Reader(nodes, begin, topics, at=nodes[0])
    records_and_requests(nodes)

    print("locks")
    ada, bob = Session(nodes, "ada", TTL, LOCK_DELAY), Session(nodes, "bob", 10 * TTL, LOCK_DELAY)
    token, waiting = holding(nodes, ada, bob)
    reader.until("lock_granted", lambda granted: granted.token == token)
    reader.break_off()  # … and it goes on at another node, from the revision that it saw last
    newer = passing_on(nodes, ada, bob, token, waiting)
    released = reader.until("session_ended", lambda ended: ended.session == ada.number)
    assert not released.session_ended.clean
    reader.until("lock_delayed", lambda delayed: delayed.token == token)
    reader.until("lock_granted", lambda granted: granted.token == newer)
    assert reader.reconnected > 0
    listing(nodes)

    print("a node less")
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
    # What was read in parts, at several nodes, is what one tells in one go.
    whole = Reader([returned], begin, topics, at=returned)
    whole.until("session_ended", lambda ended: ended.session == bob.number)
    whole.stop()
    parts, one = ([event.SerializeToString() for event in each.told] for each in (reader, whole))
    assert parts == one, f"{len(parts)} events were read in parts, {len(one)} in one go"
    print(f"  {len(parts)} events over {connections} connections, none lost, none twice")


if __name__ == "__main__":
    main()

//! A network in memory: calls are function calls, links can be cut.
//!
//! ```text
//!   n1 ──────▶ n2      cut_one_way(1, 2): what n1 says is lost
//!   n1 ◀────── n2      the other way still works: n2's calls arrive, the answers do not
//! ```
//!
//! A cut link loses silently, as a dropped packet does: the caller waits its deadline out. A node that is down is
//! refused at once, as a closed port does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use quorate_membership::{Address, NodeId};
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};

use crate::client_service::Service;
use crate::error::{Refusal, TransportError};
use crate::rpc::{Answer, Append, Call, Caller};
use crate::transport::{AppendReplies, JoinAnswer, JoinRequest, Peer, Transport};

#[derive(Default)]
struct Board {
    services: BTreeMap<NodeId, Arc<dyn Service>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    candidacies: BTreeMap<NodeId, u64>,
    /// Whoever listens hears which node was taken off.
    ended: Option<broadcast::Sender<NodeId>>,
    /// Pairs between which something answers that the port is closed.
    rejecting: BTreeSet<(NodeId, NodeId)>,
    /// Streams that lie in the queues of dead connections.
    kept: Vec<BoxStream<'static, Append>>,
    /// How often one node tried whether another refuses.
    attempts: BTreeMap<(NodeId, NodeId), u32>,
}

impl Board {
    fn ended(&mut self) -> &broadcast::Sender<NodeId> {
        self.ended.get_or_insert_with(|| broadcast::Sender::new(64))
    }

    /// Whether `to` has no process, as far as `from` can tell.
    fn refuses(&self, from: NodeId, to: NodeId) -> bool {
        let whole = !self.cut.contains(&(from, to)) && !self.cut.contains(&(to, from));
        whole && (!self.services.contains_key(&to) || self.rejecting.contains(&(from, to)))
    }
}

/// The network. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<Board>>);

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of a node here.
    ///
    /// # Errors
    /// Never in practice: the address is short and says something.
    pub fn address(node: NodeId) -> Result<Address, quorate_membership::TextError> {
        Address::new(format!("memory:{node}"))
    }

    /// The way out for `node`.
    pub fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        Arc::new(MemoryTransport { board: self.clone(), from: node })
    }

    /// Puts a node on the network, in place of the one of that number before.
    pub fn connect(&self, node: NodeId, service: Arc<dyn Service>) {
        self.lock().services.insert(node, service);
    }

    /// Takes a node off: calls to it are refused at once.
    pub fn disconnect(&self, node: NodeId) {
        let mut board = self.lock();
        if board.services.remove(&node).is_some() {
            // Perhaps nobody listens.
            let _heard = board.ended().send(node);
            let reached = |other: &NodeId| !board.cut.contains(&(node, *other));
            let others: Vec<_> =
                board.services.iter().filter(|(other, _)| reached(other)).map(|(_, s)| s.clone()).collect();
            drop(board);
            others.iter().for_each(|other| other.disconnected(node));
        }
    }

    /// Puts a firewall in the way that closes the connections from `from` to `to`, and refuses new ones in the name of `to`.
    pub fn reject(&self, from: NodeId, to: NodeId) {
        let mut board = self.lock();
        board.rejecting.insert((from, to));
        let _heard = board.ended().send(to);
    }

    /// Begins to send, as to a connection that nobody answers: what was given stays in its queue, for as long as it likes.
    fn keep(&self, mut requests: BoxStream<'static, Append>) {
        while let Some(Some(_lost)) = requests.next().now_or_never() {}
        self.lock().kept.push(requests);
    }

    /// How often `from` has tried whether `to` refuses connections.
    pub fn attempts(&self, from: NodeId, to: NodeId) -> u32 {
        self.lock().attempts.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Loses everything that `from` says to `to`.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.lock().cut.insert((from, to));
    }

    /// Loses everything between the two.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.lock().cut.extend([(a, b), (b, a)]);
    }

    /// Cuts every link of `node` to the nodes that are connected now.
    pub fn isolate(&self, node: NodeId) {
        let mut board = self.lock();
        let others: Vec<NodeId> = board.services.keys().copied().filter(|other| *other != node).collect();
        board.cut.extend(others.iter().flat_map(|other| [(node, *other), (*other, node)]));
    }

    /// Mends every link.
    pub fn heal(&self) {
        let mut board = self.lock();
        board.cut.clear();
        board.rejecting.clear();
    }

    /// How often `node` has asked another for its vote, or whether it would give it.
    pub fn candidacies(&self, node: NodeId) -> u64 {
        self.lock().candidacies.get(&node).copied().unwrap_or_default()
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.lock().cut.contains(&(from, to))
    }
}

struct MemoryTransport {
    board: MemoryNetwork,
    from: NodeId,
}

impl MemoryTransport {
    /// One call: lost on the way, answered, or answered with the answer lost.
    fn carry<T: Send + 'static>(
        &self,
        to: NodeId,
        deadline: Duration,
        call: impl FnOnce(Arc<dyn Service>) -> BoxFuture<'static, Result<T, Refusal>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, TransportError>> {
        let (board, from) = (self.board.clone(), self.from);
        Box::pin(async move {
            let lost = TransportError::Timeout(deadline);
            if board.is_cut(from, to) {
                sleep(deadline).await;
                return Err(lost);
            }
            let service = {
                let board = board.lock();
                board.services.get(&to).filter(|_| !board.rejecting.contains(&(from, to))).cloned()
            };
            let service = service.ok_or_else(|| TransportError::Unreachable(format!("{to} is down")))?;
            let answer = timeout(deadline, call(service)).await.map_err(|_| lost.clone())?;
            if board.is_cut(to, from) {
                sleep(deadline).await;
                return Err(lost);
            }
            Ok(answer?)
        })
    }
}

impl Transport for MemoryTransport {
    fn call(
        &self,
        peer: &Peer,
        caller: Caller,
        call: Call,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Answer, TransportError>> {
        if let Call::Vote(_) | Call::PreVote(_) = call {
            *self.board.lock().candidacies.entry(self.from).or_default() += 1;
        }
        self.carry(peer.node, deadline, move |service| service.call(caller, call))
    }

    fn append_stream(
        &self,
        peer: &Peer,
        caller: Caller,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> BoxFuture<'static, Result<AppendReplies, TransportError>> {
        let (board, from, to) = (self.board.clone(), self.from, peer.node);
        Box::pin(async move {
            if board.is_cut(from, to) {
                board.keep(requests);
                sleep(idle).await;
                return Err(TransportError::Timeout(idle));
            }
            let service = {
                let board = board.lock();
                board.services.get(&to).filter(|_| !board.rejecting.contains(&(from, to))).cloned()
            };
            let service = service.ok_or_else(|| TransportError::Unreachable(format!("{to} is down")))?;
            let gate = board.clone();
            let arriving = requests.take_while(move |_| std::future::ready(!gate.is_cut(from, to)));
            let answers = service.append_stream(caller, arriving.boxed());
            let state = (answers, board, false);
            let answers = futures_util::stream::unfold(state, move |(mut answers, board, ended)| async move {
                if ended {
                    return None;
                }
                loop {
                    let next = timeout(Duration::from_millis(20), answers.next()).await;
                    if board.is_cut(from, to) || board.is_cut(to, from) {
                        return Some((Err(TransportError::Timeout(idle)), (answers, board, true)));
                    }
                    match next {
                        Ok(answer) => return Some((answer?.map_err(TransportError::from), (answers, board, false))),
                        Err(_) if !board.lock().services.contains_key(&to) => {
                            let gone = TransportError::Broken(format!("{to} went down"));
                            return Some((Err(gone), (answers, board, true)));
                        }
                        Err(_) => {}
                    }
                }
            });
            Ok(answers.boxed())
        })
    }

    fn closed(&self) -> BoxStream<'static, NodeId> {
        let (board, from, ended) = (self.board.clone(), self.from, self.board.lock().ended().subscribe());
        let nodes = futures_util::stream::unfold(ended, |mut ended| async move {
            loop {
                match ended.recv().await {
                    Ok(node) => return Some((node, ended)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        // Who cannot reach it learns nothing of it; nor does anybody but the two learn of their firewall.
        nodes.filter(move |node| std::future::ready(board.lock().refuses(from, *node))).boxed()
    }

    fn refuses(&self, peer: &Peer) -> BoxFuture<'static, bool> {
        let mut board = self.board.lock();
        *board.attempts.entry((self.from, peer.node)).or_default() += 1;
        Box::pin(std::future::ready(board.refuses(self.from, peer.node)))
    }

    fn join(
        &self,
        address: &Address,
        request: JoinRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<JoinAnswer, TransportError>> {
        let node = address.as_str().strip_prefix("memory:").and_then(|node| node.parse().ok());
        let Some(node) = node else {
            let why = format!("{address} is not an address of this network (memory:n3)");
            return Box::pin(std::future::ready(Err(TransportError::Unreachable(why))));
        };
        self.carry(node, deadline, move |service| service.join(request))
    }
}

//! A read that looks confirmed and is not: late answers to an earlier append must not be taken for answers to a later
//! one. Whoever granted a lease on such a read would grant it to a life that others know to be over.
//!
//! ```text
//!   n1 leads, and sends an entry ─▶ n2, n3 answer ─ ─ ─ the answers are slow ─ ─ ─ ─ ─ ─ ─ ─ ─▶ arrive at last, one by one
//!                                   n1 is cut off; n2, n3 elect, wait, fence n1#1
//!                                                           n1 begins a read ─▶ must not succeed on those answers
//!   n2 is elected, and none of its entries arrives ─▶ it does not know yet how much n1 had committed
//!                                                           n2 begins a read ─▶ must not succeed before it does
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, unfold};
use quorate_membership::{Address, Command, Identity, NodeId, Phase, Role, Stop};
use quorate_raft_core::rpc::{Answer, Append, Call, Caller};
use quorate_raft_core::testing::{MemoryNetwork, TestStop, fast};
use quorate_raft_core::transport::{AppendReplies, JoinAnswer, JoinRequest};
use quorate_raft_core::{LeaseStage, Node, NodeSettings, Peer, ReadError, Transport, TransportError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

const TIMEOUT: Duration = Duration::from_secs(60);
const LONELY: NodeId = NodeId::new(1);

type Carried<T> = BoxFuture<'static, Result<T, TransportError>>;

/// What befalls the calls of all nodes.
struct NetConditions {
    /// Nothing new passes between the lonely node and the others.
    cut: AtomicBool,
    /// No entries pass at all, though heartbeats do.
    no_entries: AtomicBool,
    /// Heartbeats fail without an answer.
    no_answers: AtomicBool,
    /// The answers of these nodes to the lonely one's stream are held back.
    held: BTreeMap<NodeId, watch::Sender<bool>>,
}

struct SimTransport {
    inner: Arc<dyn Transport>,
    from: NodeId,
    conditions: Arc<NetConditions>,
}

impl NetConditions {
    fn loses(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.load(Ordering::SeqCst) && (from == LONELY) != (to == LONELY)
    }
}

impl Transport for SimTransport {
    fn call(&self, peer: &Peer, caller: Caller, call: Call, deadline: Duration) -> Carried<Answer> {
        if matches!(call, Call::Append(_)) && self.conditions.no_answers.load(Ordering::SeqCst) {
            return Box::pin(async { Err(TransportError::Broken("nobody answers".into())) });
        }
        let (inner, to) = (self.inner.call(peer, caller, call, deadline), peer.node);
        if !self.conditions.loses(self.from, to) {
            return inner;
        }
        Box::pin(async move {
            sleep(deadline).await;
            Err(TransportError::Timeout(deadline))
        })
    }

    fn append_stream(
        &self,
        peer: &Peer,
        caller: Caller,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> Carried<AppendReplies> {
        let (conditions, from, to) = (self.conditions.clone(), self.from, peer.node);
        // Requests on a line that is cut are lost, and the stream stays open.
        let through = conditions.clone();
        let passes = move || {
            let no_entries = through.no_entries.load(Ordering::SeqCst);
            !through.loses(from, to) && !no_entries
        };
        let requests = requests.filter(move |_| std::future::ready(passes())).boxed();
        let opened = self.inner.append_stream(peer, caller, requests, idle);
        let held = (from == LONELY).then(|| conditions.held.get(&to).map(watch::Sender::subscribe)).flatten();
        Box::pin(async move {
            let mut answers = opened.await?;
            let (arrived, waiting) = mpsc::channel(100);
            tokio::spawn(async move {
                while let Some(answer) = answers.next().await {
                    if arrived.send(answer).await.is_err() {
                        return;
                    }
                }
                if conditions.loses(from, to) {
                    arrived.closed().await;
                }
            });
            let answers = unfold((waiting, held), |(mut waiting, mut held)| async move {
                let answer = waiting.recv().await?;
                if let Some(held) = &mut held {
                    let _conditions_gone = held.wait_for(|held| !*held).await.is_err();
                }
                Some((answer, (waiting, held)))
            });
            Ok(answers.boxed())
        })
    }

    fn join(&self, address: &Address, request: JoinRequest, deadline: Duration) -> Carried<JoinAnswer> {
        self.inner.join(address, request, deadline)
    }
}

async fn three(conditions: &Arc<NetConditions>, folder: &std::path::Path) -> Result<Vec<Arc<Node>>> {
    let (board, mut nodes) = (MemoryNetwork::new(), vec![]);
    for node in [1, 2, 3].map(NodeId::new) {
        let stop = TestStop::new(Stop::Own { bound: Duration::from_millis(100) });
        let running = Node::start(NodeSettings {
            node,
            data: folder.join(node.to_string()),
            addresses: vec![MemoryNetwork::address(node)?],
            config: fast(),
            transport: Arc::new(SimTransport {
                inner: board.transport(node),
                from: node,
                conditions: conditions.clone(),
            }),
            fencer: None,
            stop: Some(Box::new(stop)),
            trust_vm_clock: true,
        })
        .await?;
        board.connect(node, running.service());
        match nodes.is_empty() {
            true => running.bootstrap(Role::Voter, TIMEOUT).await?,
            false => running.join(&[MemoryNetwork::address(LONELY)?], Role::Voter, TIMEOUT).await?,
        };
        nodes.push(Arc::new(running));
    }
    for node in &nodes {
        timeout(TIMEOUT, node.lease().context("it has a name")?.held()).await?;
    }
    Ok(nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_answers_to_an_earlier_append_confirm_no_read() -> Result<()> {
    let held = [2, 3].map(|node| (NodeId::new(node), watch::Sender::new(false))).into();
    let (cut, no_entries, no_answers) = Default::default();
    let conditions = Arc::new(NetConditions { cut, no_entries, no_answers, held });
    let folder = tempfile::tempdir()?;
    let nodes = three(&conditions, folder.path()).await?;
    let (lonely, other) = (nodes[0].clone(), nodes[1].clone());
    ensure!(lonely.view().local.leader == Some(LONELY), "the founder leads");
    let lease = lonely.lease().context("it has a name")?;
    let who: Identity = lease.who();
    // An entry is on its way; its answers are slow from here on.
    conditions.held.values().for_each(|held| {
        held.send_replace(true);
    });
    let addresses = vec![MemoryNetwork::address(NodeId::new(3))?, Address::new("memory:elsewhere")?];
    let command = Command::SetAddresses { node: NodeId::new(3), addresses, by: None };
    let proposer = lonely.clone();
    let proposed = tokio::spawn(async move { proposer.propose(command).await });
    sleep(Duration::from_millis(200)).await;
    conditions.cut.store(true, Ordering::SeqCst);
    let give_up = Instant::now() + TIMEOUT;
    while other.view().cluster.life(who).is_none_or(|life| life.phase != Phase::Fenced) {
        ensure!(Instant::now() < give_up, "never fenced: {:?}", other.view());
        sleep(Duration::from_millis(10)).await;
    }
    timeout(TIMEOUT, lease.lost()).await?;
    // Now it reads, and the old answers come in, one after the other.
    let reader = lonely.clone();
    let read = tokio::spawn(async move { reader.read_barrier(Duration::from_secs(2)).await });
    for node in [2, 3] {
        sleep(Duration::from_millis(50)).await;
        if let Some(held) = conditions.held.get(&NodeId::new(node)) {
            held.send_replace(false);
        }
    }
    let answer = read.await?;
    ensure!(
        matches!(answer, Err(ReadError::MaybeStale { .. })),
        "a read of a deposed leader was confirmed: {answer:?}"
    );
    ensure!(lease.check().is_err() && lease.view().stage == LeaseStage::Lapsed, "{who} is over, and holds a lease");
    proposed.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_has_committed_nothing_of_its_own_confirms_no_read() -> Result<()> {
    let (cut, no_entries, no_answers) = Default::default();
    let conditions = Arc::new(NetConditions { cut, no_entries, no_answers, held: BTreeMap::new() });
    let folder = tempfile::tempdir()?;
    let nodes = three(&conditions, folder.path()).await?;
    ensure!(nodes[0].view().local.leader == Some(LONELY), "the founder leads");
    conditions.no_entries.store(true, Ordering::SeqCst);
    conditions.cut.store(true, Ordering::SeqCst);
    let give_up = Instant::now() + TIMEOUT;
    let next = loop {
        let leads = |node: &&Arc<Node>| node.view().local.leader == Some(node.view().local.node);
        match nodes[1..].iter().find(leads) {
            Some(next) => break next.clone(),
            None => ensure!(Instant::now() < give_up, "nobody is elected: {:?}", nodes[1].view()),
        }
        sleep(Duration::from_millis(5)).await;
    };
    let answer = next.read_barrier(Duration::from_millis(500)).await;
    ensure!(
        matches!(answer, Err(ReadError::MaybeStale { .. })),
        "a leader that has committed nothing of its own confirmed a read: {answer:?}"
    );
    conditions.no_entries.store(false, Ordering::SeqCst);
    let read = next.read_barrier(TIMEOUT).await;
    ensure!(read.is_ok(), "its entries arrive, and it still confirms no read: {read:?}");
    Ok(())
}

/// A worker of the engine that panics sends no heartbeat any more, and all leases run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_that_fail_are_not_the_last() -> Result<()> {
    let (cut, no_entries, no_answers) = Default::default();
    let conditions = Arc::new(NetConditions { cut, no_entries, no_answers, held: BTreeMap::new() });
    let folder = tempfile::tempdir()?;
    let nodes = three(&conditions, folder.path()).await?;
    let leads = |node: &Arc<Node>| {
        let local = node.view().local;
        (local.leader == Some(local.node) && local.quorate).then_some((local.node, local.term))
    };
    let plan = *fast().timing.plan();
    // On a busy machine the lead may change for other reasons, but not each time.
    for _ in 0..8 {
        let give_up = Instant::now() + TIMEOUT;
        let before = loop {
            match nodes.iter().find_map(leads) {
                Some(leader) => break leader,
                None => ensure!(Instant::now() < give_up, "nobody leads: {:?}", nodes[0].view()),
            }
            sleep(Duration::from_millis(5)).await;
        };
        conditions.no_answers.store(true, Ordering::SeqCst);
        sleep(plan.heartbeat * 2).await;
        conditions.no_answers.store(false, Ordering::SeqCst);
        // Until the last answer of before has long ceased to count.
        sleep(plan.election_max * 4).await;
        if nodes.iter().find_map(leads) == Some(before) {
            return Ok(());
        }
    }
    anyhow::bail!("each leader whose heartbeats had no answer for a moment has lost its followers")
}

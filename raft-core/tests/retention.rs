//! The log keeps its bound in bytes, whatever the size of its entries, and a node that was away for long comes back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use quorate_membership::{Address, Key, NodeId, Phase, Role};
use quorate_raft_core::rpc::{Answer, Append, Call, Caller};
use quorate_raft_core::testing::{MemoryNetwork, TestCluster, fast};
use quorate_raft_core::transport::{AppendReplies, JoinAnswer, JoinRequest};
use quorate_raft_core::{Config, Node, NodeSettings, Peer, Transport, TransportError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// A liveness limit for what must come; a busy machine does not reach it.
const LIMIT: Duration = Duration::from_secs(60);

type Carried<T> = BoxFuture<'static, Result<T, TransportError>>;

/// Fifteen values of 65 000 bytes, under the same keys each time: what is alive afterwards is one MB.
async fn overwrite(node: &Node, turn: u8) -> Result<()> {
    let mut write = node.records().write();
    for place in 0..15 {
        write = write.put(Key::new(format!("k{place}"))?, vec![turn; 65_000]);
    }
    write.commit().await?;
    Ok(())
}

/// Passes everything on, but the answers to the entries that are sent to one node.
struct Unanswered {
    inner: Arc<dyn Transport>,
    silent: NodeId,
    answers: watch::Receiver<bool>,
}

impl Transport for Unanswered {
    fn call(&self, peer: &Peer, caller: Caller, call: Call, deadline: Duration) -> Carried<Answer> {
        self.inner.call(peer, caller, call, deadline)
    }

    fn append_stream(
        &self,
        peer: &Peer,
        caller: Caller,
        requests: BoxStream<'static, Append>,
        idle: Duration,
    ) -> Carried<AppendReplies> {
        let opened = self.inner.append_stream(peer, caller, requests, idle);
        let held = peer.node == self.silent;
        let answers = self.answers.clone();
        Box::pin(async move {
            Ok(opened
                .await?
                .then(move |answer| {
                    let mut answers = answers.clone();
                    async move {
                        let _sender_gone = !held || answers.wait_for(|answers| *answers).await.is_err();
                        answer
                    }
                })
                .boxed())
        })
    }

    fn join(&self, address: &Address, request: JoinRequest, deadline: Duration) -> Carried<JoinAnswer> {
        self.inner.join(address, request, deadline)
    }
}

/// A follower takes entries in and acknowledges none, while its heartbeats are answered: the log keeps its bound all the same,
/// and the follower catches up by a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_acknowledges_nothing_does_not_hold_the_log() -> Result<()> {
    let bound = 8 << 20;
    let (folder, board, (switch, answers)) = (tempfile::tempdir()?, MemoryNetwork::new(), watch::channel(true));
    let mut nodes: Vec<Node> = vec![];
    for node in [1, 2, 3].map(NodeId::new) {
        let (inner, answers) = (board.transport(node), answers.clone());
        let transport = Arc::new(Unanswered { inner, silent: NodeId::new(3), answers });
        let running = Node::start(NodeSettings {
            node,
            data: folder.path().join(node.to_string()),
            addresses: vec![MemoryNetwork::address(node)?],
            config: Config { log_bytes: bound, ..fast() },
            transport,
            fencer: None,
            stop: None,
            trust_vm_clock: false,
        })
        .await?;
        board.connect(node, running.service());
        match nodes.is_empty() {
            true => running.bootstrap(Role::Voter, LIMIT).await?,
            false => running.join(&[MemoryNetwork::address(NodeId::new(1))?], Role::Voter, LIMIT).await?,
        };
        nodes.push(running);
    }
    let voters = |node: &Node| node.view().cluster.configuration().voters().len();
    let began = Instant::now();
    while nodes.iter().any(|node| voters(node) < 3) {
        ensure!(began.elapsed() < LIMIT, "three voters");
        sleep(Duration::from_millis(10)).await;
    }
    switch.send_replace(false);
    for turn in 0..50 {
        overwrite(&nodes[0], turn).await?;
    }
    let file = folder.path().join("n1/raft.log");
    let size = std::fs::metadata(&file)?.len();
    ensure!(size < 5 * bound, "{} has {size} bytes where the log may take {bound}", file.display());
    switch.send_replace(true);
    nodes[2].read_barrier(LIMIT).await?;
    let view = nodes[2].view();
    let record = view.cluster.store().record(&Key::new("k7")?).context("k7")?;
    ensure!(record.value.as_bytes().iter().all(|byte| *byte == 49), "it has what was written last");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_large_entries_keeps_its_bound_in_bytes_and_its_file_stays_small() -> Result<()> {
    let bound = 8 << 20;
    let mut t = TestCluster::start_with(3, Config { log_bytes: bound, ..fast() }).await?;
    let away = t.leader().await?.get() % 3 + 1;
    let writes_at = t.leader().await?.get();
    t.node(away)?.stop().await;
    t.until_phase(&format!("n{away}#1"), Phase::Fenced).await?;
    // Forty-eight megabytes, far fewer entries than a snapshot is taken after by number.
    for turn in 0..50 {
        overwrite(t.node(writes_at)?.handle()?, turn).await?;
    }
    for node in (1..=3).filter(|node| *node != away) {
        let file = t.node(node)?.data().join("raft.log");
        let size = std::fs::metadata(&file)?.len();
        ensure!(size < 5 * bound, "{} has {size} bytes where the log may take {bound}", file.display());
    }
    // What it missed is in no log any more.
    t.node(away)?.start().await?;
    t.until_active(&format!("n{away}#2")).await?;
    overwrite(t.node(writes_at)?.handle()?, 99).await?;
    let back = t.node(away)?.handle()?;
    back.read_barrier(LIMIT).await?;
    let view = back.view();
    let record = view.cluster.store().record(&Key::new("k7")?).context("k7")?;
    ensure!(record.value.as_bytes().iter().all(|byte| *byte == 99), "it has what was written last");
    Ok(())
}

//! Watches nodes whose connections were closed, and tells the monitor which of them refuse new ones as a quorum sees it: the
//! process of such a node has most likely ended.
//!
//! ```text
//!   connection closed by its side ─▶ watched ── every few ms: refused here? ── for fence_refused_after, while this node leads,
//!                                       │ heard again, or too long: no more         and by a quorum of the voters? ─▶ monitor
//! ```
//!
//! It is an opinion, and leads to a fence order at most: what ends the life is the evidence of a device, as after silence. A
//! node that holds a connection to any voter runs, whatever a firewall says in its name. Every node watches, whether it leads
//! or not, so that the next leader knows what the last one saw.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use quorate_membership::NodeId;
use quorate_membership::detector::Moment;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::host::clock;

/// The shortest wait between two looks at a node, and the longest.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(80));

/// A node whose machine refuses connections, and since when.
pub(crate) type Refusing = (NodeId, Moment);

/// One node that is watched.
#[derive(Debug, Clone, Copy)]
struct Watched {
    /// When a connection to it was closed.
    closed: Moment,
    /// Since when every look found that it refuses.
    refuses: Option<Moment>,
    next: Moment,
    wait: Duration,
}

struct Task {
    engine: Engine,
    watched: BTreeMap<NodeId, Watched>,
    findings: mpsc::Sender<Refusing>,
}

/// Runs until `stop`, and sends each finding.
pub(crate) async fn run(engine: Engine, findings: mpsc::Sender<Refusing>, stop: CancellationToken) {
    let mut closed = engine.peers().closed();
    let mut task = Task { engine, watched: BTreeMap::new(), findings };
    if task.engine.config().ignores_refusals() {
        return;
    }
    loop {
        let next = task.watched.values().map(|of| of.next).min();
        let pause = next.map_or(Duration::MAX, |next| next.since(clock::now()));
        tokio::select! { biased;
            () = stop.cancelled() => return,
            node = closed.next() => match node {
                Some(node) => task.note_closed(node),
                None => return,
            },
            () = sleep(pause) => task.look().await,
        }
    }
}

impl Task {
    fn note_closed(&mut self, node: NodeId) {
        let now = clock::now();
        if node != self.engine.node() {
            let fresh = Watched { closed: now, refuses: None, next: now, wait: LOOK.0 / 2 };
            self.watched.entry(node).and_modify(|of| of.closed = now).or_insert(fresh);
        }
    }

    /// Looks at each node for which it is time.
    async fn look(&mut self) {
        let now = clock::now();
        let (engine, state) = (&self.engine, self.engine.state());
        let (needed, longest) = (engine.config().fence_refused_after(), engine.config().fence_after());
        let works = |node| state.newest(node).and_then(|who| state.life(who)).is_some_and(|life| life.phase.may_work());
        let heard = |node| engine.peers().contacts.last(node).unwrap_or_default();
        self.watched.retain(|node, of| now.since(of.closed) < longest && heard(*node) <= of.closed && works(*node));
        let due: Vec<(NodeId, Watched)> =
            self.watched.iter().filter(|(_, of)| of.next <= now).map(|(node, of)| (*node, *of)).collect();
        let looks = due.into_iter().map(|(node, of)| async move {
            // The others are asked once it is time, and again if that was in vain.
            let ask = engine.leading() && of.refuses.is_some_and(|since| now.since(since) >= needed);
            let found = match ask {
                true => engine.is_refused_by(node).await,
                false => engine.is_parted_from(node).await,
            };
            (node, found, ask)
        });
        for (node, found, asked) in join_all(looks).await {
            let Some(of) = self.watched.get_mut(&node) else { continue };
            if found && asked {
                tracing::info!(%node, "its machine refuses connections, as a quorum of the voters sees it");
                let at = of.refuses.unwrap_or(now);
                self.watched.remove(&node);
                // The monitor ends with the node.
                let _told = self.findings.send((node, at)).await;
                continue;
            }
            of.refuses = if found { of.refuses.or(Some(now)) } else { None };
            of.wait = if found && !asked { LOOK.0 } else { (of.wait * 2).min(LOOK.1) };
            let looked = clock::now();
            // The others are asked exactly when it is time, and not up to a pause later.
            let until = of.refuses.map(|since| needed.saturating_sub(looked.since(since)));
            let wait = until.filter(|until| !until.is_zero()).map_or(of.wait, |until| of.wait.min(until));
            of.next = Moment::new(looked.since_origin() + wait);
        }
    }
}

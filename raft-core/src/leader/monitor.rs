//! Looks around at a steady pace: who was heard, is there a quorum, does the disk do its work; and publishes the picture.
//!
//! ```text
//!   contacts ─▶ detector ─▶ sightings ┐
//!   last_quorum_acked, own timer ─────┼─▶ View ──▶ watch, reconcile
//!   store, machine ─▶ stopped? stuck? ┘ ──▶ whether this node may stand for election
//! ```
//!
//! Never waits for anything but its own pace, so a gap between two looks means that this node itself stood still.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use quorate_membership::detector::{Detector, Moment};
use quorate_membership::{NodeId, Phase};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::engine::state_machine::revision;
use crate::error::Fatal;
use crate::host::clock;
use crate::inner::Inner;
use crate::view::{Local, Sighting, View};

/// Runs until `stop` or until the node has failed.
pub(crate) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut pace = interval(inner.config.heartbeat() / 2);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = inner.machine.progress();
    let detector = Detector::new(inner.config.timeout());
    let mut monitor = Monitor { detector, leading: None, led: None, stands: None, disk: None };
    loop {
        tokio::select! { biased;
            _ = stop.wait_for(|stop| *stop) => return,
            _ = pace.tick() => monitor.tick(&inner),
            changed = progress.changed() => match changed {
                // What it hears of comes before what it says of it: a life that has just come back is not silent.
                Ok(()) => monitor.hear(&inner, clock::now()),
                Err(_) => return,
            },
        }
        inner.view.send_replace(monitor.look(&inner));
        if let Some(fatal) = inner.stopped().filter(|f| !matches!(f, Fatal::Shutdown)) {
            tracing::error!(node = %inner.node, %fatal, "this node has stopped");
            inner.shut_down(fatal).await;
            return;
        }
    }
}

struct Monitor {
    detector: Detector,
    /// The term that this node leads in, if it does.
    leading: Option<u64>,
    /// Who led last, as this node followed.
    led: Option<NodeId>,
    /// Whether the engine was told that this node may stand for election.
    stands: Option<bool>,
    /// What is wrong with the disk, if something is.
    disk: Option<String>,
}

impl Monitor {
    fn tick(&mut self, inner: &Inner) {
        let now = clock::now();
        self.mind_the_disk(inner);
        let well = self.disk.is_none() || cfg!(quorate_mutant = "stands_on_a_full_disk");
        let stands = well && inner.embargo_ends.is_none_or(|ends| now >= ends);
        if self.stands != Some(stands) {
            self.stands = Some(stands);
            inner.raft.runtime_config().elect(stands);
        }
        let term = inner.raft.metrics().borrow_watched().current_term;
        let (leader, leading) = (inner.leader(), inner.leading().then_some(term));
        if leading != self.leading {
            // Only a leader hears everybody: most silences begin now. Who was heard lately, as followers hear their
            // leader, keeps the true time of its last word, so that a dead leader is not given a second wait.
            let (cluster, heard) = (inner.feed.state(), inner.peers.contacts.all());
            self.detector = Detector::new(inner.config.timeout());
            for node in cluster.members().keys().filter(|node| **node != inner.node) {
                // An election takes about twice its longest time-out, and the dead leader was silent all the while.
                let times = if self.led == Some(*node) { 4 } else { 2 };
                let lately = heard.get(node).filter(|at| now.since(**at) < inner.config.election_max() * times);
                self.detector.watch(*node, lately.copied().unwrap_or(now));
            }
            self.leading = leading;
        }
        self.led = leader.filter(|leader| *leader != inner.node).or(self.led);
        self.hear(inner, now);
        if let Some(pause) = self.detector.poll(now) {
            tracing::warn!(node = %inner.node, ?pause, "this node stood still; nobody is blamed for that silence");
        }
    }

    /// Says once that the disk does not do its work, and once that it does again.
    fn mind_the_disk(&mut self, inner: &Inner) {
        let disk = inner.disk_trouble();
        match (&self.disk, &disk) {
            (before, Some(trouble)) if before.as_ref() != Some(trouble) => {
                tracing::warn!(node = %inner.node, %trouble, "this node can make nothing durable");
            }
            (Some(before), None) => tracing::info!(node = %inner.node, over = %before, "the disk works again"),
            _ => {}
        }
        self.disk = disk;
    }

    /// Takes in every sign of life: the calls and answers of others, and each new life of theirs.
    fn hear(&mut self, inner: &Inner, now: Moment) {
        for (node, at) in inner.peers.contacts.all() {
            self.detector.handle_contact(node, at);
        }
        let state = inner.feed.state();
        let mut arrivals = inner.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        for who in state.members().keys().filter_map(|node| state.newest(*node)) {
            let known = arrivals.get(&who.node).is_some_and(|(life, _)| *life == who);
            if !known {
                arrivals.insert(who.node, (who, now));
                // The silence of its former life was not its own.
                self.detector.handle_contact(who.node, now);
            }
        }
    }

    fn look(&self, inner: &Inner) -> View {
        let (now, cluster) = (clock::now(), inner.feed.state());
        let metrics = inner.raft.metrics().borrow_watched().clone();
        let leader = inner.leader();
        let quorate = match inner.leading() {
            // Who votes alone is its own majority, and nobody else's acknowledgement ever comes.
            true if metrics.membership_config.voter_ids().all(|voter| voter == inner.node.get()) => true,
            // A send time, hence on the safe side. The engine's own state does not change when time passes.
            true => metrics.last_quorum_acked.is_some_and(|acked| acked.elapsed() < inner.config.election_max()),
            false => leader.is_some_and(|leader| {
                let heard = inner.peers.contacts.all().get(&leader).copied();
                leader != inner.node && heard.is_some_and(|at| now.since(at) < inner.config.election_max())
            }),
        };
        let sightings: BTreeMap<NodeId, Sighting> = match self.leading {
            None => BTreeMap::new(),
            Some(_) => (cluster.members().iter())
                .filter(|(node, _)| **node != inner.node)
                .filter(|(_, member)| member.newest().is_some_and(|(_, life)| life.phase == Phase::Active))
                .filter_map(|(node, _)| {
                    let silence = self.detector.silence(*node, now)?;
                    Some((*node, Sighting { signal: self.detector.signal(*node, now), silence }))
                })
                .collect(),
        };
        let local = Local {
            node: inner.node,
            identity: inner.identity(),
            quorate,
            leader,
            term: metrics.current_term,
            applied: metrics.last_applied.map(|id| revision(id.index)).unwrap_or_default(),
            sightings,
            lease: inner.keeper.view(),
            disk: self.disk.clone(),
            stopped: inner.stopped(),
        };
        View { cluster, local }
    }
}

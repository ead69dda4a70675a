//! Looks at a steady pace which nodes are heard, whether there is a quorum and whether the disk works, and publishes the
//! picture.
//!
//! ```text
//!   contacts ─▶ detector ─▶ sightings ┐
//!   last_quorum_acked, own timer ─────┼─▶ View ──▶ watch, reconciler
//!   store, machine ─▶ stopped? stuck? ┘ ──▶ whether this node may stand for election
//! ```
//!
//! It waits for nothing but its own pace, so a gap between two looks means that this node itself stood still.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_membership::detector::{Detector, Moment};
use quorate_membership::{NodeId, Phase};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::Fatal;
use crate::host::clock;
use crate::lease::keeper::Keeper;
use crate::view::{Local, Sighting, View};

/// Looks, and publishes what it saw in `views`.
pub(crate) struct Monitor {
    engine: Engine,
    keeper: Arc<Keeper>,
    views: watch::Sender<View>,
    detector: Detector,
    /// The term that this node leads in, if it does.
    leading: Option<u64>,
    /// The node that this one followed last.
    led: Option<NodeId>,
    /// Whether the engine was told that this node may stand for election.
    stands: Option<bool>,
    /// What is wrong with the disk, if something is.
    disk: Option<String>,
}

impl Monitor {
    pub(crate) fn new(engine: Engine, keeper: Arc<Keeper>, views: watch::Sender<View>) -> Self {
        let detector = Detector::new(engine.config().thresholds());
        Self { engine, keeper, views, detector, leading: None, led: None, stands: None, disk: None }
    }

    /// Runs until `stop`, or until the node has failed: then it answers why.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Option<Fatal> {
        let mut pace = interval(self.engine.config().heartbeat() / 2);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = self.engine.progress();
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => return None,
                _ = pace.tick() => self.tick(),
                changed = progress.changed() => match changed {
                    // A new life is heard of before it is judged: one that has just come back is not silent.
                    Ok(()) => self.hear(clock::now()),
                    Err(_) => return None,
                },
            }
            self.views.send_replace(self.look());
            if let Some(fatal) = self.engine.stopped().filter(|f| !matches!(f, Fatal::Shutdown)) {
                tracing::error!(node = %self.engine.node(), %fatal, "this node has stopped");
                return Some(fatal);
            }
        }
    }

    fn tick(&mut self) {
        let now = clock::now();
        self.check_disk();
        let well = self.disk.is_none() || cfg!(quorate_mutant = "stands_on_a_full_disk");
        let stands = well && self.engine.embargo_ends().is_none_or(|ends| now >= ends);
        if self.stands != Some(stands) {
            self.stands = Some(stands);
            self.engine.may_stand(stands);
        }
        let (me, term) = (self.engine.node(), self.engine.term());
        let (leader, leading) = (self.engine.leader(), self.engine.leading().then_some(term));
        if leading != self.leading {
            self.begin_to_judge(now);
            self.leading = leading;
        }
        self.led = leader.filter(|leader| *leader != me).or(self.led);
        self.hear(now);
        if let Some(pause) = self.detector.poll(now) {
            tracing::warn!(node = %me, ?pause, "this node stood still; no node is blamed for that silence");
        }
    }

    /// Only a leader hears every node, so most silences begin now. A node that was heard lately, as followers hear their
    /// leader, keeps the true time of its last word, so that a dead leader is not granted a second wait.
    fn begin_to_judge(&mut self, now: Moment) {
        let (engine, config) = (&self.engine, self.engine.config());
        let (cluster, heard) = (engine.state(), engine.peers().contacts.all());
        self.detector = Detector::new(config.thresholds());
        for node in cluster.members().keys().filter(|node| **node != engine.node()) {
            // An election takes about twice its longest timeout, and the dead leader was silent all the while.
            let times = if self.led == Some(*node) { 4 } else { 2 };
            let lately = heard.get(node).filter(|at| now.since(**at) < config.election_max() * times);
            self.detector.watch(*node, lately.copied().unwrap_or(now));
        }
    }

    /// Logs once that the disk does not work, and once that it works again.
    fn check_disk(&mut self) {
        let (node, disk) = (self.engine.node(), self.engine.disk_trouble());
        match (&self.disk, &disk) {
            (before, Some(trouble)) if before.as_ref() != Some(trouble) => {
                tracing::warn!(%node, %trouble, "this node can make nothing durable");
            }
            (Some(before), None) => tracing::info!(%node, over = %before, "the disk works again"),
            _ => {}
        }
        self.disk = disk;
    }

    /// Takes in every sign of life: the calls and answers of others, and each new life of theirs.
    fn hear(&mut self, now: Moment) {
        for (node, at) in self.engine.peers().contacts.all() {
            self.detector.handle_contact(node, at);
        }
        let state = self.engine.state();
        for who in state.members().keys().filter_map(|node| state.newest(*node)) {
            if self.engine.note_arrival(who, now) {
                // The silence of its former life was not its own.
                self.detector.handle_contact(who.node, now);
            }
        }
    }

    fn look(&self) -> View {
        let engine = &self.engine;
        let (now, cluster, me) = (clock::now(), engine.state(), engine.node());
        let leader = engine.leader();
        let quorate = match engine.leading() {
            // Counted from the sending, hence on the safe side. The engine's own state does not change when time passes.
            true => engine.heard_by_quorum(),
            false => leader.is_some_and(|leader| {
                let heard = engine.peers().contacts.all().get(&leader).copied();
                leader != me && heard.is_some_and(|at| now.since(at) < engine.config().election_max())
            }),
        };
        let sightings: BTreeMap<NodeId, Sighting> = match self.leading {
            None => BTreeMap::new(),
            Some(_) => (cluster.members().iter())
                .filter(|(node, _)| **node != me)
                .filter(|(_, member)| member.newest().is_some_and(|(_, life)| life.phase == Phase::Active))
                .filter_map(|(node, _)| {
                    let silence = self.detector.silence(*node, now)?;
                    Some((*node, Sighting { signal: self.detector.signal(*node, now), silence }))
                })
                .collect(),
        };
        let local = Local {
            node: me,
            identity: engine.identity(),
            quorate,
            leader,
            term: engine.term(),
            applied: engine.engine_applied(),
            sightings,
            lease: self.keeper.view(),
            disk: self.disk.clone(),
            stopped: engine.stopped(),
        };
        View { cluster, local }
    }
}

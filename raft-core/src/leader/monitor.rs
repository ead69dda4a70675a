//! Observes at a steady pace which nodes are in contact, whether there is a quorum and whether the disk works, and
//! publishes the result as a [`View`].
//!
//! ```text
//!   contacts ─▶ detector ─▶ sightings ┐
//!   last_quorum_acked, own timer ─────┼─▶ View ──▶ watch, reconciler
//!   fitness: disk, network, losses    ┘ ──▶ whether this node may stand for election
//! ```
//!
//! It waits for nothing but its own pace, so a gap between two observations means that this node itself stood still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_membership::detector::{Detector, Moment};
use quorate_membership::{ClusterState, Identity, NodeId, Phase, Revision};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::Fatal;
use crate::host::clock;
use crate::leader::ended::Refusing;
use crate::leader::fitness::Fitness;
use crate::leader::standing_log::StandingLog;
use crate::lease::keeper::Keeper;
use crate::view::{Local, Pictured, Sighting, View};

/// The shortest time between two views that differ in nothing but records, queues and locks. Each has a picture of the state, is
/// made by this task and read by others, which a busy cluster would wake for every command.
const LOOK: Duration = Duration::from_millis(50);

/// The same while nobody reads the views but this node itself, which looks at the state where it is. Not for ever: an old picture
/// keeps the old records in memory.
const UNREAD: Duration = Duration::from_secs(5);

/// Who always reads the views: the reconciler. While it carries something out, that counts as somebody else.
const OWN_READERS: usize = 1;

/// How often it is said whose links are probed, at the least.
const PROBE_AGAIN: Duration = Duration::from_secs(10);

/// The links to how many nodes are probed.
const PROBED: usize = 32;

/// Observes the cluster and publishes each observation in `views`.
pub(crate) struct Monitor {
    engine: Engine,
    keeper: Arc<Keeper>,
    views: watch::Sender<View>,
    detector: Detector,
    /// The term in which this node leads; `None` while it does not.
    leading: Option<u64>,
    /// The last other node that this one followed as leader.
    led: Option<NodeId>,
    fitness: Fitness,
    standing: StandingLog,
    /// The nodes whose machines refuse connections.
    refusing: mpsc::Receiver<Refusing>,
    /// Whom to tell that a node is to be fenced now.
    urgent: Arc<Notify>,
    pictured: Pictured,
    /// The last revision that changed more than records, queues and locks.
    changes: watch::Receiver<Revision>,
    /// That revision when new lives were looked for.
    arrivals: Option<Revision>,
    /// When it was said last whose links are probed.
    probed: Moment,
}

impl Monitor {
    pub(crate) fn new(
        engine: Engine,
        keeper: Arc<Keeper>,
        views: watch::Sender<View>,
        refusing: mpsc::Receiver<Refusing>,
        urgent: Arc<Notify>,
    ) -> Self {
        let detector = Detector::new(engine.config().thresholds());
        let fitness = Fitness::new(engine.clone());
        let (leading, led) = Default::default();
        let standing = StandingLog::default();
        let changes = engine.standing();
        let pictured = picture_of(&engine, *changes.borrow());
        Self {
            engine,
            keeper,
            views,
            detector,
            leading,
            led,
            fitness,
            standing,
            refusing,
            urgent,
            pictured,
            changes,
            arrivals: None,
            probed: Moment::default(),
        }
    }

    /// Runs until `stop`, or until the node has failed; returns the reason of the failure.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Option<Fatal> {
        let mut pace = self.engine.beat().every(1);
        let (mut standing, mut progress) = (self.changes.clone(), self.engine.progress());
        loop {
            let mut urgent = false;
            let due = self.pictured.at + self.pictures_every();
            tokio::select! { biased;
                () = stop.cancelled() => return None,
                _ = pace.tick() => self.tick(),
                Some((node, since)) = self.refusing.recv() => {
                    // The judgement begins anew with leadership, so that comes first.
                    self.tick();
                    self.detector.handle_refusal(node, since);
                    urgent = true;
                }
                changed = standing.changed() => match changed {
                    // Note a new life before the next judgement, so that a node that has just returned is not silent.
                    Ok(()) => self.hear(clock::now()),
                    Err(_) => return None,
                },
                // Everything else that was applied: at once, but not more often than anybody looks.
                changed = async {
                    sleep_until(due).await;
                    progress.changed().await
                } => if changed.is_err() { return None },
            }
            let mut view = self.look();
            self.standing.look(&view, clock::now());
            self.views.send_if_modified(|shown| {
                // Somebody may have begun to read them meanwhile, with the newest picture (`Node::watch`).
                if shown.cluster.revision() > view.cluster.revision() {
                    (view.cluster, view.local.applied) = (shown.cluster.clone(), shown.local.applied);
                }
                let news = !shown.differs_in_time_alone(&view);
                *shown = view;
                news
            });
            if urgent {
                self.urgent.notify_one();
            }
            if let Some(fatal) = self.engine.stopped().filter(|f| !matches!(f, Fatal::Shutdown)) {
                tracing::error!(node = %self.engine.node(), %fatal, "this node has failed and stops");
                return Some(fatal);
            }
        }
    }

    fn tick(&mut self) {
        let now = clock::now();
        self.fitness.look(self.leading, now);
        if now.since(self.probed) >= PROBE_AGAIN {
            self.probe(now);
        }
        let (me, term) = (self.engine.node(), self.engine.term());
        let (leader, leading) = (self.engine.leader(), self.engine.leading().then_some(term));
        if leading != self.leading {
            self.leading = leading;
            self.begin_to_judge(now);
        }
        self.led = leader.filter(|leader| *leader != me).or(self.led);
        self.hear(now);
        if let Some(pause) = self.detector.poll(now) {
            tracing::warn!(node = %me, ?pause, "this process stood still; silence in that time is ignored");
            self.fitness.stood_still(now);
        }
    }

    /// Starts a new detector when leadership changes. Only a leader is in contact with every node, so most silences are
    /// counted from now. A node that was heard recently, as a follower hears its leader, keeps the time of its last
    /// contact, so that a dead leader is not granted a second wait.
    fn begin_to_judge(&mut self, now: Moment) {
        let (engine, config) = (&self.engine, self.engine.config());
        let heard = engine.peers().contacts.all();
        self.detector = Detector::new(config.thresholds());
        if self.leading.is_none() {
            return;
        }
        // Lives that were there before are no arrivals.
        for who in self.newest_lives(true) {
            self.engine.note_arrival(who, now);
        }
        let members: Vec<_> = engine.look(|state| state.members().map(|(node, _)| node).collect());
        for node in members.into_iter().filter(|node| *node != engine.node()) {
            // An election takes about twice its longest timeout, and the dead leader was silent for all of it.
            let times = if self.led == Some(node) { 4 } else { 2 };
            let lately = heard.get(&node).filter(|at| now.since(**at) < config.election_max() * times);
            self.detector.watch(node, lately.copied().unwrap_or(now));
        }
    }

    /// Passes every contact to the detector: calls and answers of other nodes, and each new life of theirs. Only who leads judges
    /// others. The rest note when they first saw the life of a voter, which they might ask to lead one day.
    fn hear(&mut self, now: Moment) {
        let judges = self.leading.is_some();
        if judges {
            for (node, at) in self.engine.peers().contacts.all() {
                self.detector.handle_contact(node, at);
            }
        }
        // Before the state is looked at, which is then as new or newer.
        let changed = *self.changes.borrow();
        if self.arrivals.replace(changed) == Some(changed) {
            return;
        }
        self.probe(now);
        for who in self.newest_lives(judges) {
            if self.engine.note_arrival(who, now) && judges {
                self.detector.handle_arrival(who.node, now);
            }
        }
    }

    /// Says whose links are probed. Again after a while, because where a node said that it is counts only for so long.
    fn probe(&mut self, now: Moment) {
        self.probed = now;
        self.engine.peers().probe(&self.whom_to_probe());
    }

    /// The nodes whose links are probed: voters first, and not so many that probes are a load of their own.
    fn whom_to_probe(&self) -> BTreeSet<NodeId> {
        self.engine.look(|state| {
            let voters = state.configuration().voters();
            let learners = state.members().map(|(node, _)| node).filter(|node| !voters.contains(node));
            voters.iter().copied().chain(learners).take(PROBED).collect()
        })
    }

    /// The newest life of each node, or of each voter only.
    fn newest_lives(&self, all: bool) -> Vec<Identity> {
        self.engine.look(|state| match all {
            true => state.members().filter_map(|(node, _)| state.newest(node)).collect(),
            false => state.configuration().voters().into_iter().filter_map(|node| state.newest(node)).collect(),
        })
    }

    /// How old the picture of a view may be if nothing but records, queues and locks has changed since.
    fn pictures_every(&self) -> Duration {
        if self.views.receiver_count() > OWN_READERS { LOOK } else { UNREAD }
    }

    /// A picture of the state, perhaps the last one.
    fn picture(&mut self) -> Arc<ClusterState> {
        let changed = *self.changes.borrow();
        let overtaken = self.views.borrow().cluster.revision() > self.pictured.cluster.revision();
        if overtaken || self.pictured.changed != changed || self.pictured.at.elapsed() >= self.pictures_every() {
            self.pictured = picture_of(&self.engine, changed);
        }
        self.pictured.cluster.clone()
    }

    fn look(&mut self) -> View {
        let cluster = self.picture();
        let engine = &self.engine;
        let (now, me) = (clock::now(), engine.node());
        let leader = engine.leader();
        let quorate = match engine.leading() {
            // Counted from the sending of what was acknowledged, which is the safe side. openraft's own state would not
            // do, because it does not change when time passes.
            true => engine.heard_by_quorum(),
            false => leader.is_some_and(|leader| {
                let heard = engine.peers().contacts.last(leader);
                leader != me && heard.is_some_and(|at| now.since(at) < engine.config().election_max())
            }),
        };
        let sightings: BTreeMap<NodeId, Sighting> = match self.leading {
            None => BTreeMap::new(),
            Some(_) => (cluster.members())
                .filter(|(node, _)| *node != me)
                .filter(|(_, member)| member.newest().is_some_and(|(_, life)| life.phase == Phase::Active))
                .filter_map(|(node, _)| {
                    let silence = self.detector.silence(node, now)?;
                    Some((node, Sighting { signal: self.detector.signal(node, now), silence }))
                })
                .collect(),
        };
        let local = Local {
            node: me,
            identity: engine.identity(),
            quorate,
            leader,
            term: engine.term(),
            applied: self.pictured.applied,
            sightings,
            lease: self.keeper.view(),
            disk: self.fitness.disk().map(Into::into),
            links: self.fitness.links().clone(),
            unreached: self.fitness.unreached().map(Into::into),
            damped: self.fitness.damped(now).map(Into::into),
            stopped: engine.stopped(),
        };
        View { cluster, local }
    }
}

fn picture_of(engine: &Engine, changed: Revision) -> Pictured {
    let applied = engine.engine_applied();
    Pictured { cluster: engine.state(), changed, applied, at: Instant::now() }
}

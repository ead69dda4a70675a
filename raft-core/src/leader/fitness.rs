//! Whether this node is fit to lead: its disk works, the network carries what a leader sends and is sent, and it does not keep
//! losing leadership.
//!
//! ```text
//!   disk ─▶ full? ───────────────────────────────────────┐
//!   calls of the others ─▶ do they reach this node? ─────┤──▶ may stand for election? ──▶ engine
//!   links ─▶ do large messages from here pass? ──────────┤──▶ should make way? ──▶ reconciler
//!   leadership ─▶ lost again and again? ─────────────────┘
//! ```
//!
//! This is policy: leading and standing for election are safe in any case.

use std::collections::BTreeMap;

use quorate_membership::detector::Moment;
use quorate_membership::{Candidacy, LargeMessages, LeaderContact, NodeId, Reachability};

use crate::engine::Engine;
use crate::host::clock;
use crate::transport::NodeLinks;

/// Why a node that leads makes way, and the remedy.
const UNREACHED: &str = "the other nodes answer this node, but their own calls do not reach it; open its port to them";

/// Why a node makes way whose large messages are lost, and the remedy.
const LOSES_LARGE: &str = "large messages from this node reach no majority, while those of another node do; look for a smaller \
                           MTU on the way from here";

/// Why a node lets others lead.
const DAMPED: &str = "this node keeps losing leadership, and stands for election only if nobody leads; find out what stops it \
                      or cuts it off";

/// What speaks against this node as a leader, as it was looked at last.
pub(crate) struct Fitness {
    engine: Engine,
    reachability: Reachability,
    candidacy: Candidacy,
    /// What the engine was told last: whether this node may stand for election.
    stands: Option<bool>,
    /// Why the disk makes nothing durable, and the remedy; `None` while it works.
    disk: Option<String>,
    /// Why this node should not lead, and the remedy: the other nodes cannot reach it, or its large messages do not reach them.
    unreached: Option<&'static str>,
    links: BTreeMap<NodeId, NodeLinks>,
}

impl Fitness {
    pub(crate) fn new(engine: Engine) -> Self {
        let plan = engine.config().timing.plan();
        let reachability = Reachability::new(plan.renew, plan.election_max);
        let candidacy = Candidacy::new(plan.election_max, clock::now());
        Self { engine, reachability, candidacy, stands: None, disk: None, unreached: None, links: BTreeMap::new() }
    }

    /// Looks again, and tells the engine whether this node may stand for election. `leading`: the term in which it led before.
    pub(crate) fn look(&mut self, leading: Option<u64>, now: Moment) {
        self.check_disk();
        self.check_network(now);
        let well = self.disk.is_none() || quorate_membership::mutant!("stands_on_a_full_disk");
        let able = self.check_candidacy(leading, now) && self.unreached.is_none();
        let stands = well && able && self.engine.embargo_ends().is_none_or(|ends| now >= ends);
        if self.stands != Some(stands) {
            self.stands = Some(stands);
            self.engine.may_stand(stands);
        }
    }

    /// Notes that this process did not run until `now`, and could hear nobody.
    pub(crate) fn stood_still(&mut self, now: Moment) {
        self.candidacy.heard(now);
    }

    /// Why the disk makes nothing durable, and the remedy.
    pub(crate) fn disk(&self) -> Option<&str> {
        self.disk.as_deref()
    }

    /// Why this node should not lead for the sake of the network, and the remedy.
    pub(crate) fn unreached(&self) -> Option<&'static str> {
        self.unreached
    }

    /// Why this node lets others lead, and the remedy.
    pub(crate) fn damped(&self, now: Moment) -> Option<&'static str> {
        self.candidacy.is_damped(now).then_some(DAMPED)
    }

    /// What probes have found of the links to others.
    pub(crate) fn links(&self) -> &BTreeMap<NodeId, NodeLinks> {
        &self.links
    }

    /// Whether this node does not keep losing leadership, or nobody leads. Logs once each time that this changes.
    fn check_candidacy(&mut self, leading: Option<u64>, now: Moment) -> bool {
        let (engine, before) = (&self.engine, self.candidacy.is_damped(now));
        self.candidacy.observe(engine.leading(), leading.is_some_and(|term| engine.gave_up(term)), now);
        let leader = engine.leader().filter(|leader| *leader != engine.node());
        if let Some(at) = leader.and_then(|leader| engine.peers().contacts.last(leader)) {
            self.candidacy.heard(at);
        }
        if !before && self.candidacy.is_damped(now) {
            tracing::warn!(node = %engine.node(), "{DAMPED}");
        }
        self.candidacy.may_stand(now)
    }

    /// Logs once that the disk does not work, and once that it works again.
    fn check_disk(&mut self) {
        let (node, disk) = (self.engine.node(), self.engine.disk_trouble());
        match (&self.disk, &disk) {
            (before, Some(trouble)) if before.as_ref() != Some(trouble) => {
                tracing::warn!(%node, %trouble, "the disk of this node makes nothing durable");
            }
            (Some(before), None) => tracing::info!(%node, trouble = %before, "the disk works again"),
            _ => {}
        }
        self.disk = disk;
    }

    /// Logs once that this node should not lead because of the network, and once that it may again.
    fn check_network(&mut self, now: Moment) {
        let engine = &self.engine;
        let (me, leads) = (engine.node(), engine.leading().then(|| engine.term()));
        // Just now: a leader that is cut off both ways hears neither calls nor answers, and which of them it heard last says
        // nothing.
        let just_now = engine.config().heartbeat() * 3;
        let contacts = &engine.peers().contacts;
        let (calls, answering) = (contacts.calls(), contacts.answered_within(just_now));
        let contact = LeaderContact { me, now, leads, calls: &calls, answering: &answering };
        let links = engine.peers().links();
        let large = LargeMessages {
            lost: links.iter().filter(|(_, links)| !links.may_pass()).map(|(node, _)| *node).collect(),
            reach: links.iter().map(|(node, links)| (*node, links.reaches.clone())).collect(),
        };
        let unreached = engine.look(|state| {
            let unreached = self.reachability.look(state, &contact);
            let others = || large.should_others_lead(state.configuration(), me, &answering);
            unreached.then_some(UNREACHED).or_else(|| others().then_some(LOSES_LARGE))
        });
        match (self.unreached, unreached) {
            (None, Some(why)) => tracing::warn!(node = %me, "{why}; letting another node lead"),
            (Some(_), None) => tracing::info!(node = %me, "this node may stand for election again"),
            _ => {}
        }
        (self.unreached, self.links) = (unreached, links);
    }
}

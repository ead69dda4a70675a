//! What is done to the wire and to what hangs on it: each fault begins, lasts, and is taken back; which kinds there are in
//! a run is drawn from its seed.

use std::time::Duration;

use quorate::NodeId;
use quorate::testing::sim::{DeviceFaults, End, Pace, Rng};

use crate::machine::Wish;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One host loses every packet, both ways.
    Isolate,
    /// Two hosts lose what they send each other.
    CutLink,
    /// What one host sends another is lost; not what it hears.
    OneWay,
    /// What two hosts send each other is held, and all of it arrives in the end.
    Hold,
    /// A host whose packets are all held.
    HoldHost,
    /// A slow link.
    Lag,
    /// Single packets are lost. Nothing repeats them here: the stream breaks.
    Loss,
    /// Cuts and mends in quick succession: connections that break as soon as they are made.
    Flap,
    Kill,
    PowerCut,
    EndAll,
    SlowDisk,
    HungDisk,
    HandOver,
    LeaveAndReturn,
    ShutDown,
    BadDevice,
}

/// What is done at once.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Cut(Vec<(NodeId, NodeId)>),
    CutOneWay(NodeId, NodeId),
    Mend(Vec<(NodeId, NodeId)>),
    Hold(Vec<(NodeId, NodeId)>),
    Lag(NodeId, NodeId, Duration),
    Lose(NodeId, NodeId, f64),
    End(Vec<NodeId>, End),
    Disk(NodeId, Pace),
    Device(DeviceFaults),
    Ask(NodeId, Wish),
}

impl Kind {
    pub(crate) const ALL: [Self; 17] = [
        Self::Isolate,
        Self::CutLink,
        Self::OneWay,
        Self::Hold,
        Self::HoldHost,
        Self::Lag,
        Self::Loss,
        Self::Flap,
        Self::Kill,
        Self::PowerCut,
        Self::EndAll,
        Self::SlowDisk,
        Self::HungDisk,
        Self::HandOver,
        Self::LeaveAndReturn,
        Self::ShutDown,
        Self::BadDevice,
    ];

    /// About half of them; at least one.
    pub(crate) fn draw(rng: &mut Rng) -> Vec<Self> {
        let mut drawn: Vec<Self> = Self::ALL.into_iter().filter(|_| rng.chance(450)).collect();
        if drawn.is_empty() {
            drawn.push(Self::Isolate);
        }
        drawn
    }

    /// What it is this time: deeds, each so long after the fault begins.
    pub(crate) fn unfold(self, nodes: &[NodeId], latency: Duration, rng: &mut Rng) -> Vec<(Duration, Deed)> {
        let (now, ms) = (Duration::ZERO, Duration::from_millis);
        let who = rng.pick(nodes).copied().unwrap_or_default();
        let others: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != who).collect();
        let other = rng.pick(&others).copied().unwrap_or_default();
        let around: Vec<(NodeId, NodeId)> = others.iter().map(|other| (who, *other)).collect();
        let (link, lasts) = (vec![(who, other)], rng.span(ms(100), ms(12_000)));
        match self {
            Self::Isolate => vec![(now, Deed::Cut(around.clone())), (lasts, Deed::Mend(around))],
            Self::CutLink => vec![(now, Deed::Cut(link.clone())), (lasts, Deed::Mend(link))],
            Self::OneWay => vec![(now, Deed::CutOneWay(who, other)), (lasts, Deed::Mend(link))],
            Self::Hold => vec![(now, Deed::Hold(link.clone())), (lasts, Deed::Mend(link))],
            Self::HoldHost => vec![(now, Deed::Hold(around.clone())), (lasts, Deed::Mend(around))],
            Self::Lag => {
                let slow = rng.span(ms(10), ms(400));
                vec![(now, Deed::Lag(who, other, slow)), (lasts, Deed::Lag(who, other, latency))]
            }
            Self::Loss => {
                let rate = rng.between(1, 30) as f64 / 1000.0;
                vec![(now, Deed::Lose(who, other, rate)), (lasts, Deed::Lose(who, other, 0.0))]
            }
            Self::Flap => {
                let mut at = now;
                let mut deeds = vec![];
                for _ in 0..rng.between(2, 10) {
                    deeds.push((at, Deed::Cut(around.clone())));
                    at += rng.span(ms(50), ms(1500));
                    deeds.push((at, Deed::Mend(around.clone())));
                    at += rng.span(ms(50), ms(1500));
                }
                deeds
            }
            Self::Kill => vec![(now, Deed::End(vec![who], End::Killed))],
            Self::PowerCut => vec![(now, Deed::End(vec![who], End::PowerCut))],
            Self::EndAll => {
                let how = if rng.chance(500) { End::Killed } else { End::PowerCut };
                vec![(now, Deed::End(nodes.to_vec(), how))]
            }
            Self::SlowDisk => vec![(now, Deed::Disk(who, Pace::Slow)), (lasts, Deed::Disk(who, Pace::Quick))],
            Self::HungDisk => vec![(now, Deed::Disk(who, Pace::Hung)), (lasts, Deed::Disk(who, Pace::Quick))],
            Self::HandOver => nodes.iter().map(|node| (now, Deed::Ask(*node, Wish::HandOver))).collect(),
            Self::LeaveAndReturn => vec![(now, Deed::Ask(who, Wish::Leave))],
            Self::ShutDown => vec![(now, Deed::Ask(who, Wish::ShutDown))],
            Self::BadDevice => {
                let faults = DeviceFaults { fails: 300, lies_down: 200, hangs: 100, late: 200 };
                vec![(now, Deed::Device(faults)), (lasts, Deed::Device(DeviceFaults::default()))]
            }
        }
    }
}

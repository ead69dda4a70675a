//! Whether this node's fencer can carry out an order: what it says itself, and how its last attempts at that order went.
//!
//! ```text
//!   attempts of this node ─▶ failed three times in a row ─▶ its leader asks the others ── CanFence ──▶ their Reach
//!                                                           and hands over to one that says yes
//! ```
//!
//! Fencing devices are often wired to some hosts only: a management network that one host has lost, a credential that has
//! expired on it. The order then has to move, because only the leader makes attempts. A member whose own attempt at an order
//! has failed says no to that order for good, so that leadership does not go to and fro between members that all fail: each
//! is tried once. A hand-over may begin the waits anew by which time proves an end, so an order stays where time is about to do that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_membership::detector::Moment;
use quorate_membership::{ClusterState, FenceId};

use crate::engine::Engine;
use crate::fencer::Fencer;
use crate::leader::fence_runner;
use crate::rpc::FencerReach;

/// After so many failures in a row a leader asks whether another member's fencer can.
const ATTEMPTS: u32 = 3;

/// A fencer, and how its attempts at each open order went.
pub(crate) struct Reach {
    pub(crate) fencer: Option<Arc<dyn Fencer>>,
    /// How many attempts of this node at each open order failed.
    failed: Mutex<BTreeMap<FenceId, u32>>,
    /// When time may prove the end that an open order is for, as the task that grants leases said last.
    proved_at: Mutex<BTreeMap<FenceId, Moment>>,
}

impl Reach {
    pub(crate) fn new(fencer: Option<Arc<dyn Fencer>>) -> Self {
        Self { fencer, failed: Mutex::default(), proved_at: Mutex::default() }
    }

    /// Notes that an attempt of this node failed. Orders that are open no more are forgotten.
    pub(crate) fn failed(&self, order: FenceId, state: &ClusterState) {
        let mut failed = self.failed.lock();
        failed.retain(|order, _| state.fences().get(*order).is_some());
        let times = failed.entry(order).or_default();
        *times = times.saturating_add(1);
    }

    /// Whether another member should try in place of this one.
    pub(crate) fn gives_up(&self, order: FenceId) -> bool {
        self.fencer.is_none() || self.failed.lock().get(&order).is_some_and(|times| *times >= ATTEMPTS)
    }

    /// Notes when time may prove the ends that the open orders are for. Called with every tick; a node that does
    /// not lead knows of none.
    pub(crate) fn proved_at(&self, all: BTreeMap<FenceId, Moment>) {
        if !quorate_membership::mutant!("time_left_unknown") {
            *self.proved_at.lock() = all;
        }
    }

    /// The least time from `now` until time proves the ends that the open orders are for, where it does.
    pub(crate) fn proved_in(&self, now: Moment) -> BTreeMap<FenceId, Duration> {
        self.proved_at.lock().iter().map(|(order, at)| (*order, at.since(now))).collect()
    }

    /// What this node says when a leader asks. Calls [`Fencer::reach`], for at most the deadline of an attempt.
    pub(crate) async fn can_fence(&self, engine: &Engine, order: FenceId) -> FencerReach {
        let failed = self.failed.lock().contains_key(&order);
        let state = engine.state();
        let (Some(fencer), Some(open), false) = (self.fencer.clone(), state.fences().get(order), failed) else {
            return FencerReach::Fails;
        };
        let request = fence_runner::request(engine, open, &state, open.attempts.saturating_add(1));
        let asked = fence_runner::guarded(async move { fencer.reach(request).await });
        match tokio::time::timeout(limit(engine.config().fence_deadline), asked).await {
            Ok(Ok(())) => FencerReach::Reaches,
            Ok(Err(error)) => {
                tracing::info!(node = %engine.node(), %order, %error, "the fencer does not reach the device");
                FencerReach::Fails
            }
            Err(_) => FencerReach::Fails,
        }
    }
}

/// How long a member may take to say whether its fencer reaches the device: no longer than an attempt may take.
pub(crate) fn limit(fence_deadline: Duration) -> Duration {
    fence_deadline.min(Duration::from_secs(5))
}

//! What several rules check: that a life is known, that a majority is left, that an activation is current.
//!
//! Each check is a question with one [`Rejection`] for "no", so that a command is rejected with the same words
//! whichever rule asks.

use std::collections::BTreeSet;

use crate::cluster::ClusterState;
use crate::fencing::FenceOrder;
use crate::id::{Activation, FenceId, Identity, NodeId, Revision};
use crate::member::{Address, Life, MAX_ADDRESSES, Role};
use crate::quorum::Configuration;
use crate::rejection::Rejection;
use crate::store::request::{Admission, Request};

pub(super) fn known_life(state: &ClusterState, who: Identity) -> Result<&Life, Rejection> {
    state.life(who).ok_or_else(|| match state.newest(who.node) {
        Some(newest) if newest > who => Rejection::Replaced { who, newest },
        Some(_) => Rejection::UnknownLife(who),
        None => unknown(state, who.node),
    })
}

pub(super) fn unknown(state: &ClusterState, node: NodeId) -> Rejection {
    if state.retired.contains(&node) { Rejection::RetiredNode(node) } else { Rejection::UnknownNode(node) }
}

pub(super) fn check_addresses(addresses: &[Address]) -> Result<(), Rejection> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(Rejection::Addresses { got: addresses.len() as u64, limit: MAX_ADDRESSES as u64 });
    }
    addresses.iter().try_for_each(Address::check).map_err(Rejection::Text)
}

pub(super) fn quorum_or(
    configuration: &Configuration,
    rest: &BTreeSet<NodeId>,
    without: NodeId,
) -> Result<(), Rejection> {
    if configuration.has_quorum(rest) {
        return Ok(());
    }
    let voters = configuration.voters();
    let standing = voters.intersection(rest).count() as u64;
    Err(Rejection::Majority { without, standing, voters: voters.len() as u64 })
}

pub(super) fn another_voter(state: &ClusterState, node: NodeId) -> Result<(), Rejection> {
    let others = state.members.iter().any(|(other, member)| *other != node && member.role == Role::Voter);
    if others { Ok(()) } else { Err(Rejection::LastVoter(node)) }
}

pub(super) fn majority_without(state: &ClusterState, node: NodeId) -> Result<(), Rejection> {
    let mut rest = state.standing();
    rest.remove(&node);
    if mutant!("no_majority_check") {
        return Ok(());
    }
    quorum_or(&state.configuration, &rest, node)
}

pub(super) fn open_order(state: &ClusterState, order: FenceId) -> Result<&FenceOrder, Rejection> {
    state.fences.get(order).ok_or(Rejection::UnknownOrder(order))
}

/// P5: a conclusion under another activation than the current one does not count (I9).
pub(super) fn current_activation(state: &ClusterState, under: Activation) -> Result<(), Rejection> {
    let current = state.leadership.map(|leadership| leadership.activation);
    if mutant!("stale_activation_accepted") || current == Some(under) {
        return Ok(());
    }
    Err(Rejection::OtherActivation { under, current })
}

pub(super) fn full(what: &str, limit: usize, remedy: &str) -> Rejection {
    Rejection::Full { what: what.into(), limit: limit as u64, remedy: remedy.into() }
}

/// Whether the entry at `revision` is the first to carry the request; `false` if an earlier one took effect.
pub(super) fn is_fresh(state: &ClusterState, revision: Revision, request: Request) -> Result<bool, Rejection> {
    match state.store.answered.admit(revision, request) {
        Admission::Fresh => Ok(true),
        Admission::Done => Ok(false),
        Admission::Void => Err(Rejection::Void(request)),
        Admission::Outdated => Err(Rejection::Outdated { request, at: revision }),
    }
}

//! What must be so of every entry, and what has to be seen once, in the world of `store_world.rs`.
//!
//! ```text
//!   before ── decide ──▶ events ── evolve ──▶ after      `wrong` looks at the whole line and knows what was
//!                 └────▶ rejection, or nothing new       promised to whom; `seen` says what was shown by it
//! ```
//!
//! The checks say in their own words what the rules promise, from the events and from what the world knows; none asks
//! the rules.

use quorate_membership::*;

use crate::moves::{lock_of, name, request_of};
use crate::world::{LOCKS, SECOND, World};

/// What never may be seen of an entry: a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Token,
    Superseded,
    Lost,
    GivenTwice,
    Compared,
    Twice,
    Rebuilt,
    StaleConclusion,
    Overtaken,
}

/// A situation that a run must reach; otherwise it has shown nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Situation {
    PassedByRelease,
    PassedByProof,
    PassedByLeaving,
    PassedByClosing,
    /// A session ended by time; its lock was held back, and passed on.
    PassedAfterDelay,
    InheritedBySuccessor,
    /// Who had taken a lock up fell silent before it could begin.
    Forfeited,
    /// Two locks passed on by one end, and share a token.
    TwoByOneEnd,
    /// A release came after the lock had passed on to another.
    LateRelease,
    /// A release came after its own holder had got the lock again.
    LateReleaseOfAnotherGrant,
    /// The holder of a lock that others wait for is being fenced, and still acts.
    ActsWhileFenced,
    /// It does not act any more, and the cluster does not know yet.
    EndedUnknown,
    /// The second life of a node is there, while the work of its former holds the lock.
    FormerHolds,
    SecondLifeHolds,
    /// Who is being fenced, over or replaced asks for a lock.
    MayNotHold,
    StaleTokenRefused,
    ComparisonRefused,
    ComparedTwice,
    TakenAgainBySuccessor,
    LateAcknowledgement,
    Acknowledged,
    /// A copy of a request came after it had taken effect.
    Copy,
    /// A copy came after the request was settled.
    VoidCopy,
    Withdrawn,
    StaleActivation,
    /// A client acts under a lock that another holds by now.
    ClientActsOn,
    Vanished,
}

const fn bit(wrong: Wrong) -> u16 {
    1 << wrong as u16
}

const fn shown(seen: Situation) -> u32 {
    1 << seen as u32
}

impl World {
    pub(crate) const fn is_wrong(&self, wrong: Wrong) -> bool {
        self.wrong & bit(wrong) != 0
    }
}

fn token_of(cluster: &ClusterState, lock: &Name) -> Option<Revision> {
    cluster.store().lock(lock)?.grant.map(|grant| grant.token)
}

/// What is wrong about an entry that was accepted.
pub(crate) fn wrong(world: &World, at: Revision, command: &Command, events: &[Event], after: &ClusterState) -> u16 {
    let before = &*world.cluster;
    let mut wrong = 0;
    let mut unless = |fine: bool, what| wrong |= if fine { 0 } else { bit(what) };
    let mut applied = before.clone();
    let answer = apply(&mut applied, at, command);
    unless(answer.as_deref() == Ok(events) && applied == *after, Wrong::Rebuilt);
    if let Some(request) = request_of(command) {
        // What is done under one name is done in one entry, and not once it was settled.
        unless(!world.fates.contains_key(&request.nonce), Wrong::Twice);
    }
    if let Command::Write { checks, changes, .. } = command {
        for check in checks {
            match check {
                Check::Holds { lock, token } => unless(token_of(before, lock) == Some(*token), Wrong::Superseded),
                Check::Version { key, version } => {
                    let there = before.store().record(key).map(|record| record.version);
                    unless(there == *version, Wrong::Compared);
                }
                _ => {}
            }
        }
        for change in changes {
            if let Change::Acknowledge { queue, item, token } = change {
                unless(token_of(before, queue) == Some(*token), Wrong::Superseded);
                unless(world.given.contains(&(*item, *token)), Wrong::Lost);
            }
        }
    }
    for event in events {
        match event {
            Event::LockGranted { name, holder, token, request } => {
                let lock = lock_of(name);
                unless(*token == at && *token > world.newest[lock], Wrong::Token);
                let again = world.actor_of(*holder).map(|actor| &world.actors[actor].guards);
                unless(!again.is_some_and(|guards| guards.iter().any(|g| g.request == *request)), Wrong::Twice);
                unless(!world.withdrawn.contains(request), Wrong::Twice);
                unless(!overtakes(world, after, name, *request, events), Wrong::Overtaken);
            }
            Event::Taken { queue, item, token, .. } => {
                unless(!world.given.contains(&(*item, *token)), Wrong::GivenTwice);
                unless(token_of(before, queue) == Some(*token), Wrong::Superseded);
            }
            Event::Acknowledged { .. } => unless(matches!(command, Command::Write { .. }), Wrong::Lost),
            _ => {}
        }
    }
    let under = match command {
        Command::OrderFence { under, .. } => *under,
        Command::ExpireSession { under, .. } | Command::LiftDelay { under, .. } => Some(*under),
        _ => None,
    };
    let current = before.leadership().map(|leadership| leadership.activation);
    unless(under.is_none() || under == current, Wrong::StaleConclusion);
    wrong
}

/// Whether a waiter that waited longer for the lock, and may hold it, did not get it. A life that takes over the lock of its own
/// former life overtakes nobody.
fn overtakes(world: &World, after: &ClusterState, lock: &Name, request: Nonce, events: &[Event]) -> bool {
    let Some(known) = world.cluster.store().lock(lock) else { return false };
    let inherited = |event: &Event| matches!(event, Event::Fenced { proof: FenceProof::Succeeded { .. }, .. });
    if known.grant.is_some_and(|grant| grant.request == request) && events.iter().any(inherited) {
        return false;
    }
    let ahead = known.waiters().take_while(|waiter| waiter.request != request);
    ahead.filter(|waiter| after.may_hold(waiter.holder)).count() > 0
}

/// Whether an item is gone that was not acknowledged, or is still there although it was.
pub(crate) fn lost(world: &World) -> u16 {
    let queue = name(0);
    let there = world.cluster.store().queue(&queue).map(|(item, _)| item);
    if there.eq(world.owed.iter().copied()) { 0 } else { bit(Wrong::Lost) }
}

/// What is shown by the answer to a command.
pub(crate) fn seen(world: &World, command: &Command, answer: &Result<Vec<Event>, Rejection>) -> u32 {
    match (command, answer) {
        (Command::Unlock { name, holder, token }, Ok(events)) if events.is_empty() => {
            let grant = world.cluster.store().lock(name).and_then(|lock| lock.grant);
            grant.filter(|grant| grant.token != *token).map_or(0, |grant| match grant.holder == *holder {
                true => shown(Situation::LateReleaseOfAnotherGrant),
                false => shown(Situation::LateRelease),
            })
        }
        (_, Ok(events)) if events.is_empty() && request_of(command).is_some() => shown(Situation::Copy),
        (_, Err(Rejection::Void(_))) => shown(Situation::VoidCopy),
        (_, Err(Rejection::Version { .. })) => shown(Situation::ComparisonRefused),
        (_, Err(Rejection::MayNotHold(_))) => shown(Situation::MayNotHold),
        (_, Err(Rejection::OtherActivation { .. })) => shown(Situation::StaleActivation),
        (Command::Write { changes, .. }, Err(Rejection::NotHolder { .. })) => {
            let late = changes.iter().any(|change| matches!(change, Change::Acknowledge { .. }));
            shown(if late { Situation::LateAcknowledgement } else { Situation::StaleTokenRefused })
        }
        _ => 0,
    }
}

/// What is shown by an entry that was accepted.
pub(crate) fn reached(before: &World, events: &[Event], after: &World) -> u32 {
    let mut seen = 0;
    let mut when = |so: bool, what| seen |= if so { shown(what) } else { 0 };
    let any = |test: &dyn Fn(&Event) -> bool| events.iter().any(test);
    let granted = events.iter().filter(|event| matches!(event, Event::LockGranted { .. })).count();
    let unlocked = any(&|e| matches!(e, Event::LockReleased { why: Release::Unlocked, .. }));
    let successor = any(&|e| matches!(e, Event::Fenced { proof: FenceProof::Succeeded { .. }, .. }));
    let ended = any(&|e| matches!(e, Event::LockReleased { why: Release::HolderEnded, .. }));
    let over = any(&|e| matches!(e, Event::Fenced { .. } | Event::Left { .. } | Event::SessionEnded { .. }));
    let closed = any(&|e| matches!(e, Event::SessionEnded { clean: true, .. }));
    if granted > 0 {
        when(unlocked, Situation::PassedByRelease);
        when(successor, Situation::InheritedBySuccessor);
        when(!successor && any(&|e| matches!(e, Event::Fenced { .. })), Situation::PassedByProof);
        when(any(&|e| matches!(e, Event::Left { .. })), Situation::PassedByLeaving);
        when(closed, Situation::PassedByClosing);
        when(ended && !over, Situation::Forfeited);
        when(any(&|e| matches!(e, Event::LockLifted { .. })), Situation::PassedAfterDelay);
        when(granted == 2, Situation::TwoByOneEnd);
    }
    for event in events {
        match event {
            Event::Taken { item, .. } => {
                when(before.given.iter().any(|(given, _)| given == item), Situation::TakenAgainBySuccessor);
            }
            Event::Acknowledged { .. } => when(true, Situation::Acknowledged),
            Event::LockWithdrawn { .. } => when(true, Situation::Withdrawn),
            Event::Deleted { .. } => when(true, Situation::Vanished),
            Event::Put { .. } => {
                when(before.cluster.store().records("").count() > 0, Situation::ComparedTwice);
            }
            _ => {}
        }
    }
    for (lock, known) in (0..LOCKS).filter_map(|lock| Some((lock, after.cluster.store().lock(&name(lock))?))) {
        let Some(actor) = known.grant.and_then(|grant| after.actor_of(grant.holder)) else { continue };
        let fencing = after.phase(actor) == Some(Phase::Fencing);
        when(fencing && known.waiters().len() > 0 && after.actors[actor].acts, Situation::ActsWhileFenced);
        when(fencing && !after.actors[actor].acts, Situation::EndedUnknown);
        when(actor == SECOND, Situation::SecondLifeHolds);
        when(after.actors[SECOND].holder.is_some() && actor == crate::world::FIRST, Situation::FormerHolds);
        let client = |other: &usize| *other != actor && after.actors[*other].may_act_under(lock);
        when(crate::world::CLIENTS.iter().any(client), Situation::ClientActsOn);
    }
    seen
}

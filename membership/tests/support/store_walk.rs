//! What random walks ask for of locks, records, queues and sessions: mostly what makes sense where the walk stands, and
//! sometimes under another's token, too early, with a name that was used before, or for nobody.

use std::time::Duration;

use quorate_membership::*;

use super::{Pick, Walk, join, of, order_against, reason};

pub(super) fn choose(walk: &Walk, pick: Pick) -> Command {
    let state = walk.end();
    let Pick { what, which, twist } = pick;
    let wrong = twist < 30;
    let store = state.store();
    let request = request(walk, pick);
    let held: Vec<_> = store.locks().filter_map(|(name, lock)| Some((name.clone(), lock.grant?))).collect();
    let grant = of(&held, which);
    let name = if twist.is_multiple_of(3) { name(which) } else { grant.clone().map_or(name(which), |(name, _)| name) };
    // A token is the holder's own, or some other revision: of an earlier grant, if of any.
    let other = Revision::new(u64::from(which) % (walk.0.len() as u64 + 1));
    let token = grant.clone().map_or(other, |(_, grant)| if wrong { other } else { grant.token });
    let held_name = grant.clone().map_or(name.clone(), |(name, _)| name);
    let holder = holder(&state, which, twist);
    match what % 16 {
        0..=2 => Command::Lock { request, name, holder, wait: !twist.is_multiple_of(4) },
        3 | 4 => {
            let holder = grant.map(|(_, grant)| grant.holder).filter(|_| !wrong).unwrap_or(holder);
            Command::Unlock { name: held_name, holder, token }
        }
        5 => settle(&state, request, which, twist),
        6 | 7 => write(&state, pick, request, (held_name, token), holder),
        8 => {
            let queue = if wrong { name } else { held_name };
            let changes = vec![Change::Push { queue, value: "go".repeat(usize::from(which % 3)).as_str().into() }];
            Command::Write { request, checks: vec![], changes }
        }
        9 => Command::Take { request, queue: held_name, token },
        10 => acknowledge(&state, request, which, token),
        11 => {
            let times = |ms| Duration::from_millis(ms);
            let (ttl, lock_delay) = (times(if wrong { 1 } else { 1000 }), times(u64::from(twist % 2) * 1000));
            Command::OpenSession { request, session: Session { ttl, lock_delay, label: reason(twist), owner: None } }
        }
        12 => sessions(&state, which, twist),
        13 => {
            let lives: Vec<_> = state.active().collect();
            let anybody = Identity::new(NodeId::new(u64::from(which % 4)), Incarnation::new(1));
            Command::DeclareProcessBound { who: of(&lives, which).filter(|_| !wrong).unwrap_or(anybody) }
        }
        _ => inherit(walk, &state, which, wrong),
    }
}

/// A new name, or rarely one that was given before, perhaps for something else.
fn request(walk: &Walk, pick: Pick) -> Request {
    let (so_far, which) = (walk.0.len() as u64, u64::from(pick.which));
    let nonce = if pick.twist % 16 == 1 { which % (so_far + 1) } else { so_far };
    let since = if pick.twist == 0 { so_far + 1 } else { so_far.saturating_sub(which % 8) };
    Request { nonce: Nonce::new(u128::from(nonce) + 1000), since: Revision::new(since) }
}

fn name(which: u8) -> Name {
    Name::new(["vm", "ip", "db"][usize::from(which % 3)]).unwrap()
}

fn key(which: u8) -> Key {
    Key::new(["k", "here/1", "here/longer"][usize::from(which % 3)]).unwrap()
}

/// Mostly who may hold something.
fn holder(state: &ClusterState, which: u8, twist: u8) -> Holder {
    if twist < 30 {
        let anybody = Identity::new(NodeId::new(u64::from(which % 4)), Incarnation::new(u64::from(twist % 3)));
        return if twist.is_multiple_of(4) { SessionId::new(which.into()).into() } else { anybody.into() };
    }
    let lives = state.active().map(Holder::from);
    let all: Vec<_> = lives.chain(state.store().sessions().map(|(session, _)| session.into())).collect();
    of(&all, which).unwrap_or(SessionId::new(1).into())
}

/// Of who waits, of who holds, or of one that has not arrived.
fn settle(state: &ClusterState, fresh: Request, which: u8, twist: u8) -> Command {
    let locks = || state.store().locks();
    let waiting = locks().flat_map(|(name, lock)| lock.waiters().map(|w| (name.clone(), w.request)));
    let holding = locks().filter_map(|(name, lock)| Some((name.clone(), lock.grant?.request)));
    let asked: Vec<_> = if twist.is_multiple_of(4) { holding.collect() } else { waiting.collect() };
    match of(&asked, which).filter(|_| !twist.is_multiple_of(3)) {
        Some((name, nonce)) => Command::Settle { request: Request { nonce, ..fresh }, lock: Some(name) },
        None => Command::Settle { request: fresh, lock: None },
    }
}

fn write(state: &ClusterState, pick: Pick, request: Request, under: (Name, Revision), holder: Holder) -> Command {
    let Pick { which, twist, .. } = pick;
    let key = key(which / 3);
    let there = state.store().record(&key).map(|record| record.version);
    let version = if twist < 20 { Some(Revision::new(u64::from(which))) } else { there };
    let who = Identity::new(NodeId::new(u64::from(which % 3) + 1), Incarnation::new(u64::from(twist % 2) + 1));
    let mut checks = match twist % 8 {
        0..=2 => vec![Check::Version { key: key.clone(), version }],
        3 | 4 => vec![Check::Holds { lock: under.0.clone(), token: under.1 }],
        5 => vec![Check::Active { who }],
        6 => vec![Check::Over { who }],
        _ => vec![],
    };
    if twist % 32 == 3 {
        checks.push(Check::Value { key: key.clone(), value: "v".into() });
    }
    let bound = (which % 4 < 2).then_some(holder);
    let value = Value::new(vec![b'v'; usize::from(which % 5)]);
    let mut changes = match which % 7 {
        0 => vec![Change::Delete { key: key.clone() }],
        1 => vec![Change::Push { queue: under.0, value }],
        _ => vec![Change::Put { key: key.clone(), value, bound }],
    };
    match twist % 16 {
        7 => changes.push(Change::Put { key: self::key(which / 3 + 1), value: "w".into(), bound: None }),
        15 => changes.push(Change::Delete { key }),
        _ => {}
    }
    Command::Write { request, checks, changes }
}

/// Of what was taken, by who took it; perhaps not any more under its token.
fn acknowledge(state: &ClusterState, request: Request, which: u8, token: Revision) -> Command {
    let store = state.store();
    let items = store.queues().flat_map(|queue| {
        store.queue(queue).map(|(id, item)| {
            (queue.clone(), id, item.taken.filter(|_| !which.is_multiple_of(4)).map_or(token, |taken| taken.token))
        })
    });
    let items: Vec<_> = items.collect();
    let (queue, item, token) = of(&items, which).unwrap_or((name(which), ItemId::new(1), token));
    Command::Write { request, checks: vec![], changes: vec![Change::Acknowledge { queue, item, token }] }
}

/// One is closed, or runs out; a lock is held back no more.
fn sessions(state: &ClusterState, which: u8, twist: u8) -> Command {
    let current = state.leadership().map_or(Activation::new(1), |l| l.activation);
    let under = if twist < 20 { current.next() } else { current };
    let waited = Duration::from_millis(if which.is_multiple_of(5) { 1000 } else { 1100 });
    let delayed: Vec<_> =
        state.store().locks().filter_map(|(name, lock)| Some((name.clone(), lock.delay?.token))).collect();
    if let Some((name, token)) = of(&delayed, which).filter(|_| !twist.is_multiple_of(4)) {
        return Command::LiftDelay { name, token, under, waited };
    }
    let open: Vec<_> = state.store().sessions().map(|(session, _)| session).collect();
    let session = of(&open, which).unwrap_or(SessionId::new(u64::from(which)));
    match twist % 4 {
        0 => Command::LiftDelay { name: name(which), token: Revision::new(which.into()), under, waited },
        1 => Command::CloseSession { session },
        _ => Command::ExpireSession { session, under, waited },
    }
}

/// Of a life whose node has come back on the same boot; without one, the node of one that had declared itself process_bound does.
fn inherit(walk: &Walk, state: &ClusterState, which: u8, wrong: bool) -> Command {
    let returned = state.lives().filter(|(_, life)| life.phase.may_work()).filter_map(|(former, gone)| {
        let who = state.newest(former.node).filter(|newest| *newest > former)?;
        let successor = state.life(who)?;
        (wrong || successor.boot == gone.boot).then_some((who, former))
    });
    let joins = |who: &Identity| state.life(*who).is_some_and(|life| life.phase == Phase::Joining);
    let holds = |who: &Identity| state.store().held_by((*who).into()).next().is_some();
    let took_up: Vec<_> = state.lives().map(|(who, _)| who).filter(|who| joins(who) && holds(who)).collect();
    if let Some(target) = of(&took_up, which).filter(|_| which.is_multiple_of(2)) {
        return order_against(state, target, Cause::Silent { for_ms: 1 }, wrong);
    }
    match of(&returned.collect::<Vec<_>>(), which) {
        Some((who, former)) if which < 8 => Command::Inherit { who: former, former: who },
        Some((who, former)) => Command::Inherit { who, former },
        None => {
            let process_bound = state.lives().filter(|(_, life)| life.process_bound && life.boot == BootId::new(1));
            let process_bound: Vec<_> = process_bound.map(|(who, _)| who.node).collect();
            join(state, of(&process_bound, which).unwrap_or(NodeId::new(1)), walk.0.len(), 2)
        }
    }
}

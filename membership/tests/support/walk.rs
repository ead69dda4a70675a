//! Random walks through the production rules, for `properties.rs`: mostly sensible commands, often wrong ones, and often
//! one that was given before. What concerns locks, records, queues and sessions is chosen in `store_walk.rs`.

#[path = "store_walk.rs"]
mod store;

use std::fmt;
use std::time::Duration;

use proptest::prelude::*;
use quorate_membership::*;

/// One command and all that it did.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) before: ClusterState,
    pub(crate) revision: Revision,
    pub(crate) command: Command,
    pub(crate) answer: Result<Vec<Event>, Rejection>,
    pub(crate) after: ClusterState,
}

impl Step {
    /// The events, none after a rejection.
    pub(crate) fn events(&self) -> &[Event] {
        self.answer.as_deref().unwrap_or_default()
    }
}

/// From an empty cluster to wherever the commands lead.
#[derive(Clone)]
pub(crate) struct Walk(pub(crate) Vec<Step>);

/// A failure shows the commands and their answers, which is what one replays by hand.
impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            match &step.answer {
                Ok(events) => writeln!(f, "\n  {} {:?}", step.revision, step.command)
                    .and_then(|()| events.iter().try_for_each(|event| writeln!(f, "      {event}")))?,
                Err(rejection) => writeln!(f, "\n  {} {:?}\n      rejected: {rejection}", step.revision, step.command)?,
            }
        }
        Ok(())
    }
}

impl Walk {
    /// Every event of the walk, with the state that it met and its revision.
    pub(crate) fn events(&self) -> Vec<(ClusterState, Revision, Event)> {
        let mut found = vec![];
        for step in &self.0 {
            let mut state = step.before.clone();
            for event in step.events() {
                found.push((state.clone(), step.revision, event.clone()));
                evolve(&mut state, step.revision, event);
            }
        }
        found
    }

    pub(crate) fn end(&self) -> ClusterState {
        self.0.last().map(|step| step.after.clone()).unwrap_or_default()
    }
}

/// What a random number means depends on where the walk stands; so a shorter list of numbers is still a walk.
#[derive(Debug, Clone, Copy)]
struct Pick {
    what: u8,
    which: u8,
    twist: u8,
}

/// What makes five nodes at work of three.
const FIVE: &str = "
join n4 voter disk=4/1 nonce=41
join n5 voter disk=5/1 nonce=51
activate n4#1
activate n5#1";

/// Walks of up to 120 commands, most of which begin with three or five nodes at work.
pub(crate) fn walks() -> impl Strategy<Value = Walk> {
    let pick = (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(what, which, twist)| Pick { what, which, twist });
    (0..10_u8, proptest::collection::vec(pick, 1..120)).prop_map(|(from, picks)| {
        let mut walk = Walk(vec![]);
        let set_up = match from {
            0 => "found 7".into(),
            1..5 => super::language::THREE.into(),
            _ => super::language::THREE.replace("configure n1 n2 n3", "configure n1 n2 n3 n4 n5") + FIVE,
        };
        set_up
            .lines()
            .filter_map(|line| super::language::command(line).ok())
            .for_each(|command| take(&mut walk, command));
        picks.into_iter().for_each(|pick| {
            let command = choose(&walk, pick);
            take(&mut walk, command);
        });
        walk
    })
}

fn take(walk: &mut Walk, command: Command) {
    let before = walk.end();
    let revision = Revision::new(walk.0.len() as u64 + 1);
    let mut after = before.clone();
    let answer = apply(&mut after, revision, &command);
    walk.0.push(Step { before, revision, command, answer, after });
}

/// Of sixteen commands nine are about members.
const MEMBERS: u8 = 9 * 16;

fn choose(walk: &Walk, pick: Pick) -> Command {
    if pick.what >= MEMBERS {
        return store::choose(walk, pick);
    }
    let state = walk.end();
    let Pick { what, which, twist } = pick;
    let wrong = twist < 30;
    // Mostly the six nodes that there are to be; a wrong one may have been removed or never have come.
    let members: Vec<_> = state.members().map(|(node, _)| node).collect();
    let free = NodeId::new(u64::from(which % 6) + 1);
    let node = of(&members, which).filter(|_| !wrong).unwrap_or(free);
    let anybody = Identity::new(node, Incarnation::new(u64::from(twist % 4) + 1));
    let life_in = |phases: &[Phase]| {
        let lives: Vec<_> =
            state.lives().filter(|(_, life)| phases.contains(&life.phase)).map(|(who, _)| who).collect();
        if wrong { anybody } else { of(&lives, which).unwrap_or(anybody) }
    };
    let open: Vec<_> = state.fences().open().cloned().collect();
    let order = of(&open, which).filter(|_| twist >= 10);
    let (id, target, attempts) = match &order {
        Some(order) => (order.id, if twist < 20 { anybody } else { order.target }, order.attempts),
        None => (FenceId::new(u64::from(which % 4)), anybody, 0),
    };
    // Who comes back is mostly one that has gone, or the cluster would soon stand still.
    let ended = |member: &Member| member.newest().is_some_and(|(_, life)| life.phase.has_ended());
    let gone = state.members().filter(|(_, member)| ended(member)).map(|(node, _)| node);
    let gone: Vec<_> = gone.filter(|_| !twist.is_multiple_of(4)).collect();
    let nothing_open = order.is_none() && !wrong;
    match what % 16 {
        6..=8 if nothing_open => order_against(&state, life_in(&[Phase::Active]), cause(twist), wrong),
        0 | 1 => join(&state, of(&gone, which).unwrap_or(free), walk.0.len(), twist),
        2 | 3 => Command::Activate { who: life_in(&[Phase::Joining]) },
        4 | 5 => order_against(&state, life_in(&[Phase::Active]), cause(twist), wrong),
        6 => Command::StartFence {
            order: id,
            by: node,
            attempt: if wrong { u32::from(which % 3) } else { attempts + 1 },
        },
        7 => Command::FailFence { order: id, attempt: if wrong { 1 } else { attempts }, reason: reason(twist) },
        8 => {
            let attempt = if wrong { u32::from(which % 3) } else { attempts };
            let device = Confirmation::Device { by: node, attempt, evidence: Evidence::new("off").unwrap() };
            let operator = Confirmation::Operator { name: reason(1), reason: reason(twist), by: None };
            Command::ConfirmFence { order: id, target, confirmation: if which % 4 == 0 { operator } else { device } }
        }
        9 => Command::Vouch {
            target: life_in(&[Phase::Active, Phase::Fencing]),
            name: reason(1),
            reason: reason(twist),
            by: None,
        },
        10 if twist.is_multiple_of(2) => {
            Command::Leave { who: life_in(&[Phase::Joining, Phase::Active, Phase::Fencing]) }
        }
        10 => match twist % 8 {
            1 => Command::ActivateLeader { leader: node, nonce: Nonce::new(u128::from(which)) },
            _ => expire(&state, life_in(&[Phase::Active, Phase::Fencing, Phase::Fenced]), which, wrong),
        },
        11 => Command::SetRole { node, role: role(twist), by: None },
        12 if wrong => Command::SetAddresses { node, addresses: addresses(twist), by: None },
        12 => Command::Remove { node, by: None },
        13 => walk.0[usize::from(which) % walk.0.len()].command.clone(),
        _ => {
            let owed: Vec<_> = duties(&state).iter().flat_map(|duty| carried_out(&state, *duty)).collect();
            of(&owed, which).unwrap_or_else(|| join(&state, node, walk.0.len(), twist))
        }
    }
}

fn order_against(state: &ClusterState, target: Identity, cause: Cause, wrong: bool) -> Command {
    let opinion = !matches!(cause, Cause::Requested { .. });
    let current = state.leadership().map(|l| l.activation).filter(|_| opinion);
    let under = if wrong { current.map(Activation::next) } else { current };
    Command::OrderFence { target, cause, under }
}

fn expire(state: &ClusterState, target: Identity, which: u8, wrong: bool) -> Command {
    let current = state.leadership().map_or(Activation::new(1), |l| l.activation);
    let under = if wrong { current.next() } else { current };
    let waited = Duration::from_millis(if which.is_multiple_of(5) { 3000 } else { 3100 });
    Command::Expire { target, under, waited }
}

fn of<T: Clone>(list: &[T], which: u8) -> Option<T> {
    list.get(usize::from(which).checked_rem(list.len())?).cloned()
}

fn join(state: &ClusterState, node: NodeId, fresh: usize, twist: u8) -> Command {
    let own = Disk { id: DiskId::new(node.get().into()), opened: 0 };
    let known = state.member(node).map_or(own, |member| member.disk);
    let disk = match twist % 8 {
        0 => known,
        1 => Disk { id: DiskId::new(99), ..known },
        _ => Disk { opened: known.opened + 1, ..known },
    };
    let nonce = Nonce::new(fresh as u128);
    let stop = if twist.is_multiple_of(8) { Stop::Unbounded } else { Stop::Tokens };
    let contract = Contract { stop, ..Contract::default() };
    let (role, addresses, boot) = (role(twist), addresses(twist), BootId::new(1));
    let former = state.newest(node).map(|who| who.incarnation);
    let (left, hint) = (former.filter(|_| twist % 4 == 1), FenceHint::new("unit").ok().filter(|_| twist % 3 == 1));
    Command::Join { node, role, addresses, disk, boot, nonce, contract, left, hint }
}

fn role(twist: u8) -> Role {
    match twist % 5 {
        0 => Role::Learner,
        1 => Role::Witness,
        _ => Role::Voter,
    }
}

fn cause(twist: u8) -> Cause {
    if twist.is_multiple_of(2) {
        Cause::Silent { for_ms: twist.into() }
    } else {
        Cause::Requested { reason: reason(twist), by: None }
    }
}

fn reason(twist: u8) -> Reason {
    Reason::new(format!("reason {}", twist % 3)).unwrap()
}

fn addresses(twist: u8) -> Vec<Address> {
    (u8::from(twist > 9)..1 + twist % 9).map(|port| Address::new(format!("host:{port}")).unwrap()).collect()
}

/// The commands by which a leader, with a fencer that works, carries a duty out.
pub(crate) fn carried_out(state: &ClusterState, duty: Duty) -> Vec<Command> {
    let now = state.configuration();
    let votes = now.sets().next().cloned().unwrap_or_default();
    let learners: Vec<_> = now.nodes().into_iter().filter(|node| !votes.contains(node)).collect();
    let with = |node| learners.iter().copied().chain([node]);
    let but = |list: Vec<NodeId>, node| list.into_iter().filter(move |n| *n != node);
    let all: Vec<_> = votes.iter().copied().collect();
    let configuration = match duty {
        Duty::Fence(order) => {
            let Some(open) = state.fences().get(order) else { return vec![] };
            let by = open.target.node;
            let evidence = Evidence::new("off").unwrap();
            let confirmation = Confirmation::Device { by, attempt: open.attempts.max(1), evidence };
            let start = Command::StartFence { order, by, attempt: open.attempts + 1 };
            return vec![start, Command::ConfirmFence { order, target: open.target, confirmation }];
        }
        Duty::Condemn { former, waiting } => {
            let lead = Command::ActivateLeader { leader: waiting.node, nonce: Nonce::new(7) };
            let cause = Cause::Returned { as_life: waiting };
            return match state.leadership() {
                None => vec![lead],
                Some(_) => vec![order_against(state, former, cause, false)],
            };
        }
        Duty::Activate(who) => return vec![Command::Activate { who }],
        Duty::FinishChange => Configuration::uniform(votes, learners),
        Duty::CatchUp(node) => Configuration::uniform(votes, with(node)),
        Duty::Promote(node) => {
            let more = all.iter().copied().chain([node]);
            return vec![Command::Configure { configuration: Configuration::joint(votes, more, but(learners, node)) }];
        }
        Duty::Demote(node) => Configuration::uniform(but(all, node), with(node)),
        Duty::Expel(node) => Configuration::uniform(but(all, node), but(learners, node)),
    };
    vec![Command::Configure { configuration }]
}

//! The names of the variants that occur in a value, for `wire.rs`. Every match writes each variant out: a new one stops
//! the compiler here, and then the test that asks for its golden vector.

use std::collections::BTreeSet;

use quorate_membership::*;

pub(crate) fn in_command(command: &Command) -> Vec<&'static str> {
    match command {
        Command::Join { role, contract, .. } => vec![of_role(*role), of_stop(contract.stop)],
        Command::SetRole { role, .. } => vec![of_role(*role)],
        Command::OrderFence { cause, .. } => vec![of_cause(cause)],
        Command::ConfirmFence { confirmation: Confirmation::Device { .. }, .. } => vec!["by device"],
        Command::ConfirmFence { confirmation: Confirmation::Operator { .. }, .. } => vec!["by operator"],
        Command::Configure { configuration } => vec![if configuration.is_joint() { "joint" } else { "uniform" }],
        Command::Write { checks, changes, .. } => {
            checks.iter().map(of_check).chain(changes.iter().map(of_change)).collect()
        }
        Command::Lock { holder, .. } => vec![of_holder(*holder)],
        _ => vec![],
    }
}

pub(crate) fn in_cluster(state: &ClusterState) -> BTreeSet<&'static str> {
    let mut names: BTreeSet<_> = state.lives().map(|(_, life)| of_phase(life.phase)).collect();
    names.extend(state.members().map(|(_, member)| of_role(member.role)));
    names.extend(state.fences().open().flat_map(|order| [of_progress(&order.progress), of_cause(&order.cause)]));
    names.extend(state.fences().history().flat_map(|record| [of_proof(&record.proof), of_cause(&record.cause)]));
    names.extend(state.configuration().is_joint().then_some("joint"));
    names.extend(state.retired().first().map(|_| "retired"));
    names.extend(state.fences().history().filter(|record| record.second.is_some()).map(|_| "corroborated"));
    names.extend(state.leadership().map(|_| "led"));
    names.extend(state.lives().map(|(_, life)| of_stop(life.contract.stop)));
    names.extend(state.id().map(|_| "founded"));
    names.extend(state.lives().filter(|(_, life)| life.process_bound).map(|_| "process_bound"));
    let store = state.store();
    names.extend(store.locks().flat_map(|(_, lock)| {
        let held = lock.grant.map(|grant| of_holder(grant.holder));
        held.into_iter().chain(lock.delay.map(|_| "delayed")).chain(lock.waiters().next().map(|_| "waiter"))
    }));
    names.extend(store.records("").map(|(_, record)| if record.bound.is_some() { "bound" } else { "record" }));
    names.extend(store.queues().flat_map(|queue| store.queue(queue)).map(|(_, item)| match item.taken {
        Some(_) => "taken",
        None => "waiting",
    }));
    names.extend(store.sessions().map(|_| "session"));
    names
}

fn of_holder(holder: Holder) -> &'static str {
    match holder {
        Holder::Life(_) => "held by a life",
        Holder::Session(_) => "held by a session",
    }
}

fn of_check(check: &Check) -> &'static str {
    match check {
        Check::Version { version: None, .. } => "absent",
        Check::Version { version: Some(_), .. } => "version",
        Check::Value { .. } => "value",
        Check::Holds { .. } => "holds",
        Check::Over { .. } => "over",
        Check::Active { .. } => "is active",
        _ => "a check without a name here",
    }
}

fn of_change(change: &Change) -> &'static str {
    match change {
        Change::Put { bound: None, .. } => "put",
        Change::Put { bound: Some(_), .. } => "put bound",
        Change::Delete { .. } => "delete",
        Change::Push { .. } => "push",
        Change::Acknowledge { .. } => "acknowledge",
        _ => "a change without a name here",
    }
}

fn of_role(role: Role) -> &'static str {
    match role {
        Role::Voter => "voter",
        Role::Learner => "learner",
        Role::Witness => "witness",
    }
}

fn of_stop(stop: Stop) -> &'static str {
    match stop {
        Stop::Unbounded => "unbounded",
        Stop::Tokens => "tokens",
        Stop::Watchdog { .. } => "watchdog",
        Stop::Deadman { .. } => "deadman",
        Stop::Own { .. } => "own",
    }
}

fn of_cause(cause: &Cause) -> &'static str {
    match cause {
        Cause::Silent { .. } => "silent",
        Cause::Returned { .. } => "returned",
        Cause::Requested { .. } => "requested",
        Cause::Lapsed => "lapsed",
        Cause::Refused => "refused",
    }
}

fn of_phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Joining => "joining",
        Phase::Active => "active",
        Phase::Fencing => "fencing",
        Phase::Fenced => "fenced",
        Phase::Left => "left",
    }
}

fn of_progress(progress: &Progress) -> &'static str {
    match progress {
        Progress::Ordered => "ordered",
        Progress::Executing { .. } => "executing",
        Progress::Failed { .. } => "failed",
    }
}

fn of_proof(proof: &FenceProof) -> &'static str {
    match proof {
        FenceProof::Device { .. } => "device",
        FenceProof::CleanLeave => "clean leave",
        FenceProof::Operator { .. } => "operator",
        FenceProof::Expired { .. } => "expired",
        FenceProof::Succeeded { .. } => "succeeded",
    }
}

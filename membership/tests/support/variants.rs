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
        _ => vec![],
    }
}

pub(crate) fn in_cluster(state: &Cluster) -> BTreeSet<&'static str> {
    let mut names: BTreeSet<_> = state.lives().map(|(_, life)| of_phase(life.phase)).collect();
    names.extend(state.members().values().map(|member| of_role(member.role)));
    names.extend(state.fences().open().flat_map(|order| [of_progress(&order.progress), of_cause(&order.cause)]));
    names.extend(state.fences().history().flat_map(|record| [of_proof(&record.proof), of_cause(&record.cause)]));
    names.extend(state.configuration().is_joint().then_some("joint"));
    names.extend(state.retired().first().map(|_| "retired"));
    names.extend(state.fences().history().filter(|record| record.second.is_some()).map(|_| "corroborated"));
    names.extend(state.leadership().map(|_| "led"));
    names.extend(state.lives().map(|(_, life)| of_stop(life.contract.stop)));
    names.extend(state.id().map(|_| "founded"));
    names
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
    }
}

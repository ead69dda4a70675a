//! What may be due: steps of processes, messages, and what kernels and devices do by themselves.

use quorate_membership::lease::Expiry;
use quorate_membership::{Command, Identity};

use crate::clocks::Nanos;
use crate::oracle::Effect;
use crate::raft::Talk;

/// What one process tells another, on the same machine or not.
#[derive(Clone)]
pub(crate) enum Message {
    Raft(Talk),
    /// To the leader: a command that it should propose.
    Ask(Box<Command>),
    Renew {
        who: Identity,
        seq: u64,
    },
    Renewed {
        who: Identity,
        seq: u64,
        granted: bool,
    },
}

/// A step of a process.
#[derive(Clone)]
pub(crate) enum Act {
    Election,
    Heartbeat,
    Flushed { index: u64 },
    Say { to: usize, message: Message },
    LeaderSide,
    Propose { expiry: Expiry },
    Join,
    Renewer,
    Turn { number: u64 },
    SendRenewal { seq: u64 },
    NoAnswer { seq: u64 },
    AskAgain,
    Arm { until: Nanos, left: Nanos },
    Feed,
    Begin { job: usize, token: u64 },
    CheckAndWrite,
    Write { effect: Effect },
    Stopped { work: u64 },
    Exit,
}

/// Something that is due.
pub(crate) enum Step {
    Act {
        node: usize,
        process: u64,
        term: u64,
        act: Act,
    },
    Arrive {
        to: usize,
        from: usize,
        message: Message,
    },
    /// A token reaches the resource as its floor; the holder is told.
    Floor {
        node: usize,
        process: u64,
        job: usize,
        token: u64,
    },
    Land {
        effect: Effect,
    },
    Orphan {
        node: usize,
        boot: u64,
    },
    TimerDue {
        node: usize,
        number: u64,
    },
    Kill {
        node: usize,
        process: u64,
    },
    Bite {
        node: usize,
        number: u64,
    },
    Start {
        node: usize,
    },
    Fault,
    PauseLeader,
    Heal {
        cuts: Vec<(usize, usize)>,
    },
    Resume {
        node: usize,
    },
}

impl Step {
    /// A number for what it is, for the trace.
    pub(crate) fn kind(&self) -> u64 {
        match self {
            Self::Act { act, .. } => match act {
                Act::Election => 1,
                Act::Heartbeat => 2,
                Act::Flushed { index } => 3 + index * 64,
                Act::Say { .. } => 4,
                Act::LeaderSide => 5,
                Act::Join => 6,
                Act::Renewer => 7,
                Act::Turn { .. } => 8,
                Act::SendRenewal { seq } => 9 + seq * 64,
                Act::NoAnswer { .. } => 10,
                Act::AskAgain => 11,
                Act::Arm { left, .. } => 12 + left * 64,
                Act::Feed => 13,
                Act::Begin { token, .. } => 14 + token * 64,
                Act::CheckAndWrite => 15,
                Act::Write { .. } => 16,
                Act::Stopped { .. } => 17,
                Act::Exit => 18,
                Act::Propose { .. } => 19,
            },
            Self::Arrive { .. } => 20,
            Self::Floor { .. } => 21,
            Self::Land { .. } => 22,
            Self::Orphan { .. } => 23,
            Self::TimerDue { .. } => 24,
            Self::Kill { .. } => 25,
            Self::Bite { .. } => 26,
            Self::Start { .. } => 27,
            Self::Fault => 28,
            Self::PauseLeader => 31,
            Self::Heal { .. } => 29,
            Self::Resume { .. } => 30,
        }
    }
}

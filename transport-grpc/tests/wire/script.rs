//! What a fake service notes, and what it is told to answer.

use std::time::Duration;

use quorate_membership::lease::Receipts;
use quorate_membership::{Command, FenceId, NodeId, Revision, SessionId};
use quorate_raft_core::rpc::{
    Append, Appended, AskReceipts, Caller, FencerReach, InstallSnapshot, KeptAlive, Payload, Proposed, Refused,
    RenewRefusal, Renewal, StreamAppended, Transfer, Transferred, VoteRequest,
};
use quorate_raft_core::transport::{JoinRequest, RequestName};
use quorate_raft_core::{FeedItem, Filter, HandOverError, ProposeError, ReadError, Refusal, View};

/// A call as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Append(Caller, Append),
    StreamBegan(Caller),
    StreamAppend(Append),
    StreamEnded,
    Vote(Caller, VoteRequest),
    PreVote(Caller, VoteRequest),
    Snapshot(Caller, InstallSnapshot),
    Transfer(Caller, Transfer),
    Propose(Caller, Payload),
    ReadIndex(Caller),
    Renew(Caller, Renewal),
    Join(JoinRequest),
    Command(Command),
    HandOver(Option<NodeId>),
    Events(Revision, Filter),
    KeepAlive(Caller, SessionId),
    CanFence(Caller, FenceId),
    Refuses(Caller, NodeId),
    Receipts(Caller, AskReceipts),
    KeepSession(SessionId),
    Once(Option<RequestName>, Command),
    Barrier(Duration),
    /// A node has closed its last connection.
    Disconnected(NodeId),
    /// A call was given up before it was answered.
    GivenUp,
}

/// How appends of a stream are answered.
#[derive(Debug, Clone)]
pub(crate) enum Streams {
    /// Each at once, with its last position.
    AtOnce,
    /// None before so many have come; then each.
    After(usize),
    /// Each after so long.
    Slowly(Duration),
    /// So many, then none.
    Only(usize),
    /// So many, then this.
    Then(usize, StreamAppended),
}

/// What is answered. Tests change it.
pub(crate) struct Script {
    pub(crate) refuse: Option<Refusal>,
    pub(crate) hang: bool,
    pub(crate) appended: Appended,
    pub(crate) transferred: Transferred,
    pub(crate) proposed: Proposed,
    /// `None`: what is asked for is granted.
    pub(crate) not_renewed: Option<(RenewRefusal, Option<NodeId>)>,
    pub(crate) streams: Streams,
    pub(crate) view: View,
    /// Always an error: only a node can say that it applied something (see `nodes.rs`).
    pub(crate) command: ProposeError,
    pub(crate) hand_over: Result<NodeId, HandOverError>,
    pub(crate) feed: Vec<FeedItem>,
    pub(crate) kept_alive: KeptAlive,
    pub(crate) reach: FencerReach,
    pub(crate) refuses: Refused,
    pub(crate) receipts: Receipts,
    /// Where a request takes effect.
    pub(crate) once: Result<Revision, ProposeError>,
    pub(crate) barrier: Result<Revision, ReadError>,
}

//! The calls between nodes as values: one request, one answer, and what a network has to know of each.
//!
//! ```text
//!   VoteRequest ──Rpc::into_call──▶ Call::Vote ~~~ any network ~~~▶ Answer::Vote ──Rpc::reply──▶ VoteAnswer
//! ```
//!
//! A network carries [`Call`] and [`Answer`] without knowing what is in them. [`Rpc`] ties each request to the type of
//! its reply, so that callers never see an answer of another kind.

use quorate_membership::lease::Receipts;
use quorate_membership::{FenceId, NodeId, Revision, SessionId};

use super::{
    Append, Appended, Ballot, InstallSnapshot, KeptAlive, Payload, Position, Proposed, Renewal, Renewed, Transfer,
    Transferred, VoteAnswer, VoteRequest,
};

/// The connection that a call travels on. Calls on different lanes do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Heartbeats, votes, small commands and reads: late ones cost an election.
    Control,
    /// Log entries and large commands.
    Log,
    /// Snapshots: up to 64 MiB each.
    Snapshot,
    /// Renewals and keep-alives: small, and late ones cost a lease. A command that waits on the control lane must not
    /// delay them.
    Lease,
}

/// The largest command that travels with heartbeats and votes, in bytes: 1 Mbit/s carries it in 66 ms.
const LARGE: usize = 8 << 10;

/// A request from one node to another that has exactly one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Sends one heartbeat, or one batch of entries.
    Append(Append),
    /// Asks for a vote.
    Vote(VoteRequest),
    /// Asks whether a vote would be given.
    PreVote(VoteRequest),
    /// Sends a whole snapshot. The deadline is for each standstill: the whole may take as long as it makes progress.
    Snapshot(InstallSnapshot),
    /// Asks a node to take leadership over.
    Transfer(Transfer),
    /// Hands a command to the leader. The receiver does not forward it.
    Propose(Payload),
    /// Asks the leader for a read index: the revision up to which a node must have applied to read linearizably.
    ReadIndex,
    /// Asks the leader to extend the lease of a life of the caller.
    Renew(Renewal),
    /// Asks the leader to keep a client's session alive.
    KeepAlive(SessionId),
    /// Asks a member whether its fencer could carry out an open order. Asked by a leader whose own fencer cannot.
    CanFence(FenceId),
    /// Asks a voter whether a node refuses connections from it, too. Asked by a voter whose own connections to that node were
    /// closed, and which is refused.
    Refuses(NodeId),
    /// Asks a voter when it heard of each life last. Asked by a leader that has just been activated.
    Receipts(AskReceipts),
}

impl Call {
    /// The connection that this call belongs on.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Append(_)
            | Self::Vote(_)
            | Self::PreVote(_)
            | Self::Transfer(_)
            | Self::ReadIndex
            | Self::CanFence(_)
            | Self::Refuses(_)
            | Self::Receipts(_) => Lane::Control,
            // On a thin link a large one would keep heartbeats waiting, and votes.
            Self::Propose(command) if command.as_bytes().len() > LARGE => Lane::Log,
            Self::Propose(_) => Lane::Control,
            Self::Snapshot(_) => Lane::Snapshot,
            Self::Renew(_) | Self::KeepAlive(_) => Lane::Lease,
        }
    }

    /// Whether this call may arrive twice, as after a repetition by the network. All may but a command: no transport
    /// sends one again by itself.
    pub fn may_come_twice(&self) -> bool {
        !matches!(self, Self::Propose(_))
    }
}

/// The answer to a [`Call`]: always of the variant with the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Answers [`Call::Append`].
    Append(Appended),
    /// Answers [`Call::Vote`].
    Vote(VoteAnswer),
    /// Answers [`Call::PreVote`].
    PreVote(VoteAnswer),
    /// Answers [`Call::Snapshot`]: the vote that the receiver holds.
    Snapshot(Ballot),
    /// Answers [`Call::Transfer`].
    Transfer(Transferred),
    /// Answers [`Call::Propose`].
    Propose(Proposed),
    /// Answers [`Call::ReadIndex`].
    ReadIndex(Revision),
    /// Answers [`Call::Renew`].
    Renew(Renewed),
    /// Answers [`Call::KeepAlive`].
    KeepAlive(KeptAlive),
    /// Answers [`Call::CanFence`].
    CanFence(FencerReach),
    /// Answers [`Call::Refuses`].
    Refuses(Refused),
    /// Answers [`Call::Receipts`].
    Receipts(Receipts),
}

/// A request that knows the type of its reply.
pub trait Rpc: Send + 'static {
    /// What the receiver replies.
    type Reply: Send + 'static;

    /// The request as a value that any network carries.
    fn into_call(self) -> Call;

    /// The reply in an answer; `None` if the answer belongs to another kind of call.
    fn reply(answer: Answer) -> Option<Self::Reply>;
}

/// Asks whether a vote would be given, see [`Call::PreVote`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreVote(pub VoteRequest);

/// Asks the leader for a read index, see [`Call::ReadIndex`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadIndex;

/// Asks the leader to keep a session alive, see [`Call::KeepAlive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive(pub SessionId);

/// Asks whether a fencer could carry out an order, see [`Call::CanFence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanFence(pub FenceId);

/// What a member says of its fencer and an open order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FencerReach {
    /// Nothing speaks against it: the fencer says that it reaches the device, or says nothing.
    Reaches,
    /// There is no fencer, it does not reach the device, or it has failed at this order itself. Also where
    /// the member does not know the order.
    Fails,
}

/// Asks whether a node refuses connections, see [`Call::Refuses`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refuses(pub NodeId);

/// What a voter says of a node that seems to have ended, and of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Every address of that node refuses connections from it.
    pub refuses: bool,
    /// That node holds a connection to it, so its process runs.
    pub connected: bool,
    /// It follows that node, or nobody.
    pub follows: bool,
    /// The end of its log.
    pub last: Option<Position>,
    /// Whether it may stand for election now.
    pub may_stand: bool,
}

/// Asks when a voter heard of each life last, see [`Call::Receipts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskReceipts {
    /// The vote of the leader that asks. The voter must have accepted it before it answers.
    pub ballot: Ballot,
    /// The voter's log must reach to here before it answers.
    pub upto: Position,
}

macro_rules! rpcs {
    ($($request:ty => $kind:ident -> $reply:ty, $into:expr;)*) => { $(
        impl Rpc for $request {
            type Reply = $reply;

            fn into_call(self) -> Call {
                let into: fn(Self) -> Call = $into;
                into(self)
            }

            fn reply(answer: Answer) -> Option<$reply> {
                if let Answer::$kind(reply) = answer { Some(reply) } else { None }
            }
        }
    )* };
}

rpcs! {
    Append => Append -> Appended, Call::Append;
    VoteRequest => Vote -> VoteAnswer, Call::Vote;
    PreVote => PreVote -> VoteAnswer, |PreVote(request)| Call::PreVote(request);
    InstallSnapshot => Snapshot -> Ballot, Call::Snapshot;
    Transfer => Transfer -> Transferred, Call::Transfer;
    Payload => Propose -> Proposed, Call::Propose;
    ReadIndex => ReadIndex -> Revision, |ReadIndex| Call::ReadIndex;
    Renewal => Renew -> Renewed, Call::Renew;
    KeepAlive => KeepAlive -> KeptAlive, |KeepAlive(session)| Call::KeepAlive(session);
    CanFence => CanFence -> FencerReach, |CanFence(order)| Call::CanFence(order);
    Refuses => Refuses -> Refused, |Refuses(leader)| Call::Refuses(leader);
    AskReceipts => Receipts -> Receipts, Call::Receipts;
}

#[cfg(test)]
mod tests {
    use quorate_membership::{NodeId, Revision, SessionId};

    use super::*;

    #[test]
    fn an_answer_of_another_kind_is_no_reply() {
        let ballot = Ballot { term: 3, node: NodeId::new(1), committed: true };
        let vote = VoteAnswer { ballot, granted: true, last: None };
        assert_eq!(VoteRequest::reply(Answer::Vote(vote)), Some(vote));
        assert_eq!(VoteRequest::reply(Answer::PreVote(vote)), None);
        assert_eq!(PreVote::reply(Answer::PreVote(vote)), Some(vote));
        assert_eq!(PreVote::reply(Answer::Vote(vote)), None);
        assert_eq!(ReadIndex::reply(Answer::Snapshot(ballot)), None);
        assert_eq!(ReadIndex::reply(Answer::ReadIndex(Revision::new(9))), Some(Revision::new(9)));
    }

    #[test]
    fn only_a_command_may_not_arrive_twice() {
        let propose = Payload::new(vec![]).into_call();
        assert_eq!((propose.lane(), propose.may_come_twice()), (Lane::Control, false));
        let keep_alive = KeepAlive(SessionId::new(7)).into_call();
        assert_eq!((keep_alive.lane(), keep_alive.may_come_twice()), (Lane::Lease, true));
        assert_eq!(ReadIndex.into_call(), Call::ReadIndex);
    }
}

//! Both ways without a loss, and nothing that arrives makes anything panic.

mod store;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::collection::{btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use prost::Message;
use quorate_membership::{
    Activation, Address, BootId, ClusterId, Command, Contract, ContractError, ContractPart, Disk, DiskId, Drift,
    FenceHint, Identity, Incarnation, NodeId, Nonce, Rejection, Revision, Role, Stop, codec,
};
use quorate_raft_core::Refusal;
use quorate_raft_core::rpc::{
    Append, Appended, Ballot, Body, Caller, LogEntry, Payload, Position, Proposed, RenewRefusal, Renewal, Renewed,
    SnapshotMeta, StreamAppended, Transferred, VoteAnswer, VoterSets,
};
use quorate_raft_core::transport::{JoinAnswer, JoinRequest};

use super::{FromWire, Malformed};
use crate::pb;

/// There and back again, through bytes.
pub(super) fn travelled<T, P>(value: T) -> Result<T, Malformed>
where
    T: FromWire<P>,
    P: From<T> + Message + Default,
{
    T::from_wire(P::decode(P::from(value).encode_to_vec().as_slice()).expect("what was encoded decodes"))
}

pub(super) fn node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId::new)
}

fn nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
    btree_set(node(), 0..6)
}

fn disk() -> impl Strategy<Value = Disk> {
    any::<(u128, u64)>().prop_map(|(id, opened)| Disk { id: DiskId::new(id), opened })
}

fn position() -> impl Strategy<Value = Position> {
    any::<(u64, u64)>().prop_map(|(term, index)| Position { term, index })
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (any::<u64>(), node(), any::<bool>()).prop_map(|(term, node, committed)| Ballot { term, node, committed })
}

fn voters() -> impl Strategy<Value = VoterSets> {
    (vec(nodes(), 0..3), nodes()).prop_map(|(sets, nodes)| VoterSets { sets, nodes })
}

pub(super) fn life() -> impl Strategy<Value = Identity> {
    (node(), any::<u64>()).prop_map(|(node, incarnation)| Identity::new(node, Incarnation::new(incarnation)))
}

fn caller() -> impl Strategy<Value = Caller> {
    (any::<u128>(), node(), node(), disk(), any::<u128>(), proptest::option::of(disk()), any::<u64>()).prop_map(
        |(cluster, from, to, disk, process, callee, timing)| Caller {
            cluster: ClusterId::new(cluster),
            from,
            to,
            disk,
            process: Nonce::new(process),
            callee,
            timing,
        },
    )
}

/// Any that the wire has room for, whether or not it could be kept.
pub(super) fn time() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn contract() -> impl Strategy<Value = Contract> {
    let stop = prop_oneof![
        Just(Stop::Unbounded),
        Just(Stop::Tokens),
        (time(), time()).prop_map(|(timeout, reset)| Stop::Watchdog { timeout, reset }),
        time().prop_map(|lateness| Stop::Deadman { lateness }),
        time().prop_map(|bound| Stop::Own { bound }),
    ];
    (time(), stop, time(), any::<u32>()).prop_map(|(lease, stop, in_flight, drift)| Contract {
        lease,
        stop,
        in_flight,
        drift: Drift::ppm(drift),
    })
}

fn renewal() -> impl Strategy<Value = Renewal> {
    (life(), any::<u64>()).prop_map(|(who, seq)| Renewal { who, seq })
}

fn renewed() -> impl Strategy<Value = Renewed> {
    use RenewRefusal::{Expiring, NotActivated, NotConfirmed, NotLive};
    let refusal = prop_oneof![Just(NotActivated), Just(NotLive), Just(Expiring), Just(NotConfirmed)];
    prop_oneof![
        renewal().prop_map(Renewed::Granted),
        (refusal, of(node())).prop_map(|(refusal, leader)| Renewed::Refused { refusal, leader }),
    ]
}

/// The rejections of everything that rests on time.
fn rejection() -> impl Strategy<Value = Rejection> {
    let part = prop_oneof![Just(ContractPart::Lease), Just(ContractPart::Stop), Just(ContractPart::InFlight)];
    let activation = || any::<u64>().prop_map(Activation::new);
    prop_oneof![
        (part, time(), time(), time())
            .prop_map(|(what, got, low, high)| { Rejection::Contract(ContractError::Bounds { what, got, low, high }) }),
        any::<u32>().prop_map(|got| Rejection::Contract(ContractError::Drift { got: Drift::ppm(got) })),
        (time(), time()).prop_map(|(timeout, lease)| Rejection::Contract(ContractError::Watchdog { timeout, lease })),
        (activation(), of(activation())).prop_map(|(under, current)| Rejection::OtherActivation { under, current }),
        Just(Rejection::WithoutActivation),
        life().prop_map(Rejection::NeverExpires),
        (life(), time(), time()).prop_map(|(who, waited, need)| Rejection::TooEarly { who, waited, need }),
    ]
}

fn join() -> impl Strategy<Value = Command> {
    let role = prop_oneof![Just(Role::Voter), Just(Role::Learner), Just(Role::Witness)];
    let address = "[a-z]{1,20}:[0-9]{1,5}".prop_map(|text| Address::new(text).unwrap());
    let left = of((1..u64::MAX).prop_map(Incarnation::new));
    let hint = of("[a-z/]{1,255}".prop_map(|text| FenceHint::new(text).unwrap()));
    (node(), role, vec(address, 0..9), disk(), any::<u128>(), any::<u128>(), contract(), left, hint).prop_map(
        |(node, role, addresses, disk, boot, nonce, contract, left, hint)| Command::Join {
            node,
            role,
            addresses,
            disk,
            boot: BootId::new(boot),
            nonce: Nonce::new(nonce),
            contract,
            left,
            hint,
        },
    )
}

fn envelope() -> impl Strategy<Value = Payload> {
    join().prop_map(|join| Payload::new(codec::encode(&join).unwrap()))
}

fn entry() -> impl Strategy<Value = LogEntry> {
    let body =
        prop_oneof![Just(Body::Blank), envelope().prop_map(Body::Command), voters().prop_map(Body::Configuration),];
    (position(), body).prop_map(|(at, body)| LogEntry { at, body })
}

fn append() -> impl Strategy<Value = Append> {
    let renewed = of(vec(life(), 0..4).prop_map(Into::into));
    (ballot(), of(position()), vec(entry(), 0..6), of(position()), renewed)
        .prop_map(|(ballot, prev, entries, commit, renewed)| Append { ballot, prev, entries, commit, renewed })
}

fn appended() -> impl Strategy<Value = Appended> {
    prop_oneof![
        Just(Appended::Success),
        of(position()).prop_map(Appended::Partial),
        Just(Appended::Conflict),
        ballot().prop_map(Appended::HigherBallot),
    ]
}

fn stream_appended() -> impl Strategy<Value = StreamAppended> {
    prop_oneof![
        of(position()).prop_map(StreamAppended::Flushed),
        position().prop_map(StreamAppended::Conflict),
        ballot().prop_map(StreamAppended::HigherBallot),
    ]
}

fn transferred() -> impl Strategy<Value = Transferred> {
    prop_oneof![
        Just(Transferred::Accepted),
        (ballot(), ballot()).prop_map(|(expected, actual)| Transferred::BallotChanged { expected, actual }),
        (of(position()), of(position())).prop_map(|(expected, actual)| Transferred::NotFlushed { expected, actual }),
    ]
}

fn proposed() -> impl Strategy<Value = Proposed> {
    let revision = || any::<u64>().prop_map(Revision::new);
    prop_oneof![
        revision().prop_map(|revision| Proposed::Applied { revision }),
        (revision(), rejection()).prop_map(|(revision, rejection)| Proposed::Rejected { revision, rejection }),
        of(node()).prop_map(|leader| Proposed::NotLeader { leader }),
        ".{0,200}".prop_map(|reason| Proposed::Unknown { reason }),
    ]
}

proptest! {
    #[test]
    fn what_nodes_ask_of_each_other_travels_without_a_loss(
        (caller, append, renewal) in (caller(), append(), renewal()),
        meta in (of(position()), of(position()), voters()),
    ) {
        prop_assert_eq!(travelled::<_, pb::Caller>(caller).unwrap(), caller);
        prop_assert_eq!(travelled::<_, pb::Append>(append.clone()).unwrap(), append);
        prop_assert_eq!(travelled::<_, pb::Renewal>(renewal).unwrap(), renewal);
        let meta = SnapshotMeta { last: meta.0, configured: meta.1, voters: meta.2 };
        prop_assert_eq!(travelled::<_, pb::SnapshotMeta>(meta.clone()).unwrap(), meta);
    }

    #[test]
    fn what_nodes_answer_travels_without_a_loss(
        (appended, stream, transferred, proposed) in (appended(), stream_appended(), transferred(), proposed()),
        (vote, renewed) in ((ballot(), any::<bool>(), of(position())), renewed()),
        joined in (any::<u128>(), life(), any::<u64>()),
    ) {
        prop_assert_eq!(travelled::<_, pb::AppendResponse>(appended).unwrap(), appended);
        prop_assert_eq!(travelled::<_, pb::AppendStreamResponse>(stream).unwrap(), stream);
        prop_assert_eq!(travelled::<_, pb::TransferResponse>(transferred).unwrap(), transferred);
        prop_assert_eq!(travelled::<_, pb::ProposeResponse>(proposed.clone()).unwrap(), proposed);
        prop_assert_eq!(travelled::<_, pb::RenewResponse>(renewed).unwrap(), renewed);
        let vote = VoteAnswer { ballot: vote.0, granted: vote.1, last: vote.2 };
        prop_assert_eq!(travelled::<_, pb::VoteResponse>(vote).unwrap(), vote);
        let joined = JoinAnswer { cluster: ClusterId::new(joined.0), who: joined.1, revision: Revision::new(joined.2) };
        prop_assert_eq!(travelled::<_, pb::JoinResponse>(joined.clone()).unwrap(), joined);
    }

    #[test]
    fn a_join_is_spelt_out_on_the_wire_and_arrives_as_the_same_envelope(
        (command, cluster, timing) in (envelope(), of(any::<u128>()), any::<u64>()),
    ) {
        let request = JoinRequest { cluster: cluster.map(ClusterId::new), command, timing };
        prop_assert_eq!(super::join_command(super::join_request(&request).unwrap()).unwrap(), request);
    }

    /// Cut anywhere, or with any byte changed: read as something or refused, never a panic.
    #[test]
    fn damaged_messages_are_read_or_refused_and_never_panic(
        (caller, append) in (caller(), append()),
        (cut, at, byte) in any::<(prop::sample::Index, prop::sample::Index, u8)>(),
    ) {
        let mut bytes = pb::AppendRequest { caller: Some(caller.into()), append: Some(append.into()) }.encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        read_as_everything(&bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
    }
}

fn read_as_everything(bytes: &[u8]) {
    fn read<T: FromWire<P>, P: Message + Default>(bytes: &[u8]) {
        if let Ok(message) = P::decode(bytes) {
            let _ = T::from_wire(message);
        }
    }
    if let Ok(pb::AppendRequest { caller, append }) = pb::AppendRequest::decode(bytes) {
        let _ = caller.map(Caller::from_wire);
        let _ = append.map(Append::from_wire);
    }
    read::<Appended, pb::AppendResponse>(bytes);
    read::<StreamAppended, pb::AppendStreamResponse>(bytes);
    read::<Transferred, pb::TransferResponse>(bytes);
    read::<Proposed, pb::ProposeResponse>(bytes);
    read::<SnapshotMeta, pb::SnapshotMeta>(bytes);
    read::<JoinAnswer, pb::JoinResponse>(bytes);
    read::<Rejection, pb::Rejection>(bytes);
    read::<Renewal, pb::Renewal>(bytes);
    read::<Renewed, pb::RenewResponse>(bytes);
    read::<Contract, pb::Contract>(bytes);
    let _ = pb::Refusal::decode(bytes).map(Refusal::from);
    let _ = pb::JoinRequest::decode(bytes).map(super::join_command);
    read::<Command, pb::ConfirmFenceRequest>(bytes);
    read::<Command, pb::VouchRequest>(bytes);
}

#[test]
fn a_missing_field_is_named() {
    let said = |refused: Malformed| refused.0;
    let why = said(Append::from_wire(pb::Append::default()).unwrap_err());
    assert!(why.contains("the ballot is missing"), "{why}");
    let why = said(LogEntry::from_wire(pb::Entry { at: Some(pb::Position::default()), body: None }).unwrap_err());
    assert!(why.contains("the body of an entry is missing"), "{why}");
    let why = said(Disk::from_wire(pb::Disk { id: vec![1; 15].into(), opened: 1 }).unwrap_err());
    assert_eq!(why, "the disk id has 15 bytes where 16 are needed");
    let why = said(Appended::from_wire(pb::AppendResponse::default()).unwrap_err());
    assert!(why.contains("the result of an append is missing"), "{why}");
}

#[test]
fn an_id_travels_in_the_order_in_which_it_is_printed() {
    let id = DiskId::new(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    let printed: String = super::id_to(id.get()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(printed, id.to_string());
}

#[test]
fn what_a_newer_build_says_keeps_its_name_and_its_text_and_claims_no_more_than_is_known() {
    let newer = pb::Refusal { code: "on_fire".into(), message: "the rack burns".into(), kind: None };
    let Refusal::Malformed(why) = Refusal::from(newer) else { panic!("not malformed") };
    assert!(why.contains("on_fire: the rack burns") && why.contains("upgrade this node"), "{why}");
    let rejection = pb::Rejection { code: "too_late".into(), message: "come tomorrow".into(), kind: None };
    let result = pb::propose_response::Result::Rejected(pb::Rejected { revision: 7, rejection: Some(rejection) });
    let Proposed::Unknown { reason } = Proposed::from_wire(pb::ProposeResponse { result: Some(result) }).unwrap()
    else {
        panic!("not unknown")
    };
    assert!(reason.contains("too_late") && reason.contains("come tomorrow"), "{reason}");
}

/// Whatever a newer node answers, it is a grant only where it says so in words that are known here.
#[test]
fn a_renewal_is_granted_by_nothing_but_a_grant() {
    use pb::renewed::Result as Answer;
    let said = |result| Renewed::from_wire(pb::RenewResponse { result: Some(pb::Renewed { result }) });
    for number in [0, 5, 77, i32::MAX, -1] {
        let why = said(Some(Answer::Refused(pb::RenewRefused { refusal: number, leader: Some(1) }))).unwrap_err().0;
        assert!(why.contains(&format!("number {number}")), "{why}");
    }
    assert!(said(None).unwrap_err().0.contains("the result of a renewal is missing"));
    assert!(Renewed::from_wire(pb::RenewResponse { result: None }).is_err());
    let nobody = pb::Renewal { who: None, seq: 3 };
    assert!(said(Some(Answer::Granted(nobody))).unwrap_err().0.contains("the life of a renewal is missing"));
}

/// The room that is kept beside the result: what a newer node adds there is passed over, and the result is read.
#[test]
fn receipts_beside_the_result_of_a_renewal_are_passed_over() {
    let granted = Renewed::Granted(Renewal { who: Identity::new(NodeId::new(3), Incarnation::new(2)), seq: 8 });
    let mut bytes = pb::RenewResponse::from(granted).encode_to_vec();
    // Field 2, three bytes long.
    bytes.extend([0x12, 3, 7, 7, 7]);
    assert_eq!(Renewed::from_wire(pb::RenewResponse::decode(bytes.as_slice()).unwrap()).unwrap(), granted);
}

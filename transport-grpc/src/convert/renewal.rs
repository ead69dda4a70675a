//! Renewals of leases, keep-alives of sessions, what a fencer reaches, and their answers. An answer that cannot be read
//! extends nothing.

use std::time::Duration;

use quorate_membership::NodeId;
use quorate_membership::lease::Receipts;
use quorate_raft_core::rpc::{AskReceipts, FencerReach, KeptAlive, Refused, RenewRefusal, Renewal, Renewed};

use super::raft::ballot;
use super::{FromWire, Malformed, nanos, need};
use crate::pb;

impl From<Renewal> for pb::Renewal {
    fn from(Renewal { who, seq }: Renewal) -> Self {
        Self { who: Some(who.into()), seq }
    }
}

impl FromWire<pb::Renewal> for Renewal {
    fn from_wire(pb::Renewal { who, seq }: pb::Renewal) -> Result<Self, Malformed> {
        Ok(Self { who: need(who, "the life of a renewal")?.into(), seq })
    }
}

impl From<Renewed> for pb::RenewResponse {
    fn from(renewed: Renewed) -> Self {
        use pb::renewed::Result as Out;
        let result = match renewed {
            Renewed::Granted(renewal) => Out::Granted(renewal.into()),
            Renewed::Refused { refusal, leader } => {
                let refusal = pb::RenewRefusal::from(refusal).into();
                Out::Refused(pb::RenewRefused { refusal, leader: leader.map(NodeId::get) })
            }
        };
        Self { result: Some(pb::Renewed { result: Some(result) }) }
    }
}

impl FromWire<pb::RenewResponse> for Renewed {
    fn from_wire(response: pb::RenewResponse) -> Result<Self, Malformed> {
        use pb::renewed::Result as In;
        Ok(match need(response.result.and_then(|inner| inner.result), "the result of a renewal")? {
            In::Granted(renewal) => Self::Granted(Renewal::from_wire(renewal)?),
            In::Refused(pb::RenewRefused { refusal: number, leader }) => {
                let unknown = || Malformed(format!("a renewal was refused for a reason unknown here, number {number}"));
                let refusal = pb::RenewRefusal::try_from(number).ok().and_then(known).ok_or_else(unknown)?;
                Self::Refused { refusal, leader: leader.map(NodeId::new) }
            }
        })
    }
}

impl From<RenewRefusal> for pb::RenewRefusal {
    fn from(refusal: RenewRefusal) -> Self {
        match refusal {
            RenewRefusal::NotActivated => Self::NotActivated,
            RenewRefusal::NotLive => Self::NotLive,
            RenewRefusal::Expiring => Self::Expiring,
            RenewRefusal::NotConfirmed => Self::NotConfirmed,
            // A case of a newer engine. Every receiver reads it as a refusal for an unknown reason.
            _ => Self::Unspecified,
        }
    }
}

fn known(refusal: pb::RenewRefusal) -> Option<RenewRefusal> {
    Some(match refusal {
        pb::RenewRefusal::Unspecified => return None,
        pb::RenewRefusal::NotActivated => RenewRefusal::NotActivated,
        pb::RenewRefusal::NotLive => RenewRefusal::NotLive,
        pb::RenewRefusal::Expiring => RenewRefusal::Expiring,
        pb::RenewRefusal::NotConfirmed => RenewRefusal::NotConfirmed,
    })
}

impl From<KeptAlive> for pb::RelayKeepAliveResponse {
    fn from(kept: KeptAlive) -> Self {
        use pb::kept_alive::Result as Out;
        let result = match kept {
            KeptAlive::Alive { ttl } => Out::AliveTtlNs(nanos(ttl)),
            KeptAlive::Ended => Out::Ended(pb::Done {}),
            KeptAlive::NotLeader { leader } => Out::NotLeader(pb::NotLeader { leader: leader.map(NodeId::get) }),
        };
        Self { result: Some(pb::KeptAlive { result: Some(result) }) }
    }
}

impl FromWire<pb::RelayKeepAliveResponse> for KeptAlive {
    fn from_wire(response: pb::RelayKeepAliveResponse) -> Result<Self, Malformed> {
        use pb::kept_alive::Result as In;
        Ok(match need(response.result.and_then(|inner| inner.result), "the result of a keep-alive")? {
            In::AliveTtlNs(nanos) => Self::Alive { ttl: Duration::from_nanos(nanos) },
            In::Ended(pb::Done {}) => Self::Ended,
            In::NotLeader(pb::NotLeader { leader }) => Self::NotLeader { leader: leader.map(NodeId::new) },
        })
    }
}

impl From<Refused> for pb::RefusesResponse {
    fn from(Refused { refuses, connected, follows, last, may_stand }: Refused) -> Self {
        Self { refuses, connected, follows, last: last.map(Into::into), may_stand }
    }
}

impl FromWire<pb::RefusesResponse> for Refused {
    fn from_wire(
        pb::RefusesResponse { refuses, connected, follows, last, may_stand }: pb::RefusesResponse,
    ) -> Result<Self, Malformed> {
        Ok(Self { refuses, connected, follows, last: last.map(Into::into), may_stand })
    }
}

impl FromWire<pb::ReceiptsRequest> for AskReceipts {
    fn from_wire(request: pb::ReceiptsRequest) -> Result<Self, Malformed> {
        let upto = need(request.upto, "the end of the leader's log")?.into();
        Ok(Self { ballot: ballot(request.ballot)?, upto })
    }
}

impl From<Receipts> for pb::ReceiptsResponse {
    fn from(Receipts { since, of }: Receipts) -> Self {
        let receipt =
            |(who, age): (_, Duration)| pb::Receipt { who: Some(pb::Identity::from(who)), age_ns: nanos(age) };
        Self { since_ns: nanos(since), receipts: of.into_iter().map(receipt).collect() }
    }
}

impl FromWire<pb::ReceiptsResponse> for Receipts {
    fn from_wire(response: pb::ReceiptsResponse) -> Result<Self, Malformed> {
        let receipt = |pb::Receipt { who, age_ns }| {
            Ok((need(who, "the life of a receipt")?.into(), Duration::from_nanos(age_ns)))
        };
        let of = response.receipts.into_iter().map(receipt).collect::<Result<_, Malformed>>()?;
        Ok(Self { since: Duration::from_nanos(response.since_ns), of })
    }
}

impl From<FencerReach> for pb::CanFenceResponse {
    fn from(reach: FencerReach) -> Self {
        Self { reaches: reach == FencerReach::Reaches }
    }
}

impl FromWire<pb::CanFenceResponse> for FencerReach {
    fn from_wire(pb::CanFenceResponse { reaches }: pb::CanFenceResponse) -> Result<Self, Malformed> {
        Ok(if reaches { Self::Reaches } else { Self::Fails })
    }
}

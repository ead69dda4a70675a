//! Commands of operators, incoming, and the join of a process, both ways.
//!
//! In the protocol a join has fields, so that any language can write one; between the transport and the engine it is an
//! envelope. Encoding it again gives the same bytes, because the form of an envelope is canonical.

use quorate_membership::{
    Address, BootId, Cause, ClusterId, Command, Confirmation, Contract, Disk, FenceHint, FenceId, Identity,
    Incarnation, NodeId, Nonce, Reason, Revision, Role, codec,
};
use quorate_raft_core::rpc::Payload;
use quorate_raft_core::transport::{JoinAnswer, JoinRequest};

use super::cluster::texts;
use super::{FromWire, Malformed, cluster_from, id_from, id_to, need};
use crate::pb;

fn role(number: i32) -> Result<Role, Malformed> {
    Role::from_wire(pb::Role::try_from(number).unwrap_or_default())
}

fn addresses(texts: Vec<String>) -> Result<Vec<Address>, Malformed> {
    texts.into_iter().map(|text| Address::new(text).map_err(|error| Malformed(error.to_string()))).collect()
}

fn reason(text: String, what: &str) -> Result<Reason, Malformed> {
    Reason::new(text).map_err(|error| Malformed(format!("{what}: {error}")))
}

fn life(field: Option<pb::Identity>) -> Result<Identity, Malformed> {
    need(field, "the life").map(Identity::from)
}

/// The name and the reason of an operator who vouches for something.
fn operator(word: Option<pb::OperatorWord>) -> Result<(Reason, Reason), Malformed> {
    let pb::OperatorWord { name, reason: why } = need(word, "the operator's word")?;
    Ok((reason(name, "the operator's name")?, reason(why, "the operator's reason")?))
}

/// The message of a join. Any other command is refused.
pub(crate) fn join_request(request: &JoinRequest) -> Result<pb::JoinRequest, Malformed> {
    let command = codec::decode(request.command.as_bytes()).map_err(|error| Malformed(error.to_string()))?;
    let Command::Join { node, role, addresses, disk, boot, nonce, contract, left, hint } = command else {
        return Err(Malformed("only a join may be asked for without being a member".into()));
    };
    Ok(pb::JoinRequest {
        cluster: request.cluster.map(|cluster| id_to(cluster.get())),
        timing: request.timing,
        node: node.get(),
        role: pb::Role::from(role).into(),
        addresses: texts(&addresses),
        disk: Some(disk.into()),
        boot: id_to(boot.get()),
        nonce: id_to(nonce.get()),
        contract: Some(contract.into()),
        left: left.map(Incarnation::get),
        hint: hint.map(|hint| hint.to_string()),
    })
}

/// A join from a message, in its envelope.
pub(crate) fn join_command(request: pb::JoinRequest) -> Result<JoinRequest, Malformed> {
    let pb::JoinRequest { cluster, timing, node, role: number, addresses: at, disk, boot, nonce, contract, left, hint } =
        request;
    let hint = hint.map(FenceHint::new).transpose();
    let command = Command::Join {
        node: NodeId::new(node),
        role: role(number)?,
        addresses: addresses(at)?,
        disk: Disk::from_wire(need(disk, "the disk")?)?,
        boot: BootId::new(id_from(&boot, "the boot id")?),
        nonce: Nonce::new(id_from(&nonce, "the nonce")?),
        contract: Contract::from_wire(need(contract, "the contract")?)?,
        left: left.map(Incarnation::new),
        hint: hint.map_err(|error| Malformed(error.to_string()))?,
    };
    let bytes = codec::encode(&command).map_err(|error| Malformed(error.to_string()))?;
    Ok(JoinRequest { cluster: cluster_from(cluster)?, command: Payload::new(bytes), timing })
}

impl From<JoinAnswer> for pb::JoinResponse {
    fn from(JoinAnswer { cluster, who, revision }: JoinAnswer) -> Self {
        Self { cluster: id_to(cluster.get()), who: Some(who.into()), revision: revision.get() }
    }
}

impl FromWire<pb::JoinResponse> for JoinAnswer {
    fn from_wire(pb::JoinResponse { cluster, who, revision }: pb::JoinResponse) -> Result<Self, Malformed> {
        let cluster = ClusterId::new(id_from(&cluster, "the cluster id")?);
        Ok(Self { cluster, who: life(who)?, revision: Revision::new(revision) })
    }
}

impl FromWire<pb::SetRoleRequest> for Command {
    fn from_wire(request: pb::SetRoleRequest) -> Result<Self, Malformed> {
        Ok(Self::SetRole { node: NodeId::new(request.node), role: role(request.role)?, by: None })
    }
}

impl FromWire<pb::SetAddressesRequest> for Command {
    fn from_wire(request: pb::SetAddressesRequest) -> Result<Self, Malformed> {
        Ok(Self::SetAddresses { node: NodeId::new(request.node), addresses: addresses(request.addresses)?, by: None })
    }
}

impl FromWire<pb::RemoveRequest> for Command {
    fn from_wire(request: pb::RemoveRequest) -> Result<Self, Malformed> {
        Ok(Self::Remove { node: NodeId::new(request.node), by: None })
    }
}

impl FromWire<pb::OrderFenceRequest> for Command {
    fn from_wire(request: pb::OrderFenceRequest) -> Result<Self, Malformed> {
        let cause = Cause::Requested { reason: reason(request.reason, "the reason of a fence order")?, by: None };
        // An operator's order is not a leader's conclusion, so it is not bound to an activation.
        Ok(Self::OrderFence { target: life(request.target)?, cause, under: None })
    }
}

impl FromWire<pb::ConfirmFenceRequest> for Command {
    fn from_wire(request: pb::ConfirmFenceRequest) -> Result<Self, Malformed> {
        let (name, reason) = operator(request.word)?;
        let confirmation = Confirmation::Operator { name, reason, by: None };
        Ok(Self::ConfirmFence { order: FenceId::new(request.order), target: life(request.target)?, confirmation })
    }
}

impl FromWire<pb::VouchRequest> for Command {
    fn from_wire(request: pb::VouchRequest) -> Result<Self, Malformed> {
        let (name, reason) = operator(request.word)?;
        Ok(Self::Vouch { target: life(request.target)?, name, reason, by: None })
    }
}

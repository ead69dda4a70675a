//! The gRPC service Cluster: decodes what clients and operators ask, and passes it to the [`ClientService`]; a
//! join goes to the [`PeerService`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use quorate_membership::{Command, NodeId, Principal, Revision, Role};
use quorate_raft_core::{ClientService, Filter, PeerService, Refusal, Service};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::convert::{self, FromWire};
use crate::enrollment::{Grants, Invite, InviteError, invite};
use crate::grpc_errors::{command_failed, hand_over_failed, refused, revision_ahead};
use crate::pb;
use crate::pb::cluster_server::Cluster;
use crate::places::{OpenConnections, Places};
use crate::rights;
use crate::standing::with_standing;
use crate::tls::{CallerRole, Tls};

#[derive(Clone)]
pub(crate) struct ClusterService {
    service: Arc<dyn ClientService>,
    /// What answers a node that asks to join.
    peers: Arc<dyn PeerService>,
    /// Whose certificate the connection has shown; `None` without TLS.
    role: Option<CallerRole>,
    grants: Grants,
    places: Places,
    stop: CancellationToken,
}

impl ClusterService {
    pub(crate) fn new(service: Arc<dyn Service>, tls: Option<Tls>, places: Places, stop: CancellationToken) -> Self {
        let grants = Grants::new(service.clone(), tls);
        Self { service: service.clone(), peers: service, role: None, grants, places, stop }
    }

    /// The service of one connection, whose caller is this one. It passes the calls of nodes to `peers`.
    pub(crate) fn of(&self, role: Option<CallerRole>, peers: Arc<dyn PeerService>) -> Self {
        Self { role, peers, ..self.clone() }
    }

    /// Who asks, for the log.
    fn asker(&self) -> Result<Option<Principal>, Status> {
        rights::principal(self.role.as_ref()).map_err(|refusal| refused(&refusal))
    }

    async fn command<Q>(&self, request: Request<Q>) -> Result<Response<pb::CommandResponse>, Status>
    where
        Command: FromWire<Q>,
    {
        let command = Command::from_wire(request.into_inner()).map_err(|malformed| refused(&malformed.into()))?;
        rights::in_own_name(self.role.as_ref(), &command).map_err(|refusal| refused(&refusal))?;
        let command = command.asked_by(self.asker()?);
        let outcome = self.service.command(command).await.map_err(|error| command_failed(&error))?;
        Ok(Response::new(pb::CommandResponse { revision: outcome.revision.get() }))
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    type EventsStream = BoxStream<'static, Result<pb::EventsResponse, Status>>;

    async fn status(&self, request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let pb::StatusRequest { history_limit } = request.into_inner();
        let mut status = convert::status(&self.service.view(), history_limit);
        if let Some(local) = &mut status.local {
            let open = |count| u32::try_from(count).unwrap_or(u32::MAX);
            let OpenConnections { clients, peers, operators, on_trial } = self.places.open();
            let (clients, peers, operators) = (open(clients), open(peers), open(operators));
            local.plaintext = self.grants.tls().is_none();
            local.certificate_left_s = self.grants.tls().map(|tls| tls.valid_for().as_secs());
            local.connections = Some(pb::Connections { clients, peers, operators, on_trial: open(on_trial) });
        }
        Ok(Response::new(status))
    }

    async fn members(&self, _: Request<pb::MembersRequest>) -> Result<Response<pb::MembersResponse>, Status> {
        Ok(Response::new(convert::members(&self.service.view().cluster)))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let join = convert::join_command(request.into_inner()).map_err(|malformed| refused(&malformed.into()))?;
        let answer = self.peers.join(join).await.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(answer.into()))
    }

    async fn invite(&self, request: Request<pb::InviteRequest>) -> Result<Response<pb::InviteResponse>, Status> {
        let pb::InviteRequest { node, valid_ms, .. } = *request.get_ref();
        let role = request.get_ref().role();
        let role = Role::from_wire(role).map_err(|malformed| refused(&malformed.into()))?;
        let whom = Invite { node: node.map(NodeId::new), role, valid: Duration::from_millis(valid_ms) };
        let not_managed = || refused(&Refusal::NotAllowed(InviteError::NotManaged.to_string()));
        let tls = self.grants.tls().ok_or_else(not_managed)?;
        let token = invite(&*self.service, tls, whom, self.asker()?).await.map_err(|error| match error {
            InviteError::Propose(error) => command_failed(&error),
            other => refused(&Refusal::NotAllowed(other.to_string())),
        })?;
        Ok(Response::new(pb::InviteResponse { token: token.to_string(), node: token.node().get() }))
    }

    async fn enroll(&self, request: Request<pb::EnrollRequest>) -> Result<Response<pb::CertificateResponse>, Status> {
        self.grants.enroll(request.into_inner()).await.map(Response::new)
    }

    async fn certify(&self, request: Request<pb::CertifyRequest>) -> Result<Response<pb::CertificateResponse>, Status> {
        self.grants.certify(self.role.as_ref(), request.into_inner()).await.map(Response::new)
    }

    async fn share_authority(
        &self,
        _: Request<pb::ShareAuthorityRequest>,
    ) -> Result<Response<pb::ShareAuthorityResponse>, Status> {
        self.grants.share(self.role.as_ref()).await.map(Response::new)
    }

    async fn set_role(&self, request: Request<pb::SetRoleRequest>) -> Result<Response<pb::CommandResponse>, Status> {
        self.command(request).await
    }

    async fn set_addresses(
        &self,
        request: Request<pb::SetAddressesRequest>,
    ) -> Result<Response<pb::CommandResponse>, Status> {
        self.command(request).await
    }

    async fn remove(&self, request: Request<pb::RemoveRequest>) -> Result<Response<pb::CommandResponse>, Status> {
        self.command(request).await
    }

    async fn order_fence(
        &self,
        request: Request<pb::OrderFenceRequest>,
    ) -> Result<Response<pb::CommandResponse>, Status> {
        self.command(request).await
    }

    async fn confirm_fence(
        &self,
        request: Request<pb::ConfirmFenceRequest>,
    ) -> Result<Response<pb::CommandResponse>, Status> {
        self.command(request).await
    }

    async fn vouch(&self, request: Request<pb::VouchRequest>) -> Result<Response<pb::CommandResponse>, Status> {
        self.command(request).await
    }

    async fn hand_over(&self, request: Request<pb::HandOverRequest>) -> Result<Response<pb::HandOverResponse>, Status> {
        let to = request.into_inner().to.map(NodeId::new);
        let leader = self.service.hand_over(to).await.map_err(|error| hand_over_failed(&error))?;
        Ok(Response::new(pb::HandOverResponse { leader: leader.get() }))
    }

    async fn events(&self, request: Request<pb::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let after = Revision::new(request.into_inner().after_revision);
        let events =
            self.service.events_since(after, Filter::all()).map(|item| convert::item(&item).map_err(revision_ahead));
        let events = with_standing(self.service.clone(), events, |standing| {
            Ok(pb::EventsResponse { item: Some(pb::events_response::Item::Standing(standing)) })
        });
        Ok(Response::new(events.take_until(self.stop.clone().cancelled_owned()).boxed()))
    }
}

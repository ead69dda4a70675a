//! Routes each call from the network to its service, with a limit on its size and on its time.
//!
//! ```text
//!   /quorate.v1.Raft/Append, AppendStream ──▶ RaftService, messages of 16 MiB
//!   /quorate.v1.Raft/…                    ──▶ RaftService, messages of 4 MiB
//!   /quorate.v1.Cluster/…                 ──▶ ClusterService, messages of 4 MiB
//!   /quorate.v1.Store/…                   ──▶ StoreService, messages of 4 MiB
//!   anything else                         ──▶ Refusal::Malformed
//! ```
//!
//! Each answer to a client carries the id of the cluster in the header `quorate-cluster`. A client that sends it back is
//! refused by every other cluster, so that it never mixes the revisions of two.
//!
//! A call that tonic itself refuses (too large, not protobuf, no such method) becomes a [`Refusal::Malformed`] here. tonic
//! refuses before any service sees the call, so the caller may know that nothing changed.
//!
//! [`Refusal::Malformed`]: quorate_raft_core::Refusal::Malformed

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use quorate_membership::{ClusterId, NodeId};
use quorate_raft_core::{ClientService, ClientServiceExt, Local, PeerService, Refusal, Service};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service as _;

use crate::cluster_service::ClusterService;
use crate::grpc_errors::{malformed, refused};
use crate::of_connection::OfConnection;
use crate::pb::cluster_server::{self, ClusterServer};
use crate::pb::raft_server::{self, RaftServer};
use crate::pb::store_server::{self, StoreServer};
use crate::places::{Place, Places};
use crate::raft_service::RaftService;
use crate::rights;
use crate::settings::{APPEND_LIMIT, MESSAGE_LIMIT, ServerSettings};
use crate::store_service::StoreService;
use crate::tls::{CallerRole, Tls};

/// The header with the id of the cluster: 32 hexadecimal digits.
const CLUSTER: &str = "quorate-cluster";

/// The largest message of a machine without a certificate, in bytes.
const STRANGER_LIMIT: usize = 16 << 10;

/// How often it is looked whether a node that is connected was removed.
const LOOK: Duration = Duration::from_secs(5);

/// How much sooner than at its deadline a client has its answer: an eighth of it, and at most so much.
const SOONER: Duration = Duration::from_millis(500);

/// The services behind every connection. Clones share them.
#[derive(Clone)]
pub(crate) struct Router {
    service: Arc<dyn ClientService>,
    peers: Arc<dyn PeerService>,
    calls: RaftService,
    members: ClusterService,
    stores: StoreService,
    /// The cluster of the node, once it has one. It never changes.
    cluster_id: Arc<OnceLock<ClusterId>>,
    /// The place of the connection that this copy serves.
    place: Option<Arc<Place>>,
    /// What its caller may do; `None`: everything.
    role: Option<CallerRole>,
    raft: RaftServer<RaftService>,
    log: RaftServer<RaftService>,
    cluster: ClusterServer<ClusterService>,
    store: StoreServer<StoreService>,
    settings: ServerSettings,
}

impl Router {
    pub(crate) fn new(
        service: Arc<dyn Service>,
        settings: ServerSettings,
        tls: Option<Tls>,
        places: Places,
        stop: CancellationToken,
    ) -> Self {
        let calls = RaftService::new(service.clone(), settings, stop.clone());
        let raft = Arc::new(calls.clone());
        let members = ClusterService::new(service.clone(), tls, places, stop.clone());
        let cluster = ClusterServer::new(members.clone());
        let stores = StoreService::new(service.clone(), settings, stop);
        let store = StoreServer::new(stores.clone());
        Self {
            service: service.clone(),
            peers: service,
            calls,
            members,
            stores,
            cluster_id: Arc::default(),
            place: None,
            role: None,
            raft: RaftServer::from_arc(raft.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            log: RaftServer::from_arc(raft).max_decoding_message_size(APPEND_LIMIT),
            cluster: cluster.max_decoding_message_size(MESSAGE_LIMIT),
            store: store.max_decoding_message_size(MESSAGE_LIMIT),
            settings,
        }
    }

    /// The router of the connection in this place.
    pub(crate) fn at(&self, place: Arc<Place>, role: Option<CallerRole>) -> Self {
        let of_peers: Arc<dyn PeerService> = Arc::new(OfConnection {
            service: self.peers.clone(),
            state: self.service.clone(),
            place: place.clone(),
            role: role.clone(),
        });
        let raft = Arc::new(self.calls.passing_to(of_peers.clone()));
        let cluster = ClusterServer::new(self.members.of(role.clone(), of_peers));
        let store = StoreServer::new(self.stores.of(role.clone()));
        // Nobody knows yet who asks for a first certificate, and little is enough for that.
        let limit = if role == Some(CallerRole::Joiner) { STRANGER_LIMIT } else { MESSAGE_LIMIT };
        Self {
            place: Some(place),
            role,
            store: store.max_decoding_message_size(MESSAGE_LIMIT),
            cluster: cluster.max_decoding_message_size(limit),
            raft: RaftServer::from_arc(raft.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            log: RaftServer::from_arc(raft).max_decoding_message_size(APPEND_LIMIT),
            ..self.clone()
        }
    }

    /// What answers other nodes.
    pub(crate) fn peers(&self) -> Arc<dyn PeerService> {
        self.peers.clone()
    }

    /// Whether the caller on this connection may make this call.
    fn allows(&self, service: &str, method: &str, for_clients: bool) -> Result<(), Refusal> {
        rights::check(self.settings.port_use, self.role.as_ref(), service, method)?;
        let Some(CallerRole::Node(node)) =
            self.role.as_ref().filter(|_| for_clients && !rights::is_of_a_stranger(method))
        else {
            return Ok(());
        };
        self.service.looked(|state| rights::of_member(state, *node))
    }

    /// Whether this node was removed, as far as is known here.
    pub(crate) fn is_retired(&self, node: NodeId) -> bool {
        self.service.looked(|state| state.retired().contains(&node))
    }

    /// Returns once that is so.
    pub(crate) async fn retired(&self, node: NodeId) {
        while !self.is_retired(node) {
            sleep(LOOK).await;
        }
    }

    fn cluster_id(&self) -> Option<ClusterId> {
        let look = || self.service.view().cluster.id().map(|id| *self.cluster_id.get_or_init(|| id));
        self.cluster_id.get().copied().or_else(look)
    }
}

impl hyper::service::Service<Request<Incoming>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).unwrap_or_default();
        let for_clients = matches!(service, cluster_server::SERVICE_NAME | store_server::SERVICE_NAME);
        let cluster = if for_clients { self.cluster_id() } else { None };
        let allowed = self.allows(service, method, for_clients).map_err(|refusal| refused(&refusal));
        if let Err(refused) = allowed.and_then(|()| meant_for(request.headers(), cluster, for_clients)) {
            return Box::pin(async { Ok(refused.into_http()) });
        }
        let limit = match method {
            "InstallSnapshot" => self.settings.snapshot_timeout,
            // The wait for a lock has its own limit, and ends with an answer.
            "Lock" => self.settings.max_lock_wait + self.settings.call_timeout,
            _ => self.settings.call_timeout,
        };
        let limit = limit_of(grpc_timeout(request.headers()), limit, for_clients && method != "Lock");
        let node = self.service.clone();
        // A refused call has its status in the header; one that a peer may make, and a join that was granted, has not.
        let by_peer =
            service == raft_server::SERVICE_NAME || (service, method) == (cluster_server::SERVICE_NAME, "Join");
        let place = self.place.clone().filter(|_| by_peer);
        let answer = match (service, method) {
            (raft_server::SERVICE_NAME, "Append" | "AppendStream") => self.log.clone().call(request),
            (raft_server::SERVICE_NAME, _) => self.raft.clone().call(request),
            (cluster_server::SERVICE_NAME, _) => self.cluster.clone().call(request),
            (store_server::SERVICE_NAME, _) => self.store.clone().call(request),
            _ => {
                let status =
                    malformed(format!("this server has no method {path:.100}; correct the address, or upgrade it"));
                return Box::pin(async { Ok(status.into_http()) });
            }
        };
        // The limit covers the time until the answer begins. It does not end a stream that has begun to answer.
        Box::pin(async move {
            match timeout(limit, answer).await {
                Ok(Ok(response)) => {
                    if let Some(place) = place.filter(|_| Status::from_header_map(response.headers()).is_none()) {
                        place.is_of_a_peer();
                    }
                    Ok(with_cluster(with_details(response), cluster))
                }
                Ok(Err(never)) => match never {},
                Err(_) => Ok(Status::deadline_exceeded(overdue(limit, &node.view().local)).into_http()),
            }
        })
    }
}

/// How long a call may take whose client waits as long as `asked`. A client gives up by itself at its deadline, and then
/// reads no answer: it has one a little `sooner`. But not where that would withdraw a request for a lock.
pub(crate) fn limit_of(asked: Option<Duration>, longest: Duration, sooner: bool) -> Duration {
    let asked = asked.map(|asked| if sooner { asked - (asked / 8).min(SOONER) } else { asked });
    asked.map_or(longest, |asked| asked.min(longest))
}

/// Why a call was not answered in time, as far as this node knows.
pub(crate) fn overdue(limit: Duration, local: &Local) -> String {
    let seen = match local.leader {
        None => "no leader is known here; is a majority of the voters up?".into(),
        Some(leader) if leader == local.node && !local.quorate => format!("{leader} leads, and no majority answers it"),
        Some(leader) => format!("{leader} leads"),
    };
    format!("the call had not finished within {limit:?}; it may still take effect. As seen here, {seen}")
}

/// Whether the call is meant for this cluster. A caller that names none asks whichever it has found.
fn meant_for(headers: &HeaderMap, ours: Option<ClusterId>, for_clients: bool) -> Result<(), Status> {
    let Some(named) = headers.get(CLUSTER).filter(|_| for_clients) else { return Ok(()) };
    let text = String::from_utf8_lossy(named.as_bytes());
    let theirs = text.parse().map_err(|error| malformed(format!("the header {CLUSTER}: {error}")))?;
    match ours {
        Some(ours) if ours == theirs => Ok(()),
        Some(ours) => Err(refused(&Refusal::OtherCluster { ours, theirs })),
        None => Err(refused(&Refusal::NotReady)),
    }
}

fn with_cluster(mut response: Response<Body>, cluster: Option<ClusterId>) -> Response<Body> {
    if let Some(value) = cluster.and_then(|id| HeaderValue::from_str(&id.to_string()).ok()) {
        response.headers_mut().insert(CLUSTER, value);
    }
    response
}

/// Turns an error of tonic's own into a refusal. The errors of the services have their details already.
fn with_details(response: Response<Body>) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let by_tonic = status.details().is_empty();
    match status.code() {
        Code::OutOfRange if by_tonic => {
            malformed(format!("{}; send less in one message", status.message())).into_http()
        }
        Code::Internal | Code::InvalidArgument | Code::Unimplemented if by_tonic => {
            malformed(format!("{}; both sides should run the same version", status.message())).into_http()
        }
        _ => response,
    }
}

/// The header `grpc-timeout`, the caller's own limit: up to eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_grpc_writes_it_and_an_invalid_one_is_ignored() {
        let read = |text: &str| {
            grpc_timeout(&HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                text.parse().unwrap(),
            )]))
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for invalid in ["", "m", "5", "123456789n", "-1S", "+1S", "1x", "1é", "é"] {
            assert_eq!(read(invalid), None, "{invalid}");
        }
    }
}

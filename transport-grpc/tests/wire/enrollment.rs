//! Certificates by the cluster's own authority: what a machine without one may ask, and what a member may.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use prost::Message;
use quorate_membership::{
    Change, Check, ClusterState, Command, Holder, Key, Nonce, Reason, Request, Session, SessionId, Value, apply,
};
use quorate_raft_core::{Local, View};
use quorate_transport_grpc::tls::{Authority, CallerRole, Tls};
use quorate_transport_grpc::{Server, ServerSettings};
use rcgen::{CertificateParams, KeyPair};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::{Code, Status};

use crate::fake::*;
use crate::pb;
use crate::pb::cluster_client::ClusterClient;
use crate::pb::raft_client::RaftClient;
use crate::pb::store_client::StoreClient;
use crate::pki::*;
use crate::refusals::pb_caller;
use crate::stored::kept;
use crate::values::*;

const SECRET: [u8; 32] = [0x5c; 32];

/// A server of n2 whose cluster has an authority of its own, and what that authority is.
struct Own {
    fake: Arc<Fake>,
    server: Server,
    authority: Authority,
    _folder: tempfile::TempDir,
}

/// The authority that a node keeps in its data folder.
fn authority_in(data: &Path, tls: &Tls) -> Authority {
    let read = |name: &str| std::fs::read_to_string(data.join("tls").join(name)).unwrap();
    Authority::from_pem(&tls.subject().cluster, &read("authority.pem"), &read("authority.key")).unwrap()
}

impl Own {
    fn start(settings: ServerSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::found(folder.path(), n(2)).unwrap();
        let authority = authority_in(folder.path(), &tls);
        let fake = Fake::new();
        fake.set(|script| script.view = View::new(Arc::new(invited(None)), Local::unknown(n(2))));
        let server = serve_tls_with(&fake, &tls, settings);
        Self { fake, server, authority, _folder: folder }
    }

    async fn as_nobody(&self) -> Plain {
        without_certificate(self.server.local_addr(), &self.authority).await.unwrap()
    }
}

/// A connection that trusts this authority and shows nothing.
async fn without_certificate(to: SocketAddr, of: &Authority) -> std::io::Result<Plain> {
    dial_as(to, of.certificate(), None, &format!("{}.quorate.internal", of.cluster())).await
}

fn key() -> Key {
    Key::new("quorate/invitations/n9").unwrap()
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&SECRET).unwrap()
}

/// [`kept`], and n9 is invited; a machine with this key has used the token.
fn invited(used_by: Option<&[u8]>) -> ClusterState {
    let (mut state, _) = kept();
    let at = |state: &ClusterState| state.revision().get() + 1;
    let request = |nonce| Request { nonce: Nonce::new(nonce), since: state.revision() };
    let session = Session { ttl: DAY / 24, lock_delay: Duration::ZERO, label: Reason::new("n9").unwrap(), owner: None };
    let open = Command::OpenSession { request: request(501), session };
    let session = SessionId::new(at(&state));
    let public_key = pair().public_key().as_ref().to_vec().into();
    let used_by_sha256 = used_by.map(|key| key.to_vec().into());
    let invitation = pb::Invitation { public_key, used_by_sha256, session: session.get() };
    let put = Change::Put {
        key: key(),
        value: Value::from(invitation.encode_to_vec()),
        bound: Some(Holder::Session(session)),
    };
    let write = Command::Write { request: request(502), checks: vec![], changes: vec![put] };
    for command in [open, write] {
        let revision = quorate_membership::Revision::new(at(&state));
        apply(&mut state, revision, &command).unwrap();
    }
    state
}

fn request() -> Vec<u8> {
    request_of(&KeyPair::generate().unwrap())
}

fn request_of(key: &KeyPair) -> Vec<u8> {
    let params = CertificateParams::new(["anything.example.net".to_owned()]).unwrap();
    params.serialize_request(key).unwrap().der().to_vec()
}

impl Own {
    /// A request that is signed with this secret, for this node.
    fn enroll(&self, node: u64, secret: [u8; 32], request: Vec<u8>) -> pb::EnrollRequest {
        let pair = Ed25519KeyPair::from_seed_unchecked(&secret).unwrap();
        let signed =
            [b"quorate enroll\0", self.authority.cluster().as_bytes(), b"\0", &node.to_be_bytes(), &request[..]];
        let signature = pair.sign(&signed.concat()).as_ref().to_vec().into();
        pb::EnrollRequest { node, signature, request: request.into() }
    }
}

fn is_refused(status: &Status, why: &str) {
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains(why), "{status}");
}

#[tokio::test]
async fn who_shows_no_certificate_may_ask_for_one_and_for_nothing_else() {
    let own = Own::start(ServerSettings::default());
    let plain = own.as_nobody().await;
    let origin = || Uri::from_static("http://anybody");
    let mut cluster = ClusterClient::with_origin(plain.clone(), origin());
    let why = "needs a certificate of this cluster";
    is_refused(&cluster.status(pb::StatusRequest::default()).await.unwrap_err(), why);
    is_refused(&cluster.invite(pb::InviteRequest::default()).await.unwrap_err(), why);
    is_refused(&cluster.certify(pb::CertifyRequest::default()).await.unwrap_err(), why);
    is_refused(&cluster.share_authority(pb::ShareAuthorityRequest {}).await.unwrap_err(), why);
    is_refused(&cluster.join(pb::JoinRequest::default()).await.unwrap_err(), why);
    let mut store = StoreClient::with_origin(plain.clone(), origin());
    is_refused(&store.get(pb::GetRequest { key: "a".into(), reading: None }).await.unwrap_err(), why);
    let mut raft = RaftClient::with_origin(plain.clone(), origin());
    let vote = pb::VoteRequest { caller: Some(pb_caller()), ballot: None, last: None, transfer: false };
    is_refused(&raft.vote(vote).await.unwrap_err(), why);
    // Nor with a token that is none.
    is_refused(
        &cluster.enroll(own.enroll(9, [0; 32], request())).await.unwrap_err(),
        "is not that of the open invitation of n9",
    );
    is_refused(&cluster.enroll(own.enroll(8, SECRET, request())).await.unwrap_err(), "n8 has no open invitation");
    for (request, why) in
        [(vec![0; 5000], "more than 4096"), (vec![1, 2, 3], "cannot be made"), (vec![], "cannot be made")]
    {
        let status = cluster.enroll(own.enroll(9, SECRET, request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(why), "{status}");
    }
    assert!(
        !own.fake.calls().iter().any(|call| matches!(call, Call::Once(..) | Call::Command(_))),
        "nothing was proposed"
    );
    // A certificate of another authority is no better than before.
    let other = blue();
    let issued = other.issue(node(9), &[], DAY).unwrap();
    assert!(dial(own.server.local_addr(), own.authority.certificate(), Some(&issued)).await.is_err());
}

#[tokio::test]
async fn the_log_has_one_machine_first_and_that_one_gets_a_certificate_of_its_node() {
    let own = Own::start(ServerSettings::default());
    let mut cluster = ClusterClient::with_origin(own.as_nobody().await, Uri::from_static("http://anybody"));
    let answer = cluster.enroll(own.enroll(9, SECRET, request())).await.unwrap().into_inner();
    assert_eq!(answer.authority, own.authority.certificate());
    let calls = own.fake.calls();
    let Some(Call::Once(None, Command::Write { checks, changes, .. })) = calls.last() else { panic!("{calls:?}") };
    let version = invited(None).store().record(key()).map(|record| record.version);
    assert_eq!(checks, &[Check::Version { key: key(), version }], "of two machines, one is too late");
    // It stays when the invitation ends, so that nobody else is given the number.
    let [Change::Put { value, bound: None, .. }] = changes.as_slice() else { panic!("{changes:?}") };
    assert!(pb::Invitation::decode(value.as_bytes()).unwrap().used_by_sha256.is_some());
    // The names are those of n9, whatever the machine has asked for.
    let shown = CertificateDer::from_pem_slice(answer.certificate.as_bytes()).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&shown).unwrap();
    let names = format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap().value.general_names);
    assert!(names.contains(&format!("n9.{}.quorate.internal", own.authority.cluster())), "{names}");
    assert!(!names.contains("example.net"), "{names}");
}

#[tokio::test]
async fn a_machine_that_lost_the_answer_is_given_another_and_a_second_machine_is_not() {
    let own = Own::start(ServerSettings::default());
    let key = KeyPair::generate().unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, key.public_key_raw());
    let state = invited(Some(hash.as_ref()));
    own.fake.set(|script| script.view = View::new(Arc::new(state), Local::unknown(n(2))));
    let mut cluster = ClusterClient::with_origin(own.as_nobody().await, Uri::from_static("http://anybody"));
    cluster.enroll(own.enroll(9, SECRET, request_of(&key))).await.unwrap();
    let second = cluster.enroll(own.enroll(9, SECRET, request())).await.unwrap_err();
    is_refused(&second, "was used by another machine");
    // What was signed for another request, which somebody on the way has replaced.
    let replaced = pb::EnrollRequest { request: request().into(), ..own.enroll(9, SECRET, request_of(&key)) };
    is_refused(&cluster.enroll(replaced).await.unwrap_err(), "is not that of the open invitation");
    // Once the time of the invitation has ended, a machine that has not joined gets no other certificate.
    let mut state = invited(Some(hash.as_ref()));
    let session = state.store().sessions().map(|(id, _)| id).max().unwrap();
    let at = quorate_membership::Revision::new(state.revision().get() + 1);
    apply(&mut state, at, &Command::CloseSession { session }).unwrap();
    // The record is not bound to it once it was used.
    let write = Command::Write {
        request: Request { nonce: Nonce::new(503), since: at },
        checks: vec![],
        changes: vec![used(&hash)],
    };
    apply(&mut state, quorate_membership::Revision::new(at.get() + 1), &write).unwrap();
    own.fake.set(|script| script.view = View::new(Arc::new(state), Local::unknown(n(2))));
    let late = cluster.enroll(own.enroll(9, SECRET, request_of(&key))).await.unwrap_err();
    is_refused(&late, "which has not joined in time");
    assert!(
        !own.fake.calls().iter().any(|call| matches!(call, Call::Once(..) | Call::Command(_))),
        "nothing was proposed"
    );
}

/// The record of n9 after its token was used by this key.
fn used(key: &ring::digest::Digest) -> Change {
    let public_key = pair().public_key().as_ref().to_vec().into();
    let used = pb::Invitation { public_key, used_by_sha256: Some(key.as_ref().to_vec().into()), session: 1 };
    Change::Put { key: self::key(), value: Value::from(used.encode_to_vec()), bound: None }
}

#[tokio::test]
async fn voters_are_given_the_authority_and_nobody_else() {
    let own = Own::start(ServerSettings::default());
    let (state, _) = kept();
    let roles: Vec<_> = state.members().map(|(node, member)| (node, member.role)).collect();
    let as_role = |role| {
        let issued = own.authority.issue(role, &[], DAY).unwrap();
        let (to, trust) = (own.server.local_addr(), own.authority.certificate().to_owned());
        let name = format!("{}.quorate.internal", own.authority.cluster());
        async move {
            ClusterClient::with_origin(
                dial_as(to, &trust, Some(&issued), &name).await.unwrap(),
                Uri::from_static("http://anybody"),
            )
        }
    };
    for (node, role) in roles {
        let mut client = as_role(CallerRole::Node(node)).await;
        let shared = client.share_authority(pb::ShareAuthorityRequest {}).await;
        match role {
            quorate_membership::Role::Voter => {
                assert_eq!(shared.unwrap().into_inner().key, own.authority.key());
                // And every member its own next certificate.
                client.certify(pb::CertifyRequest { request: request().into() }).await.unwrap();
            }
            _ => is_refused(&shared.unwrap_err(), "only voters keep the authority"),
        }
    }
    for role in [operator(), client()] {
        let mut client = as_role(role).await;
        is_refused(&client.share_authority(pb::ShareAuthorityRequest {}).await.unwrap_err(), "is for a node");
    }
    let mut bob = as_role(client()).await;
    is_refused(&bob.invite(pb::InviteRequest::default()).await.unwrap_err(), "is for an operator");
}

#[tokio::test]
async fn the_records_of_invitations_are_written_by_nobody_outside() {
    let fake = Fake::new();
    let server = serve(&fake).await;
    let mut client = store(server.local_addr()).await;
    let put = pb::Put { key: "quorate/invitations/n9".into(), value: "mine".into(), bound: None };
    for change in [pb::change::Change::Put(put), pb::change::Change::Delete("quorate/invitations/n9".into())] {
        let changes = vec![pb::Change { change: Some(change) }];
        let refused = client.write(pb::WriteRequest { changes, ..pb::WriteRequest::default() }).await.unwrap_err();
        is_refused(&refused, "are quorate's own");
    }
    assert_eq!(fake.calls(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_without_a_certificate_keep_nobody_out_and_do_not_stay() {
    let trial = Duration::from_secs(1);
    let own = Own::start(ServerSettings {
        max_connections: 16,
        peer_reserve: 4,
        handshake_timeout: trial,
        ..Default::default()
    });
    let mut held = Vec::new();
    for _ in 0..40 {
        if let Ok(plain) = without_certificate(own.server.local_addr(), &own.authority).await {
            held.push(plain);
        }
    }
    let name = format!("{}.quorate.internal", own.authority.cluster());
    let issued = own.authority.issue(operator(), &[], DAY).unwrap();
    let operator = dial_as(own.server.local_addr(), own.authority.certificate(), Some(&issued), &name).await.unwrap();
    let mut operator = ClusterClient::with_origin(operator, Uri::from_static("http://anybody"));
    let open = async |operator: &mut ClusterClient<Plain>| {
        let status = operator.status(pb::StatusRequest::default()).await.unwrap().into_inner();
        status.local.unwrap().connections.unwrap()
    };
    assert!(open(&mut operator).await.on_trial <= 4);
    let gone = async {
        while open(&mut operator).await.on_trial > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIVENESS, gone).await.expect("they are closed after the time of a handshake");
    let issued = own.authority.issue(node(1), &[], DAY).unwrap().credentials(own.authority.certificate()).unwrap();
    let first = transport(Tls::new(issued).unwrap());
    assert_eq!(vote(&first, &peer(own.server.local_addr())).await, Ok(vote_answer()));
    drop(held);
}

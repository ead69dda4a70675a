//! An authority for each test, and connections that show what it issues.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use quorate_transport_grpc::tls::{Authority, CallerRole, Credentials, Issued, Tls};
use quorate_transport_grpc::{GrpcTransport, Server, ServerSettings};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::fake::*;
use crate::pb::cluster_client::ClusterClient;
use crate::values::*;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn node(number: u64) -> CallerRole {
    CallerRole::Node(n(number))
}

pub(crate) fn operator() -> CallerRole {
    CallerRole::Operator("alice".into())
}

pub(crate) fn client() -> CallerRole {
    CallerRole::Client("billing".into())
}

pub(crate) fn blue() -> Authority {
    Authority::new("blue").unwrap()
}

pub(crate) fn credentials(of: &Authority, role: CallerRole) -> Credentials {
    of.issue(role, &[], DAY).unwrap().credentials(of.certificate()).unwrap()
}

pub(crate) fn tls(of: &Authority, role: CallerRole) -> Tls {
    Tls::new(credentials(of, role)).unwrap()
}

pub(crate) fn transport(tls: Tls) -> GrpcTransport {
    GrpcTransport::over_tls(unhurried(), tls)
}

pub(crate) fn serve_tls(fake: &Arc<Fake>, tls: &Tls) -> Server {
    serve_tls_with(fake, tls, ServerSettings::default())
}

pub(crate) fn serve_tls_with(fake: &Arc<Fake>, tls: &Tls, settings: ServerSettings) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Server::start_with(listener, Arc::new(FakeService(fake.clone())), settings, Some(tls.clone())).unwrap()
}

/// A server of n2, whom all calls are for.
pub(crate) fn second(of: &Authority) -> (Arc<Fake>, Server) {
    let fake = Fake::new();
    let server = serve_tls(&fake, &tls(of, node(2)));
    (fake, server)
}

/// A connection as a program in another language would make it: trusts `roots`, shows `issued` if there is one.
pub(crate) async fn dial(to: SocketAddr, roots: &str, issued: Option<&Issued>) -> std::io::Result<Plain> {
    dial_as(to, roots, issued, "blue.quorate.internal").await
}

/// The same to the node of this name.
pub(crate) async fn dial_as(
    to: SocketAddr,
    roots: &str,
    issued: Option<&Issued>,
    name: &str,
) -> std::io::Result<Plain> {
    Plain::over(connect_as(to, roots, issued, name).await?).await
}

/// TLS to the node of this name, and nothing on it yet.
pub(crate) async fn connect_as(
    to: SocketAddr,
    roots: &str,
    issued: Option<&Issued>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut trusted = rustls::RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_slice(roots.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(trusted);
    let mut config = match issued {
        Some(Issued { certificate, key }) => {
            let shown = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            config.with_client_auth_cert(shown, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(to).await.unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

pub(crate) async fn outside_with(server: &Server, of: &Authority, role: CallerRole) -> ClusterClient<Plain> {
    let issued = of.issue(role, &[], DAY).unwrap();
    let plain = dial(server.local_addr(), of.certificate(), Some(&issued)).await.unwrap();
    ClusterClient::with_origin(plain, Uri::from_static("http://anybody"))
}

/// A certificate by this authority with names that it would not give.
pub(crate) fn signed_by(of: &Authority, names: &[&str]) -> Issued {
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    issuer.distinguished_name.push(DnType::CommonName, format!("quorate cluster {}", of.cluster()));
    let authority = Issuer::new(issuer, KeyPair::from_pem(&of.key()).unwrap());
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap().pem();
    Issued { certificate, key: key.serialize_pem() }
}

//! Mutual TLS 1.3: each side shows a certificate of the cluster's CA, and a node speaks only as itself.
//!
//! ```text
//!   dial n3 ──▶ "n3.<cluster>.quorate.internal"? ◀── certificate ── n3        an ordinary check of the name
//!        └──── certificate: n1 ────────────────────────────────────▶ n3        calls of n1 and of nobody else
//! ```
//!
//! Certificates can be replaced while the node runs: connections that are open stay, new ones show the new certificate. No
//! session is resumed, so each connection is checked against what is trusted when it opens. Whether a certificate has expired is
//! decided by the wall clock, as everywhere; nothing else here or in the cluster is.

mod authority;
mod credentials;
mod subject;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use quorate_membership::NodeId;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub use self::authority::{Authority, Issued};
pub use self::credentials::{Credentials, CredentialsError};
pub use self::subject::{CallerRole, Subject};

/// What HTTP/2 is called in the handshake (RFC 9113, section 3.2). Both sides insist on it.
const HTTP_2: &[u8] = b"h2";

/// The TLS of one process: for its server, and for its calls. Clones share it, and what replaces its certificate.
#[derive(Debug, Clone)]
pub struct Tls {
    current: Arc<RwLock<Arc<Current>>>,
}

#[derive(Debug)]
struct Current {
    subject: Subject,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Begins with these credentials.
    ///
    /// # Errors
    /// [`CredentialsError::Unfit`] if the key does not belong to the certificate.
    pub fn new(credentials: Credentials) -> Result<Self, CredentialsError> {
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(Current::new(credentials)?))) })
    }

    /// Shows and trusts what these credentials say, on each connection that opens from now on. Those that are open stay.
    ///
    /// # Errors
    /// [`CredentialsError::OtherSubject`] if they name another than the ones before, and [`CredentialsError::Unfit`]. The former
    /// stay in use.
    pub fn replace(&self, credentials: Credentials) -> Result<(), CredentialsError> {
        let next = Current::new(credentials)?;
        let mut current = self.current.write();
        if current.subject != next.subject {
            let (want, got) = (current.subject.to_string(), next.subject.to_string());
            return Err(CredentialsError::OtherSubject { want, got });
        }
        *current = Arc::new(next);
        Ok(())
    }

    /// Whom the own certificate names.
    pub fn subject(&self) -> Subject {
        self.current().subject.clone()
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().clone()
    }

    /// Begins TLS on a connection that was accepted. Returns it with the one that its certificate names.
    ///
    /// # Errors
    /// If it is not done `within` that time, if the certificate of the other side is missing, expired or not trusted, or if it
    /// names nobody or somebody of another cluster.
    pub(crate) async fn accept<T>(&self, io: T, within: Duration) -> io::Result<(server::TlsStream<T>, CallerRole)>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current();
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no TLS handshake within {within:?}"));
        let accepted = TlsAcceptor::from(current.server.clone()).accept(io);
        let stream = timeout(within, accepted).await.map_err(late)??;
        let (_, session) = stream.get_ref();
        let role = role_of(&current.subject.cluster, session.peer_certificates(), session.alpn_protocol());
        let role = role.map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
        Ok((stream, role))
    }

    /// Begins TLS on a connection to `node`, or to any node of the cluster.
    ///
    /// # Errors
    /// If the certificate of the other side is not that of the node, or not trusted, or if the other side refuses the own one
    /// (which may show only when the first call is made).
    pub(crate) async fn connect<T>(&self, node: Option<NodeId>, io: T) -> io::Result<client::TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current();
        let cluster = current.subject.cluster.clone();
        let name = match node {
            Some(node) => Subject { cluster, role: CallerRole::Node(node) }.dns_name(),
            None => Subject::any_node(&cluster),
        };
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        TlsConnector::from(current.client.clone()).connect(name, io).await
    }
}

/// Who is on the other side of a connection, whose certificate has been verified.
fn role_of(
    cluster: &str,
    certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>,
    protocol: Option<&[u8]>,
) -> Result<CallerRole, String> {
    if protocol != Some(HTTP_2) {
        return Err("the other side does not speak HTTP/2".into());
    }
    let certificate = certificates.and_then(|shown| shown.first()).ok_or("the other side shows no certificate")?;
    let subject = credentials::subject_of(certificate)?;
    if subject.cluster == cluster {
        Ok(subject.role)
    } else {
        Err(format!("the certificate is that of {subject}, and this is cluster `{cluster}`"))
    }
}

impl Current {
    fn new(credentials: Credentials) -> Result<Self, CredentialsError> {
        let unfit = |error: &dyn std::fmt::Display| CredentialsError::Unfit(error.to_string());
        let Credentials { roots, chain, key, subject } = credentials;
        // Passed by hand: a provider for the whole process is not a library's to install.
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| unfit(&error))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| unfit(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| unfit(&error))?;
        server.alpn_protocols = vec![HTTP_2.into()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| unfit(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unfit(&error))?;
        client.alpn_protocols = vec![HTTP_2.into()];
        client.resumption = Resumption::disabled();
        Ok(Self { subject, server: Arc::new(server), client: Arc::new(client) })
    }
}

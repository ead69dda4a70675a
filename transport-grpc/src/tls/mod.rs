//! Mutual TLS 1.3: each side shows a certificate of the cluster's CA, and a node speaks only as itself.
//!
//! ```text
//!   dial n3 ──▶ "n3.<cluster>.quorate.internal"? ◀── certificate ── n3        an ordinary check of the name
//!        └──── certificate: n1 ────────────────────────────────────▶ n3        calls of n1 and of nobody else
//! ```
//!
//! Certificates can be replaced while the node runs: what is called next goes over connections that show the new one. No session
//! is resumed. The server looks at the certificate of each open connection again every 30 s, and when what it trusts has changed,
//! and closes the connection of one that has expired or is not trusted any more. Whether a certificate has expired is decided by the
//! wall clock, as everywhere; nothing else here or in the cluster is.

mod authority;
mod credentials;
mod key_folder;
mod managed;
mod pinned;
mod subject;
mod token;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use quorate_membership::NodeId;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) use self::authority::key_hash;
pub use self::authority::{Authority, Issued};
pub use self::credentials::{Credentials, CredentialsError};
pub(crate) use self::key_folder::{KeyFolder, NODE_VALID};
pub(crate) use self::managed::Managed;
pub(crate) use self::pinned::Pinned;
pub use self::subject::{CallerRole, Subject};
pub(crate) use self::token::is_signed;
pub use self::token::{JoinToken, TokenError};

/// What HTTP/2 is called in the handshake (RFC 9113, section 3.2). Both sides insist on it.
const HTTP_2: &[u8] = b"h2";

/// How often the certificate of an open connection is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The TLS of one process: for its server, and for its calls. Clones share it, and what replaces its certificate.
#[derive(Debug, Clone)]
pub struct Tls {
    current: Arc<RwLock<Arc<Current>>>,
    /// How often the credentials were replaced.
    replaced: Arc<watch::Sender<u64>>,
    /// What belongs to an authority of the cluster's own; `None` if its certificates are made elsewhere.
    managed: Option<Arc<Managed>>,
}

/// What a caller has shown: its certificate and those between it and the authority, which were verified, and what it may do.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) role: CallerRole,
    chain: Vec<CertificateDer<'static>>,
}

#[derive(Debug)]
struct Current {
    subject: Subject,
    verifier: Arc<dyn ClientCertVerifier>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// When the own certificate expires.
    expires: UnixTime,
}

impl Tls {
    /// Begins with these credentials.
    ///
    /// # Errors
    /// [`CredentialsError::Unfit`] if the key does not belong to the certificate, or if the certificate has expired or is not
    /// trusted by these credentials themselves.
    pub fn new(credentials: Credentials) -> Result<Self, CredentialsError> {
        Self::with(credentials, None)
    }

    /// Begins with the authority of a new cluster, which is made in this data folder of its first node, with a certificate for that
    /// node. What is there already is used. Blocks on the disk.
    ///
    /// # Errors
    /// [`CredentialsError`] with the file that cannot be read or written. What was made is used the next time.
    pub fn found(data: &Path, node: NodeId) -> Result<Self, CredentialsError> {
        KeyFolder::below(data, node).found()?;
        Self::open(data, node)
    }

    /// Begins with what [`Self::found`], or a join token, has left in this data folder. Blocks on the disk.
    ///
    /// # Errors
    /// [`CredentialsError`] with the file that is missing or not usable, [`CredentialsError::OtherSubject`] for the keys of another
    /// node, and [`CredentialsError::Unfit`] for a certificate that has expired, unless this node keeps the authority.
    pub fn open(data: &Path, node: NodeId) -> Result<Self, CredentialsError> {
        let managed = Managed::open(KeyFolder::below(data, node))?;
        let credentials = managed.usable()?;
        Self::with(credentials, Some(Arc::new(managed)))
    }

    fn with(credentials: Credentials, managed: Option<Arc<Managed>>) -> Result<Self, CredentialsError> {
        let current = Arc::new(RwLock::new(Arc::new(Current::new(credentials, managed.is_some())?)));
        Ok(Self { current, replaced: Arc::new(watch::Sender::new(0)), managed })
    }

    /// What belongs to the cluster's own authority.
    pub(crate) fn managed(&self) -> Option<&Managed> {
        self.managed.as_deref()
    }

    /// Whether the cluster has an authority of its own, which makes and renews its certificates.
    pub fn is_managed(&self) -> bool {
        self.managed.is_some()
    }

    /// Whether this node keeps the key of the cluster's own authority, as every voter does.
    pub fn keeps_authority(&self) -> bool {
        self.managed().is_some_and(Managed::keeps)
    }

    /// As [`Authority::issue`], by the cluster's own authority, for operators and clients.
    ///
    /// # Errors
    /// [`CredentialsError::NoAuthority`] if this node does not keep it, and [`CredentialsError::Issue`] for the role of a node: nodes
    /// are invited.
    pub fn issue(&self, role: CallerRole, valid: Duration) -> Result<Issued, CredentialsError> {
        if let CallerRole::Node(node) = role {
            return Err(CredentialsError::Issue(format!("{node} gets its certificate with a join token; invite it")));
        }
        let managed = self.managed().ok_or(CredentialsError::NoAuthority)?;
        managed.with_authority(|authority| authority.issue(role, &[], valid)).ok_or(CredentialsError::NoAuthority)?
    }

    /// How long the own certificate is valid still, by the wall clock. Zero if it has expired.
    pub fn valid_for(&self) -> Duration {
        Duration::from_secs(self.current().expires.as_secs().saturating_sub(UnixTime::now().as_secs()))
    }

    /// Shows and trusts what these credentials say, on each connection that opens from now on. What is called next opens new ones.
    /// An open connection to this process is closed if the certificate that it has shown is not trusted any more.
    ///
    /// # Errors
    /// [`CredentialsError::OtherSubject`] if they name another than the ones before, and [`CredentialsError::Unfit`]. The former
    /// stay in use.
    pub fn replace(&self, credentials: Credentials) -> Result<(), CredentialsError> {
        let next = Current::new(credentials, self.managed.is_some())?;
        let mut current = self.current.write();
        if current.subject != next.subject {
            let (want, got) = (current.subject.to_string(), next.subject.to_string());
            return Err(CredentialsError::OtherSubject { want, got });
        }
        *current = Arc::new(next);
        drop(current);
        self.replaced.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Whom the own certificate names.
    pub fn subject(&self) -> Subject {
        self.current().subject.clone()
    }

    /// The node that the own certificate names.
    pub(crate) fn node(&self) -> Option<NodeId> {
        match self.current().subject.role {
            CallerRole::Node(node) => Some(node),
            CallerRole::Operator(_) | CallerRole::Client(_) | CallerRole::Joiner => None,
        }
    }

    /// How often the credentials were replaced.
    pub(crate) fn replaced(&self) -> u64 {
        *self.replaced.borrow()
    }

    /// Why what a caller has shown does not count any more, once that is so.
    pub(crate) async fn withdrawn(&self, shown: &Shown) -> rustls::Error {
        let mut replaced = self.replaced.subscribe();
        loop {
            let looked = self.current().check(&shown.chain);
            if let Err(why) = looked {
                return why;
            }
            // Replaced or not, the certificate may have expired. The sender lives as long as `self`, so this does not fail.
            let _in_time = timeout(LOOK_AGAIN, replaced.changed()).await;
        }
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().clone()
    }

    /// Begins TLS on a connection that was accepted. Returns it with the one that its certificate names.
    ///
    /// # Errors
    /// If it is not done `within` that time, if the certificate of the other side is missing, expired or not trusted, or if it
    /// names nobody or somebody of another cluster.
    pub(crate) async fn accept<T>(&self, io: T, within: Duration) -> io::Result<(server::TlsStream<T>, Shown)>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current();
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no TLS handshake within {within:?}"));
        let accepted = TlsAcceptor::from(current.server.clone()).accept(io);
        let stream = timeout(within, accepted).await.map_err(late)??;
        let (_, session) = stream.get_ref();
        let chain: Vec<_> = session.peer_certificates().unwrap_or_default().to_vec();
        let protocol = session.alpn_protocol();
        let role = match chain.is_empty() && self.managed.is_some() {
            // It may ask for its first certificate, and for nothing else.
            true => speaks_http_2(protocol).map(|()| CallerRole::Joiner),
            false => role_of(&current.subject.cluster, &chain, protocol),
        };
        let role = role.map_err(denied)?;
        Ok((stream, Shown { role, chain }))
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
        let stream = TlsConnector::from(current.client.clone()).connect(name, io).await?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates().unwrap_or_default();
        // The name may be matched by a wildcard, or be one of several.
        match role_of(&current.subject.cluster, shown, session.alpn_protocol()).map_err(denied)? {
            CallerRole::Node(there) if node.is_none_or(|node| node == there) => Ok(stream),
            other => Err(denied(format!("the certificate there is that of {other}; correct the address"))),
        }
    }
}

fn denied(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

fn speaks_http_2(protocol: Option<&[u8]>) -> Result<(), String> {
    if protocol == Some(HTTP_2) { Ok(()) } else { Err("the other side does not speak HTTP/2".into()) }
}

/// Who is on the other side of a connection, whose certificate has been verified.
fn role_of(cluster: &str, certificates: &[CertificateDer<'_>], protocol: Option<&[u8]>) -> Result<CallerRole, String> {
    speaks_http_2(protocol)?;
    let certificate = certificates.first().ok_or("the other side shows no certificate")?;
    let subject = credentials::subject_of(certificate)?;
    if subject.cluster == cluster {
        Ok(subject.role)
    } else {
        Err(format!("the certificate is that of {subject}, and this is cluster `{cluster}`"))
    }
}

impl Current {
    /// `joiners`: whether who shows no certificate is let in, to ask for one.
    fn new(credentials: Credentials, joiners: bool) -> Result<Self, CredentialsError> {
        let unfit = |error: &dyn std::fmt::Display| CredentialsError::Unfit(error.to_string());
        let own = credentials.chain.clone();
        let expires = credentials::expires(&own).map_err(|error| unfit(&error))?;
        let Credentials { roots, chain, key, subject, .. } = credentials;
        // Passed by hand: a provider for the whole process is not a library's to install.
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let verifier = if joiners { verifier.allow_unauthenticated() } else { verifier };
        let verifier = verifier.build().map_err(|error| unfit(&error))?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| unfit(&error))?
            .with_client_cert_verifier(verifier.clone())
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
        let made = Self { subject, verifier, server: Arc::new(server), client: Arc::new(client), expires };
        // What the others will do. While an authority is replaced, everybody trusts both, so this holds at each step.
        made.check(&own).map_err(|error| unfit(&error))?;
        Ok(made)
    }

    /// Whether these certificates are trusted, and have not expired.
    fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let Some((certificate, between)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        self.verifier.verify_client_cert(certificate, between, UnixTime::now()).map(drop)
    }
}

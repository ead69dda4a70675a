//! What a process shows of itself, and whom it trusts: certificates and a key, in PEM.
//!
//! ```text
//!   trust   the certificates of the CA, two while one replaces the other     whom to believe
//!   chain   the own certificate, then those between it and the CA             what to show
//!   key     the private key of the own certificate                            never leaves this process
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::tls::subject::Subject;

/// Credentials that cannot be used. Nothing was changed: a node keeps those that it had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file cannot be read or written.
    #[error("{what} in {} is out of reach: {cause}; check the path, and who may use it", path.display())]
    File {
        /// The certificate or key, in words.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// The text is not PEM, or has not what it should have.
    #[error("{what} is not usable: {why}; it should be PEM")]
    Pem {
        /// The certificate or key, in words.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The certificate does not say whose it is.
    #[error("the certificate does not say whose it is: {0}")]
    Subject(String),
    /// The certificate is another's than it should be.
    #[error("the certificate is that of {got}, and has to be that of {want}; use the one that was issued for it")]
    OtherSubject {
        /// Whose it should be.
        want: String,
        /// Whose it is.
        got: String,
    },
    /// A certificate cannot be made. There is none.
    #[error("the certificate cannot be made: {0}")]
    Issue(String),
    /// There is no TLS to replace the credentials of.
    #[error("there is no TLS here: this node has stopped, or was started without `listen_tls`")]
    Plaintext,
    /// The cluster has an authority of its own, which makes and renews the certificates of its nodes.
    #[error("the cluster makes and renews the certificates of this node itself; there is nothing to replace")]
    Managed,
    /// This node does not keep the key of the cluster's own authority.
    #[error(
        "this node does not keep the authority of the cluster; ask a voter, or use your own authority if there is none"
    )]
    NoAuthority,
    /// The certificate, the key and the trusted ones do not fit together, or the certificate has expired.
    #[error(
        "the credentials do not fit: {0}; a certificate that is valid now, its own key and the authority that signed it do"
    )]
    Unfit(String),
}

/// A certificate with its key, and the certificates that are trusted. Printed without the key.
pub struct Credentials {
    pub(super) roots: RootCertStore,
    /// What the roots were made of.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) subject: Subject,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Takes PEM texts: the certificates of the CA or CAs to trust, the own certificate with those between it and the CA, and
    /// its private key (PKCS #8, SEC 1 or PKCS #1).
    ///
    /// # Errors
    /// [`CredentialsError`]. Whether they fit together is found out where they are used.
    pub fn from_pem(trust: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, CredentialsError> {
        let unusable = |what, why: &dyn fmt::Display| CredentialsError::Pem { what, why: why.to_string() };
        let mut roots = RootCertStore::empty();
        let authorities = certificates(trust, "the certificate of the CA")?;
        for root in &authorities {
            roots.add(root.clone()).map_err(|error| unusable("the certificate of the CA", &error))?;
        }
        let chain = certificates(chain, "the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable("the private key", &error))?;
        let own = chain.first().ok_or_else(|| unusable("the certificate", &"there is none"))?;
        let subject = subject_of(own).map_err(CredentialsError::Subject)?;
        Ok(Self { roots, authorities, chain, key, subject })
    }

    /// [`Self::from_pem`] with the content of files. Reads them at once, so it blocks on the disk.
    ///
    /// # Errors
    /// [`CredentialsError`], which names the file that cannot be read.
    pub fn read(
        trust: impl AsRef<Path>,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, CredentialsError> {
        let read = |what, path: &Path| {
            std::fs::read(path).map_err(|cause| CredentialsError::File { what, path: path.into(), cause })
        };
        let trust = read("the certificate of the CA", trust.as_ref())?;
        let chain = read("the certificate", chain.as_ref())?;
        let key = read("the private key", key.as_ref())?;
        Self::from_pem(&trust, &chain, &key)
    }

    /// The SHA-256 of the first certificate that is trusted.
    pub(crate) fn authority_hash(&self) -> Option<[u8; 32]> {
        self.authorities.first().map(|root| sha256(root))
    }

    /// Whom the own certificate names.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }
}

/// The certificates in a PEM text, one at the least.
pub(super) fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let unusable = |why: String| CredentialsError::Pem { what, why };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error: rustls::pki_types::pem::Error| unusable(error.to_string()))?;
    if found.is_empty() { Err(unusable("there is no certificate in it".into())) } else { Ok(found) }
}

/// Whom a certificate names. It is believed only of one that was verified, or of the own.
pub(super) fn subject_of(certificate: &CertificateDer<'_>) -> Result<Subject, String> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|error| error.to_string())?;
    Subject::among(parsed.valid_dns_names())
}

/// When the first of these certificates expires.
pub(super) fn expires(chain: &[CertificateDer<'_>]) -> Result<UnixTime, String> {
    valid(chain).map(|(_, until)| until)
}

/// From when and until when the first of these certificates is valid.
pub(super) fn valid(chain: &[CertificateDer<'_>]) -> Result<(UnixTime, UnixTime), String> {
    let first = chain.first().ok_or("there is none")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(first).map_err(|error| error.to_string())?;
    let moment = |seconds: i64| {
        let seconds = u64::try_from(seconds).map_err(|error| error.to_string())?;
        Ok::<_, String>(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    };
    let validity = parsed.validity();
    Ok((moment(validity.not_before.timestamp())?, moment(validity.not_after.timestamp())?))
}

/// The SHA-256 of these bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

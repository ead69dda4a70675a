//! A certificate authority of one cluster: makes the certificates of its nodes, operators and clients.
//!
//! ```text
//!   Authority::new("blue") ──▶ certificate (everybody trusts it), key (kept where nobody else reads it)
//!        └── issue(node n3, ["db3.example.net"], 90 days) ──▶ certificate, key
//! ```
//!
//! Any other CA does as well, if its certificates have the names of `subject.rs`: an operator who has one needs none of this.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};

use crate::tls::Tls;
use crate::tls::credentials::{Credentials, CredentialsError, sha256};
use crate::tls::subject::{CallerRole, Subject, is_label};

/// How much earlier than now a certificate becomes valid, for those whose clock is behind.
const EARLIER: Duration = Duration::from_secs(3600);

/// The longest that a certificate may be valid: a hundred years. The calendar of X.509 ends with the year 9999.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long the certificate of an authority is valid: ten years.
const VALID: Duration = Duration::from_secs(3650 * 24 * 3600);

/// A certificate authority of one cluster. Printed without its key.
pub struct Authority {
    cluster: String,
    certificate: String,
    key: KeyPair,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// A certificate that was made, and its key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, in PEM.
    pub certificate: String,
    /// The private key, in PEM (PKCS #8). Only its owner should be able to read it.
    pub key: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Issued {
    /// As what a node or a client uses, that trusts these certificates (PEM).
    ///
    /// # Errors
    /// [`CredentialsError`] if `trust` is not usable.
    pub fn credentials(&self, trust: &str) -> Result<Credentials, CredentialsError> {
        Credentials::from_pem(trust.as_bytes(), self.certificate.as_bytes(), self.key.as_bytes())
    }

    /// Writes both to files, each of which is replaced as a whole. Only the owner of this process may read the key. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// [`CredentialsError::File`] names the file that could not be written. The key is written first, so it may have been replaced.
    pub fn write(&self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<(), CredentialsError> {
        let files = [("the private key", key.as_ref(), &self.key, 0o600)];
        let files = files.into_iter().chain([("the certificate", certificate.as_ref(), &self.certificate, 0o644)]);
        for (what, path, text, mode) in files {
            replace(path, text, mode).map_err(|cause| CredentialsError::File { what, path: path.into(), cause })?;
        }
        Ok(())
    }
}

/// The label of a cluster that nobody has given a name.
fn label_of(key: &KeyPair) -> String {
    let hash = sha256(key.public_key_raw());
    let digits: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("q{digits}")
}

/// Puts a file in the place of another, if there is one, with these permissions.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    match std::fs::remove_file(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&name)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&name, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn failed(error: rcgen::Error) -> CredentialsError {
    CredentialsError::Issue(error.to_string())
}

/// The moment that is `after` from now. Certificates say their times by the wall clock.
#[expect(clippy::disallowed_methods, reason = "X.509 knows no other clock")]
fn from_now(after: Duration) -> Result<SystemTime, CredentialsError> {
    let moment = SystemTime::now().checked_add(after).filter(|_| after <= LONGEST);
    moment.ok_or_else(|| CredentialsError::Issue(format!("{after:?} is more than the limit of {LONGEST:?}")))
}

/// What the certificate of an authority says, but for its times.
fn of_authority(cluster: &str) -> Result<CertificateParams, CredentialsError> {
    if !is_label(cluster) {
        return Err(CredentialsError::Issue(format!(
            "`{cluster}` cannot name a cluster: 1 to 63 of a-z, 0-9 and `-` can, with no `-` at either end"
        )));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("quorate cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

impl Authority {
    /// A new authority, with a new key, for the cluster with this label.
    ///
    /// # Errors
    /// [`CredentialsError::Issue`] for a label that cannot be part of a DNS name, or if the system gives no randomness.
    pub fn new(cluster: &str) -> Result<Self, CredentialsError> {
        Self::with_key(cluster, KeyPair::generate().map_err(failed)?)
    }

    /// A new authority whose label nobody has chosen: it is made of the key.
    pub(crate) fn unnamed() -> Result<Self, CredentialsError> {
        let key = KeyPair::generate().map_err(failed)?;
        Self::with_key(&label_of(&key), key)
    }

    /// One that [`Self::unnamed`] made, from its certificate and key in PEM.
    pub(crate) fn unnamed_from_pem(certificate: &str, key: &str) -> Result<Self, CredentialsError> {
        let label = label_of(&KeyPair::from_pem(key).map_err(failed)?);
        Self::from_pem(&label, certificate, key)
    }

    fn with_key(cluster: &str, key: KeyPair) -> Result<Self, CredentialsError> {
        let mut params = of_authority(cluster)?;
        params.not_before = (from_now(Duration::ZERO)? - EARLIER).into();
        params.not_after = from_now(VALID)?.into();
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { cluster: cluster.into(), certificate, key })
    }

    /// The authority that was kept as its certificate and key, in PEM. It has to be one that [`Self::new`] made.
    ///
    /// # Errors
    /// [`CredentialsError`] for a key that cannot be read, and [`CredentialsError::Unfit`] if key and label are not those of the
    /// certificate.
    pub fn from_pem(cluster: &str, certificate: &str, key: &str) -> Result<Self, CredentialsError> {
        let key = KeyPair::from_pem(key).map_err(failed)?;
        of_authority(cluster)?;
        let kept = Self { cluster: cluster.into(), certificate: certificate.into(), key };
        // What it issues has to be trusted by whoever trusts it.
        let tried = kept.issue(CallerRole::Client("trial".into()), &[], EARLIER)?;
        Tls::new(tried.credentials(certificate)?)?;
        Ok(kept)
    }

    /// Writes its certificate and its key to files, as [`Issued::write`] does.
    ///
    /// # Errors
    /// [`CredentialsError::File`] names the file that could not be written.
    pub fn write(&self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<(), CredentialsError> {
        Issued { certificate: self.certificate.clone(), key: self.key() }.write(certificate, key)
    }

    /// The SHA-256 of the certificate in this PEM text.
    pub(crate) fn hash_of(certificate: &str) -> Result<[u8; 32], CredentialsError> {
        let what = "the certificate of the CA";
        let found = super::credentials::certificates(certificate.as_bytes(), what)?;
        let first = found.first().ok_or(CredentialsError::Pem { what, why: "there is none".into() })?;
        Ok(sha256(first))
    }

    /// The label of its cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its certificate in PEM, which everybody in the cluster trusts.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key in PEM (PKCS #8). Who has it can be anybody in the cluster.
    pub fn key(&self) -> String {
        self.key.serialize_pem()
    }

    /// Makes a certificate for `role`, and its key. That of a node may have further DNS names or IP addresses, by which clients
    /// reach it. It is valid from an hour ago until `valid` from now, at most a hundred years.
    ///
    /// # Errors
    /// [`CredentialsError::Issue`] for a name that cannot be in a certificate, or that is another's.
    pub fn issue(&self, role: CallerRole, hosts: &[&str], valid: Duration) -> Result<Issued, CredentialsError> {
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = self.certify(role, hosts, valid, &key)?;
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    /// As [`Self::issue`], for a key that somebody else has: the request (PKCS #10, DER) is signed with it. Of the request nothing but
    /// the key counts.
    pub(crate) fn sign(&self, role: CallerRole, request: &[u8], valid: Duration) -> Result<String, CredentialsError> {
        let request = CertificateSigningRequestParams::from_der(&request.into()).map_err(failed)?;
        self.certify(role, &[], valid, &request.public_key)
    }

    fn certify(
        &self,
        role: CallerRole,
        hosts: &[&str],
        valid: Duration,
        key: &impl PublicKeyData,
    ) -> Result<String, CredentialsError> {
        let subject = Subject { cluster: self.cluster.clone(), role };
        let own = subject.dns_name();
        if Subject::among([own.as_str()].into_iter()).as_ref() != Ok(&subject) {
            return Err(CredentialsError::Issue(format!("`{own}` is not a DNS name that names {subject}")));
        }
        if let Some(other) = hosts.iter().find(|host| !subject.may_have(host)) {
            return Err(CredentialsError::Issue(format!("{subject} may not have the name {other}; leave it out")));
        }
        let mut names = vec![own.clone()];
        let mut uses = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let CallerRole::Node(_) = subject.role {
            names.push(Subject::any_node(&self.cluster));
            names.extend(hosts.iter().map(|host| (*host).to_owned()));
            uses.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.role.to_string());
        params.not_before = (from_now(Duration::ZERO)? - EARLIER).into();
        params.not_after = from_now(valid)?.into();
        params.extended_key_usages = uses;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let authority = Issuer::new(of_authority(&self.cluster)?, &self.key);
        Ok(params.signed_by(key, &authority).map_err(failed)?.pem())
    }
}

/// The SHA-256 of the public key that this request (PKCS #10, DER) is signed with.
///
/// # Errors
/// [`CredentialsError::Issue`] for one that is malformed, or not signed with that key.
pub(crate) fn key_hash(request: &[u8]) -> Result<[u8; 32], CredentialsError> {
    let request = CertificateSigningRequestParams::from_der(&request.into()).map_err(failed)?;
    Ok(sha256(request.public_key.der_bytes()))
}

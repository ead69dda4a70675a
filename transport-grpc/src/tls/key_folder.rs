//! The keys of a node whose cluster has an authority of its own: files in its data folder.
//!
//! ```text
//!   <data>/tls/            0700
//!   ├── authority.key      0600   the key of the cluster's authority: on voters only
//!   ├── authority.pem             its certificate, which this node trusts
//!   ├── node.key           0600   the key of this node, which never leaves this machine
//!   └── node.pem                  its certificate, and that of the authority
//! ```
//!
//! A key is written before the certificate that belongs to it, so a crash leaves a key that is used the next time.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_membership::NodeId;
use rcgen::{CertificateParams, KeyPair};

use super::authority::{Authority, replace};
use super::credentials::{Credentials, CredentialsError};
use super::subject::{CallerRole, Subject};

/// How long the certificate of a node is valid that the cluster's own authority has made. It is renewed when a third is left.
pub(crate) const NODE_VALID: Duration = Duration::from_secs(90 * 24 * 3600);

const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const NODE: &str = "node.pem";
const NODE_KEY: &str = "node.key";

/// The folder with the keys of one node.
#[derive(Debug, Clone)]
pub(crate) struct KeyFolder {
    path: PathBuf,
    node: NodeId,
}

impl KeyFolder {
    /// The folder below this data folder. Nothing is created.
    pub(crate) fn below(data: &Path, node: NodeId) -> Self {
        Self { path: data.join("tls"), node }
    }

    /// The node whose keys they are.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Whether credentials are those of this node.
    pub(crate) fn is_own(&self, credentials: &Credentials) -> Result<(), CredentialsError> {
        let found = credentials.subject();
        let want = Subject { role: CallerRole::Node(self.node), ..found.clone() };
        match *found == want {
            true => Ok(()),
            false => Err(CredentialsError::OtherSubject { want: want.to_string(), got: found.to_string() }),
        }
    }

    /// Whether the node has got its certificate.
    pub(crate) fn is_complete(&self) -> bool {
        [AUTHORITY, NODE, NODE_KEY].iter().all(|name| self.path.join(name).exists())
    }

    /// What the node shows, and whom it trusts.
    pub(crate) fn credentials(&self) -> Result<Credentials, CredentialsError> {
        Credentials::read(self.path.join(AUTHORITY), self.path.join(NODE), self.path.join(NODE_KEY))
    }

    /// The same with another certificate for the same key.
    fn credentials_with(&self, node: &str, authority: &str) -> Result<Credentials, CredentialsError> {
        let key = self.read(NODE_KEY)?;
        Credentials::from_pem(authority.as_bytes(), format!("{node}{authority}").as_bytes(), key.as_bytes())
    }

    /// The authority, if this node keeps its key.
    pub(crate) fn authority(&self, cluster: &str) -> Result<Option<Authority>, CredentialsError> {
        match self.read(AUTHORITY_KEY) {
            Err(CredentialsError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(key) => Authority::from_pem(cluster, &self.read(AUTHORITY)?, &key).map(Some),
        }
    }

    /// Makes an authority for a new cluster, and the certificate of its first node, unless they are there already.
    pub(crate) fn found(&self) -> Result<(), CredentialsError> {
        if self.is_complete() {
            return Ok(());
        }
        self.create()?;
        let key = self.path.join(AUTHORITY_KEY);
        if !self.path.join(AUTHORITY).exists() {
            Authority::unnamed()?.write(self.path.join(AUTHORITY), key)?;
        }
        let certificate = self.read(AUTHORITY)?;
        let authority = Authority::unnamed_from_pem(&certificate, &self.read(AUTHORITY_KEY)?)?;
        let request = self.request(authority.cluster())?;
        let made = authority.sign(CallerRole::Node(self.node), &request, NODE_VALID)?;
        self.keep_certificate(&made, &certificate)
    }

    /// A request for the certificate of this node (PKCS #10, DER), signed with its key, which is made if there is none. The folder has
    /// to be there.
    pub(crate) fn request(&self, cluster: &str) -> Result<Vec<u8>, CredentialsError> {
        let failed = |error: rcgen::Error| CredentialsError::Issue(error.to_string());
        let key = match self.read(NODE_KEY) {
            Ok(key) => KeyPair::from_pem(&key).map_err(failed)?,
            Err(CredentialsError::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(failed)?;
                self.write("the private key", NODE_KEY, &key.serialize_pem(), 0o600)?;
                key
            }
            Err(error) => return Err(error),
        };
        let own = Subject { cluster: cluster.into(), role: CallerRole::Node(self.node) };
        let params = CertificateParams::new([own.dns_name()]).map_err(failed)?;
        Ok(params.serialize_request(&key).map_err(failed)?.der().to_vec())
    }

    /// Keeps a certificate that was asked for, once it is known to be one of this node by the authority with this hash, to fit the
    /// key, and to be valid now. Else the former ones stay.
    pub(crate) fn take(&self, node: &str, authority: &str, by: [u8; 32]) -> Result<Credentials, CredentialsError> {
        if Authority::hash_of(authority)? != by {
            return Err(CredentialsError::Unfit(
                "it is signed by another authority than the one that is trusted".into(),
            ));
        }
        let next = self.credentials_with(node, authority)?;
        self.is_own(&next)?;
        super::Tls::new(next)?;
        self.keep_certificate(node, authority)?;
        self.credentials()
    }

    /// Keeps the certificate of this node, and that of the authority that signed it.
    fn keep_certificate(&self, node: &str, authority: &str) -> Result<(), CredentialsError> {
        self.write("the certificate of the authority", AUTHORITY, authority, 0o644)?;
        self.write("the certificate", NODE, &format!("{node}{authority}"), 0o644)
    }

    /// Keeps the key of the authority.
    pub(crate) fn keep_authority(&self, authority: &Authority) -> Result<(), CredentialsError> {
        self.write("the key of the authority", AUTHORITY_KEY, &authority.key(), 0o600)
    }

    /// Deletes the key of the authority: this node is no voter any more.
    pub(crate) fn forget_authority(&self) -> Result<(), CredentialsError> {
        let path = self.path.join(AUTHORITY_KEY);
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(CredentialsError::File { what: "the key of the authority", path, cause })
            }
            _ => Ok(()),
        }
    }

    /// Makes the folder if there is none. It is there after a power cut: its entry in the data folder is synced, and that one's.
    pub(crate) fn create(&self) -> Result<(), CredentialsError> {
        let sync = |path: &Path| std::fs::File::open(path)?.sync_all();
        let create = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
            let Some(data) = self.path.parent() else { return Ok(()) };
            sync(data)?;
            match data.parent().filter(|above| !above.as_os_str().is_empty()).map_or(Ok(()), sync) {
                // One that this process may not read was not made by it.
                Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => {
                    Ok(())
                }
                synced => synced,
            }
        };
        let (what, path) = ("the folder of the keys", self.path.clone());
        create().map_err(|cause| CredentialsError::File { what, path, cause })
    }

    fn read(&self, name: &'static str) -> Result<String, CredentialsError> {
        let path = self.path.join(name);
        std::fs::read_to_string(&path).map_err(|cause| CredentialsError::File { what: name, path, cause })
    }

    fn write(&self, what: &'static str, name: &str, text: &str, mode: u32) -> Result<(), CredentialsError> {
        let path = self.path.join(name);
        replace(&path, text, mode).map_err(|cause| CredentialsError::File { what, path, cause })
    }
}

//! The calls for certificates: of a machine that has a token and no certificate, and of a member.
//!
//! ```text
//!   enroll:  a key of its own ─▶ the seeds of the token in turn ─▶ a voter that is believed by the hash in the token ─▶ files
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use quorate_membership::{Address, NodeId};
use quorate_raft_core::Refusal;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tonic::Status;

use crate::connection::Connection;
use crate::grpc_errors::refusal;
use crate::net::{TcpStream, lookup_host};
use crate::pb;
use crate::pb::cluster_client::ClusterClient;
use crate::tls::{CredentialsError, JoinToken, KeyFolder, Pinned, Subject, Tls};

/// How long one node may take for a call. A node closes the connection of a machine without a certificate a little later.
pub(super) const ANSWER: Duration = Duration::from_secs(4);

/// The pause before all are asked again.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a machine has no certificate. Its key is kept, and the token may be tried again unless it was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrollError {
    /// The keys in the data folder cannot be read or written.
    #[error(transparent)]
    Keys(#[from] CredentialsError),
    /// A node of the cluster has refused the token. Nothing was changed there.
    #[error("{at} refused the token: {why}")]
    Refused {
        /// The address of the node.
        at: Address,
        /// Its reason.
        why: String,
    },
    /// No node of the cluster gave a certificate in time. It may be that the token has been used by this machine; trying it again is
    /// safe.
    #[error("no certificate within {waited:?}: {last}; check the addresses, and that a majority of the cluster is up")]
    TimedOut {
        /// How long it was tried.
        waited: Duration,
        /// What came of the last attempt.
        last: String,
    },
}

/// Gets the first certificate of the node that a token names, and keeps it in the data folder. Where there is one by the same
/// authority that has not expired, nobody is asked.
///
/// # Errors
/// [`EnrollError`].
pub async fn enroll(data: &Path, token: &JoinToken, within: Duration) -> Result<(), EnrollError> {
    let folder = KeyFolder::below(data, token.node());
    let (kept, wanted) = (folder.clone(), token.clone());
    if on_disk(move || is_kept(&kept, &wanted)).await? {
        return Ok(());
    }
    let (kept, cluster) = (folder.clone(), token.cluster.clone());
    let request = on_disk(move || kept.create().and_then(|()| kept.request(&cluster))).await?;
    let give_up = Instant::now() + within;
    let mut last = "the token names no address".to_string();
    loop {
        for seed in token.seeds() {
            match timeout_at(give_up, timeout(ANSWER, ask(token, seed, request.clone()))).await {
                Ok(Ok(Ok(answer))) => {
                    let pb::CertificateResponse { certificate, authority } = answer;
                    let by = token.authority;
                    return Ok(on_disk(move || folder.take(&certificate, &authority, by).map(drop)).await?);
                }
                Ok(Ok(Err(Failed::Refused(why)))) => return Err(EnrollError::Refused { at: seed.clone(), why }),
                Ok(Ok(Err(Failed::Elsewhere(why)))) => last = format!("{seed}: {why}"),
                Ok(Err(_)) => last = format!("{seed}: no answer within {ANSWER:?}"),
                Err(_) => break,
            }
        }
        if Instant::now() + PAUSE >= give_up {
            return Err(EnrollError::TimedOut { waited: within, last });
        }
        sleep(PAUSE).await;
    }
}

/// Whether the data folder has a certificate of this cluster that counts.
fn is_kept(folder: &KeyFolder, token: &JoinToken) -> Result<bool, CredentialsError> {
    if !folder.is_complete() {
        return Ok(false);
    }
    let kept = folder.credentials()?;
    folder.is_own(&kept)?;
    // What a former cluster has left here is not used, and not replaced.
    if kept.authority_hash() != Some(token.authority) {
        return Err(CredentialsError::Unfit("the data folder has the keys of another cluster".into()));
    }
    // What is wrong with it, such as its time, is mended by another one.
    Ok(Tls::new(kept).is_ok())
}

/// Does something with files, where it holds up no other task.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CredentialsError> + Send + 'static,
) -> Result<T, CredentialsError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(CredentialsError::Issue(error.to_string())))
}

enum Failed {
    Refused(String),
    /// Another node, or a later attempt, may do.
    Elsewhere(String),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        match refusal(&status) {
            Some(refused @ (Refusal::NotAllowed(_) | Refusal::Malformed(_) | Refusal::Retired(_))) => {
                Self::Refused(refused.to_string())
            }
            _ => Self::Elsewhere(status.message().to_owned()),
        }
    }
}

async fn ask(token: &JoinToken, seed: &Address, request: Vec<u8>) -> Result<pb::CertificateResponse, Failed> {
    let elsewhere = |error: &dyn std::fmt::Display| Failed::Elsewhere(error.to_string());
    let config = Pinned::client(token.authority).map_err(|error| elsewhere(&error))?;
    let name = ServerName::try_from(Subject::any_node(&token.cluster)).map_err(|error| elsewhere(&error))?;
    let stream = connect(seed).await.map_err(|error| elsewhere(&error))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| elsewhere(&error))?;
    let mut client = client(stream).await.map_err(|error| elsewhere(&error))?;
    let signature = token.sign(&request).ok_or_else(|| Failed::Refused("its secret is none".into()))?;
    let asked = pb::EnrollRequest { node: token.node().get(), signature: signature.into(), request: request.into() };
    Ok(client.enroll(asked).await?.into_inner())
}

async fn connect(address: &Address) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for at in lookup_host(address.as_str()).await? {
        match TcpStream::connect(at).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn client<T>(stream: T) -> Result<ClusterClient<Connection>, hyper::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Connection::open(stream, ANSWER, ANSWER, || {}).await?;
    Ok(ClusterClient::with_origin(connection, Uri::from_static("http://quorate")))
}

/// A client of one node, over mutual TLS, for a few calls.
pub(super) async fn to_node(
    tls: &Tls,
    node: NodeId,
    address: &Address,
) -> Result<ClusterClient<Connection>, Box<dyn std::error::Error + Send + Sync>> {
    let connecting = async {
        let stream = tls.connect(Some(node), connect(address).await?).await?;
        Ok(client(stream).await?)
    };
    timeout(ANSWER, connecting).await?
}

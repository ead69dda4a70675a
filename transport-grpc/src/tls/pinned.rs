//! The TLS of a machine that has a join token and no certificate yet: it believes one authority, by the hash of its certificate.
//!
//! ```text
//!   token: SHA-256 ──▶ among the certificates that the node shows? ──▶ that one is the root ──▶ the ordinary check of the chain and the name
//! ```

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, version};

use super::HTTP_2;
use super::credentials::sha256;

/// Accepts a node whose certificate was signed by the authority with this hash.
#[derive(Debug)]
pub(crate) struct Pinned {
    hash: [u8; 32],
    provider: Arc<CryptoProvider>,
    /// The certificate with that hash, once a node has shown it.
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl Pinned {
    pub(crate) fn new(hash: [u8; 32]) -> Arc<Self> {
        Arc::new(Self { hash, provider: Arc::new(ring::default_provider()), found: Mutex::default() })
    }

    /// The certificate of the authority, once a node has shown it and was believed.
    pub(crate) fn authority(&self) -> Option<CertificateDer<'static>> {
        self.found.lock().clone()
    }

    /// TLS 1.3 to a node, without a certificate of our own.
    pub(crate) fn client(self: &Arc<Self>) -> Result<ClientConfig, Error> {
        let config = ClientConfig::builder_with_provider(self.provider.clone());
        let config = config.with_protocol_versions(&[&version::TLS13])?;
        let config = config.dangerous().with_custom_certificate_verifier(self.clone());
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![HTTP_2.into()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = between.iter().find(|certificate| sha256(certificate) == self.hash).ok_or_else(|| {
            Error::General(
                "the node there does not belong to the cluster of the token: another authority signed its certificate"
                    .into(),
            )
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let usual = usual.map_err(|error| Error::General(error.to_string()))?;
        let verified = usual.verify_server_cert(shown, between, name, ocsp, now)?;
        *self.found.lock() = Some(root.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 is needed".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, shown, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! The TLS of a machine that has a join token and no certificate yet: it believes one authority, by the hash of its certificate.
//!
//! ```text
//!   token: SHA-256 ──▶ among the certificates that the node shows? ──▶ that one is the root ──▶ the ordinary check of the chain and the name
//! ```

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, version};

use super::HTTP_2;
use super::credentials::sha256;

/// Accepts a node whose certificate was signed by the authority with this hash, and shows that one as well.
#[derive(Debug)]
pub(crate) struct Pinned {
    hash: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    /// TLS 1.3 to a node of the cluster whose authority has this hash, without a certificate of our own.
    pub(crate) fn client(hash: [u8; 32]) -> Result<ClientConfig, Error> {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone());
        let config = config.with_protocol_versions(&[&version::TLS13])?;
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Self { hash, provider }));
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
        usual.verify_server_cert(shown, between, name, ocsp, now)
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

//! TLS as `sslmode` means it, with a configuration of our own: nothing global is installed or read.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{PostgresConfig, SslMode, TlsOptions};
use crate::error::PgError;

pub(super) async fn handshake(
    config: &PostgresConfig,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, PgError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| PgError::Invalid(format!("`{host}` cannot be the name of a TLS server")))?;
    let connector = TlsConnector::from(Arc::new(client_config(&config.tls)?));
    Ok(connector.connect(name, stream).await?)
}

fn client_config(options: &TlsOptions) -> Result<ClientConfig, PgError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match options.mode {
        SslMode::Disable | SslMode::Prefer | SslMode::Require => Arc::new(AnyCertificate(provider.clone())),
        SslMode::VerifyCa | SslMode::VerifyFull => {
            let full = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(options)?), provider.clone())
                .build()
                .map_err(|error| PgError::Invalid(format!("the root certificates cannot be used: {error}")))?;
            if options.mode == SslMode::VerifyFull { full } else { Arc::new(AnyName(full)) }
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PgError::Invalid(format!("TLS cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let (Some(certificates), Some(key)) = (&options.certificates, &options.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let wrong = |what: &dyn std::fmt::Display| PgError::Invalid(format!("sslcert and sslkey cannot be used: {what}"));
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(&error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| wrong(&error))
}

fn roots(options: &TlsOptions) -> Result<RootCertStore, PgError> {
    let mut store = RootCertStore::empty();
    match &options.roots {
        Some(path) => {
            let wrong = |what: &dyn std::fmt::Display| {
                PgError::Invalid(format!("sslrootcert {} cannot be used: {what}", path.display()))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                store.add(certificate).map_err(|error| wrong(&error))?;
            }
        }
        None => {
            // A few unreadable certificates of the system do no harm as long as there are others.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err(PgError::Invalid(
            "there are no root certificates to verify the server with: set sslrootcert".into(),
        ));
    }
    Ok(store)
}

/// `require`: the connection is encrypted, to whomever.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: a trusted authority signed the certificate, for whatever name.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        // The name is looked at last, so that this error means that all else is right.
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// `tls-server-end-point` of RFC 5929: the certificate's hash, by the hash function of its signature.
pub(super) fn server_end_point(connection: &ClientConnection) -> Option<Vec<u8>> {
    let certificate = connection.peer_certificates()?.first()?;
    Some(match signature_hash(certificate)? {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// Reads the algorithm that a certificate was signed with: `SEQUENCE { tbs SEQUENCE, SEQUENCE { OID, … }, … }`.
/// `None` if it has no single hash (RSA-PSS, Ed25519): then there is no binding.
fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    let (outer, _) = der(certificate, 0x30)?;
    let (_, after) = der(outer, 0x30)?;
    let (algorithm, _) = der(after, 0x30)?;
    let (oid, _) = der(algorithm, 0x06)?;
    const RSA: [u8; 8] = [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
    const ECDSA: [u8; 7] = [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03];
    if let Some(rest) = oid.strip_prefix(&RSA) {
        return match rest {
            // MD5 and SHA-1 count as SHA-256, says the RFC.
            [4 | 5 | 11] => Some(Hash::Sha256),
            [12] => Some(Hash::Sha384),
            [13] => Some(Hash::Sha512),
            _ => None,
        };
    }
    match oid.strip_prefix(&ECDSA)? {
        [2] => Some(Hash::Sha256),
        [3] => Some(Hash::Sha384),
        [4] => Some(Hash::Sha512),
        _ => None,
    }
}

/// The content of a DER element with this tag, and what follows it.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (&length, mut rest) = rest.split_first()?;
    let mut size = usize::from(length);
    if length & 0x80 != 0 {
        let count = usize::from(length & 0x7F);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        size = digits.iter().fold(0, |size, &digit| size << 8 | usize::from(digit));
        rest = after;
    }
    (first == tag).then(|| rest.split_at_checked(size)).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(oid: &[u8]) -> Vec<u8> {
        let mut algorithm = vec![0x06, u8::try_from(oid.len()).unwrap_or(0)];
        algorithm.extend_from_slice(oid);
        let mut inner = vec![0x30, 0x03, 0x02, 0x01, 0x00, 0x30, u8::try_from(algorithm.len()).unwrap_or(0)];
        inner.extend(algorithm);
        let mut outer = vec![0x30, 0x81, u8::try_from(inner.len()).unwrap_or(0)];
        outer.extend(inner);
        outer
    }

    #[test]
    fn the_hash_follows_the_signature() {
        let rsa = |last| certificate(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, last]);
        let ecdsa = |last| certificate(&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, last]);
        assert_eq!(signature_hash(&rsa(11)), Some(Hash::Sha256));
        assert_eq!(signature_hash(&rsa(5)), Some(Hash::Sha256));
        assert_eq!(signature_hash(&rsa(13)), Some(Hash::Sha512));
        assert_eq!(signature_hash(&rsa(10)), None);
        assert_eq!(signature_hash(&ecdsa(3)), Some(Hash::Sha384));
        assert_eq!(signature_hash(&certificate(&[0x2B, 0x65, 0x70])), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = signature_hash(&bytes);
        }
    }
}

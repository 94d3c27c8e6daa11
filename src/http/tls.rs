//! `https` for clients: a certificate and its key from two files, which can be read again while the program runs.
//!
//! Nothing that stands in the files is shown, in no message: a key may stand where a certificate should.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error as TlsError, InconsistentKeys, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::clock::Timestamp;

/// What is spoken behind it; the first that the client knows as well.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Who we are for clients, and the files that say so. A clone is the same.
#[derive(Clone)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

/// What is wrong with one of the files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unusable {
    /// The flag that names the file.
    pub flag: &'static str,
    /// What is wrong with it: a sentence without its subject.
    pub why: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flag, self.why)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a certificate, with those between it and its authority behind it, and its key: two PEM files.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, Vec<Unusable>> {
        let current = Arc::new(RwLock::new(Arc::new(read(&certificate, &key)?)));
        Ok(Self { certificate, key, current })
    }

    /// Reads both files again. Connections that begin from now on see what stands there; those that are open go on.
    ///
    /// # Errors
    /// As at the start; then everything stays as it was.
    pub fn reload(&self) -> Result<(), Vec<Unusable>> {
        let new = Arc::new(read(&self.certificate, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Until when clients believe the certificate that stands in its file now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn expires_at(&self) -> Result<Timestamp, Unusable> {
        let chain = certificates(&self.certificate).map_err(|why| unusable(CERTIFICATE, &self.certificate, &why))?;
        let own = chain
            .first()
            .and_then(|own| Certificate::from_der(own).ok())
            .ok_or_else(|| unusable(CERTIFICATE, &self.certificate, "its first certificate cannot be read"))?;
        let end = own.tbs_certificate().validity().not_after.to_unix_duration();
        Ok(Timestamp::from_seconds(end.as_secs().try_into().unwrap_or(i64::MAX)))
    }

    /// For one connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

const CERTIFICATE: &str = "--tls-cert";
const KEY: &str = "--tls-key";

fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, Vec<Unusable>> {
    let chain = certificates(certificate).map_err(|why| unusable(CERTIFICATE, certificate, &why));
    let secret = private_key(key).map_err(|why| unusable(KEY, key, &why));
    let (chain, secret) = match (chain, secret) {
        (Ok(chain), Ok(secret)) => (chain, secret),
        (chain, secret) => return Err(chain.err().into_iter().chain(secret.err()).collect()),
    };
    let mut config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring knows the default versions")
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| {
            vec![match error {
                TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    unusable(KEY, key, "it is not the key of the certificate in --tls-cert")
                }
                TlsError::InvalidCertificate(_) => {
                    unusable(CERTIFICATE, certificate, "its first certificate cannot be read")
                }
                _ => unusable(KEY, key, "it holds a key of a kind that cannot be used; RSA, ECDSA and Ed25519 can"),
            }]
        })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn unusable(flag: &'static str, path: &Path, why: &str) -> Unusable {
    Unusable { flag, why: format!("{}: {why}", path.display()) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let chain: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        // Its own words would repeat a line of the file.
        Err(_) => Err("it is not whole (PEM)".to_owned()),
        Ok(chain) if chain.is_empty() => Err("it holds no certificate (PEM)".to_owned()),
        Ok(chain) => Ok(chain),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    if text.windows(9).any(|word| word == b"ENCRYPTED") {
        return Err(
            "its key is encrypted, and nobody is there to be asked for the passphrase; `openssl pkey` writes it \
                    without"
                .to_owned(),
        );
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        PemError::NoItemsFound => "it holds no private key (PEM)".to_owned(),
        _ => "it is not whole (PEM)".to_owned(),
    })
}

//! By whose word a gateway is believed to be who it says it is.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::SetupError;

/// TLS that believes these authorities, and no certificate without a name that fits.
pub(super) fn trusting(authorities: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring knows the default versions")
        .with_root_certificates(authorities)
        .with_no_client_auth()
}

/// The system's authorities, and those in a file.
pub(super) fn authorities(file: Option<PathBuf>) -> Result<RootCertStore, SetupError> {
    let mut authorities = RootCertStore::empty();
    // Systems have certificates that cannot be read; the others do.
    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = file {
        add(&mut authorities, &path).map_err(|why| SetupError::Authorities { path, why })?;
    }
    if authorities.is_empty() { Err(SetupError::NoAuthorities) } else { Ok(authorities) }
}

/// Adds every certificate of a file. Here each counts: somebody chose them.
fn add(authorities: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let before = authorities.len();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        authorities.add(certificate).map_err(|error| error.to_string())?;
    }
    if authorities.len() == before { Err("it holds no certificate (PEM)".to_owned()) } else { Ok(()) }
}

//! The authorities by whose word a gateway is believed.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::SetupError;
use crate::trust;

/// The system's authorities, and those in a file.
pub(super) fn authorities(file: Option<PathBuf>) -> Result<RootCertStore, SetupError> {
    let mut authorities = trust::system();
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

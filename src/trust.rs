//! By whose word servers are believed to be who they say they are.

use rustls::{ClientConfig, RootCertStore};

/// The system's authorities.
#[must_use]
pub fn system() -> RootCertStore {
    let mut authorities = RootCertStore::empty();
    // Systems have certificates that cannot be read; the others do.
    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    authorities
}

/// TLS that believes these authorities, and no certificate without a name that fits.
///
/// # Panics
/// Never: it would take a library of ciphers that knows no version of TLS.
#[must_use]
pub fn client(authorities: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring knows the default versions")
        .with_root_certificates(authorities)
        .with_no_client_auth()
}

//! `avatar-proxy health`: asks the proxy on this machine whether it lives, for container engines and scripts.
//!
//! * It reads what the proxy itself was told (the same flags and variables) and asks where that answers: at `--metrics-listen` if
//!   there is one, else at `--listen`.
//! * It shows no secret and believes nothing but the status, so any certificate will do: what the proxy shows is made for its
//!   clients' names, not for loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::trust;

/// How long it may take (container engines end a check after 30 s, Kubernetes after one).
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the proxy answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// An address that it listens on.
    pub address: SocketAddr,
    /// Whether it speaks `https` there.
    pub tls: bool,
}

/// Why it does not count as alive.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// Nobody is there, or somebody who speaks otherwise.
    #[error("{0} cannot be asked: {1}")]
    Silent(SocketAddr, io::Error),
    /// It takes longer than anybody would wait.
    #[error("{0} does not answer within {PATIENCE:?}")]
    Late(SocketAddr),
    /// It answers, and not with 200.
    #[error("{0} answers {2} with {1}")]
    Answers(SocketAddr, StatusCode, &'static str),
}

/// Asks once.
///
/// # Errors
/// When the proxy does not answer that it lives.
pub async fn ask(config: &Config) -> Result<(), Unhealthy> {
    ask_for("/health", config).await
}

/// Asks once whether it can answer.
///
/// # Errors
/// When the proxy does not say that it can.
pub async fn ready(config: &Config) -> Result<(), Unhealthy> {
    ask_for("/ready", config).await
}

async fn ask_for(path: &'static str, config: &Config) -> Result<(), Unhealthy> {
    let address = nearest(config.address);
    let asking = async {
        let stream = TcpStream::connect(address).await?;
        if !config.tls {
            return get(stream, address, path).await;
        }
        let connector = TlsConnector::from(Arc::new(with_any_certificate()));
        get(connector.connect(ServerName::from(address.ip()), stream).await?, address, path).await
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(StatusCode::OK)) => Ok(()),
        Ok(Ok(status)) => Err(Unhealthy::Answers(address, status, path)),
        Ok(Err(error)) => Err(Unhealthy::Silent(address, error)),
        Err(_) => Err(Unhealthy::Late(address)),
    }
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    host: SocketAddr,
    path: &str,
) -> io::Result<StatusCode> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(path).header("host", host.to_string()).body(Empty::<Bytes>::new());
    let request = request.map_err(io::Error::other)?;
    tokio::select! {
        answer = sender.send_request(request) => answer.map(|answer| answer.status()).map_err(io::Error::other),
        ended = connection => Err(ended.err().map_or_else(|| io::ErrorKind::UnexpectedEof.into(), io::Error::other)),
    }
}

/// Where to reach what listens there: what listens on every interface listens on loopback too.
fn nearest(mut listens: SocketAddr) -> SocketAddr {
    if listens.ip().is_unspecified() {
        listens.set_ip(if listens.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { IpAddr::from(Ipv6Addr::LOCALHOST) });
    }
    listens
}

/// TLS with whoever is there.
fn with_any_certificate() -> ClientConfig {
    let mut client = trust::client(rustls::RootCertStore::empty());
    let verifier = Anybody(client.crypto_provider().clone());
    client.dangerous().set_certificate_verifier(Arc::new(verifier));
    client
}

/// Takes every certificate, but only from whoever has its key: so a broken handshake is still seen.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

mod anybody {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    impl ServerCertVerifier for super::Anybody {
        fn verify_server_cert(
            &self,
            _certificate: &CertificateDer<'_>,
            _chain: &[CertificateDer<'_>],
            _name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

//! This machine: addresses to listen on, the certificate, open files; and the proxy that may run here already.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::Finding;
use crate::clock::Clock;
use crate::{health, http, open_files};

const TLS: &str = "certificate";
const FILES: &str = "open files";

/// A certificate is to be renewed this long before its end, as is done with those that live 90 days.
const RENEW: Duration = Duration::from_secs(21 * 24 * 3600);

/// Where a proxy with these settings would answer, or does.
pub(super) struct Proxy {
    listen: SocketAddr,
    metrics_listen: Option<SocketAddr>,
    tls: bool,
}

impl Proxy {
    pub(super) fn at(
        listen: SocketAddr,
        metrics_listen: Option<SocketAddr>,
        identity: Option<&http::Identity>,
    ) -> Self {
        Self { listen, metrics_listen, tls: identity.is_some() }
    }

    /// Whom to ask; on a port that is chosen at the start nobody can be.
    fn asked(&self) -> Option<health::Config> {
        let main = health::Config { address: self.listen, tls: self.tls };
        (self.listen.port() != 0).then_some(main)
    }

    /// Whether one runs.
    pub(super) async fn runs(&self) -> bool {
        match self.asked() {
            Some(asked) => health::ask(&asked).await.is_ok(),
            None => false,
        }
    }
}

pub(super) async fn findings(proxy: &Proxy, identity: Option<&http::Identity>, clock: &Clock) -> Vec<Finding> {
    let mut findings = vec![listens("listen", proxy.listen, proxy.asked()).await];
    if let Some(address) = proxy.metrics_listen {
        let asked = (address.port() != 0).then_some(health::Config { address, tls: false });
        findings.push(listens("metrics-listen", address, asked).await);
    }
    findings.extend(identity.map(|identity| certificate(identity, clock)));
    findings.push(files());
    findings
}

async fn listens(check: &str, address: SocketAddr, asked: Option<health::Config>) -> Finding {
    let Err(error) = TcpListener::bind(address) else { return Finding::ok(check, format!("{address} is free")) };
    let (what, remedy) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let Some(asked) = asked else { return Finding::refused(check, error) };
            return match (health::ask(&asked).await, health::ready(&asked).await) {
                (Ok(()), Ok(())) => Finding::ok(check, format!("a proxy answers at {address} already, and is ready")),
                (Ok(()), Err(_)) => Finding::warning(
                    check,
                    format!("a proxy answers at {address} already, and is not ready"),
                    "its log says why: the store, or the gateway's credentials",
                ),
                (Err(_), _) => Finding::wrong(
                    check,
                    format!("{address} is taken by something that does not answer as a proxy does"),
                    "stop that, or take another port",
                ),
            };
        }
        io::ErrorKind::AddrNotAvailable => {
            ("is no address of this machine", "name one that it has, or 0.0.0.0 for all")
        }
        io::ErrorKind::PermissionDenied => {
            ("may not be listened on by this user", "take a port from 1024 on, or let the service manager grant it")
        }
        _ => ("cannot be listened on", "name another"),
    };
    Finding::wrong(check, format!("{address} {what} ({error})"), remedy)
}

/// That it can be read and fits its key was seen when the settings were.
fn certificate(identity: &http::Identity, clock: &Clock) -> Finding {
    let end = match identity.expires_at() {
        Ok(end) => end,
        Err(unusable) => return Finding::refused(TLS, unusable),
    };
    let (now, date) = (clock.now(), end.rfc3339());
    let remedy = "renew it, and send the proxy SIGHUP";
    if end <= now {
        Finding::wrong(TLS, format!("it expired at {date}"), remedy)
    } else if end.since(now) < RENEW {
        Finding::warning(TLS, format!("it expires at {date}"), remedy)
    } else {
        Finding::ok(TLS, format!("it fits its key, and is good until {date}"))
    }
}

fn files() -> Finding {
    let limit = open_files::limit();
    if limit < open_files::ENOUGH {
        let what = format!("{limit} may be open here, and every connection is one");
        return Finding::warning(
            FILES,
            what,
            "raise the hard limit (LimitNOFILE=, ulimit -Hn) for more clients than that",
        );
    }
    Finding::ok(FILES, format!("{limit} may be open"))
}

//! Flags that are well formed one by one, but do not go together.

use std::net::{IpAddr, SocketAddr};

use http::Uri;

use super::Access;
use super::command_line::Verb;
use super::sources::{Noted, Settings};

/// Without `--auth`, anybody who reaches the proxy may ask. That is refused unless it is said to be meant
/// (`--allow-anonymous`) where others can reach it, and where it would undo the password that the gateway itself asks for.
pub(super) fn protection(settings: &mut Settings, verb: Verb, listen: Result<SocketAddr, Noted>, access: &Access) {
    let is_open = access.auth.as_ref().is_ok_and(Vec::is_empty) && access.allow_anonymous == Ok(false);
    if !is_open {
        return;
    }
    if let Ok(listen) = listen
        && !listen.ip().to_canonical().is_loopback()
    {
        let harm = match verb {
            Verb::Serve | Verb::Check => "could read avatars through your account",
            Verb::Demo | Verb::Health | Verb::Migrate => "could use this proxy",
        };
        settings.object(
            "--listen",
            format!(
                "{listen} can be reached from other machines, and without --auth anybody who reaches it {harm}; give --auth \
                 user:pass, or listen on 127.0.0.1, or say --allow-anonymous if that is meant"
            ),
        );
    }
    // One that is mistaken was meant as well.
    if access.gateway_auth != Ok(None) {
        settings.object(
            "--gateway-auth",
            "the gateway asks for a password, and without --auth this proxy would not: anybody who reaches it could read \
             avatars through your account; give --auth user:pass, or say --allow-anonymous if that is meant",
        );
    }
}

/// Two listeners need two addresses.
pub(super) fn two_listeners(settings: &mut Settings, listen: SocketAddr, metrics: SocketAddr) {
    let collide = takes(listen, metrics.ip()) || takes(metrics, listen.ip());
    if collide && metrics.port() == listen.port() && listen.port() != 0 {
        let text = format!("{metrics} is taken by --listen ({listen}); give it another port");
        settings.object("--metrics-listen", text);
    }
}

/// A proxy in front of itself would ask itself for ever.
pub(super) fn no_loop(settings: &mut Settings, listen: SocketAddr, gateway: &Uri) {
    let address = match gateway.host() {
        Some("localhost") => Some(IpAddr::from([127, 0, 0, 1])),
        host => host.and_then(|host| host.trim_matches(['[', ']']).parse().ok()),
    };
    let default = if gateway.scheme_str() == Some("https") { 443 } else { 80 };
    let is_here = |address: IpAddr| address == listen.ip() || (address.is_loopback() && takes(listen, address));
    if address.is_some_and(is_here) && gateway.port_u16().unwrap_or(default) == listen.port() {
        let text = format!("is this proxy's own address, --listen ({listen}); give the gateway's");
        settings.object("--gateway-url", text);
    }
}

/// An authority is asked about certificates, and a gateway in plain text has none.
pub(super) fn authority_has_a_use(settings: &mut Settings, gateway: &Uri) {
    if gateway.scheme_str() == Some("http") {
        let text = "has no effect beside an http: gateway, whose word nobody checks; give --gateway-url https://..., or leave \
                    this out";
        settings.object("--gateway-ca", text);
    }
}

/// Whether a listener there also takes what is sent to `address`.
fn takes(listener: SocketAddr, address: IpAddr) -> bool {
    let takes_all = listener.ip().is_unspecified() && (listener.is_ipv6() || address.is_ipv4());
    takes_all || listener.ip() == address
}

//! Values that say where: addresses to listen on, the gateway, origins, the store.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::Uri;
use http::uri::Authority;

use super::StoreLocation;
use crate::store::redis::Address;

/// An address to listen on: an IP address or `localhost` (which is 127.0.0.1, whatever the resolver says), and a port.
///
/// No other host names: what a name resolves to, and so who can reach it, is not seen in the configuration.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    if text.starts_with(':') {
        return Err("says no address; write 127.0.0.1:8080 for this machine alone, or 0.0.0.0:8080 or [::]:8080 for \
                    every interface"
            .to_owned());
    }
    let address = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse(),
        None => text.parse(),
    };
    address.map_err(|_| {
        "write an IP address and a port, as in 127.0.0.1:8080, localhost:8080, [::1]:8080 or 0.0.0.0:8080".to_owned()
    })
}

/// Where the gateway is: scheme, host, perhaps a port and a base path, nothing else.
pub(super) fn gateway_url(text: &str) -> Result<Uri, String> {
    const FORM: &str =
        "write http:// or https:// and a host, as in http://localhost:3000 or https://example.com/gateway";
    if text.contains('#') {
        return Err("cannot have a fragment (#...)".to_owned());
    }
    let url: Uri = text.parse().map_err(|_| FORM)?;
    let (Some("http" | "https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(FORM.to_owned());
    };
    if authority.as_str().contains('@') {
        return Err("cannot hold a user or password; give them with --gateway-auth user:pass".to_owned());
    }
    if url.query().is_some() {
        return Err("cannot have a query (?...); only a base path is kept".to_owned());
    }
    if authority.host().is_empty() {
        return Err(FORM.to_owned());
    }
    if !has_good_port(authority) {
        return Err("its port must be a number between 1 and 65535".to_owned());
    }
    Ok(url)
}

/// `*`, or a list of origins in the form in which browsers send them: lower case, no default port.
pub(super) fn origins(text: &str) -> Result<Vec<String>, String> {
    let mut origins: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let origin = if part == "*" { "*".to_owned() } else { origin(part)? };
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    if origins.len() > 1 && origins.iter().any(|origin| origin == "*") {
        return Err("`*` is every origin; write it alone, or leave it out and list the origins".to_owned());
    }
    Ok(origins)
}

fn origin(text: &str) -> Result<String, String> {
    const FORM: &str = "write `*`, or origins as scheme://host[:port] without a path, separated by commas, as in \
                        https://crm.example.com,http://localhost:3000";
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://").ok_or(FORM)?;
    let is_scheme = scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.'));
    if !is_scheme || authority.contains(['/', '?', '#', '@']) {
        return Err(FORM.to_owned());
    }
    let authority: Authority = authority.parse().map_err(|_| FORM)?;
    if authority.host().is_empty() || !has_good_port(&authority) {
        return Err(FORM.to_owned());
    }
    Ok(match (scheme, authority.port_u16()) {
        ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{}", authority.host()),
        _ => format!("{scheme}://{authority}"),
    })
}

/// `sqlite:<path>`, or the URL of a Redis.
pub(super) fn store(text: &str) -> Result<StoreLocation, String> {
    const FORM: &str = "write sqlite:PATH, as in sqlite:avatar-proxy.db or sqlite:/var/lib/avatar-proxy/avatar-proxy.db, or \
                        for many replicas redis://HOST";
    let (engine, path) = text.split_once(':').ok_or(FORM)?;
    match engine {
        "sqlite" if path.is_empty() => Err(format!("names no file; {FORM}")),
        "sqlite" if path.ends_with(['/', '\\']) => Err(format!("names a folder; {FORM}")),
        // Forms that SQLite itself would not take for a file's name.
        "sqlite" if path.starts_with("//") || path.starts_with("file:") || path.starts_with(':') => {
            Err(format!("takes a plain path; {FORM}"))
        }
        "sqlite" if path.contains(char::is_control) => Err(format!("has a control character in its path; {FORM}")),
        "sqlite" => Ok(StoreLocation::Sqlite(PathBuf::from(path))),
        "redis" | "rediss" | "redis+sentinel" | "redis+cluster" => Address::parse(text).map(StoreLocation::Redis),
        _ => Err(FORM.to_owned()),
    }
}

/// A file that is read later.
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains(char::is_control) {
        // Most likely its content, by way of a variable that ends in `_FILE`.
        return Err("write the path of a file, not what it holds".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// Whether there is no port, or one that can be connected to.
fn has_good_port(authority: &Authority) -> bool {
    match authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest).split_once(':') {
        Some((_, port)) => {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0)
        }
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn listens_on_addresses_and_localhost() {
        for (text, address) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert_eq!(listen(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            ":8080",
            "8080",
            "127.0.0.1",
            "localhost",
            "localhost:",
            "example.com:80",
            "::1:80:",
            "127.0.0.1:65536",
        ] {
            assert!(listen(text).unwrap_err().contains("127.0.0.1:8080"), "{text}");
        }
    }

    #[test]
    fn the_gateway_is_scheme_host_and_base_path() {
        for text in ["http://localhost:3000", "https://example.com/wa/", "http://[::1]:3000/a/b", "http://10.0.0.7"] {
            let url = gateway_url(text).unwrap();
            assert!(format!("{url}").starts_with(text), "{text} became {url}");
        }
        for (text, hint) in [
            ("", "as in http://"),
            ("localhost:3000", "as in http://"),
            ("localhost", "as in http://"),
            ("/gateway", "as in http://"),
            ("ftp://example.com", "as in http://"),
            ("http://", "as in http://"),
            ("http://:3000", "as in http://"),
            ("http://exa mple", "as in http://"),
            ("http://ada:secret@example.com", "--gateway-auth"),
            ("http://example.com?a=b", "query"),
            ("http://example.com/#a", "fragment"),
            ("http://example.com:0", "port"),
            ("http://example.com:", "port"),
            ("http://example.com:65536", "port"),
        ] {
            let said = gateway_url(text).unwrap_err();
            assert!(said.contains(hint), "{text}: {said}");
        }
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        let read = |text: &str| origins(text).map(|origins| origins.join(" "));
        for (text, origins) in [
            ("*", "*"),
            ("https://CRM.example.com:443, http://localhost:3000", "https://crm.example.com http://localhost:3000"),
            ("http://a,http://a:80", "http://a"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(origins), "{text}");
        }
        for text in
            ["", "example.com", "https://a/", "https://a/b", "https://u:p@a", "https://", "null", "https://a:0", "*,"]
        {
            assert!(origins(text).is_err(), "{text}");
        }
        assert!(read("*,https://a").unwrap_err().contains("alone"));
    }

    #[test]
    fn the_store_is_a_file_or_a_redis() {
        assert_eq!(store("sqlite:a b.db"), Ok(StoreLocation::Sqlite("a b.db".into())));
        assert_eq!(store("sqlite:/a/b?.db"), Ok(StoreLocation::Sqlite("/a/b?.db".into())));
        for text in ["redis://h:6379", "rediss://h:1/2", "redis+sentinel://a:1,b:2/main", "redis+cluster://a:1,b:2"] {
            let Ok(StoreLocation::Redis(address)) = store(text) else { panic!("{text} is a Redis") };
            assert_eq!(address.to_string(), text);
        }
        assert!(store("redis+sentinel://h").unwrap_err().contains("names no service"));
        for text in [
            "",
            "a.db",
            "sqlite:",
            "sqlite:/",
            "sqlite://a.db",
            "sqlite::memory:",
            "sqlite:file:a",
            "sqlite:a\0",
            "pg:a",
        ] {
            assert!(store(text).unwrap_err().contains("sqlite:avatar-proxy.db"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(https?://|sqlite:|redis(\\+sentinel|\\+cluster)?://|localhost:|[*])?.*") {
            let _ = (listen(&text), gateway_url(&text), origins(&text), store(&text));
        }
    }
}

//! Where a Redis is, and how to get in: the four forms of URL.
//!
//! Neither user nor password is ever shown: not by `Display`, not by `Debug`, and not by a mistake's text.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

/// What stands in the hash tag of every key unless the URL says otherwise.
const PREFIX: &str = "avatar-proxy";

/// Longest prefix (bytes): it stands in the name of every key.
const PREFIX_MAX: usize = 64;

const FORM: &str = "write redis://HOST:PORT/DATABASE, rediss:// for TLS, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or \
                    redis+cluster://HOST:PORT,HOST:PORT, with user:password@ before the hosts if there is one";

/// The address of a Redis, or of several that are one.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Who is to be asked where the data is.
    pub(super) shape: Shape,
    /// Each with its port.
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: u32,
    /// How to get in at the Sentinels, who know nothing of the servers' users.
    pub(super) sentinel_user: Option<String>,
    pub(super) sentinel_password: Option<String>,
    /// Whether to speak TLS, to Sentinels too.
    pub(super) tls: bool,
    /// A file of authorities (PEM) that are believed instead of the system's.
    pub(super) authorities: Option<PathBuf>,
    /// What all of the store's keys have in braces.
    pub(super) prefix: String,
}

/// What listens there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// The server itself.
    Server,
    /// Sentinels, which know where the primary of this service is at the moment.
    Sentinel(String),
    /// Nodes of a cluster, which know each other.
    Cluster,
}

impl Address {
    /// Reads a URL. `?prefix=` names the store, so that several can share a server; `?tls=true` is for Sentinels and clusters,
    /// `?ca=` names a file of authorities, and `?sentinel_user=` and `?sentinel_password=` are for Sentinels with their own.
    ///
    /// # Errors
    /// What is wrong with it, without quoting what may be a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        if rest.contains('#') {
            return Err(format!("cannot have a fragment (#...), nor a # that is not written %23; {FORM}"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (rest, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = rest.rsplit_once('@').map_or(("", rest), |(login, hosts)| (login, hosts));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let mut address = Self {
            shape: Shape::Server,
            hosts: vec![],
            user: decoded(user, "user")?,
            password: decoded(password, "password")?,
            database: 0,
            sentinel_user: None,
            sentinel_password: None,
            tls: scheme == "rediss",
            authorities: None,
            prefix: PREFIX.to_owned(),
        };
        if address.user.is_some() && address.password.is_none() {
            return Err(
                "has a user and no password; write user:password@, or :password@ for the default user".to_owned()
            );
        }
        let (service, database) = path.split_once('/').unwrap_or((path, ""));
        let (shape, database, port) = match scheme {
            "redis" | "rediss" => (Shape::Server, path, 6379),
            "redis+sentinel" if service.is_empty() => {
                return Err(format!("names no service behind the Sentinels; {FORM}"));
            }
            "redis+sentinel" => (Shape::Sentinel(service.to_owned()), database, 26379),
            "redis+cluster" if !path.is_empty() => return Err("cannot name a database: a cluster has one".to_owned()),
            "redis+cluster" => (Shape::Cluster, "", 6379),
            _ => return Err(FORM.to_owned()),
        };
        address.hosts = hosts.split(',').map(|host| host_and_port(host, port)).collect::<Result<_, _>>()?;
        if shape == Shape::Server && address.hosts.len() > 1 {
            return Err(
                "names several hosts; redis+sentinel:// or redis+cluster:// says how they belong together".to_owned()
            );
        }
        address.shape = shape;
        if !database.is_empty() {
            address.database = database.parse().map_err(|_| "its database must be a number, as in redis://host/0")?;
        }
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            address.set(parameter)?;
        }
        if address.authorities.is_some() && !address.tls {
            return Err("names authorities (ca) and no TLS: write rediss://, or tls=true".to_owned());
        }
        if address.sentinel_user.is_some() && address.sentinel_password.is_none() {
            return Err("has a sentinel_user and no sentinel_password".to_owned());
        }
        Ok(address)
    }

    fn set(&mut self, parameter: &str) -> Result<(), String> {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = decoded(value, name)?.unwrap_or_default();
        match name {
            "prefix" if value.is_empty() || value.len() > PREFIX_MAX => {
                Err(format!("its prefix must have 1 to {PREFIX_MAX} bytes"))
            }
            "prefix" if value.contains(|letter: char| letter.is_control() || matches!(letter, '{' | '}')) => {
                Err("its prefix cannot have braces or control characters".to_owned())
            }
            "prefix" => {
                self.prefix = value;
                Ok(())
            }
            "tls" if value == "true" && self.shape != Shape::Server => {
                self.tls = true;
                Ok(())
            }
            "tls" => {
                Err("takes tls=true with redis+sentinel:// and redis+cluster:// alone; a server with TLS is rediss://"
                    .to_owned())
            }
            "ca" if value.is_empty() => Err("its ca must name a file".to_owned()),
            "ca" => {
                self.authorities = Some(PathBuf::from(value));
                Ok(())
            }
            "sentinel_user" | "sentinel_password" if !matches!(self.shape, Shape::Sentinel(_)) => {
                Err(format!("takes {name} with redis+sentinel:// alone"))
            }
            "sentinel_user" | "sentinel_password" if value.is_empty() => Err(format!("its {name} is empty")),
            "sentinel_user" => {
                self.sentinel_user = Some(value);
                Ok(())
            }
            "sentinel_password" => {
                self.sentinel_password = Some(value);
                Ok(())
            }
            _ => {
                Err(format!("has a parameter {name:?}; there are prefix, tls, ca, sentinel_user and sentinel_password"))
            }
        }
    }

    /// The key of the hash `meta`; all others begin as it does. The braces keep them in one slot of a cluster.
    pub(super) fn meta(&self) -> String {
        format!("{{{}}}:meta", self.prefix)
    }

    /// The key of the log: a stream.
    pub(super) fn log(&self) -> String {
        format!("{{{}}}:log", self.prefix)
    }

    /// The key of the flights that ended: a stream.
    pub(super) fn landed(&self) -> String {
        format!("{{{}}}:landed", self.prefix)
    }
}

/// Without user and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.shape {
            Shape::Server if self.tls => "rediss",
            Shape::Server => "redis",
            Shape::Sentinel(_) => "redis+sentinel",
            Shape::Cluster => "redis+cluster",
        };
        write!(f, "{scheme}://")?;
        for (at, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
            write!(f, "{comma}{open}{host}{close}:{port}")?;
        }
        if let Shape::Sentinel(service) = &self.shape {
            write!(f, "/{service}")?;
        }
        if self.database > 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A part of a URL; `None` when it is empty.
fn decoded(text: &str, what: &str) -> Result<Option<String>, String> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| format!("its {what} is not UTF-8 when decoded"))?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

fn host_and_port(text: &str, default: u16) -> Result<(String, u16), String> {
    let (host, rest) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0),
        None => rest.is_empty().then_some(default),
    };
    // Host and port are not quoted: what a password with an unwritten @ or / leaves here may be a part of it.
    let bad = |letter: char| letter.is_whitespace() || letter.is_control();
    if host.is_empty() || host.contains(bad) {
        return Err(format!("names no host; {FORM}"));
    }
    port.map(|port| (host.to_owned(), port)).ok_or_else(|| {
        "its ports must be numbers between 1 and 65535 (and a : / or @ in a password written %3A, %2F, %40)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        Address::parse(text).unwrap_err()
    }

    #[test]
    fn the_four_forms_are_read() {
        let server = Address::parse("redis://h").unwrap();
        assert_eq!((server.shape.clone(), server.hosts.clone()), (Shape::Server, vec![("h".into(), 6379)]));
        assert_eq!((server.meta().as_str(), server.tls, server.database), ("{avatar-proxy}:meta", false, 0));
        let tls = Address::parse("rediss://ada:p%40ss@[::1]:7/3?prefix=crm&ca=a.pem").unwrap();
        assert_eq!((tls.hosts[0].clone(), tls.database, tls.tls), (("::1".into(), 7), 3, true));
        assert_eq!((tls.user.as_deref(), tls.password.as_deref()), (Some("ada"), Some("p@ss")));
        assert_eq!((tls.log().as_str(), tls.authorities), ("{crm}:log", Some("a.pem".into())));
        let sentinel = Address::parse("redis+sentinel://:secret@a,b:1/main/2?tls=true").unwrap();
        assert_eq!(sentinel.shape, Shape::Sentinel("main".into()));
        assert_eq!(sentinel.hosts, [("a".into(), 26379), ("b".into(), 1)]);
        assert_eq!((sentinel.user, sentinel.password.as_deref()), (None, Some("secret")));
        assert_eq!((sentinel.database, sentinel.tls), (2, true));
        let cluster = Address::parse("redis+cluster://a:1,b:2").unwrap();
        assert_eq!((cluster.shape, cluster.hosts.len()), (Shape::Cluster, 2));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, hint) in [
            ("", "redis://HOST"),
            ("redis:h", "redis://HOST"),
            ("http://h", "redis://HOST"),
            ("redis://", "no host"),
            ("redis://:7", "no host"),
            ("redis://a b", "no host"),
            ("redis://h:0", "ports"),
            ("redis://h:x", "ports"),
            ("redis://[::1]7", "ports"),
            ("redis://a,b", "several hosts"),
            ("redis://h/x", "database"),
            ("redis://ada@h", "no password"),
            ("redis://h#insecure", "fragment"),
            ("redis://h?protocol=resp3", "parameter"),
            ("redis://h?tls=true", "rediss://"),
            ("redis://h?prefix=", "1 to 64"),
            ("redis://h?prefix=a{b}", "braces"),
            ("redis://h?prefix=%FF", "UTF-8"),
            ("redis://h?ca=a.pem", "no TLS"),
            ("redis+sentinel://h", "service"),
            ("redis+sentinel://h/main?sentinel_user=ada", "no sentinel_password"),
            ("redis+sentinel://h/main?sentinel_password=", "is empty"),
            ("redis://h?sentinel_password=s3cret", "redis+sentinel:// alone"),
            ("redis+cluster://h/1", "database"),
        ] {
            assert!(said(text).contains(hint), "{text}: {}", said(text));
        }
    }

    #[test]
    fn no_password_is_shown() {
        let address = "redis+sentinel://ada:secret@a:1,[::1]:2/main/3?sentinel_user=sue&sentinel_password=hidden";
        let address = Address::parse(address).unwrap();
        assert_eq!(
            (address.sentinel_user.as_deref(), address.sentinel_password.as_deref()),
            (Some("sue"), Some("hidden"))
        );
        assert_eq!(address.to_string(), "redis+sentinel://a:1,[::1]:2/main/3");
        assert_eq!(format!("{address:?}"), address.to_string());
        for text in
            ["redis://ada:sec/ret@h", "redis://ada:sec?ret@h", "redis://ada:sec#ret@h", "redis://ada:secret@h:x"]
        {
            assert!(!said(text).contains("ret@"), "{}", said(text));
            assert!(!said(text).contains("sec"), "{}", said(text));
        }
    }
}

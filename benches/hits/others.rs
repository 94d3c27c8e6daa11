//! The others, configured as a careful user would: connections kept alive, credentials checked, answers kept by person, form
//! and device, nothing logged, one worker.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::machine::{Machine, which};
use crate::options::Which;
use crate::server::{Server, folder, free_address};
use crate::wire::{PASSWORD, USER, authorization};

/// A server that Debian packages.
pub(crate) struct Other {
    pub(crate) which: Which,
    program: &'static str,
    /// Its package.
    pub(crate) package: &'static str,
    title: &'static str,
    version: &'static str,
    configure: fn(&Setting) -> String,
    run: fn(&mut Command, &Setting),
}

/// Where a server stands.
struct Setting<'a> {
    listen: SocketAddr,
    origin: SocketAddr,
    folder: &'a Path,
    configuration: PathBuf,
}

/// Varnish logs to memory, whether anybody reads it or not; most of what it says of a hit can be left out.
const SILENT: &str = "vsl_mask=-Begin,-End,-ReqStart,-ReqMethod,-ReqURL,-ReqProtocol,-ReqHeader,-ReqUnset,-ReqAcct,\
                      -RespProtocol,-RespStatus,-RespReason,-RespHeader,-RespUnset,-VCL_call,-VCL_return,-VCL_use,-Hit,\
                      -Timestamp,-Filters,-Link,-SessOpen,-SessClose";

pub(crate) const OTHERS: [Other; 3] = [
    Other {
        which: Which::Haproxy,
        program: "haproxy",
        package: "haproxy",
        title: "HAProxy cache",
        version: "-v",
        configure: haproxy,
        run: |command, setting| {
            command.arg("-db").arg("-f").arg(&setting.configuration);
        },
    },
    Other {
        which: Which::Nginx,
        program: "nginx",
        package: "nginx",
        title: "nginx proxy_cache",
        version: "-v",
        configure: nginx,
        run: |command, setting| {
            command.arg("-p").arg(setting.folder).arg("-c").arg(&setting.configuration).args(["-e", "stderr"]);
        },
    },
    Other {
        which: Which::Varnish,
        program: "varnishd",
        package: "varnish",
        title: "Varnish",
        version: "-V",
        configure: varnish,
        run: |command, setting| {
            command.arg("-F").arg("-f").arg(&setting.configuration).arg("-n").arg(setting.folder.join("run"));
            command.arg("-a").arg(setting.listen.to_string()).args(["-s", "malloc,256m", "-j", "none", "-T", "none"]);
            command.args(["-p", "thread_pools=1", "-p", SILENT]);
        },
    },
];

impl Other {
    /// Starts it, if it is installed.
    pub(crate) fn start(&self, machine: &Machine, origin: SocketAddr) -> Outcome<Option<Server>> {
        let Some(program) = which(self.program) else { return Ok(None) };
        let (listen, folder) = (free_address()?, folder()?);
        let path = folder.path().to_owned();
        let setting = Setting { listen, origin, folder: &path, configuration: path.join("configuration") };
        fs::write(&setting.configuration, (self.configure)(&setting))?;
        let version = Command::new(&program).arg(self.version).output()?;
        let version = [version.stdout, version.stderr].concat();
        let name = format!("{} {}", self.title, version_in(&String::from_utf8_lossy(&version)));
        let mut command = machine.on_server_core(program);
        (self.run)(&mut command, &setting);
        Server::start(machine, &name, command, listen, folder).map(Some)
    }
}

/// The first number with a dot in it.
fn version_in(text: &str) -> &str {
    text.split(|character: char| !character.is_ascii_digit() && character != '.')
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'))
        .unwrap_or_default()
}

fn nginx(setting: &Setting) -> String {
    let Setting { listen, origin, folder, .. } = setting;
    // Started by root, it would give its rights away and could no longer read the folder.
    let is_root = fs::metadata(folder).is_ok_and(|folder| folder.uid() == 0);
    let user = if is_root { "user root;" } else { "" };
    let authorization = authorization();
    format!(
        r#"{user}
daemon off;
pid nginx.pid;
worker_processes 1;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    open_file_cache max=100000 inactive=1h;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    proxy_cache_path cache levels=1:2 keys_zone=avatars:64m inactive=1h max_size=4g use_temp_path=off;
    # Cheaper than auth_basic, which reads its file at every request.
    map $http_authorization $admitted {{
        default 0;
        "{authorization}" 1;
    }}
    upstream gateway {{
        server {origin};
        keepalive 64;
    }}
    server {{
        listen {listen} backlog=4096;
        location = /user/avatar {{
            if ($admitted = 0) {{ return 401; }}
            proxy_pass http://gateway;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache avatars;
            proxy_cache_key "$arg_phone $arg_is_preview $arg_is_community $http_x_device_id";
            proxy_cache_valid 200 1h;
            proxy_cache_lock on;
            add_header Cache-Status $upstream_cache_status;
        }}
    }}
}}
"#
    )
}

fn haproxy(setting: &Setting) -> String {
    let Setting { listen, origin, .. } = setting;
    format!(
        "global
    nbthread 1
    maxconn 8000
cache avatars
    total-max-size 256
    max-object-size 10000
    max-age 3600
userlist clients
    user {USER} insecure-password {PASSWORD}
defaults
    mode http
    option http-keep-alive
    timeout connect 5s
    timeout client 1h
    timeout server 1m
    timeout http-request 15s
frontend clients
    bind {listen}
    http-request auth unless {{ http_auth(clients) }}
    # It neither keeps nor gives out answers to requests that carry credentials, and its key is the address alone.
    http-request del-header Authorization
    http-request set-query %[query]&device_id=%[req.hdr(X-Device-Id)]
    http-request cache-use avatars
    http-response cache-store avatars
    default_backend gateway
backend gateway
    http-response set-header Cache-Control max-age=3600
    server gateway {origin} maxconn 64
"
    )
}

fn varnish(setting: &Setting) -> String {
    let (host, port) = (setting.origin.ip(), setting.origin.port());
    let authorization = authorization();
    format!(
        r#"vcl 4.1;
backend gateway {{ .host = "{host}"; .port = "{port}"; }}
sub vcl_recv {{
    if (req.http.Authorization != "{authorization}") {{ return (synth(401)); }}
    unset req.http.Authorization;
    return (hash);
}}
sub vcl_hash {{
    hash_data(req.url);
    hash_data(req.http.X-Device-Id);
    return (lookup);
}}
sub vcl_backend_response {{
    set beresp.ttl = 1h;
    return (deliver);
}}
"#
    )
}

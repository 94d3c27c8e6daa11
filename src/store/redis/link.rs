//! The connection: one face over a server, a Sentinel's choice and a cluster, which mends itself.
//!
//! The rules kept here:
//! * Every call has a deadline ([`within`]), and so has every attempt to connect. A connection that did not answer in time is given up: it may
//!   be half open, and nothing else would find that out.
//! * One attempt to connect at a time, however many wait for it; who comes right after one that failed is told the same.
//! * A call whose connection turns out to be broken is made once more on a new one. Whatever it was, it may be made twice: every
//!   write is compared with the revision it was computed from, or sets what it would set again.
//! * Who finds itself on a read-only server (a primary that was deposed) leaves it, and asks anew who is the primary.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsCertificates, TlsMode, Value,
};

use super::address::{Address, Shape};
use crate::deadline::within;

/// How long a call may take.
pub(super) const ANSWER: Duration = Duration::from_secs(2);

/// How long an attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);

/// For how long an attempt that failed speaks for others.
const PAUSE: Duration = Duration::from_millis(100);

/// Calls under way on one connection before the next one waits to be sent.
const PIPELINE: usize = 1024;

/// A connection that mends itself.
pub(super) struct Link {
    pub(super) address: Address,
    /// What the file of authorities holds.
    certificates: Option<TlsCertificates>,
    current: Mutex<Current>,
    /// Held while connecting; the last failure.
    connecting: tokio::sync::Mutex<Option<(Instant, RedisError)>>,
}

#[derive(Default)]
struct Current {
    wire: Option<Wire>,
    /// Counts wires, so that only the one that broke is given up.
    generation: u64,
}

/// A connection as it is, and how long its answers may take.
#[derive(Clone)]
pub(super) struct Wire {
    connection: Connection,
    answer: Duration,
}

#[derive(Clone)]
enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Wire {
    /// Sends a command. A cluster finds the node by the command's first key.
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answered = async {
            match &mut self.connection {
                Connection::Server(connection) => command.query_async(connection).await,
                Connection::Cluster(connection) => command.query_async(connection).await,
            }
        };
        within(self.answer, answered).await.unwrap_or_else(|_| Err(late()))
    }

    /// Sends a command that names no key to the node that has this one.
    pub(super) async fn send_to_node_of(&mut self, key: &str, command: Cmd) -> RedisResult<Value> {
        let Connection::Cluster(connection) = &mut self.connection else { return self.send(&command).await };
        let node = SingleNodeRoutingInfo::SpecificNode(Route::with_slot(Slot::for_key(key), SlotAddr::Master));
        let answered = connection.route_command(command, RoutingInfo::SingleNode(node));
        within(self.answer, answered).await.unwrap_or_else(|_| Err(late()))
    }

    /// Whether it may be replaced unnoticed, as those to a cluster's nodes are.
    pub(super) fn is_replaced_unnoticed(&self) -> bool {
        matches!(self.connection, Connection::Cluster(_))
    }
}

/// No answer came in time.
fn late() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

impl Link {
    /// A link that is not connected yet.
    ///
    /// # Errors
    /// When the file of authorities cannot be read.
    pub(super) fn new(address: Address) -> Result<Self, std::io::Error> {
        let certificates = match &address.authorities {
            Some(path) => Some(TlsCertificates { client_tls: None, root_cert: Some(std::fs::read(path)?) }),
            None => None,
        };
        Ok(Self { address, certificates, current: Mutex::default(), connecting: tokio::sync::Mutex::default() })
    }

    /// Sends a command on the connection that there is, or on a new one.
    pub(super) async fn call(&self, command: &Cmd) -> RedisResult<Value> {
        let mut repeated = false;
        loop {
            let (mut wire, generation) = self.wire().await?;
            let error = match wire.send(command).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.is_io_error() || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) {
                self.give_up(generation);
            }
            if repeated || !error.is_connection_dropped() {
                return Err(error);
            }
            repeated = true;
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected(&self) -> Option<(Wire, u64)> {
        let current = self.current();
        current.wire.clone().map(|wire| (wire, current.generation))
    }

    /// The connection, made if there is none.
    async fn wire(&self) -> RedisResult<(Wire, u64)> {
        if let Some(connected) = self.connected() {
            return Ok(connected);
        }
        let mut failed = self.connecting.lock().await;
        if let Some(connected) = self.connected() {
            return Ok(connected);
        }
        if let Some((at, error)) = &*failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        match self.connect(ANSWER).await {
            Ok(wire) => {
                *failed = None;
                Ok((wire.clone(), self.take_up(wire)))
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Asks anew where to go, and goes there; stays where it is if nobody says.
    pub(super) async fn look_again(&self) {
        match self.connect(ANSWER).await {
            Ok(wire) => {
                self.take_up(wire);
            }
            Err(error) => tracing::debug!(%error, "nobody says where the primary is"),
        }
    }

    /// Uses this connection from now on; returns which one it is.
    fn take_up(&self, wire: Wire) -> u64 {
        let mut current = self.current();
        current.generation += 1;
        current.wire = Some(wire);
        current.generation
    }

    /// Drops the connection.
    pub(super) fn close(&self) {
        self.current().wire = None;
    }

    fn give_up(&self, generation: u64) {
        let mut current = self.current();
        if current.generation == generation {
            current.wire = None;
        }
    }

    /// A connection of its own, whose answers may take as long as `answer`: for calls that wait at the server.
    pub(super) async fn connect(&self, answer: Duration) -> RedisResult<Wire> {
        let connecting = async {
            match &self.address.shape {
                Shape::Server => self.connect_to_server().await,
                Shape::Sentinel(service) => self.connect_by_sentinels(service).await,
                Shape::Cluster => self.connect_to_cluster(answer).await,
            }
        };
        let connection = within(CONNECT, Box::pin(connecting)).await.unwrap_or_else(|_| Err(late()))?;
        Ok(Wire { connection, answer })
    }

    async fn connect_to_server(&self) -> RedisResult<Connection> {
        let node = self.nodes()?.swap_remove(0);
        let client = match &self.certificates {
            Some(certificates) => Client::build_with_tls(node, certificates.clone())?,
            None => Client::open(node)?,
        };
        client.get_multiplexed_async_connection_with_config(&config()).await.map(Connection::Server)
    }

    async fn connect_by_sentinels(&self, service: &str) -> RedisResult<Connection> {
        let Address { user, password, sentinel_user, sentinel_password, database, tls, .. } = &self.address;
        let addresses = self.address.hosts.iter().map(|(host, port)| self.place(host, *port));
        let mut builder = SentinelClientBuilder::new(addresses, service, SentinelServerType::Master)?
            .set_client_to_redis_db((*database).into());
        if let Some(user) = user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(user) = sentinel_user {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = sentinel_password {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if *tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = &self.certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        builder.build()?.get_async_connection_with_config(&config()).await.map(Connection::Server)
    }

    async fn connect_to_cluster(&self, answer: Duration) -> RedisResult<Connection> {
        let mut builder = ClusterClientBuilder::new(self.nodes()?)
            .connection_timeout(CONNECT)
            .response_timeout(answer)
            .overall_response_timeout(None);
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        builder.build()?.get_async_connection().await.map(Connection::Cluster)
    }

    fn place(&self, host: &str, port: u16) -> ConnectionAddr {
        let host = host.to_owned();
        if self.address.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }

    /// The servers that the address names, with how to get in.
    fn nodes(&self) -> RedisResult<Vec<ConnectionInfo>> {
        let mut settings = RedisConnectionInfo::default().set_db(self.address.database.into());
        if let Some(user) = &self.address.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.address.password {
            settings = settings.set_password(password);
        }
        let node = |(host, port): &(String, u16)| {
            Ok(self.place(host, *port).into_connection_info()?.set_redis_settings(settings.clone()))
        };
        self.address.hosts.iter().map(node).collect()
    }
}

/// A wire has its own deadline for answers.
fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE)
}

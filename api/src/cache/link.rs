//! The connection to Redis: to one server, to a cluster, or to whichever server its sentinels call the master. Each is one
//! multiplexed connection. What it is asked, and what follows when it does not answer, is `remote`'s.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, ProtocolVersion, RedisError, RedisFuture,
    RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    sentinel::{SentinelClient, SentinelServerType},
};

use super::endpoint::Endpoint;

/// How many of a cluster's nodes a command is sent to that are not, or no more, the ones that have the key.
const REDIRECTS_MAX: u32 = 3;

/// Whether a command may go on at another node of the cluster when one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redirects {
    Follow,
    /// No: whoever asks has to know that it may be another one that answers, which lacks what the first one was told last.
    Fail,
}

/// Opened by the first one who asks. One that was lost is found again by [`Link::find`] and [`Link::hold`] alone, so that nobody gets
/// from one server to another unnoticed; only the connection to a single server is opened again by itself.
pub(super) struct Link {
    way: Way,
    held: Mutex<Held>,
    opening: tokio::sync::Mutex<()>,
    response_deadline: Duration,
}

enum Way {
    Server(ConnectionManager),
    Cluster(ClusterClient),
    Sentinels(tokio::sync::Mutex<SentinelClient>),
}

enum Held {
    Unopened,
    Open(Connection),
    Lost,
}

impl Held {
    /// None when nobody has asked for it yet.
    fn connection(&self) -> RedisResult<Option<Connection>> {
        match self {
            Self::Unopened => Ok(None),
            Self::Open(connection) => Ok(Some(connection.clone())),
            Self::Lost => Err(RedisError::from((ErrorKind::Io, "the connection was lost"))),
        }
    }
}

impl Link {
    pub(super) fn new(
        endpoint: Endpoint,
        redirects: Redirects,
        connect_deadline: Duration,
        response_deadline: Duration,
    ) -> RedisResult<Self> {
        let way = match endpoint {
            Endpoint::Server(server) => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(connect_deadline))
                    .set_response_timeout(Some(response_deadline))
                    .set_number_of_retries(1);
                Way::Server(ConnectionManager::new_lazy_with_config(Client::open(server)?, config)?)
            }
            Endpoint::Cluster(nodes) => {
                let retries = match redirects {
                    Redirects::Follow => REDIRECTS_MAX,
                    Redirects::Fail => 0,
                };
                let client = ClusterClient::builder(nodes)
                    .retries(retries)
                    .use_protocol(ProtocolVersion::RESP2)
                    .connection_timeout(connect_deadline)
                    .response_timeout(response_deadline);
                Way::Cluster(client.build()?)
            }
            Endpoint::Sentinels { sentinels, master, node } => {
                let client =
                    SentinelClient::build(sentinels, master, Some(node), SentinelServerType::Master)?;
                Way::Sentinels(tokio::sync::Mutex::new(client))
            }
        };
        Ok(Self {
            way,
            held: Mutex::new(Held::Unopened),
            opening: tokio::sync::Mutex::default(),
            response_deadline,
        })
    }

    /// # Errors
    /// When it was lost, or cannot be opened for the first time.
    pub(super) async fn connection(&self) -> RedisResult<Connection> {
        if let Some(held) = self.held().connection()? {
            return Ok(held);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(held) = self.held().connection()? {
            return Ok(held);
        }
        let opened = self.open().await?;
        let mut held = self.held();
        // It may have been lost meanwhile.
        let there = held.connection()?;
        if there.is_none() {
            *held = Held::Open(opened.clone());
        }
        Ok(there.unwrap_or(opened))
    }

    /// The connection, or a new one that nobody else has before [`Link::hold`].
    pub(super) async fn find(&self) -> RedisResult<Connection> {
        let held = self.held().connection().ok().flatten();
        match held {
            Some(connection) => Ok(connection),
            None => self.open().await,
        }
    }

    pub(super) fn hold(&self, connection: Connection) {
        *self.held() = Held::Open(connection);
    }

    /// It did not answer. Where servers take each other's place, the next one may be another one.
    pub(super) fn lose(&self) {
        if !matches!(self.way, Way::Server(_)) {
            *self.held() = Held::Lost;
        }
    }

    async fn open(&self) -> RedisResult<Connection> {
        Ok(match &self.way {
            Way::Server(manager) => Connection::Server(manager.clone()),
            Way::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
            Way::Sentinels(client) => {
                let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.response_deadline));
                let mut client = client.lock().await;
                Connection::Master(client.get_async_connection_with_config(&config).await?)
            }
        })
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) enum Connection {
    Server(ConnectionManager),
    Cluster(ClusterConnection),
    Master(MultiplexedConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(server) => server.req_packed_command(command),
            Self::Cluster(cluster) => cluster.req_packed_command(command),
            Self::Master(master) => master.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(server) => server.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
            Self::Master(master) => master.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(server) => server.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
            Self::Master(master) => master.get_db(),
        }
    }
}

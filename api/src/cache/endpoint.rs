//! Where Redis is, as `REDIS_URL` says it.

use redis::{
    ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsMode, sentinel::SentinelNodeConnectionInfo,
};
use secrecy::{ExposeSecret, SecretString};

/// Where Redis is.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `redis://HOST:PORT/DB`, `redis+cluster://HOST:PORT,…` or `redis+sentinel://HOST:PORT,…/MASTER/DB`; with `rediss` for TLS.
    pub url: SecretString,
    /// That of Redis, when it is not part of the URL.
    pub password: Option<SecretString>,
    /// That of the sentinels, if they ask for one.
    pub sentinel_password: Option<SecretString>,
}

/// What [`RedisOptions::url`] has to look like, for people.
pub const REDIS_URL_FORMS: &str = "must have the form redis://host:port/0, redis+cluster://host:port,host:port or redis+sentinel://host:port,host:port/master/0";

/// Servers of a cluster, or sentinels, that may be named; the others are found through them.
const HOSTS_MAX: usize = 64;

pub(super) enum Endpoint {
    Server(ConnectionInfo),
    /// Some of its nodes.
    Cluster(Vec<ConnectionInfo>),
    Sentinels {
        sentinels: Vec<ConnectionInfo>,
        /// Their name for it.
        master: String,
        node: SentinelNodeConnectionInfo,
    },
}

impl RedisOptions {
    pub fn new(url: impl Into<SecretString>) -> Self {
        Self { url: url.into(), password: None, sentinel_password: None }
    }

    /// Whether the URL says where Redis is.
    pub fn is_well_formed(&self) -> bool {
        self.endpoint().is_some()
    }

    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        let (scheme, rest) = self.url.expose_secret().split_once("://")?;
        let (scheme, is_secure) = match scheme.strip_prefix("rediss") {
            Some(topology) => (topology, true),
            None => (scheme.strip_prefix("redis")?, false),
        };
        let plain = if is_secure { "rediss" } else { "redis" };
        if scheme.is_empty() {
            return Some(Endpoint::Server(self.server(&format!("{plain}://{rest}"))?));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let hosts: Vec<&str> = hosts.split(',').collect();
        if hosts.len() > HOSTS_MAX || hosts.iter().any(|host| host.is_empty()) {
            return None;
        }
        match scheme {
            "+cluster" if path.is_empty() => {
                let nodes = hosts.iter().map(|host| self.server(&format!("{plain}://{user}{host}")));
                Some(Endpoint::Cluster(nodes.collect::<Option<_>>()?))
            }
            "+sentinel" => {
                let (master, db) = path.split_once('/').unwrap_or((path, "0"));
                if master.is_empty() {
                    return None;
                }
                // Its address is the sentinels' business; all else is as if it stood here.
                let node = self.server(&format!("{plain}://{user}master.invalid/{db}"))?;
                let tls = is_secure.then_some(TlsMode::Secure);
                let node_info = SentinelNodeConnectionInfo::default()
                    .set_redis_connection_info(node.redis_settings().clone());
                let node = tls.into_iter().fold(node_info, SentinelNodeConnectionInfo::set_tls_mode);
                let sentinels = hosts.iter().map(|host| self.sentinel(&format!("{plain}://{host}")));
                Some(Endpoint::Sentinels {
                    sentinels: sentinels.collect::<Option<_>>()?,
                    master: master.to_owned(),
                    node,
                })
            }
            _ => None,
        }
    }

    fn server(&self, url: &str) -> Option<ConnectionInfo> {
        info(url, self.password.as_ref())
    }

    fn sentinel(&self, url: &str) -> Option<ConnectionInfo> {
        info(url, self.sentinel_password.as_ref())
    }
}

fn info(url: &str, password: Option<&SecretString>) -> Option<ConnectionInfo> {
    let info = url.into_connection_info().ok()?;
    // By the older protocol, in which a connection that was lost and opened again cannot go unnoticed by whoever asked.
    let mut settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    if let Some(password) = password {
        settings = settings.set_password(password.expose_secret());
    }
    Some(info.set_redis_settings(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Option<Endpoint> {
        RedisOptions::new(url).endpoint()
    }

    fn addresses(servers: &[ConnectionInfo]) -> Vec<String> {
        servers.iter().map(|server| server.addr().to_string()).collect()
    }

    #[test]
    fn one_server_is_the_url_itself() {
        let options = RedisOptions {
            password: Some("secret".into()),
            ..RedisOptions::new("redis://cache:7000/3?protocol=resp3")
        };
        let Some(Endpoint::Server(server)) = options.endpoint() else { panic!("no server") };
        assert_eq!(server.addr().to_string(), "cache:7000");
        let settings = server.redis_settings();
        assert_eq!((settings.db(), settings.password()), (3, Some("secret")));
        assert_eq!(settings.protocol(), ProtocolVersion::RESP2);
    }

    #[test]
    fn a_cluster_is_some_of_its_nodes() {
        let Some(Endpoint::Cluster(nodes)) = endpoint("redis+cluster://me:p%40ss@one:7000,[::1]:7001,three")
        else {
            panic!("no cluster")
        };
        assert_eq!(addresses(&nodes), ["one:7000", "::1:7001", "three:6379"]);
        assert!(nodes.iter().all(|node| node.redis_settings().username() == Some("me")));
        assert!(nodes.iter().all(|node| node.redis_settings().password() == Some("p@ss")));
        assert!(matches!(endpoint("rediss+cluster://one:7000"), Some(Endpoint::Cluster(_))));
    }

    #[test]
    fn sentinels_have_a_master_and_a_password_of_their_own() {
        let options = RedisOptions {
            password: Some("secret".into()),
            sentinel_password: Some("other".into()),
            ..RedisOptions::new("redis+sentinel://one:26379,two:26379/context/2")
        };
        let Some(Endpoint::Sentinels { sentinels, master, .. }) = options.endpoint() else {
            panic!("no sentinels")
        };
        assert_eq!((addresses(&sentinels).len(), master.as_str()), (2, "context"));
        assert!(sentinels.iter().all(|sentinel| sentinel.redis_settings().password() == Some("other")));
    }

    #[test]
    fn what_says_nothing_of_where_redis_is_is_refused() {
        let wrong = [
            "",
            "redis",
            "http://cache:6379",
            "redis+ring://one:1",
            "redis+cluster://",
            "redis+cluster://one:1,,two:2",
            "redis+cluster://one:1/0",
            "redis+sentinel://one:1",
            "redis+sentinel://one:1/",
            "redis+sentinel://one:1/context/first",
            "redis+sentinel://one:port/context/0",
        ];
        for url in wrong {
            assert!(endpoint(url).is_none(), "{url}");
        }
    }
}

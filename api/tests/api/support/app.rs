//! The application, served in this process as `context-api serve` would.

use std::{net::TcpListener, time::Duration};

use actix_web::dev::ServerHandle;
use context_api::{
    cache::{Cache, RedisOptions},
    domain::{AnswerLimits, ApiKey, DEFAULT_TENANT, Limits, NewApiKey, Scope, TenantId, TenantName, UserId},
    embedding::{self, Provider, RerankOptions, Reranker},
    http::{self, State},
    service::Service,
    worker,
};
use program::ServerOptions;
use reqwest::{Client, Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use super::{Database, eventually, promised};

/// What a request was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The `code` of an error.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn id(&self) -> String {
        self.body["id"].as_str().unwrap_or_else(|| panic!("an id: {:?}", self.body)).to_owned()
    }
}

pub struct App {
    pub database: Database,
    pub service: Service,
    pub url: String,
    pub key: String,
    client: Client,
    server: ServerHandle,
    stop: watch::Sender<bool>,
    background: Vec<JoinHandle<()>>,
}

/// What an app may be made of.
pub struct Setup {
    pub database: Database,
    pub providers: Vec<Provider>,
    pub redis: Option<RedisOptions>,
    pub reranker: Option<RerankOptions>,
    pub limits: Limits,
}

impl Setup {
    /// With the tests' Redis, if there is one, and nothing to embed with.
    pub fn on(database: Database) -> Self {
        Self { database, providers: Vec::new(), redis: redis(), reranker: None, limits: Limits::default() }
    }
}

fn redis() -> Option<RedisOptions> {
    std::env::var("TEST_REDIS_URL").ok().map(RedisOptions::new)
}

fn builtin() -> Provider {
    Provider::Builtin { threads: std::num::NonZeroUsize::MIN }
}

impl App {
    /// With the built-in model and a worker.
    pub async fn start() -> Self {
        Self::start_with(builtin()).await
    }

    pub async fn start_with(provider: Provider) -> Self {
        Self::start_on(Database::create().await, provider).await
    }

    /// With a second provider, whose model is to come.
    pub async fn start_with_next(provider: Provider, next: Provider) -> Self {
        Self::start_full(Database::create().await, [provider, next], redis()).await
    }

    pub async fn start_on(database: Database, provider: Provider) -> Self {
        Self::start_full(database, [provider], redis()).await
    }

    /// With a reranker.
    pub async fn start_reranking(provider: Provider, reranker: RerankOptions) -> Self {
        let setup = Setup::on(Database::create().await);
        let setup = Setup { providers: vec![provider], reranker: Some(reranker), ..setup };
        Box::pin(Self::start_as(setup)).await
    }

    pub async fn start_full(
        database: Database,
        providers: impl IntoIterator<Item = Provider>,
        redis: Option<RedisOptions>,
    ) -> Self {
        let providers = providers.into_iter().collect();
        Box::pin(Self::start_as(Setup { providers, redis, ..Setup::on(database) })).await
    }

    pub async fn start_as(setup: Setup) -> Self {
        let Setup { database, providers, redis, reranker, limits } = setup;
        let client = super::client();
        let store = database.open().await;
        let cache = Cache::new(redis.as_ref()).expect("a cache");
        let cache = if store.is_embedded() { cache.alone() } else { cache };
        let cache = cache.with_answers(AnswerLimits::default());
        let connect = |provider: Provider| embedding::connect(&provider).expect("an embedder");
        let reranker = reranker.map(|options| Reranker::new(options).expect("a reranker"));
        let service = Service::new(store, cache, providers.into_iter().map(connect))
            .with_reranker(reranker)
            .with_limits(limits);
        let (stop, stopped) = watch::channel(false);
        let watcher = service.clone();
        let background = vec![
            tokio::spawn(worker::survey(service.clone(), stopped.clone())),
            tokio::spawn(worker::embed(service.clone(), stopped)),
            tokio::spawn(async move { watcher.watch_providers().await }),
        ];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let options = ServerOptions { workers: 2, shutdown_grace: Duration::from_secs(1) };
        let server = http::serve(listener, State::new(service.clone()), options).expect("a server");
        let handle = server.handle();
        tokio::spawn(server);
        let mut app =
            Self { database, service, url, key: String::new(), client, server: handle, stop, background };
        app.key = app.new_key(DEFAULT_TENANT, Scope::all()).await;
        app
    }

    pub async fn new_key(&self, tenant: TenantId, scopes: Vec<Scope>) -> String {
        self.new_key_for(tenant, scopes, None).await
    }

    /// A key that is bound to `user`, if there is one.
    pub async fn new_key_for(&self, tenant: TenantId, scopes: Vec<Scope>, user: Option<UserId>) -> String {
        let new = NewApiKey::new("test", scopes, user, None).expect("a key");
        let key: ApiKey = self.service.keys().create_for_operator(tenant, &new).await.expect("a key");
        key.expose().to_owned()
    }

    /// A new tenant.
    pub async fn new_tenant(&self) -> TenantId {
        let name = uuid::Uuid::now_v7().to_string();
        let tenants = self.service.tenants();
        tenants.create_for_operator(&TenantName::new(&name).expect("a name")).await.expect("a tenant");
        tenants.find(&name).await.expect("the tenant")
    }

    /// A request with a body of any kind and the app's own key.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send_as(&self.key, method, path, Some(body.into())).await
    }

    pub async fn send_as(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Option<reqwest::Body>,
    ) -> Answer {
        let mut request = self.request(method, path).bearer_auth(key);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        answer(request).await
    }

    /// A bare request, to be completed by the test.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send_as(&self.key, Method::GET, path, None).await
    }

    pub async fn get_as(&self, key: &str, path: &str) -> Answer {
        self.send_as(key, Method::GET, path, None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send_as(&self.key, Method::DELETE, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, body.to_string()).await
    }

    /// A note of the test user with this text.
    pub async fn note(&self, text: &str) -> Answer {
        self.post(
            "/v1/contexts",
            json!({"user_id": super::USER, "context_type": "note", "content": {"text": text}}),
        )
        .await
    }

    /// The path of a new context with these fields besides the obligatory ones.
    pub async fn created(&self, fields: Value) -> String {
        let mut body = json!({"user_id": super::USER, "context_type": "note", "content": {"t": "a text"}});
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        let answer = self.post("/v1/contexts", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
        format!("/v1/contexts/{}", answer.id())
    }

    pub async fn search(&self, body: Value) -> Answer {
        let answer = self.post("/v1/contexts/search", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        answer
    }

    /// Waits until the context is embedded, or not to be.
    pub async fn embedded(&self, id: &str) -> Value {
        self.embedded_as(&self.key, id).await
    }

    /// The same with another key.
    pub async fn embedded_as(&self, key: &str, id: &str) -> Value {
        eventually("an embedding", Duration::from_secs(30), async || {
            let context = self.get_as(key, &format!("/v1/contexts/{id}")).await.body;
            (context["embedding_status"] != "pending").then_some(context)
        })
        .await
    }

    /// Ends the loops in the background, so that nobody but the test asks the database for anything.
    pub async fn end_background(&mut self) {
        self.stop.send_replace(true);
        if let Some(watcher) = self.background.pop() {
            watcher.abort();
            for task in self.background.drain(..).chain([watcher]) {
                task.await.ok();
            }
        }
    }

    /// Stops everything, and gives the database back.
    pub async fn stop(mut self) -> Database {
        self.server.stop(true).await;
        self.end_background().await;
        self.service.store().close().await;
        self.database
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.expect("a request");
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = client.execute(request).await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    };
    promised::check(&method, &path, status, &body);
    Answer { status, headers, body }
}

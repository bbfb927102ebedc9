//! An embedding server with TEI's routes whose faults can be asked for, because a real one has none on request. Its
//! vectors say nothing about meaning; they only tell texts apart.

use std::{
    io,
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use context_api::{
    domain::Vector,
    embedding::{OpenAiOptions, Provider, RerankOptions},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

/// What the server does when it is asked to embed.
#[derive(Clone, Debug)]
pub enum Behaviour {
    Work,
    /// Answers this status and body.
    Answer(u16, &'static str),
    /// Answers nothing for so long.
    Hang(Duration),
    /// Vectors of another dimension than before.
    WrongDimension,
    /// `null` among the numbers of whatever comes with this text.
    Spoil(&'static str),
    /// One vector too few.
    TooFew,
    /// `1e999` among the numbers.
    NotFinite,
    /// Hangs up in the middle of its answer.
    BreakOff,
    /// Refuses batches that hold this text.
    Poison(&'static str),
    /// Refuses batches that hold a text of more bytes, as TEI refuses a text that is too long.
    ReadAtMost(usize),
    /// On OpenAI's route: 400 to whoever asks for base64.
    RefuseBase64,
    /// On OpenAI's route: numbers, whatever was asked for.
    IgnoreBase64,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    /// Texts whose calls wait.
    held: watch::Sender<Option<&'static str>>,
    /// Two of its own, so that a cache shared with other tests never answers for it. Their vectors differ.
    models: [String; 2],
    present_model: AtomicUsize,
    dimensions: usize,
    /// Tokens that it says it reads of a text.
    tokens_max: Option<u32>,
    calls: AtomicUsize,
    texts: AtomicUsize,
    /// `OpenAI-Organization` and `OpenAI-Project` of the last call.
    account: Mutex<[Option<String>; 2]>,
    /// `traceparent` of calls to embed that had one.
    traceparents: Mutex<Vec<String>>,
}

pub struct StubProvider {
    pub url: String,
    shared: Arc<Shared>,
}

#[derive(Deserialize)]
struct Embed {
    inputs: Vec<String>,
}

const DIMENSIONS: usize = 8;
/// Texts that one call to rerank may have.
const RERANK_TEXTS_MAX: usize = 32;

impl StubProvider {
    pub fn start(behaviour: Behaviour) -> Self {
        Self::start_as(behaviour, DIMENSIONS, None)
    }

    /// With vectors of so many dimensions.
    pub fn start_of(dimensions: usize, behaviour: Behaviour) -> Self {
        Self::start_as(behaviour, dimensions, None)
    }

    /// One that says how many tokens of a text it reads.
    pub fn start_reading(behaviour: Behaviour, tokens_max: Option<u32>) -> Self {
        Self::start_as(behaviour, DIMENSIONS, tokens_max)
    }

    fn start_as(behaviour: Behaviour, dimensions: usize, tokens_max: Option<u32>) -> Self {
        // Whoever asks it needs one, if only by way of the provider.
        program::provide_tls();
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            held: watch::Sender::new(None),
            models: [(); 2].map(|()| format!("stub-{}", Uuid::new_v4())),
            present_model: AtomicUsize::new(0),
            dimensions,
            tokens_max,
            calls: AtomicUsize::new(0),
            texts: AtomicUsize::new(0),
            account: Mutex::default(),
            traceparents: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let data = web::Data::from(shared.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .app_data(web::JsonConfig::default().limit(4_000_000))
                .route("/info", web::get().to(info))
                .route("/embed", web::post().to(embed))
                .route("/v1/embeddings", web::post().to(openai_embeddings))
                .route("/rerank", web::post().to(rerank))
        })
        .workers(1)
        .shutdown_timeout(0)
        .disable_signals()
        .listen(listener)
        .expect("a server")
        .run();
        tokio::spawn(server);
        Self { url, shared }
    }

    /// What is kept of a text that [`Behaviour::Work`] has embedded.
    pub fn vector_of(text: &str) -> Vector {
        Vector::new(vector(text, DIMENSIONS, 0)).expect("a vector")
    }

    pub fn provider(&self) -> Provider {
        Provider::Tei { url: self.url.clone(), api_key: None }
    }

    pub fn reranker(&self) -> RerankOptions {
        RerankOptions { url: self.url.clone(), api_key: None }
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().expect("the lock") = behaviour;
    }

    /// From now on calls with this text among theirs are answered as late as [`StubProvider::release`] is called, and as the
    /// server behaves then; calls without it at once.
    pub fn hold(&self, text: &'static str) {
        self.shared.held.send_replace(Some(text));
    }

    pub fn release(&self) {
        self.shared.held.send_replace(None);
    }

    /// Comes back with its first model, 0, or with another one of the same dimension, 1.
    pub fn serve_model(&self, number: usize) {
        self.shared.present_model.store(number, Ordering::SeqCst);
    }

    /// The same server, by OpenAI's route.
    pub fn openai_provider(&self) -> Provider {
        Provider::OpenAi(self.openai_options())
    }

    pub fn openai_options(&self) -> OpenAiOptions {
        let (url, (_, model)) = (format!("{}/v1", self.url), self.shared.model());
        OpenAiOptions { url, model, ..OpenAiOptions::default() }
    }

    /// `OpenAI-Organization` and `OpenAI-Project` of the last call.
    pub fn account(&self) -> [Option<String>; 2] {
        self.shared.account.lock().expect("the lock").clone()
    }

    /// `traceparent` of the calls to TEI's route that had one.
    pub fn traceparents(&self) -> Vec<String> {
        self.shared.traceparents.lock().expect("the lock").clone()
    }

    /// Calls so far.
    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Texts embedded so far.
    pub fn texts(&self) -> usize {
        self.shared.texts.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Its number and its name.
    fn model(&self) -> (usize, String) {
        let number = self.present_model.load(Ordering::SeqCst);
        (number, self.models[number].clone())
    }
}

async fn info(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"model_id": shared.model().1, "max_input_length": shared.tokens_max}))
}

async fn embed(shared: web::Data<Shared>, request: HttpRequest, body: web::Json<Embed>) -> HttpResponse {
    shared.calls.fetch_add(1, Ordering::SeqCst);
    let traceparent = request.headers().get("traceparent").map(|value| value.to_str().expect("a word"));
    shared.traceparents.lock().expect("the lock").extend(traceparent.map(str::to_owned));
    let has = |text: &str| body.inputs.iter().any(|input| input.contains(text));
    shared.held.subscribe().wait_for(|held| !held.is_some_and(has)).await.expect("its sender");
    let behaviour = shared.behaviour.lock().expect("the lock").clone();
    let (model, _) = shared.model();
    let mut vectors: Vec<Vec<f32>> =
        body.inputs.iter().map(|text| vector(text, shared.dimensions, model)).collect();
    match behaviour {
        Behaviour::Answer(status, text) => {
            let status = actix_web::http::StatusCode::from_u16(status).expect("a status");
            return HttpResponse::build(status).content_type("application/json").body(text);
        }
        Behaviour::Hang(time) => tokio::time::sleep(time).await,
        Behaviour::TooFew => {
            vectors.pop();
        }
        Behaviour::NotFinite => return HttpResponse::Ok().content_type("application/json").body("[[1e999]]"),
        Behaviour::BreakOff => {
            return HttpResponse::Ok().content_type("application/json").streaming(broken_off());
        }
        Behaviour::Poison(text) if has(text) => return refusal("poisoned"),
        Behaviour::ReadAtMost(bytes) if body.inputs.iter().any(|input| input.len() > bytes) => {
            return refusal("`inputs` must have less than some tokens");
        }
        Behaviour::WrongDimension => vectors.iter_mut().for_each(|vector| vector.push(1.0)),
        Behaviour::Spoil(text) if has(text) => {
            return HttpResponse::Ok().content_type("application/json").body("[[null]]");
        }
        Behaviour::Work
        | Behaviour::Poison(_)
        | Behaviour::ReadAtMost(_)
        | Behaviour::Spoil(_)
        | Behaviour::RefuseBase64
        | Behaviour::IgnoreBase64 => {}
    }
    shared.texts.fetch_add(vectors.len(), Ordering::SeqCst);
    HttpResponse::Ok().json(vectors)
}

#[derive(Deserialize)]
struct Rerank {
    query: String,
    texts: Vec<String>,
    truncate: bool,
    raw_scores: bool,
}

/// TEI's shape, best first: a text's score is the share of its words that are words of the query.
async fn rerank(shared: web::Data<Shared>, body: web::Json<Rerank>) -> HttpResponse {
    shared.calls.fetch_add(1, Ordering::SeqCst);
    shared.texts.fetch_add(body.texts.len(), Ordering::SeqCst);
    let behaviour = shared.behaviour.lock().expect("the lock").clone();
    if body.texts.len() > RERANK_TEXTS_MAX || !body.truncate || body.raw_scores {
        return HttpResponse::UnprocessableEntity()
            .json(json!({"error": "too many", "error_type": "Validation"}));
    }
    let score = |text: &String| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let shared = words.iter().filter(|word| body.query.split_whitespace().any(|asked| asked == **word));
        shared.count() as f64 / words.len() as f64
    };
    let mut ranks: Vec<(usize, f64)> = body.texts.iter().map(score).enumerate().collect();
    ranks.sort_by(|a, b| b.1.total_cmp(&a.1));
    match behaviour {
        Behaviour::Answer(status, text) => {
            let status = actix_web::http::StatusCode::from_u16(status).expect("a status");
            return HttpResponse::build(status).content_type("application/json").body(text);
        }
        Behaviour::Hang(time) => tokio::time::sleep(time).await,
        Behaviour::TooFew => {
            ranks.pop();
        }
        Behaviour::WrongDimension => ranks[0].0 += 1_000,
        Behaviour::BreakOff => {
            return HttpResponse::Ok().content_type("application/json").streaming(broken_off());
        }
        _ => {}
    }
    let ranks = ranks.iter().map(|(index, score)| json!({"index": index, "score": score}));
    HttpResponse::Ok().json(ranks.collect::<Vec<_>>())
}

fn refusal(words: &str) -> HttpResponse {
    HttpResponse::UnprocessableEntity()
        .json(json!({"error": format!("Input validation error: {words}"), "error_type": "Validation"}))
}

fn broken_off() -> impl Stream<Item = Result<web::Bytes, io::Error>> {
    let half = Ok(web::Bytes::from_static(b"[[0.1, 0.2"));
    stream::iter([half, Err(io::ErrorKind::ConnectionReset.into())])
}

#[derive(Deserialize)]
struct OpenAiEmbeddings {
    model: String,
    input: Vec<String>,
    encoding_format: String,
    dimensions: Option<usize>,
}

/// OpenAI's shape, last text first: the order is not promised, the index is.
async fn openai_embeddings(
    shared: web::Data<Shared>,
    request: HttpRequest,
    body: web::Json<OpenAiEmbeddings>,
) -> HttpResponse {
    shared.calls.fetch_add(1, Ordering::SeqCst);
    let behaviour = shared.behaviour.lock().expect("the lock").clone();
    let header = |name| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    *shared.account.lock().expect("the lock") = [header("openai-organization"), header("openai-project")];
    let (model, name) = shared.model();
    if body.model != name {
        return HttpResponse::NotFound().json(json!({"error": {"message": "no such model"}}));
    }
    let wants_base64 = body.encoding_format == "base64";
    match behaviour {
        Behaviour::RefuseBase64 if wants_base64 => {
            return HttpResponse::BadRequest().json(json!({"error": {"message": "floats only"}}));
        }
        Behaviour::Poison(text) if body.input.iter().any(|input| input.contains(text)) => {
            return HttpResponse::BadRequest().json(json!({"error": {"message": "poisoned"}}));
        }
        _ => {}
    }
    shared.texts.fetch_add(body.input.len(), Ordering::SeqCst);
    let encode = |text: &str| {
        let mut values = vector(text, shared.dimensions, model);
        if !matches!(behaviour, Behaviour::WrongDimension) {
            values.truncate(body.dimensions.unwrap_or(shared.dimensions));
        }
        if !wants_base64 || matches!(behaviour, Behaviour::IgnoreBase64) {
            return json!(values);
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        json!(BASE64_STANDARD.encode(bytes))
    };
    let item = |(index, text): (usize, &String)| json!({"index": index, "embedding": encode(text)});
    let data: Vec<_> = body.input.iter().enumerate().map(item).rev().collect();
    HttpResponse::Ok().json(json!({"object": "list", "data": data, "model": body.model}))
}

/// Those of another model are turned.
fn vector(text: &str, dimensions: usize, model: usize) -> Vec<f32> {
    let mut vector = vec![0.01_f32; dimensions];
    for (index, byte) in text.bytes().enumerate() {
        vector[(index + usize::from(byte)) % dimensions] += f32::from(byte);
    }
    if model > 0 {
        vector.iter_mut().step_by(2).for_each(|value| *value = -*value);
    }
    vector
}

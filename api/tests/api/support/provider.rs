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

use actix_web::{App, HttpResponse, HttpServer, web};
use context_api::{domain::Vector, embedding::Provider};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::json;
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
    /// Refuses batches that hold this text, as TEI refuses a text that is too long.
    Poison(&'static str),
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    model: String,
    dimensions: usize,
    calls: AtomicUsize,
    texts: AtomicUsize,
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

impl StubProvider {
    pub fn start(behaviour: Behaviour) -> Self {
        Self::start_of(DIMENSIONS, behaviour)
    }

    /// With vectors of so many dimensions.
    pub fn start_of(dimensions: usize, behaviour: Behaviour) -> Self {
        // A model of its own, so that a cache shared with other tests never answers for it.
        let model = format!("stub-{}", Uuid::new_v4());
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            model,
            dimensions,
            calls: AtomicUsize::new(0),
            texts: AtomicUsize::new(0),
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
        Vector::new(vector(text)).expect("a vector")
    }

    pub fn provider(&self) -> Provider {
        Provider::Tei { url: self.url.clone(), api_key: None }
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().expect("the lock") = behaviour;
    }

    /// The same server, by OpenAI's route.
    pub fn openai_provider(&self) -> Provider {
        Provider::OpenAi { url: format!("{}/v1", self.url), model: self.shared.model.clone(), api_key: None }
    }

    /// Calls of `/embed` so far.
    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Texts embedded so far.
    pub fn texts(&self) -> usize {
        self.shared.texts.load(Ordering::SeqCst)
    }
}

async fn info(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"model_id": shared.model}))
}

async fn embed(shared: web::Data<Shared>, body: web::Json<Embed>) -> HttpResponse {
    shared.calls.fetch_add(1, Ordering::SeqCst);
    let behaviour = shared.behaviour.lock().expect("the lock").clone();
    let mut vectors: Vec<Vec<f32>> = body.inputs.iter().map(|text| vector(text, shared.dimensions)).collect();
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
        Behaviour::Poison(text) if body.inputs.iter().any(|input| input.contains(text)) => {
            return HttpResponse::UnprocessableEntity()
                .json(json!({"error": "Input validation error: poisoned", "error_type": "Validation"}));
        }
        Behaviour::WrongDimension => vectors.iter_mut().for_each(|vector| vector.push(1.0)),
        Behaviour::Spoil(text) if body.inputs.iter().any(|input| input.contains(text)) => {
            return HttpResponse::Ok().content_type("application/json").body("[[null]]");
        }
        Behaviour::Work | Behaviour::Poison(_) | Behaviour::Spoil(_) => {}
    }
    shared.texts.fetch_add(vectors.len(), Ordering::SeqCst);
    HttpResponse::Ok().json(vectors)
}

fn broken_off() -> impl Stream<Item = Result<web::Bytes, io::Error>> {
    let half = Ok(web::Bytes::from_static(b"[[0.1, 0.2"));
    stream::iter([half, Err(io::ErrorKind::ConnectionReset.into())])
}

#[derive(Deserialize)]
struct OpenAiEmbeddings {
    model: String,
    input: Vec<String>,
}

/// OpenAI's shape, last text first: the order is not promised, the index is.
async fn openai_embeddings(shared: web::Data<Shared>, body: web::Json<OpenAiEmbeddings>) -> HttpResponse {
    if body.model != shared.model {
        return HttpResponse::NotFound().json(json!({"error": {"message": "no such model"}}));
    }
    shared.texts.fetch_add(body.input.len(), Ordering::SeqCst);
    let item = |(index, text): (usize, &String)| json!({"index": index, "embedding": vector(text, shared.dimensions)});
    let data: Vec<_> = body.input.iter().enumerate().map(item).rev().collect();
    HttpResponse::Ok().json(json!({"object": "list", "data": data, "model": body.model}))
}

fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0.01_f32; dimensions];
    for (index, byte) in text.bytes().enumerate() {
        vector[(index + usize::from(byte)) % dimensions] += f32::from(byte);
    }
    vector
}

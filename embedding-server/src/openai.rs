//! `POST /v1/embeddings`, as OpenAI has it: the same embeddings in another envelope.

use actix_web::{HttpRequest, HttpResponse, web};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use embedder::Keep;
use serde::{Deserialize, Serialize};

use crate::{
    State, body,
    embed::{self, Job},
    input::Input,
    problem::{Dialect, answer},
};

/// `model` and `user` may be there and make no difference: there is one model, and nobody is billed.
#[derive(Debug, Deserialize)]
struct EmbeddingsRequest {
    input: Input,
    #[serde(rename = "model")]
    _model: Option<String>,
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(default)]
    encoding_format: EncodingFormat,
    dimensions: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

#[derive(Debug, Serialize)]
struct EmbeddingsAnswer<'a> {
    object: &'static str,
    data: Vec<Item>,
    model: &'a str,
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Item {
    object: &'static str,
    embedding: Encoded,
    index: usize,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Encoded {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

pub(crate) async fn embeddings(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    let result = async {
        let asked: EmbeddingsRequest = body::json(&request, payload, state.options.body_bytes_max).await?;
        let job = Job {
            input: asked.input,
            truncate: state.options.truncate,
            keep: Keep::Beginning,
            prompt_name: None,
            scale: true,
            dimensions: asked.dimensions,
            is_urgent: embed::is_urgent(request.headers()),
        };
        let (embedded, metered) = embed::run(&state, job).await?;
        let item = |(index, vector)| Item {
            object: "embedding",
            embedding: encode(vector, asked.encoding_format),
            index,
        };
        let tokens = embedded.cost.tokens;
        let answer = EmbeddingsAnswer {
            object: "list",
            data: embedded.vectors.into_iter().enumerate().map(item).collect(),
            model: &state.options.served_model_name,
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
        };
        let mut response = HttpResponse::Ok();
        metered.succeed(&embedded.cost, &mut response);
        Ok(response.json(answer))
    };
    answer(result.await, Dialect::OpenAi)
}

fn encode(vector: Vec<f32>, format: EncodingFormat) -> Encoded {
    match format {
        EncodingFormat::Float => Encoded::Float(vector),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            Encoded::Base64(BASE64_STANDARD.encode(bytes))
        }
    }
}

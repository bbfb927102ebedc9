//! `POST /embed`, and what it has in common with OpenAI's route.

use std::time::Instant;

use actix_web::{HttpRequest, HttpResponse, http::header::HeaderMap, web};
use embedder::{DIMENSIONS, Embedding, Keep, Lane, TOKENS_MAX};
use serde::Deserialize;

use crate::{
    State, body,
    input::{self, Input, TEXT_CHARS_MAX},
    meter::{self, Cost},
    problem::{Dialect, Problem, answer},
    state::in_time,
};

#[derive(Debug, Deserialize)]
struct EmbedRequest {
    inputs: Input,
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: TruncationDirection,
    prompt_name: Option<String>,
    #[serde(default = "yes")]
    normalize: bool,
    dimensions: Option<usize>,
}

/// The end that is cut off.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum TruncationDirection {
    #[serde(alias = "left")]
    Left,
    #[default]
    #[serde(alias = "right")]
    Right,
}

/// Whether the request is more urgent than usual by its `Priority`, as in RFC 9218: `u=0` to `u=7`, 3 when it is not said.
pub(crate) fn is_urgent(headers: &HeaderMap) -> bool {
    let priority = headers.get("priority").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let urgency = priority.split(',').find_map(|item| item.trim().strip_prefix("u=")?.parse::<u8>().ok());
    urgency.is_some_and(|urgency| urgency < 3)
}

fn yes() -> bool {
    true
}

/// What is to be embedded, and how.
pub(crate) struct Job {
    pub input: Input,
    pub truncate: bool,
    pub keep: Keep,
    pub prompt_name: Option<String>,
    /// Whether vectors get the length one.
    pub scale: bool,
    pub dimensions: Option<usize>,
    /// Whether somebody waits for it as for a single question.
    pub is_urgent: bool,
}

/// One vector for each text, and what they took.
pub(crate) struct Embedded {
    pub vectors: Vec<Vec<f32>>,
    pub cost: Cost,
}

pub(crate) async fn embed(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    let result = async {
        let asked: EmbedRequest = body::json(&request, payload, state.options.body_bytes_max).await?;
        let job = Job {
            input: asked.inputs,
            truncate: asked.truncate.unwrap_or(state.options.truncate),
            keep: match asked.truncation_direction {
                TruncationDirection::Left => Keep::End,
                TruncationDirection::Right => Keep::Beginning,
            },
            prompt_name: asked.prompt_name,
            scale: asked.normalize,
            dimensions: asked.dimensions,
            is_urgent: is_urgent(request.headers()),
        };
        let (embedded, metered) = run(&state, job).await?;
        let mut response = HttpResponse::Ok();
        metered.succeed(&embedded.cost, &mut response);
        Ok(response.json(embedded.vectors))
    };
    answer(result.await, Dialect::Native)
}

/// Does the job, and counts it unless it succeeds: that is left to whoever makes the answer of it.
pub(crate) async fn run(state: &State, job: Job) -> Result<(Embedded, meter::Request), Problem> {
    let request = meter::Request::begin(job.input.is_list(), job.input.len());
    match in_time(embed_texts(state, job)).await {
        Ok(embedded) => Ok((embedded, request)),
        Err(problem) => {
            request.fail(problem.label());
            Err(problem)
        }
    }
}

async fn embed_texts(state: &State, job: Job) -> Result<Embedded, Problem> {
    input::check_count(&job.input, &state.options)?;
    // A single question goes before lists, which nobody waits for as much unless they say so.
    let lane = if job.input.is_list() && !job.is_urgent { Lane::Backfill } else { Lane::Query };
    let _permit = state.admit(job.input.len())?;
    if job.dimensions == Some(0) {
        return Err(Problem::invalid("`dimensions` should be positive"));
    }
    let texts = job.input.into_texts()?;
    input::check_prompt(job.prompt_name.as_deref())?;
    let characters = texts.iter().map(|text| text.chars().count()).sum();
    let counting = Instant::now();
    let texts = if job.truncate { shorten(texts, job.keep) } else { check_tokens(state, texts).await? };
    let counted = counting.elapsed();
    if job.dimensions.is_some_and(|dimensions| dimensions > DIMENSIONS) {
        let what = "`dimensions` should be smaller than the maximum embedding dimension.";
        return Err(Problem::invalid(what));
    }
    let embeddings = state.embedder.compute(texts, Some(job.keep), lane).await?;
    meter::count_texts(&embeddings);
    let mut cost = Cost::of(&embeddings, characters);
    cost.tokenizing += counted;
    let dimensions = job.dimensions.unwrap_or(DIMENSIONS);
    let vectors = embeddings.into_iter().map(|embedding| finish(embedding, dimensions, job.scale)).collect();
    Ok(Embedded { vectors, cost })
}

/// Cuts first: what is left is to have the length one.
fn finish(embedding: Embedding, dimensions: usize, scale: bool) -> Vec<f32> {
    let mut vector = embedding.mean;
    vector.truncate(dimensions);
    if scale {
        embedder::scale_to_unit(&mut vector);
    }
    vector
}

/// Texts that are not too long to be tokenized as a whole, whatever they consist of.
fn shorten(mut texts: Vec<String>, keep: Keep) -> Vec<String> {
    for text in &mut texts {
        // Fewer bytes than characters allowed are not too many characters.
        let cut = (text.len() > TEXT_CHARS_MAX).then(|| match keep {
            Keep::Beginning => text.char_indices().nth(TEXT_CHARS_MAX).map(|(end, _)| end),
            Keep::End => text.char_indices().nth_back(TEXT_CHARS_MAX - 1).map(|(begin, _)| begin),
        });
        match (cut.flatten(), keep) {
            (Some(end), Keep::Beginning) => text.truncate(end),
            (Some(begin), Keep::End) => drop(text.drain(..begin)),
            (None, _) => {}
        }
    }
    texts
}

/// The texts, if the model can read each of them to its end.
async fn check_tokens(state: &State, texts: Vec<String>) -> Result<Vec<String>, Problem> {
    for text in &texts {
        input::check_chars(text)?;
    }
    state
        .tokenizing(move |embedder| {
            for text in &texts {
                let count = embedder.count_tokens(text)?;
                if count > TOKENS_MAX {
                    return Err(Problem::invalid(&format!(
                        "`inputs` must have less than {TOKENS_MAX} tokens. Given: {count}"
                    )));
                }
            }
            Ok(texts)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shortened_to_whole_characters_at_either_end() {
        let long = format!("a{}z", "é".repeat(TEXT_CHARS_MAX - 1));
        assert_eq!(long.chars().count(), TEXT_CHARS_MAX + 1);
        let [beginning] = shorten(vec![long.clone()], Keep::Beginning).try_into().unwrap();
        let [end] = shorten(vec![long.clone()], Keep::End).try_into().unwrap();
        assert_eq!((beginning.as_str(), end.as_str()), (&long[..long.len() - 1], &long[1..]));
        let fitting = "é".repeat(TEXT_CHARS_MAX);
        for keep in [Keep::Beginning, Keep::End] {
            assert_eq!(shorten(vec![fitting.clone()], keep), [fitting.as_str()]);
        }
    }
}

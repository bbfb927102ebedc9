//! `POST /tokenize`: the tokens of texts, to see where they are cut and how many there are.

use std::collections::VecDeque;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Bytes},
};
use embedder::Token;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::{
    State, body,
    input::{self, Input, TokenizeInput},
    problem::{Dialect, Problem, answer},
    state::in_time,
};

#[derive(Debug, Deserialize)]
struct TokenizeRequest {
    inputs: TokenizeInput,
    #[serde(default = "yes")]
    add_special_tokens: bool,
    prompt_name: Option<String>,
}

#[derive(Debug, Serialize)]
struct TokenView<'a> {
    id: u32,
    text: &'a str,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

fn yes() -> bool {
    true
}

pub(crate) async fn tokenize(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    let result = async {
        let asked: TokenizeRequest = body::json(&request, payload, state.options.body_bytes_max).await?;
        let input = Input::from(asked.inputs);
        input::check_count(&input, &state.options)?;
        let texts = input.into_texts()?;
        input::check_prompt(asked.prompt_name.as_deref())?;
        texts.iter().try_for_each(|text| input::check_chars(text))?;
        let texts: VecDeque<String> = texts.into();
        let rest = Rest { state: state.clone(), texts, add_special: asked.add_special_tokens, piece: 0 };
        // The first piece before the status: if anything fails, it is most likely this one.
        let Some((first, rest)) = next(rest).await? else { return Err(Problem::empty()) };
        let pieces = stream::try_unfold(rest, |rest| async {
            next(rest).await.map_err(|_| std::io::Error::other("tokenizing failed"))
        });
        let body = stream::once(async { Ok(first) }).chain(pieces);
        Ok(HttpResponse::Ok().content_type("application/json").streaming(body))
    };
    answer(result.await, Dialect::Native)
}

/// What is still to be answered. Text by text, as fast as the client reads: two megabytes of text can be a hundred of
/// tokens.
struct Rest {
    state: web::Data<State>,
    texts: VecDeque<String>,
    add_special: bool,
    piece: usize,
}

async fn next(mut rest: Rest) -> Result<Option<(Bytes, Rest)>, Problem> {
    let (text, add_special, piece) = (rest.texts.pop_front(), rest.add_special, rest.piece);
    let is_last = rest.texts.is_empty();
    let Some(text) = text else { return Ok(None) };
    let work = rest.state.tokenizing(move |embedder| {
        let mut json = vec![if piece == 0 { b'[' } else { b',' }];
        let tokens = embedder.tokenize(&text)?;
        let views: Vec<_> = tokens.iter().filter(|token| add_special || !token.special).map(view).collect();
        serde_json::to_writer(&mut json, &views).map_err(|error| Problem::invalid(&error.to_string()))?;
        if is_last {
            json.push(b']');
        }
        Ok(Bytes::from(json))
    });
    let bytes = in_time(work).await?;
    rest.piece += 1;
    Ok(Some((bytes, rest)))
}

fn view(token: &Token) -> TokenView<'_> {
    let Token { id, text, special, start, stop } = token;
    TokenView { id: *id, text, special: *special, start: *start, stop: *stop }
}

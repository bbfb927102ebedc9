//! The embedding of a query: given, cached, or made in time.

use crate::{
    domain::{Degraded, SearchQuery, SpaceInfo, Vector, limits::QUERY_EMBEDDING_DEADLINE},
    embedding::{EmbedError, Estimate, Purpose},
    error::{Code, Error, Result},
    service::{
        Service,
        breaker::Pass,
        provider::{Unserved, is_of},
    },
    telemetry::spans,
};

impl Service {
    /// The space to search and the vector to search for; the inner error says why the semantic leg has to be left out.
    pub(super) async fn resolve_query(
        &self,
        query: &SearchQuery,
    ) -> Result<Result<(SpaceInfo, Vector), Degraded>> {
        let Some(space) = self.active_space().await? else { return Ok(Err(Degraded::NoEmbeddingSpace)) };
        match query {
            SearchQuery::Vector(vector) if vector.dimensions() == space.dims as usize => {
                Ok(Ok((space, vector.clone())))
            }
            SearchQuery::Vector(vector) => Err(Error::new(
                Code::InvalidVector,
                format!(
                    "The active embedding space has {} dimensions, the vector {}.",
                    space.dims,
                    vector.dimensions()
                ),
            )
            .with_violation("/vector", format!("must have {} numbers", space.dims))),
            SearchQuery::Text(text) => Ok(self.embed_query(&space, text).await.map(|vector| (space, vector))),
        }
    }

    pub(in crate::service) async fn embed_query(
        &self,
        space: &SpaceInfo,
        text: &str,
    ) -> Result<Vector, Degraded> {
        let provider = self.provider_of(space).map_err(|unserved| match unserved {
            Unserved::OtherModels => Degraded::EmbeddingModelMismatch,
            // Known to be away: do not make every search wait for the deadline.
            Unserved::Away => Degraded::EmbedderUnavailable,
        })?;
        let span = spans::internal("embed query");
        let make = async {
            if provider.query_breaker.pass() == Pass::Refused {
                return Err(EmbedError::transient("the provider failed a moment ago"));
            }
            let embed = provider.embedder.embed(Purpose::Query, vec![text.to_owned()]);
            // At the same time, so that it costs no query its time: what is cached must not be another model's.
            let both = async { tokio::join!(embed, provider.embedder.model()) };
            let vectors = match tokio::time::timeout(QUERY_EMBEDDING_DEADLINE, both).await {
                Ok((_, Ok(model))) if !is_of(&model, space) => {
                    Err(EmbedError::transient("the provider has another model now"))
                }
                Ok((result, _)) => result,
                // It takes as many times as long as it has parts. That it was late says nothing about the provider, and must
                // not cost the others theirs.
                Err(_) if !fits(text, space) => {
                    return Err(EmbedError::transient("the query is long and was late"));
                }
                Err(_) => Err(EmbedError::transient("the query was not embedded in time")),
            };
            match &vectors {
                // It is well, and takes other queries.
                Ok(_) | Err(EmbedError::Permanent { .. }) => provider.query_breaker.close(),
                Err(_) => {
                    provider.query_breaker.open(None);
                }
            }
            let vectors = vectors?;
            match vectors.into_iter().next() {
                Some(vector) if vector.dimensions() == space.dims as usize => Ok(vector),
                _ => Err(EmbedError::transient("the provider's dimension is not the space's")),
            }
        };
        span.around(Box::pin(self.cache.query_vector(space, text, make))).await.map_err(|error| {
            span.fail("provider_unavailable");
            tracing::warn!(%error, "a query could not be embedded");
            Degraded::EmbedderUnavailable
        })
    }
}

/// Whether the model of the space reads the text in one piece, as far as can be told without its vocabulary.
fn fits(text: &str, space: &SpaceInfo) -> bool {
    space.tokens_max.is_none_or(|tokens_max| Estimate::of(text).tokens(text) <= tokens_max as usize)
}

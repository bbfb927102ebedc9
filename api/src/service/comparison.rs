//! Two embedding spaces side by side: the same queries in both, and how far their answers agree.

use std::collections::HashSet;

use super::{
    Service,
    search::Semantic,
    spaces::{not_found, provider_away},
};
use crate::{
    domain::{
        Access, ComparedHit, ComparedQuery, Comparison, ComparisonRequest, ContextId, Effort, Included,
        SearchScope, SpaceId, SpaceInfo, SpaceStatus,
    },
    error::{Code, Error, Result},
    store::{ChunkHit, Found},
};

/// Queries that are taken from what is stored when none are given.
const SAMPLED_QUERIES: i64 = 20;
/// Characters of such a query, and of a hit's text.
const EXCERPT_CHARS: usize = 200;

impl Service {
    /// Runs queries in the active space and in this one, both by meaning alone, over what `access` reaches.
    ///
    /// # Errors
    /// [`Code::EmbeddingSpaceNotFound`]; [`Code::EmbeddingSpaceConflict`] when it is the active one;
    /// [`Code::EmbeddingProviderUnavailable`]; [`Code::DatabaseUnavailable`].
    pub async fn compare_space(
        &self,
        access: Access,
        id: SpaceId,
        request: &ComparisonRequest,
    ) -> Result<Comparison> {
        let spaces = self.store.list_spaces().await?;
        let space = spaces
            .iter()
            .find(|space| space.info.id == id.0 && space.status != SpaceStatus::Retired)
            .ok_or_else(not_found)?;
        let active = spaces.iter().find(|space| space.status == SpaceStatus::Active);
        let Some(active) = active.filter(|active| active.info.id != id.0) else {
            return Err(Error::new(
                Code::EmbeddingSpaceConflict,
                "A space is compared with the active one, and this is it; name another.",
            ));
        };
        let queries = if request.queries.is_empty() {
            let texts = self.store.newest_texts(access, SAMPLED_QUERIES).await?;
            texts.iter().map(|text| excerpt(text.trim_start())).collect()
        } else {
            request.queries.clone()
        };
        let mut compared = Vec::new();
        for query in queries {
            let in_active = self.hits_in(access, &active.info, &query, request.limit).await?;
            let in_other = self.hits_in(access, &space.info, &query, request.limit).await?;
            let overlap = overlap(&in_active, &in_other);
            compared.push(ComparedQuery { query, overlap, active: in_active, space: in_other });
        }
        let mean = compared.iter().map(|query| query.overlap).sum::<f64>() / compared.len().max(1) as f64;
        Ok(Comparison {
            active: active.info.clone(),
            space: space.info.clone(),
            limit: request.limit,
            overlap: (!compared.is_empty()).then_some(mean),
            queries: compared,
        })
    }

    async fn hits_in(
        &self,
        access: Access,
        space: &SpaceInfo,
        query: &str,
        limit: u32,
    ) -> Result<Vec<ComparedHit>> {
        let vector = self.embed_query(space, query).await.map_err(|_| provider_away())?;
        let scope = SearchScope { user_id: access.user, ..SearchScope::default() };
        let semantic = Semantic { space, vector: &vector, effort: Effort::Normal, include: None };
        let found = self.semantic_leg(access.tenant, &semantic, &scope, limit as usize).await?;
        let hits: Vec<&ChunkHit> = found.leg.hits.iter().collect();
        let loaded = self.store.load_hits(access.tenant, &scope, Included::NOTHING, &hits).await?;
        let hit = |Found { context, chunk, place }: Found| ComparedHit {
            context_id: context.id,
            score: hits[place].score,
            text: excerpt(&chunk.text),
        };
        Ok(loaded.rows.into_iter().map(hit).collect())
    }
}

/// How many of the longer list are in both: 1 when they agree, also on nothing.
fn overlap(a: &[ComparedHit], b: &[ComparedHit]) -> f64 {
    let longest = a.len().max(b.len());
    if longest == 0 {
        return 1.0;
    }
    let ids: HashSet<ContextId> = a.iter().map(|hit| hit.context_id).collect();
    b.iter().filter(|hit| ids.contains(&hit.context_id)).count() as f64 / longest as f64
}

fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn hits(ids: &[u128]) -> Vec<ComparedHit> {
        let hit = |id: &u128| ComparedHit {
            context_id: ContextId(Uuid::from_u128(*id)),
            score: 0.5,
            text: String::new(),
        };
        ids.iter().map(hit).collect()
    }

    #[test]
    fn overlap_counts_what_both_have() {
        for (a, b, expected) in [
            (&[1, 2, 3, 4][..], &[4, 3, 2, 1][..], 1.0),
            (&[1, 2], &[3, 4], 0.0),
            (&[1, 2, 3, 4], &[1], 0.25),
            (&[], &[1], 0.0),
            (&[], &[], 1.0),
        ] {
            assert!((overlap(&hits(a), &hits(b)) - expected).abs() < f64::EPSILON, "{a:?} {b:?}");
        }
    }
}

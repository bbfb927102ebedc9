//! Whether a backup is any good: it is restored into a scratch database on the same server, as a restore for good would be, and
//! compared with what it was made of: the rows of every table, and what the service itself finds in it.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::watch;

use super::{
    Backups, Failure, Manifest, Probe, Result, Stage, Verdict,
    failure::{In, step},
    load::Destination,
};
use crate::{
    cache::Cache,
    domain::{
        Access, ContextId, Effort, Included, Mode, Ranking, SearchQuery, SearchRequest, SearchScope,
        TenantId, Vector,
    },
    error,
    service::Service,
    store::{self, BackupSession, ConnectOptions, DROP_MAX, Moment, Scratch, Store},
};

/// Searches of one backup.
const PROBES_MAX: usize = 8;
/// Of one tenant.
const PROBES_PER_TENANT: usize = 2;
/// Contexts of a tenant that are tried for them: not each is found by its own words, of which there may be few.
const CANDIDATES_PER_TENANT: i64 = 8;
/// Tenants that are looked at for them.
const TENANTS_MAX: i32 = 100;
/// Hits of each.
const HITS: u32 = 10;
/// For one statement of a search: nobody waits for it, and its tables may be cold.
const SEARCH_MAX: Duration = Duration::from_secs(120);
/// For dropping the scratch database when the process is to stop: who stops it does not wait for ever, and the next check drops
/// what is left.
const STOPPING_MAX: Duration = Duration::from_secs(15);
/// Differences that are told.
const DIFFERENCES_MAX: usize = 5;

fn patient(options: &ConnectOptions) -> ConnectOptions {
    ConnectOptions {
        statement_timeout: SEARCH_MAX,
        wait_timeout: SEARCH_MAX,
        connections_max: 2,
        ..options.clone()
    }
}

/// The service on a database, with nothing but it.
fn service_on(store: Store) -> error::Result<Service> {
    Ok(Service::new(store, Cache::new(None)?, []))
}

/// Searches, and what they find at a moment.
pub(super) async fn probes_at(options: &ConnectOptions, moment: &Moment) -> error::Result<Vec<Probe>> {
    let service = service_on(Store::at_moment(&patient(options), moment)?)?;
    let mut probes = Vec::new();
    for tenant in service.store().list_tenants(None, TENANTS_MAX).await? {
        let mut of_tenant = 0;
        for context in service.store().newest_with_text(tenant.id, CANDIDATES_PER_TENANT).await? {
            if of_tenant == PROBES_PER_TENANT || probes.len() == PROBES_MAX {
                break;
            }
            // One that does not even find itself would show nothing.
            let probe = Box::pin(probe(&service, tenant.id, context)).await?;
            if let Some(probe) = probe.filter(Probe::finds_itself) {
                probes.push(probe);
                of_tenant += 1;
            }
        }
        if probes.len() == PROBES_MAX {
            break;
        }
    }
    service.store().close().await;
    Ok(probes)
}

/// What is found when a context is searched for by what it says, among those of its user; none when it is not there.
async fn probe(service: &Service, tenant: TenantId, context: ContextId) -> error::Result<Option<Probe>> {
    let Some(sample) = service.store().sample(tenant, context).await? else { return Ok(None) };
    let search = async |query, mode| {
        let request = SearchRequest {
            query,
            mode,
            scope: SearchScope { user_id: Some(sample.user), ..SearchScope::default() },
            limit: HITS,
            ranking: Ranking::default(),
            // Indexes of neighbours that are built anew differ.
            effort: Effort::Exact,
            explain: false,
            include: Included::NOTHING,
            rerank: false,
        };
        let found = Box::pin(service.search(Access::whole(tenant), &request)).await?;
        Ok::<_, error::Error>(found.data.into_iter().map(|hit| hit.context.id).collect::<Vec<ContextId>>())
    };
    let by_words = search(SearchQuery::Text(sample.text.clone()), Mode::Keyword).await?;
    let by_meaning = match sample.embedding.clone() {
        Some(values) => Some(search(SearchQuery::Vector(Vector::new(values)?), Mode::Semantic).await?),
        None => None,
    };
    Ok(Some(Probe { tenant, context, by_words, by_meaning }))
}

impl Backups {
    /// Restores a backup into a scratch database, compares, and drops that again.
    ///
    /// # Errors
    /// When nobody could try, which tells nothing about the backup.
    pub async fn check(&self, manifest: &Manifest, stop: &watch::Receiver<bool>) -> Result<Verdict> {
        let mut session = self.alone().await?;
        let checked = held(&mut session, Box::pin(self.check_alone(manifest, stop))).await;
        session.close().await;
        checked
    }

    /// The same for who is [`Backups::alone`]: a scratch database that is there is taken for one that was left behind.
    pub(super) async fn check_alone(
        &self,
        manifest: &Manifest,
        stop: &watch::Receiver<bool>,
    ) -> Result<Verdict> {
        let scratch = step(Stage::Check, DROP_MAX, stop, async {
            Scratch::create(&self.options.database).await.in_stage(Stage::Check)
        })
        .await?;
        let checked =
            step(Stage::Check, self.options.step_max, stop, self.check_in(&scratch, manifest)).await;
        let dropping = if *stop.borrow() { STOPPING_MAX } else { DROP_MAX };
        let dropped = tokio::time::timeout(dropping, scratch.drop_database()).await;
        if !matches!(dropped, Ok(Ok(()))) {
            tracing::warn!("the database of the check could not be dropped; the next check will try again");
        }
        checked
    }

    async fn check_in(&self, scratch: &Scratch, manifest: &Manifest) -> Result<Verdict> {
        let occupied = store::inspect(&scratch.options).await.in_stage(Stage::Check)?;
        let to = Destination { database: &scratch.options, login: occupied.login, replace: false };
        match self.load(Stage::Check, &to, manifest).await? {
            Verdict::Sound => {}
            damaged @ Verdict::Damaged(_) => return Ok(damaged),
        }
        store::analyze(&scratch.options, self.options.step_max).await.in_stage(Stage::Check)?;
        Box::pin(compare(&scratch.options, manifest, self.options.step_max)).await
    }
}

/// Does `work` as long as the session is there that keeps others away.
pub(super) async fn held<T>(session: &mut BackupSession, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        lost = session.lost() => Err(Failure::new(Stage::Database, lost)),
    }
}

/// Compares what was restored with what the backup was made of.
pub(super) async fn compare(
    restored: &ConnectOptions,
    manifest: &Manifest,
    longest: Duration,
) -> Result<Verdict> {
    let mut session = BackupSession::open(restored, longest).await.in_stage(Stage::Check)?;
    let rows = session.count_rows().await.in_stage(Stage::Check)?;
    session.close().await;
    let tables: BTreeSet<&String> = rows.keys().chain(manifest.tables.keys()).collect();
    let mut differences: Vec<String> = Vec::new();
    for table in tables {
        let (is, was) = (rows.get(table), manifest.tables.get(table));
        if is != was {
            let shown = |rows: Option<&i64>| rows.map_or_else(|| "no".to_owned(), i64::to_string);
            differences.push(format!("{table} has {} rows instead of {}", shown(is), shown(was)));
        }
    }
    if differences.is_empty() {
        differences = Box::pin(different_searches(restored, manifest)).await.in_stage(Stage::Check)?;
    }
    if differences.is_empty() {
        return Ok(Verdict::Sound);
    }
    differences.truncate(DIFFERENCES_MAX);
    Ok(Verdict::Damaged(format!("what was restored is not what was there: {}", differences.join("; "))))
}

async fn different_searches(restored: &ConnectOptions, manifest: &Manifest) -> error::Result<Vec<String>> {
    let service = service_on(Store::new(&patient(restored))?)?;
    let mut differences = Vec::new();
    for before in &manifest.probes {
        let after = Box::pin(probe(&service, before.tenant, before.context)).await?;
        let pairs = match &after {
            Some(after) => [
                ("words", Some(&before.by_words), Some(&after.by_words)),
                ("meaning", before.by_meaning.as_ref(), after.by_meaning.as_ref()),
            ],
            None => [("words", Some(&before.by_words), None), ("meaning", None, None)],
        };
        for (leg, before_found, after_found) in pairs {
            if !found_the_same(&service, before.tenant, before_found, after_found).await? {
                differences.push(format!(
                    "a search by {leg} for context {} of tenant {} found others than before",
                    before.context, before.tenant
                ));
            }
        }
    }
    service.store().close().await;
    Ok(differences)
}

/// Whether two searches of the same, one of them later, found the same, as far as time has not changed it: what has expired or begun
/// meanwhile is missing or there rightly, and leaves its place to others, or takes theirs.
async fn found_the_same(
    service: &Service,
    tenant: TenantId,
    before: Option<&Vec<ContextId>>,
    after: Option<&Vec<ContextId>>,
) -> error::Result<bool> {
    let (before, after) = match (before, after) {
        (None, None) => return Ok(true),
        (Some(before), Some(after)) => (before, after),
        _ => return Ok(false),
    };
    let set = |ids: &[ContextId]| ids.iter().copied().collect::<BTreeSet<_>>();
    let (gone, come) = (&set(before) - &set(after), &set(after) - &set(before));
    let changed: Vec<ContextId> = gone.union(&come).copied().collect();
    if changed.is_empty() {
        return Ok(true);
    }
    let bound = set(&service.store().bound_in_time(tenant, &changed).await?);
    Ok(is_explained_by_time(&gone, &come, &bound, before.len(), after.len()))
}

/// Of a search that found `before` and later `after` contexts: those that only the one or the other found, and which of them are bound in time.
fn is_explained_by_time(
    gone: &BTreeSet<ContextId>,
    come: &BTreeSet<ContextId>,
    bound: &BTreeSet<ContextId>,
    before: usize,
    after: usize,
) -> bool {
    // A permanent one leaves only a full list, for one that has begun; and comes only into one that was full, for one that ended.
    let full = HITS as usize;
    let begun = if after < full { 0 } else { come.intersection(bound).count() };
    let ended = if before < full { 0 } else { gone.intersection(bound).count() };
    gone.difference(bound).count() <= begun && come.difference(bound).count() <= ended
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn ids(numbers: &[u128]) -> BTreeSet<ContextId> {
        numbers.iter().map(|number| ContextId(Uuid::from_u128(*number))).collect()
    }

    #[test]
    fn time_explains_no_more_than_it_changes() {
        let explained = |gone: &[u128], come: &[u128], bound: &[u128], before, after| {
            is_explained_by_time(&ids(gone), &ids(come), &ids(bound), before, after)
        };
        // It has expired, and nobody was waiting, or one was.
        assert!(explained(&[1], &[], &[1], 3, 2));
        assert!(explained(&[1], &[2], &[1], 10, 10));
        // It has begun, and has pushed another one out of a full list.
        assert!(explained(&[], &[1], &[1], 3, 4));
        assert!(explained(&[2], &[1], &[1], 10, 10));
        // Lost, as a row of its own or behind one that expired.
        assert!(!explained(&[1], &[], &[], 3, 2));
        assert!(!explained(&[1, 2], &[], &[1], 3, 1));
        assert!(!explained(&[1, 2], &[3], &[1], 10, 9));
        // In a list with room nobody is pushed out, and nobody waits for a place.
        assert!(!explained(&[2], &[1], &[1], 3, 3));
        assert!(!explained(&[1], &[2], &[1], 3, 3));
    }
}

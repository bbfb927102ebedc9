//! Whether a backup is any good: it is restored into a scratch database on the same server, as a restore for good would be, and
//! compared with what it was made of: the rows of every table, and what the service itself finds in it.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::watch;

use super::{
    Backups, Failure, Manifest, Probe, Result, Stage, Verdict,
    failure::{In, step},
};
use crate::{
    cache::Cache,
    domain::{
        Access, ContextId, Effort, Included, Mode, Ranking, SearchQuery, SearchRequest, SearchScope,
        TenantId, Vector,
    },
    error,
    service::Service,
    store::{self, BackupSession, ConnectOptions, Login, Moment, Scratch, Store},
};

/// Searches of one backup.
const PROBES_MAX: usize = 8;
/// Of one tenant.
const PROBES_PER_TENANT: i64 = 2;
/// Tenants that are looked at for them.
const TENANTS_MAX: i32 = 100;
/// Hits of each.
const HITS: u32 = 10;
/// For one statement of a search: nobody waits for it, and its tables may be cold.
const SEARCH_MAX: Duration = Duration::from_secs(120);
/// For dropping the scratch database.
const CLEANUP_MAX: Duration = Duration::from_secs(300);
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
        for context in service.store().newest_with_text(tenant.id, PROBES_PER_TENANT).await? {
            if probes.len() < PROBES_MAX {
                probes.extend(Box::pin(probe(&service, tenant.id, context)).await?);
            }
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
    /// When it cannot be restored, or is not what it was made of; of stage [`Stage::Database`] when nobody could try.
    pub async fn check(&self, manifest: &Manifest, stop: &watch::Receiver<bool>) -> Result<()> {
        let session = self.alone().await?;
        let checked = Box::pin(self.check_alone(manifest, stop)).await;
        session.close().await;
        checked
    }

    /// The same for who is [`Backups::alone`]: a scratch database that is there is taken for one that was left behind.
    pub(super) async fn check_alone(&self, manifest: &Manifest, stop: &watch::Receiver<bool>) -> Result<()> {
        let scratch = step(Stage::Check, CLEANUP_MAX, stop, async {
            Scratch::create(&self.options.database).await.in_stage(Stage::Check)
        })
        .await?;
        let checked =
            step(Stage::Check, self.options.step_max, stop, self.check_in(&scratch, manifest)).await;
        // Also when the process is to stop.
        let dropped = tokio::time::timeout(CLEANUP_MAX, scratch.drop_database()).await;
        if !matches!(dropped, Ok(Ok(()))) {
            tracing::warn!("the database of the check could not be dropped; the next check will try again");
        }
        checked
    }

    async fn check_in(&self, scratch: &Scratch, manifest: &Manifest) -> Result<()> {
        let occupied = store::inspect(&scratch.options).await.in_stage(Stage::Check)?;
        let role = (occupied.login != Login::Other).then_some("context_owner");
        let verdict =
            self.restore_into(Stage::Check, &scratch.options, &occupied.database, role, manifest).await?;
        if let Verdict::Damaged(reason) = verdict {
            return Err(Failure::new(Stage::Check, format!("What is stored is damaged: {reason}.")));
        }
        store::analyze(&scratch.options, self.options.step_max).await.in_stage(Stage::Check)?;
        Box::pin(compare(&scratch.options, manifest, self.options.step_max)).await
    }
}

/// Compares what was restored with what the backup was made of.
pub(super) async fn compare(restored: &ConnectOptions, manifest: &Manifest, longest: Duration) -> Result<()> {
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
        return Ok(());
    }
    differences.truncate(DIFFERENCES_MAX);
    Err(Failure::new(
        Stage::Check,
        format!("What was restored is not what was there: {}.", differences.join("; ")),
    ))
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

/// Whether two searches of the same, one of them later, found the same. What has expired meanwhile is missing rightly, and
/// leaves its place to others.
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
    let (before, after) = (set(before), set(after));
    if before == after {
        return Ok(true);
    }
    let missing: Vec<ContextId> = before.difference(&after).copied().collect();
    let rightly = set(&service.store().out_of_time(tenant, &missing).await?);
    Ok(!missing.is_empty() && rightly == set(&missing))
}

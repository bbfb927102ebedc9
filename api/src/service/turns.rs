//! Work that tenants have more or less of, done in turns: so that none with much of it holds up the others.

use std::future::Future;

use crate::{domain::TenantId, error::Result};

/// Tenants that are looked up at once.
const TENANTS_MAX: i32 = 100;
/// Steps for one tenant in a row.
const STEPS_MAX: usize = 5;

/// Does steps for each tenant that `with_work` names, behind the one that it is told and so many at once. A step answers whether
/// there may be more, and so does this. What fails for one tenant is logged as `failure`.
///
/// # Errors
/// Those of `with_work`.
pub(super) async fn each_tenant<W, S>(
    failure: &'static str,
    with_work: impl Fn(Option<TenantId>, i32) -> W,
    step: impl Fn(TenantId) -> S,
) -> Result<bool>
where
    W: Future<Output = Result<Vec<TenantId>>>,
    S: Future<Output = Result<bool>>,
{
    let mut after: Option<TenantId> = None;
    let mut left_some = false;
    loop {
        let tenants = with_work(after, TENANTS_MAX).await?;
        let Some(last) = tenants.last() else { return Ok(left_some) };
        after = Some(*last);
        for &tenant in &tenants {
            for number in 1..=STEPS_MAX {
                match step(tenant).await {
                    Ok(true) => left_some |= number == STEPS_MAX,
                    Ok(false) => break,
                    // The others' turn comes nevertheless.
                    Err(error) => {
                        tracing::warn!(%error, tenant.id = %tenant, "{failure}");
                        break;
                    }
                }
            }
        }
    }
}

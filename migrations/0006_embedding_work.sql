-- The embedding work: whose turn it is, since when each text waits, what failed, and how much of it there is in all.

-- As the one without `after_tenant`, from there on: so that all tenants' turn comes, however many there are.
create function tenants_with_pending_embeddings(after_tenant uuid, tenants_max integer) returns setof uuid
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        with recursive due as (
            (select c.tenant_id from public.contexts c
             where c.embedding_status = 'pending' and c.is_active and c.embedding_due_at <= now()
               and (after_tenant is null or c.tenant_id > after_tenant)
             order by c.tenant_id limit 1)
            union all
            select (select c.tenant_id from public.contexts c
                    where c.embedding_status = 'pending' and c.is_active and c.embedding_due_at <= now()
                      and c.tenant_id > due.tenant_id
                    order by c.tenant_id limit 1)
            from due where due.tenant_id is not null
        )
        select tenant_id from due where tenant_id is not null limit tenants_max
    $$;
revoke all on function tenants_with_pending_embeddings(uuid, integer) from public;
grant execute on function tenants_with_pending_embeddings(uuid, integer) to context_app;

-- `embedding_attempts` now counts how often a text was found to be the one that a provider cannot do anything with; what a
-- provider does that is away is not the text's fault.

-- The text of this version was written then, or was asked for once more after it had failed.
alter table contexts add column embedding_requested_at timestamptz not null default now();

-- As before, and besides: since when the text waits.
create or replace function begin_context_version() returns trigger
    language plpgsql
    as $$
    begin
        new.updated_at := greatest(clock_timestamp(), old.updated_at + interval '1 microsecond');
        if new.is_active and old.is_active and new.text = old.text
           and (new.embedding_digest is null or new.embedding_digest is not distinct from old.embedding_digest) then
            new.text_version := old.text_version;
            new.embedding_digest := old.embedding_digest;
            new.embedding_status := old.embedding_status;
            new.embedding_error := old.embedding_error;
            new.embedding_attempts := old.embedding_attempts;
            new.embedding_due_at := old.embedding_due_at;
            new.embedding_requested_at := old.embedding_requested_at;
        else
            new.text_version := new.version;
            new.embedding_error := null;
            new.embedding_attempts := 0;
            new.embedding_due_at := new.updated_at;
            new.embedding_requested_at := new.updated_at;
        end if;
        return new;
    end
    $$;

-- To list them and to try them again.
create index contexts_failed on contexts (tenant_id, id) where embedding_status = 'failed' and is_active;

create policy contexts_failed_for_owner on contexts for select to context_owner using (embedding_status = 'failed');

-- Of all tenants together, for operators: numbers, and nothing of what is behind them.
create function embedding_backlog(out pending bigint, out oldest_requested_at timestamptz, out failed bigint)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        select p.pending, p.oldest, f.failed
        from (select count(*) as pending, min(c.embedding_requested_at) as oldest from public.contexts c
              where c.embedding_status = 'pending' and c.is_active) p,
             (select count(*) as failed from public.contexts c
              where c.embedding_status = 'failed' and c.is_active) f
    $$;
revoke all on function embedding_backlog() from public;
grant execute on function embedding_backlog() to context_app;

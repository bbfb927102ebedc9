-- Embedding spaces side by side: a new model is filled in beside the one that search reads, and takes its place in one
-- step. The one that it replaces stays, is written to, and may come back.

alter table embedding_spaces drop constraint embedding_spaces_status_check;
alter table embedding_spaces
    -- `building`: is filled. `active`: search reads it. `standby`: was active, and is kept so that it may be again.
    -- `retired`: is about to be dropped.
    add constraint embedding_spaces_status_check check (status in ('building', 'active', 'standby', 'retired')),
    -- Tokens of one text that the model reads; null when its provider does not tell.
    add column tokens_max integer check (tokens_max > 0),
    add column activated_at timestamptz,
    add column retired_at timestamptz,
    -- The backfill: what was written before the space was made is embedded at this pace, all workers together; null for as
    -- fast as they can.
    add column contexts_per_second integer check (contexts_per_second > 0),
    add column next_claim_at timestamptz not null default now(),
    add column is_paused boolean not null default false,
    -- The survey: goes through all contexts by tenant and id, and queues those that lack their embedding. Where it is:
    add column surveyed_tenant uuid,
    add column surveyed_context uuid,
    add column contexts_seen bigint not null default 0,
    add column is_surveyed boolean not null default false,
    -- Counts surveys, so that a step of one that was begun anew does not move the next one.
    add column survey_no integer not null default 1,
    -- Since when the space has had everything that was there when it was made.
    add column complete_at timestamptz;
update embedding_spaces
set activated_at = created_at, is_surveyed = true, complete_at = created_at
where status = 'active';
-- The service changes nothing else by itself: statuses change by the functions below.
grant update (contexts_per_second, next_claim_at, is_paused, surveyed_tenant, surveyed_context, contexts_seen, is_surveyed,
              survey_no, complete_at)
    on embedding_spaces to context_app;

-- What a space lacks, but for the active one, of which `contexts.embedding_status` says it. Written in the same statement as
-- the text, so there is no job that could be lost.
create table embedding_work (
    tenant_id uuid not null,
    space_id integer not null references embedding_spaces (id) on delete cascade,
    context_id uuid not null,
    -- Written since the space was made: comes before what was there.
    is_fresh boolean not null,
    status text not null default 'pending' check (status in ('pending', 'failed')),
    requested_at timestamptz not null default clock_timestamp(),
    -- As in `contexts`: a worker that claims a row moves this forward.
    due_at timestamptz not null default clock_timestamp(),
    attempts integer not null default 0,
    error text,
    primary key (tenant_id, space_id, context_id),
    foreign key (tenant_id, context_id) references contexts (tenant_id, id) on delete cascade
);
create index embedding_work_pending on embedding_work (tenant_id, space_id, is_fresh desc, due_at)
    where status = 'pending';
-- The foreign key's cascade when a space goes, and the numbers of a space.
create index embedding_work_space on embedding_work (space_id, status, is_fresh, requested_at);
-- The foreign key's cascade when a context goes.
create index embedding_work_context on embedding_work (tenant_id, context_id);

alter table embedding_work enable row level security;
alter table embedding_work force row level security;
create policy embedding_work_own on embedding_work to context_app using (tenant_id = current_tenant());
-- For the functions below, which run as the owner.
create policy embedding_work_for_owner on embedding_work for select to context_owner using (true);
grant select, insert, update, delete on embedding_work to context_app;

-- As tenants_with_pending_embeddings, for a space that is not the active one.
create function tenants_with_embedding_work(of_space integer, fresh_only boolean, after_tenant uuid, tenants_max integer)
    returns setof uuid
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        with recursive due as (
            (select w.tenant_id from public.embedding_work w
             where w.status = 'pending' and w.space_id = of_space and w.due_at <= now() and (w.is_fresh or not fresh_only)
               and (after_tenant is null or w.tenant_id > after_tenant)
             order by w.tenant_id limit 1)
            union all
            select (select w.tenant_id from public.embedding_work w
                    where w.status = 'pending' and w.space_id = of_space and w.due_at <= now()
                      and (w.is_fresh or not fresh_only) and w.tenant_id > due.tenant_id
                    order by w.tenant_id limit 1)
            from due where due.tenant_id is not null
        )
        select tenant_id from due where tenant_id is not null limit tenants_max
    $$;

-- How much of it there is, of all tenants together: `backfill` was there before the space, `fresh` was written since.
create function embedding_work_of(of_space integer, out backfill bigint, out fresh bigint,
                                  out oldest_fresh_at timestamptz, out failed bigint)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        select count(*) filter (where w.status = 'pending' and not w.is_fresh),
               count(*) filter (where w.status = 'pending' and w.is_fresh),
               min(w.requested_at) filter (where w.status = 'pending' and w.is_fresh),
               count(*) filter (where w.status = 'failed')
        from public.embedding_work w where w.space_id = of_space
    $$;

-- Makes a space with its partition and index; answers null when there is one of this model already, or, of the first one,
-- any that is active. Waits for the writes under way: whoever comes after them sees the space and queues work for it, and
-- the survey sees what they wrote.
create function create_embedding_space(new_provider text, new_model text, new_dims integer, new_tokens_max integer,
                                       is_first boolean) returns integer
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp set lock_timeout = '1s'
    as $$
    declare
        space integer;
        partition_name text;
        value_type text := (select format_type(typbasetype, null) from pg_catalog.pg_type
                            where oid = 'public.embedding_value'::regtype);
    begin
        perform pg_advisory_xact_lock(hashtext('context-api embedding_spaces'));
        if (is_first and exists (select from public.embedding_spaces where status = 'active'))
           or exists (select from public.embedding_spaces s
                      where s.provider = new_provider and s.model = new_model) then
            return null;
        end if;
        -- In the order in which a write takes them: the other way round each would wait for the other.
        lock table public.contexts in share row exclusive mode;
        lock table public.chunks in share row exclusive mode;
        insert into public.embedding_spaces (provider, model, dims, tokens_max, status, activated_at, is_surveyed, complete_at)
        values (new_provider, new_model, new_dims, new_tokens_max,
                case when is_first then 'active' else 'building' end,
                case when is_first then now() end, is_first, case when is_first then now() end)
        returning id into space;
        partition_name := 'chunk_embeddings_' || space;
        -- Made apart and attached, because that does not keep searches waiting.
        execute format('create table public.%I (like public.chunk_embeddings including defaults including constraints)',
                       partition_name);
        execute format('alter table public.%I add check (space_id = %s), add check (vector_dims(embedding) = %s)',
                       partition_name, space, new_dims);
        -- What does not fit on a page: pgvector does not index it either, search compares all.
        execute format('alter table public.%I alter column embedding set storage %s',
                       partition_name, case when value_type = 'vector' and new_dims > 2000 then 'external' else 'plain' end);
        if not (value_type = 'vector' and new_dims > 2000) then
            -- Embeddings have length one, so the inner product orders as the cosine does, and costs less. From the
            -- beginning: only its owner, which the service is not, could index a table later without stopping writes.
            execute format('create index on public.%I using hnsw ((embedding::%s(%s)) %s_ip_ops)',
                           partition_name, value_type, new_dims, value_type);
        end if;
        execute format('alter table public.chunk_embeddings attach partition public.%I for values in (%s)',
                       partition_name, space);
        return space;
    end
    $$;
-- For processes of the version before, which go on until they are replaced.
create or replace function create_first_embedding_space(new_provider text, new_model text, new_dims integer) returns void
    language sql security definer set search_path = pg_catalog, public, pg_temp
    as $$ select public.create_embedding_space(new_provider, new_model, new_dims, null, true) $$;

-- Lets search read another space from now on; answers whether it may. Waits for the writes under way, so that each finds
-- one active space for all of its work. Both spaces are surveyed again: the new one for what failed there, the old one for
-- what had not been embedded in it yet.
create function activate_embedding_space(new_space integer) returns boolean
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp set lock_timeout = '1s'
    as $$
    begin
        perform pg_advisory_xact_lock(hashtext('context-api embedding_spaces'));
        lock table public.contexts in share row exclusive mode;
        if not exists (select from public.embedding_spaces
                       where id = new_space and status in ('building', 'standby')) then
            return false;
        end if;
        update public.embedding_spaces
        set status = 'standby', surveyed_tenant = null, surveyed_context = null, contexts_seen = 0, is_surveyed = false,
            survey_no = survey_no + 1, is_paused = false
        where status = 'active';
        update public.embedding_spaces
        set status = 'active', activated_at = clock_timestamp(), surveyed_tenant = null, surveyed_context = null,
            contexts_seen = 0, is_surveyed = false, survey_no = survey_no + 1, is_paused = false
        where id = new_space;
        return true;
    end
    $$;

-- From now on nothing is written to it, and nobody may activate it; answers whether it could be.
create function retire_embedding_space(old_space integer) returns boolean
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp
    as $$
    begin
        perform pg_advisory_xact_lock(hashtext('context-api embedding_spaces'));
        update public.embedding_spaces set status = 'retired', retired_at = clock_timestamp()
        where id = old_space and status in ('building', 'standby');
        return found;
    end
    $$;

-- Drops a space that was retired a while ago: by then no process takes it for anything else. Gives up soon when it would have
-- to wait for somebody, because searches would wait behind it.
create function drop_retired_embedding_space() returns integer
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp set lock_timeout = '50ms'
    as $$
    declare
        space integer;
    begin
        if not pg_try_advisory_xact_lock(hashtext('context-api embedding_spaces')) then
            return null;
        end if;
        select id into space from public.embedding_spaces
        where status = 'retired' and retired_at < now() - interval '10 s' order by id limit 1;
        if space is not null then
            lock table public.contexts in row share mode;
            execute format('drop table public.%I', 'chunk_embeddings_' || space);
            delete from public.embedding_spaces where id = space;
        end if;
        return space;
    end
    $$;

revoke all on function tenants_with_embedding_work(integer, boolean, uuid, integer), embedding_work_of(integer),
                       create_embedding_space(text, text, integer, integer, boolean), activate_embedding_space(integer),
                       retire_embedding_space(integer), drop_retired_embedding_space() from public;
grant execute on function tenants_with_embedding_work(integer, boolean, uuid, integer), embedding_work_of(integer),
                          create_embedding_space(text, text, integer, integer, boolean), activate_embedding_space(integer),
                          retire_embedding_space(integer), drop_retired_embedding_space() to context_app;

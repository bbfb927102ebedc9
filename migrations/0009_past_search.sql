-- The past is searched by the texts and the embeddings that it had. What a write supersedes or a deletion hides goes from
-- `chunks` to `past_chunks` in the same transaction, and from there when history forgets the last version that had this text.
-- Tables of their own, so that the indexes by which the present is searched hold the present alone.

-- Which text the version had: several versions share one, and the present one may share it with them. Null for what was
-- superseded before texts were kept, of which search knows nothing.
alter table context_versions add column text_version bigint;

-- The owner changes rows of all tenants this once: versions that have the present text.
alter table contexts no force row level security;
alter table context_versions no force row level security;
update context_versions v set text_version = c.text_version
from contexts c
where c.tenant_id = v.tenant_id and c.id = v.context_id and v.version >= c.text_version;
alter table contexts force row level security;
alter table context_versions force row level security;

-- Without what `chunks` carries along: who searches the past begins with the versions that were in force then.
create table past_chunks (
    tenant_id uuid not null,
    context_id uuid not null,
    -- That of the text.
    version bigint not null,
    chunk_no integer not null,
    text text not null,
    terms tsvector not null,
    length integer not null,
    primary key (tenant_id, context_id, version, chunk_no),
    foreign key (tenant_id, context_id) references contexts (tenant_id, id) on delete cascade
);
-- The keyword leg of a search of the past.
create index past_chunks_terms on past_chunks using gin (terms);
alter table past_chunks alter column terms set storage main;
alter table past_chunks set (toast_tuple_target = 8160);
alter table past_chunks enable row level security;
alter table past_chunks force row level security;
create policy past_chunks_own on past_chunks to context_app using (tenant_id = current_tenant());

-- The space comes last in the key, so that it serves the foreign key's cascade, too. Without an index of neighbours: it would
-- cost each write more than all the rest of it.
create table past_chunk_embeddings (
    tenant_id uuid not null,
    context_id uuid not null,
    version bigint not null,
    chunk_no integer not null,
    space_id integer not null,
    embedding embedding_value not null,
    primary key (tenant_id, context_id, version, chunk_no, space_id),
    foreign key (tenant_id, context_id, version, chunk_no)
        references past_chunks (tenant_id, context_id, version, chunk_no) on delete cascade
) partition by list (space_id);
alter table past_chunk_embeddings enable row level security;
alter table past_chunk_embeddings force row level security;
create policy past_chunk_embeddings_own on past_chunk_embeddings to context_app using (tenant_id = current_tenant());

-- Nobody changes the past; it comes, and it goes.
grant select, insert, delete on past_chunks, past_chunk_embeddings to context_app;

-- As in 0003, but that the chunks of a text that was are kept with their embeddings, out of reach of a search of the present.
-- Its last statement reads embeddings that the deletion of their chunks takes along: that happens at the statement's end.
create or replace function end_context_version() returns trigger
    language plpgsql
    as $$
    begin
        insert into context_versions (tenant_id, context_id, version, user_id, context_type, key, content, metadata, text,
                                      text_given, text_version, created_at, updated_at, superseded_at, expires_at,
                                      sliding_ttl_seconds, valid_from, valid_to, is_active, embedding, space_id)
        select old.tenant_id, old.id, old.version, old.user_id, old.context_type, old.key, old.content, old.metadata,
               old.text, old.text_given, old.text_version, old.created_at, old.updated_at, new.updated_at, old.expires_at,
               old.sliding_ttl_seconds, old.valid_from, old.valid_to, old.is_active, e.embedding, e.space_id
        from (select) one
        left join lateral (
            select k.embedding, k.space_id from chunk_embeddings k
            join embedding_spaces s on s.id = k.space_id and s.status = 'active'
            where old.embedding_digest is not null and k.tenant_id = old.tenant_id and k.context_id = old.id
              and k.version = old.text_version and k.chunk_no = 0
        ) e on true;
        if new.text_version <> old.text_version or not new.is_active then
            with gone as (
                delete from chunks k
                where k.tenant_id = new.tenant_id and k.context_id = new.id
                  and (k.version < new.text_version or not new.is_active)
                returning k.version, k.chunk_no, k.text, k.terms, k.length
            ), kept as (
                insert into past_chunks (tenant_id, context_id, version, chunk_no, text, terms, length)
                select new.tenant_id, new.id, k.version, k.chunk_no, k.text, k.terms, k.length from gone k
            )
            insert into past_chunk_embeddings (tenant_id, context_id, version, chunk_no, space_id, embedding)
            select new.tenant_id, new.id, k.version, k.chunk_no, k.space_id, k.embedding from chunk_embeddings k
            where k.tenant_id = new.tenant_id and k.context_id = new.id
              and (k.version < new.text_version or not new.is_active);
        elsif (new.context_type, new.expires_at, new.valid_from, new.valid_to)
              is distinct from (old.context_type, old.expires_at, old.valid_from, old.valid_to) then
            update chunks k
            set context_type = new.context_type, expires_at = new.expires_at, valid_from = new.valid_from,
                valid_to = new.valid_to
            where k.tenant_id = new.tenant_id and k.context_id = new.id;
            update chunk_embeddings k
            set context_type = new.context_type, expires_at = new.expires_at, valid_from = new.valid_from,
                valid_to = new.valid_to
            where k.tenant_id = new.tenant_id and k.context_id = new.id;
        end if;
        return null;
    end
    $$;

-- The partition of a space for its past embeddings. Made apart and attached, because that does not keep searches waiting. For
-- the functions and the migration here; the service may not call it.
create function create_past_partition(of_space integer, of_dims integer) returns void
    language plpgsql set search_path = pg_catalog, public, pg_temp
    as $$
    declare
        partition_name text := 'past_chunk_embeddings_' || of_space;
        value_type text := (select format_type(typbasetype, null) from pg_catalog.pg_type
                            where oid = 'public.embedding_value'::regtype);
    begin
        execute format('create table public.%I (like public.past_chunk_embeddings including defaults including constraints)',
                       partition_name);
        execute format('alter table public.%I add check (space_id = %s), add check (vector_dims(embedding) = %s)',
                       partition_name, of_space, of_dims);
        -- In line, if it fits on a page.
        execute format('alter table public.%I alter column embedding set storage %s',
                       partition_name, case when value_type = 'vector' and of_dims > 2000 then 'external' else 'plain' end);
        execute format('alter table public.past_chunk_embeddings attach partition public.%I for values in (%s)',
                       partition_name, of_space);
    end
    $$;
revoke all on function create_past_partition(integer, integer) from public;
select create_past_partition(s.id, s.dims) from embedding_spaces s order by s.id;

-- As in 0007, with a partition for the past besides.
create or replace function create_embedding_space(new_provider text, new_model text, new_dims integer, new_tokens_max integer,
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
        lock table public.past_chunks in share row exclusive mode;
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
        perform public.create_past_partition(space, new_dims);
        return space;
    end
    $$;

-- As in 0007, and the past embeddings go with the others.
create or replace function drop_retired_embedding_space() returns integer
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
            execute format('drop table public.%I', 'past_chunk_embeddings_' || space);
            delete from public.embedding_spaces where id = space;
        end if;
        return space;
    end
    $$;

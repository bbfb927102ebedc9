-- Contexts, the chunks of text by which they are found, and the chunks' embeddings.
--
-- Every primary and unique key starts with tenant_id, so that rows of a tenant lie together and the schema can be
-- distributed by it. Ids are uuid v7, made by the service.

create table contexts (
    tenant_id uuid not null references tenants (id),
    id uuid not null,
    user_id uuid not null,
    context_type varchar(50) not null,
    -- The caller's own name for it; writing to it again updates.
    key varchar(255),
    content jsonb not null,
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    -- What search reads.
    text text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    expires_at timestamptz,
    -- False once it was deleted.
    is_active boolean not null default true,
    version bigint not null default 1 check (version > 0),
    -- The queue of embedding work is this column: there is no job that could be lost.
    embedding_status text not null check (embedding_status in ('pending', 'ready', 'failed')),
    -- Why it failed, or failed last.
    embedding_error text,
    embedding_attempts integer not null default 0,
    -- A worker that claims a row moves this forward; when the worker dies, the row is due again by itself.
    embedding_due_at timestamptz not null default now(),
    primary key (tenant_id, id),
    constraint contexts_key unique (tenant_id, user_id, key)
);
-- Lists of one user, newest first (ids are in the order of creation). Without a user the primary key serves.
create index contexts_user on contexts (tenant_id, user_id, id);
-- The worker: which tenants have work, and which rows are due.
create index contexts_pending on contexts (tenant_id, embedding_due_at)
    where embedding_status = 'pending' and is_active;

alter table contexts enable row level security;
alter table contexts force row level security;
create policy contexts_own on contexts to context_app using (tenant_id = current_tenant());
-- For tenants_with_pending_embeddings, which runs as the owner.
create policy contexts_pending_for_owner on contexts for select to context_owner
    using (embedding_status = 'pending');

-- A worker serves all tenants but sees one at a time. This function tells it which to look at, and nothing else.
-- It hops from tenant to tenant along the index, so a tenant with a million pending rows costs as much as one with one.
create function tenants_with_pending_embeddings(tenants_max integer) returns setof uuid
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        with recursive due as (
            (select c.tenant_id from public.contexts c
             where c.embedding_status = 'pending' and c.is_active and c.embedding_due_at <= now()
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

create table chunks (
    tenant_id uuid not null,
    context_id uuid not null,
    version bigint not null,
    chunk_no integer not null check (chunk_no >= 0),
    -- Carried along from the context, so that a search filters without a join.
    user_id uuid not null,
    context_type varchar(50) not null,
    expires_at timestamptz,
    text text not null,
    tsv tsvector not null,
    primary key (tenant_id, context_id, version, chunk_no),
    foreign key (tenant_id, context_id) references contexts (tenant_id, id) on delete cascade
);
-- The words of a query, each as a tsquery of its own, at most 64 of them, because each is a look-up. Quoted as tsquery's
-- input syntax asks.
create function query_words(query text) returns tsquery[]
    language sql immutable parallel safe strict
    as $$
        select coalesce(array_agg(('''' || replace(replace(w.lexeme, '\', '\\'), '''', '''''') || '''')::tsquery), '{}')
        from (select lexeme from unnest(to_tsvector('english', query)) limit 64) w
    $$;

-- Matches a text with any of the words: `to_tsquery` and its kin join words by AND.
create function any_of(words tsquery[]) returns tsquery
    language sql immutable parallel safe strict
    as $$ select coalesce(string_agg(w::text, ' | '), '')::tsquery from unnest(words) w $$;

-- The keyword leg.
create index chunks_tsv on chunks using gin (tsv);

-- What a write supersedes, or a deletion hides, leaves search in the same transaction. A trigger, because it looks with
-- a snapshot of its own: the statement that writes may have waited for another writer, and its snapshot, taken before,
-- does not show the chunks that the other one has left.
create function drop_superseded_chunks() returns trigger
    language plpgsql
    as $$
    begin
        delete from chunks k
        where k.tenant_id = new.tenant_id and k.context_id = new.id
          and (k.version < new.version or not new.is_active);
        return null;
    end
    $$;
create trigger contexts_drop_superseded_chunks after update on contexts
    for each row when (old.version <> new.version) execute function drop_superseded_chunks();

alter table chunks enable row level security;
alter table chunks force row level security;
create policy chunks_own on chunks to context_app using (tenant_id = current_tenant());

-- One model of one provider. Its dimension is learned from the provider's first answer.
create table embedding_spaces (
    id integer primary key generated always as identity,
    provider text not null,
    model text not null,
    dims integer not null check (dims between 1 and 4000),
    status text not null check (status in ('building', 'active', 'retired')),
    created_at timestamptz not null default now(),
    unique (provider, model, dims)
);
-- Search reads exactly one space.
create unique index embedding_spaces_one_active on embedding_spaces (status) where status = 'active';

-- Half precision takes half the space and time. The engine in process computes it five hundred times slower than single
-- precision, so it asks for that one.
do $$
begin
    if current_setting('context.embedding_type', true) = 'vector' then
        create domain embedding_value as vector;
    else
        create domain embedding_value as halfvec;
    end if;
end
$$;

-- A narrow table of its own, stored in line: an embedding that had to be fetched from TOAST would cost a second look-up
-- for every distance.
create table chunk_embeddings (
    tenant_id uuid not null,
    space_id integer not null references embedding_spaces (id),
    context_id uuid not null,
    version bigint not null,
    chunk_no integer not null,
    user_id uuid not null,
    context_type varchar(50) not null,
    expires_at timestamptz,
    embedding embedding_value not null,
    primary key (tenant_id, space_id, context_id, version, chunk_no),
    foreign key (tenant_id, context_id, version, chunk_no)
        references chunks (tenant_id, context_id, version, chunk_no) on delete cascade
) partition by list (space_id);
alter table chunk_embeddings alter column embedding set storage plain;
-- The foreign key's cascade, and the count of candidates for a user.
create index chunk_embeddings_context on chunk_embeddings (tenant_id, context_id, version, chunk_no);
create index chunk_embeddings_user on chunk_embeddings (tenant_id, user_id, context_type, expires_at);

alter table chunk_embeddings enable row level security;
alter table chunk_embeddings force row level security;
create policy chunk_embeddings_own on chunk_embeddings to context_app using (tenant_id = current_tenant());

-- A new space needs a partition and an index of its dimension, and the service may not change the schema. This function
-- may, and does only that. When two services come at once the second finds the space of the first.
create function create_first_embedding_space(new_provider text, new_model text, new_dims integer) returns void
    language plpgsql security definer set search_path = pg_catalog, public, pg_temp
    as $$
    declare
        space integer;
        partition_name text;
        value_type text := (select format_type(typbasetype, null) from pg_catalog.pg_type where oid = 'public.embedding_value'::regtype);
    begin
        perform pg_advisory_xact_lock(hashtext('context-api embedding_spaces'));
        if exists (select from public.embedding_spaces where status = 'active') then
            return;
        end if;
        -- In the order in which a write takes them: the other way round each would wait for the other.
        lock table public.chunks in share row exclusive mode;
        lock table public.chunk_embeddings in access exclusive mode;
        insert into public.embedding_spaces (provider, model, dims, status)
        values (new_provider, new_model, new_dims, 'active')
        returning id into space;
        partition_name := 'chunk_embeddings_' || space;
        execute format('create table public.%I partition of public.chunk_embeddings for values in (%s)',
                       partition_name, space);
        execute format('alter table public.%I add check (vector_dims(embedding) = %s)', partition_name, new_dims);
        -- pgvector indexes up to 4,000 dimensions in half precision, and 2,000 in single: beyond, search compares all.
        if value_type = 'vector' and new_dims > 2000 then
            -- Too wide for a page.
            execute format('alter table public.%I alter column embedding set storage external', partition_name);
            return;
        end if;
        execute format('alter table public.%I alter column embedding set storage plain', partition_name);
        -- Embeddings have length one, so the inner product orders as the cosine does, and costs less.
        execute format('create index on public.%I using hnsw ((embedding::%s(%s)) %s_ip_ops)',
                       partition_name, value_type, new_dims, value_type);
    end
    $$;

revoke all on function tenants_with_pending_embeddings(integer),
                       create_first_embedding_space(text, text, integer) from public;
grant execute on function tenants_with_pending_embeddings(integer),
                          create_first_embedding_space(text, text, integer) to context_app;
grant select, insert, update, delete on contexts, chunks, chunk_embeddings to context_app;
grant select on embedding_spaces to context_app;

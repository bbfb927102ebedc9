-- Every superseded version of a context is kept, its text has a version of its own, and a context may live on by being
-- read and hold for a time only.

alter table contexts
    -- The version in which the present text was written. Chunks and embeddings carry this one, so that a change of
    -- metadata alone touches neither.
    add column text_version bigint not null default 1,
    -- Whether the caller gave `text`. Otherwise it is extracted anew whenever `content` changes.
    add column text_given boolean not null default false,
    -- SHA-256 of the embedding that the caller gave for the present text; null when the service makes it.
    add column embedding_digest bytea check (length(embedding_digest) = 32),
    -- Reading the context moves `expires_at` to so many seconds from then.
    add column sliding_ttl_seconds bigint check (sliding_ttl_seconds > 0),
    -- When what the context says holds: search takes only what does.
    add column valid_from timestamptz,
    add column valid_to timestamptz,
    add constraint contexts_validity check (valid_from < valid_to),
    -- The time of the write itself, not of its transaction: `as_of` must not show what was written later.
    alter column created_at set default clock_timestamp(),
    alter column updated_at set default clock_timestamp();

-- The owner changes rows of all tenants this once.
alter table contexts no force row level security;
update contexts set text_version = version where version > 1;
alter table contexts force row level security;

-- Filters by metadata. Leakproof functions only are used within an index under row-level security: init-db/ sees to it.
create index contexts_metadata on contexts using gin (metadata jsonb_path_ops);
-- What has expired, and what was deleted long ago, to be purged.
create index contexts_expiring on contexts (tenant_id, expires_at) where expires_at is not null;
create index contexts_deleted on contexts (tenant_id, updated_at) where not is_active;
-- What may have more versions than are kept.
create index contexts_often_written on contexts (tenant_id, version) where version > 100;

alter table chunks
    add column valid_from timestamptz,
    add column valid_to timestamptz;
alter table chunk_embeddings
    add column valid_from timestamptz,
    add column valid_to timestamptz;

create table context_versions (
    tenant_id uuid not null,
    context_id uuid not null,
    version bigint not null,
    user_id uuid not null,
    context_type varchar(50) not null,
    key varchar(255),
    content jsonb not null,
    metadata jsonb not null,
    text text not null,
    text_given boolean not null,
    created_at timestamptz not null,
    -- The version was the present one from `updated_at` until `superseded_at`.
    updated_at timestamptz not null,
    superseded_at timestamptz not null,
    expires_at timestamptz,
    sliding_ttl_seconds bigint,
    valid_from timestamptz,
    valid_to timestamptz,
    is_active boolean not null,
    -- The embedding that the caller had given, which nobody could make again, and the space that it is of.
    embedding embedding_value,
    space_id integer,
    primary key (tenant_id, context_id, version),
    foreign key (tenant_id, context_id) references contexts (tenant_id, id) on delete cascade
);
-- Lists of one user as of a time.
create index context_versions_user on context_versions (tenant_id, user_id, context_id);
-- What is too old, to be pruned.
create index context_versions_superseded on context_versions (tenant_id, superseded_at);

alter table context_versions enable row level security;
alter table context_versions force row level security;
create policy context_versions_own on context_versions to context_app using (tenant_id = current_tenant());
grant select, insert, delete on context_versions to context_app;

-- What every new version has in common, whichever statement makes it. The time moves on strictly, so that each moment has
-- exactly one version. A text that stays keeps its chunks and embeddings, and its place in the queue.
create function begin_context_version() returns trigger
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
        else
            new.text_version := new.version;
            new.embedding_error := null;
            new.embedding_attempts := 0;
            new.embedding_due_at := new.updated_at;
        end if;
        return new;
    end
    $$;
create trigger contexts_begin_version before update on contexts
    for each row when (old.version <> new.version) execute function begin_context_version();

-- Keeps the version that was, and takes the chunks of a text that was out of search in the same transaction. A trigger,
-- because it looks with a snapshot of its own: the statement that writes may have waited for another writer, and its
-- snapshot, taken before, does not show the chunks that the other one has left.
create function end_context_version() returns trigger
    language plpgsql
    as $$
    begin
        insert into context_versions (tenant_id, context_id, version, user_id, context_type, key, content, metadata, text,
                                      text_given, created_at, updated_at, superseded_at, expires_at,
                                      sliding_ttl_seconds, valid_from, valid_to, is_active, embedding, space_id)
        select old.tenant_id, old.id, old.version, old.user_id, old.context_type, old.key, old.content, old.metadata,
               old.text, old.text_given, old.created_at, old.updated_at, new.updated_at, old.expires_at,
               old.sliding_ttl_seconds, old.valid_from, old.valid_to, old.is_active, e.embedding, e.space_id
        from (select) one
        left join lateral (
            select k.embedding, k.space_id from chunk_embeddings k
            join embedding_spaces s on s.id = k.space_id and s.status = 'active'
            where old.embedding_digest is not null and k.tenant_id = old.tenant_id and k.context_id = old.id
              and k.version = old.text_version and k.chunk_no = 0
        ) e on true;
        if new.text_version <> old.text_version or not new.is_active then
            delete from chunks k
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
drop trigger contexts_drop_superseded_chunks on contexts;
drop function drop_superseded_chunks();
create trigger contexts_end_version after update on contexts
    for each row when (old.version <> new.version) execute function end_context_version();

-- Records beside the contexts: answers to requests that may be sent again, long work, and who did what.

-- The answer to a write, kept in the transaction of the write: whoever sends the request again gets it, and a write that
-- did not happen left none.
create table idempotency_keys (
    tenant_id uuid not null references tenants (id),
    -- A key that is bound to a user has a name space of its own; the nil UUID for all others.
    namespace uuid not null,
    key varchar(255) not null,
    -- SHA-256 of the request's method, path, query, conditions and body.
    fingerprint bytea not null check (length(fingerprint) = 32),
    -- Null until the end of the transaction that the row was made in.
    status smallint,
    location text,
    etag text,
    body text,
    -- Whose data the answer tells of: erasing a user erases it.
    user_ids uuid[] not null default '{}',
    created_at timestamptz not null default now(),
    primary key (tenant_id, namespace, key)
);
-- What is older than a day, to be purged.
create index idempotency_keys_created on idempotency_keys (tenant_id, created_at);

-- Long work, which goes on when its process ends: a worker takes up what nobody has claimed.
create table operations (
    tenant_id uuid not null references tenants (id),
    id uuid not null,
    kind text not null check (kind in ('import', 'erase')),
    status text not null check (status in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    -- The user that it concerns, or that the key which started it is bound to.
    user_id uuid,
    -- Makes an import the same one when its request is sent again.
    idempotency_key varchar(255),
    progress jsonb not null default '{}',
    result jsonb,
    -- Why it failed, for people.
    error text,
    cancel_requested boolean not null default false,
    attempts integer not null default 0,
    -- Until then whoever runs it is believed to live.
    claimed_until timestamptz,
    created_by uuid,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    finished_at timestamptz,
    primary key (tenant_id, id)
);
create unique index operations_idempotency on operations
    (tenant_id, kind, (coalesce(user_id, '00000000-0000-0000-0000-000000000000')), idempotency_key)
    where idempotency_key is not null;
-- Which tenants have work, and which work is to be done.
create index operations_open on operations (tenant_id, id) where status in ('queued', 'running');

-- Append-only for the service: it has no right to change or delete a row.
create table audit_log (
    tenant_id uuid not null references tenants (id),
    id uuid not null,
    at timestamptz not null default clock_timestamp(),
    -- Null when it was not a request: an operator's command, or the service itself.
    api_key_id uuid,
    request_id text,
    -- `context.create`, `api_key.revoke` …: what it was done to, and what was done.
    action text not null,
    target_id uuid not null,
    -- The version that a write made.
    target_version bigint,
    primary key (tenant_id, id)
);
-- What happened to one thing.
create index audit_log_target on audit_log (tenant_id, target_id, id);

do $$
declare
    name text;
begin
    foreach name in array array['idempotency_keys', 'operations', 'audit_log'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy %I on %I to context_app using (tenant_id = current_tenant())', name || '_own', name);
    end loop;
end
$$;
grant select, insert, update, delete on idempotency_keys, operations to context_app;
grant select, insert on audit_log to context_app;

-- For the two functions below.
create policy operations_open_for_owner on operations for select to context_owner
    using (status in ('queued', 'running'));
create policy audit_log_for_owner on audit_log to context_owner using (tenant_id = current_tenant());

-- A worker serves all tenants but sees one at a time; see tenants_with_pending_embeddings.
create function tenants_with_operations(tenants_max integer) returns setof uuid
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        select distinct o.tenant_id from public.operations o
        where o.status = 'queued' or (o.status = 'running' and o.claimed_until < now())
        limit tenants_max
    $$;

-- Retention. Never the last day, whoever asks, so that nobody wipes his traces.
create function prune_audit_log(keep interval, rows_max integer) returns bigint
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
    as $$
        with old as (
            select l.tenant_id, l.id from public.audit_log l
            where l.tenant_id = public.current_tenant() and l.at < now() - greatest(keep, interval '1 day')
            order by l.id limit rows_max
        ), gone as (
            delete from public.audit_log l using old
            where l.tenant_id = old.tenant_id and l.id = old.id
            returning 1
        )
        select count(*) from gone
    $$;

revoke all on function tenants_with_operations(integer), prune_audit_log(interval, integer) from public;
grant execute on function tenants_with_operations(integer), prune_audit_log(interval, integer) to context_app;

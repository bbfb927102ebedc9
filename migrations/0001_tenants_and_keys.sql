-- Tenants and their API keys.
--
-- The tenant of a session is the setting `context.tenant_id`, which the service sets on a connection before it runs a
-- statement for a tenant. Not set means no rows. The function below is what every policy compares with; `nullif`,
-- because a setting that was once set locally reads as an empty string afterwards.
create function current_tenant() returns uuid
    language sql stable parallel safe
    return nullif(current_setting('context.tenant_id', true), '')::uuid;

create table tenants (
    id uuid primary key,
    name text not null unique check (length(name) between 1 and 100),
    created_at timestamptz not null default now()
);
alter table tenants enable row level security;
alter table tenants force row level security;
create policy tenants_own on tenants to context_app using (id = current_tenant());
-- For the functions below, which run as the owner: row-level security is forced on the owner too.
create policy tenants_all_for_owner on tenants to context_owner using (true) with check (true);

insert into tenants (id, name) values ('00000000-0000-7000-8000-000000000001', 'default');

create table api_keys (
    tenant_id uuid not null references tenants (id),
    id uuid not null,
    name text not null,
    -- The first characters of the secret, to tell keys apart by eye.
    prefix text not null,
    -- SHA-256 of the secret, which itself is stored nowhere.
    hash bytea not null check (length(hash) = 32),
    scopes text[] not null check (scopes <@ array['read', 'write', 'admin'] and cardinality(scopes) > 0),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    primary key (tenant_id, id)
);
-- For find_api_key. Alone among the unique keys it does not start with the tenant, because the tenant is what it finds.
create unique index api_keys_hash on api_keys (hash);

alter table api_keys enable row level security;
alter table api_keys force row level security;
create policy api_keys_own on api_keys to context_app using (tenant_id = current_tenant());
create policy api_keys_all_for_owner on api_keys for select to context_owner using (true);

-- A key is verified before its tenant is known. This function is the only way from a hash to a tenant, and shows
-- nothing but the one row whose secret the caller has.
create function find_api_key(presented_hash bytea)
    returns table (tenant_id uuid, id uuid, scopes text[])
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        select k.tenant_id, k.id, k.scopes
        from public.api_keys k
        where k.hash = presented_hash
          and k.revoked_at is null
          and (k.expires_at is null or k.expires_at > now())
    $$;

-- Operators name tenants; the service knows ids.
create function find_tenant(tenant_name text) returns uuid
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$ select t.id from public.tenants t where t.name = tenant_name $$;

revoke all on function find_api_key(bytea), find_tenant(text) from public;
grant execute on function find_api_key(bytea), find_tenant(text) to context_app;
grant select on tenants to context_app;
grant select, insert, update on api_keys to context_app;

-- The service looks here whether the schema is the one that it was built for.
grant select on _sqlx_migrations to context_app;

-- Keys that are bound to one user and know when they were used last; tenants made by operators; and the list of tenants,
-- for work that concerns each of them.

-- A time in `revoked_at` that is still to come lets the old secret of a rotated key work until then.
alter table api_keys
    -- The key reaches this user's contexts only.
    add column user_id uuid,
    -- Kept to the minute.
    add column last_used_at timestamptz,
    add constraint api_keys_bound_is_no_admin check (user_id is null or not scopes @> array['admin']);

-- As before, and besides: the hash, which the service compares once more in constant time, and the user.
drop function find_api_key(bytea);
create function find_api_key(presented_hash bytea)
    returns table (tenant_id uuid, id uuid, hash bytea, scopes text[], user_id uuid)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        select k.tenant_id, k.id, k.hash, k.scopes, k.user_id
        from public.api_keys k
        where k.hash = presented_hash
          and (k.revoked_at is null or k.revoked_at > now())
          and (k.expires_at is null or k.expires_at > now())
    $$;

-- For operators: the service lets only them make a tenant or see more than their own.
create function create_tenant(new_id uuid, new_name text) returns timestamptz
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp
    as $$ insert into public.tenants (id, name) values (new_id, new_name) returning created_at $$;

create function list_tenants(after_id uuid, tenants_max integer) returns setof tenants
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        select t.* from public.tenants t
        where after_id is null or t.id > after_id
        order by t.id limit tenants_max
    $$;

revoke all on function find_api_key(bytea), create_tenant(uuid, text), list_tenants(uuid, integer) from public;
grant execute on function find_api_key(bytea), create_tenant(uuid, text), list_tenants(uuid, integer) to context_app;

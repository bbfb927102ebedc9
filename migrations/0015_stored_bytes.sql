-- How many bytes each tenant has stored, known without counting them: a write is refused when it is as much as may be. See
-- docs/adr/0021-stored-bytes-by-ledger.md.

-- What counts of a context, and of a version of it: its JSON and its text, written out in UTF-8. Not what they take on the
-- disk: that depends on how well they are packed, and on when one looks.
create function context_bytes(content jsonb, metadata jsonb, written text) returns bigint
    language sql immutable parallel safe
    as $$ select octet_length(content::text)::bigint + octet_length(metadata::text) + octet_length(written) $$;

-- Of contexts, deleted ones included, and of their superseded versions. No row: none.
create table stored_bytes (
    tenant_id uuid not null,
    bytes bigint not null,
    -- How much is stored; adding it up.
    primary key (tenant_id)
) with (fillfactor = 70);

-- What has changed and is not yet added up in the table above. To add it with the write would make the writers of a tenant
-- wait for each other. A worker does it, and who asks how much is stored takes what is still here into account.
create table stored_bytes_changes (
    tenant_id uuid not null,
    id bigint not null generated always as identity,
    -- Below zero: so many went.
    bytes bigint not null,
    -- How much is stored; adding it up; which tenants have something to be added up.
    primary key (tenant_id, id)
);

-- What is there already. The owner reads rows of all tenants this once. Nobody writes meanwhile, so the triggers below see
-- all that comes after.
alter table contexts no force row level security;
alter table context_versions no force row level security;
insert into stored_bytes (tenant_id, bytes)
select s.tenant_id, sum(s.bytes)
from (select c.tenant_id, context_bytes(c.content, c.metadata, c.text) as bytes from contexts c
      union all
      select v.tenant_id, context_bytes(v.content, v.metadata, v.text) from context_versions v) s
group by s.tenant_id;
alter table contexts force row level security;
alter table context_versions force row level security;

create function count_bytes_that_came() returns trigger
    language plpgsql
    as $$
    begin
        insert into stored_bytes_changes (tenant_id, bytes)
        select c.tenant_id, sum(context_bytes(c.content, c.metadata, c.text)) from came c group by c.tenant_id;
        return null;
    end
    $$;
create trigger contexts_count_bytes_that_came after insert on contexts
    referencing new table as came for each statement execute function count_bytes_that_came();

-- What was is kept as a version (`contexts_end_version`), so a new version adds all that it has. For each row, because a
-- trigger for the statement would be handed every row whose embedding is claimed or done.
create function count_bytes_of_new_version() returns trigger
    language plpgsql
    as $$
    begin
        insert into stored_bytes_changes (tenant_id, bytes)
        values (new.tenant_id, context_bytes(new.content, new.metadata, new.text));
        return null;
    end
    $$;
create trigger contexts_count_bytes_of_new_version after update on contexts
    for each row when (old.version <> new.version) execute function count_bytes_of_new_version();

create function count_bytes_that_went() returns trigger
    language plpgsql
    as $$
    begin
        insert into stored_bytes_changes (tenant_id, bytes)
        select g.tenant_id, -sum(context_bytes(g.content, g.metadata, g.text)) from went g group by g.tenant_id;
        return null;
    end
    $$;
create trigger contexts_count_bytes_that_went after delete on contexts
    referencing old table as went for each statement execute function count_bytes_that_went();
create trigger context_versions_count_bytes_that_went after delete on context_versions
    referencing old table as went for each statement execute function count_bytes_that_went();

alter table stored_bytes enable row level security;
alter table stored_bytes force row level security;
create policy stored_bytes_own on stored_bytes to context_app using (tenant_id = current_tenant());
alter table stored_bytes_changes enable row level security;
alter table stored_bytes_changes force row level security;
-- The owner as well: as whom the triggers of a deletion that cascades run, depends on PostgreSQL's version.
create policy stored_bytes_changes_own on stored_bytes_changes to context_app, context_owner
    using (tenant_id = current_tenant());
grant select, insert, update on stored_bytes to context_app;
-- Nobody updates a note, but who takes one locks it.
grant select, insert, update, delete on stored_bytes_changes to context_app;
-- For the function below, which runs as the owner.
create policy stored_bytes_changes_for_owner on stored_bytes_changes for select to context_owner using (true);

-- As tenants_with_pending_embeddings.
create function tenants_with_stored_bytes_changes(after_tenant uuid, tenants_max integer) returns setof uuid
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        with recursive due as (
            (select c.tenant_id from public.stored_bytes_changes c
             where after_tenant is null or c.tenant_id > after_tenant
             order by c.tenant_id limit 1)
            union all
            select (select c.tenant_id from public.stored_bytes_changes c where c.tenant_id > due.tenant_id
                    order by c.tenant_id limit 1)
            from due where due.tenant_id is not null
        )
        select tenant_id from due where tenant_id is not null limit tenants_max
    $$;
revoke all on function tenants_with_stored_bytes_changes(uuid, integer) from public;
grant execute on function tenants_with_stored_bytes_changes(uuid, integer) to context_app;

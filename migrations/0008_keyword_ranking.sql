-- Keyword search that ranks like BM25: words that are rare in the tenant weigh more, and long chunks do not win by being
-- long. What that needs to know of the words is kept up by triggers, in the transaction of the write, whichever statement
-- makes it.
--
-- Nothing that stands on the column `tsv` was ever released, so it goes at once.
alter table chunks drop column tsv;
drop function any_of(tsquery[]);
drop function query_words(text);

-- A text as its words are taken from it: without accents, because people leave them out (café = cafe), and with blanks where
-- PostgreSQL's parser would make one word of a path or an address, read a hyphen before digits as a minus, or drop what
-- stands in angle brackets as if it were markup. Letters that are no other letter with an accent stay, such as й.
create function searchable(written text) returns text
    language plpgsql immutable parallel safe strict
    as $$
    begin
        -- Nothing but ASCII, as most texts: there is nothing to take away.
        if octet_length(written) <> length(written) then
            written := regexp_replace(normalize(written, nfkd), '([A-Za-zΑ-Ωα-ω])[\u0300-\u036f]+', '\1', 'g');
            written := translate(normalize(written, nfkc), 'øØłŁđĐðÐħĦıŧŦſёЁ', 'oOlLdDdDhHitTsеЕ');
            written := replace(replace(replace(replace(written, 'ß', 'ss'), 'ẞ', 'SS'), 'æ', 'ae'), 'Æ', 'AE');
            written := replace(replace(replace(replace(written, 'œ', 'oe'), 'Œ', 'OE'), 'þ', 'th'), 'Þ', 'TH');
        end if;
        return regexp_replace(written, '[/:@<>]|-(?=[0-9])', ' ', 'g');
    end
    $$;

-- The text search configurations that a chunk may be written in, each with its code; null for any other name.
create function language_code(language text) returns text
    language sql immutable parallel safe
    return case language
        when 'simple' then 'xx' when 'arabic' then 'ar' when 'armenian' then 'hy' when 'basque' then 'eu'
        when 'catalan' then 'ca' when 'danish' then 'da' when 'dutch' then 'nl' when 'english' then 'en'
        when 'finnish' then 'fi' when 'french' then 'fr' when 'german' then 'de' when 'greek' then 'el'
        when 'hindi' then 'hi' when 'hungarian' then 'hu' when 'indonesian' then 'id' when 'irish' then 'ga'
        when 'italian' then 'it' when 'lithuanian' then 'lt' when 'nepali' then 'ne' when 'norwegian' then 'no'
        when 'portuguese' then 'pt' when 'romanian' then 'ro' when 'russian' then 'ru' when 'serbian' then 'sr'
        when 'spanish' then 'es' when 'swedish' then 'sv' when 'tamil' then 'ta' when 'turkish' then 'tr'
        when 'yiddish' then 'yi' end;

-- What each term of a tenant in a language begins with, so that one index serves all of them and still keeps apart what it
-- has to read for each: what another tenant writes costs this one nothing. Four digits of a random id: that two tenants
-- share them is rare, and costs time only, because every statement names the tenant besides.
create function term_code(tenant uuid, language text) returns text
    language sql immutable parallel safe
    return right(tenant::text, 4) || language_code(language);

-- The terms of a text, and at how many places it has one: its length. Immutable, because the configurations are
-- PostgreSQL's own. Written out and read in again, because no function of PostgreSQL's changes the words of a tsvector.
create function terms_of(tenant uuid, language text, written text, out terms tsvector, out places integer)
    language plpgsql immutable parallel safe strict
    as $$
    declare
        code text := term_code(tenant, language);
        plain text;
    begin
        terms := to_tsvector(('pg_catalog.' || language)::regconfig, searchable(written));
        plain := terms::text;
        -- With its code it has to be no longer than a tsvector takes.
        if octet_length(plain) > 2000 then
            terms := ts_delete(terms, array(select t.term from unnest(tsvector_to_array(terms)) as t (term)
                                            where octet_length(t.term) > 1900));
            plain := terms::text;
        end if;
        -- `'cat':1,7 'dog':3`. No word has a comma or a blank in it: `searchable` leaves none of the kinds that could.
        places := octet_length(plain) - octet_length(replace(plain, ',', '')) + length(terms);
        if plain <> '' then
            terms := ('''' || code || substr(replace(plain, ' ''', ' ''' || code), 2))::tsvector;
        end if;
    end
    $$;

alter table chunks
    add column language text not null default 'english' check (language_code(language) is not null),
    add column terms tsvector,
    -- The number of places, not of different terms.
    add column length integer;
-- Ranking reads the terms of thousands of chunks: they are not packed, and stay in the row as long as it fits on a page.
alter table chunks alter column terms set storage main;
alter table chunks set (toast_tuple_target = 8160);

create function set_chunk_terms() returns trigger
    language plpgsql
    as $$
    begin
        select t.terms, t.places into new.terms, new.length from terms_of(new.tenant_id, new.language, new.text) t;
        return new;
    end
    $$;
create trigger chunks_set_terms before insert or update of tenant_id, language, text on chunks
    for each row execute function set_chunk_terms();

-- In how many chunks of the tenant a term is.
create table lexemes (
    tenant_id uuid not null,
    -- With its code, as in `chunks.terms`.
    lexeme text collate "C" not null,
    chunks integer not null,
    primary key (tenant_id, lexeme)
) with (fillfactor = 70);

-- How many chunks the tenant has in a language, and how long they are together. A row is here before the first of them is
-- counted: a search reads its query in these languages.
create table keyword_totals (
    tenant_id uuid not null,
    language text not null,
    chunks bigint not null,
    length bigint not null,
    primary key (tenant_id, language)
) with (fillfactor = 70);

-- What has changed and is not yet counted in the two tables above. To count it with the write would make writers wait for
-- each other, who all use the same words. A worker does it, and a search takes what is still here into account.
create table keyword_changes (
    tenant_id uuid not null,
    id bigint not null generated always as identity,
    language text not null,
    -- 1: a chunk came. -1: one went.
    sign smallint not null check (sign in (-1, 1)),
    terms tsvector not null,
    length integer not null,
    primary key (tenant_id, id)
);
alter table keyword_changes set (toast_tuple_target = 8160);

-- What is there already. The owner changes rows of all tenants this once.
alter table chunks no force row level security;
update chunks set text = text;
alter table chunks alter column terms set not null, alter column length set not null;
insert into lexemes (tenant_id, lexeme, chunks)
select k.tenant_id, t.lexeme, count(*) from chunks k cross join unnest(tsvector_to_array(k.terms)) as t (lexeme)
group by k.tenant_id, t.lexeme;
insert into keyword_totals (tenant_id, language, chunks, length)
select k.tenant_id, k.language, count(*), sum(k.length) from chunks k group by k.tenant_id, k.language;
alter table chunks force row level security;

-- The keyword leg. Of what is written one by one it holds half a MiB back to sort it in together: each search reads that,
-- which takes it half a millisecond at most.
create index chunks_terms on chunks using gin (terms) with (gin_pending_list_limit = 512);
-- The keyword leg within one user, or within some types: counting the chunks, and reading them when they are few.
create index chunks_user on chunks (tenant_id, user_id, context_type, expires_at);
create index chunks_type on chunks (tenant_id, context_type);

create function count_chunks_that_came() returns trigger
    language plpgsql
    as $$
    begin
        insert into keyword_changes (tenant_id, language, sign, terms, length)
        select c.tenant_id, c.language, 1, strip(c.terms), c.length from changed c;
        insert into keyword_totals (tenant_id, language, chunks, length)
        select distinct c.tenant_id, c.language, 0, 0 from changed c order by c.tenant_id, c.language
        on conflict do nothing;
        return null;
    end
    $$;
create trigger chunks_count_new after insert on chunks
    referencing new table as changed for each statement execute function count_chunks_that_came();

create function count_chunks_that_went() returns trigger
    language plpgsql
    as $$
    begin
        insert into keyword_changes (tenant_id, language, sign, terms, length)
        select c.tenant_id, c.language, -1, strip(c.terms), c.length from changed c;
        return null;
    end
    $$;
create trigger chunks_count_gone after delete on chunks
    referencing old table as changed for each statement execute function count_chunks_that_went();

create function count_chunk_that_changed() returns trigger
    language plpgsql
    as $$
    begin
        insert into keyword_changes (tenant_id, language, sign, terms, length)
        values (old.tenant_id, old.language, -1, strip(old.terms), old.length),
               (new.tenant_id, new.language, 1, strip(new.terms), new.length);
        insert into keyword_totals (tenant_id, language, chunks, length)
        values (new.tenant_id, new.language, 0, 0)
        on conflict do nothing;
        return null;
    end
    $$;
create trigger chunks_count_changed after update of tenant_id, language, text on chunks
    for each row when (old.terms <> new.terms) execute function count_chunk_that_changed();

do $$
declare
    name text;
begin
    foreach name in array array['lexemes', 'keyword_totals', 'keyword_changes'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy %I on %I to context_app using (tenant_id = current_tenant())', name || '_own', name);
    end loop;
end
$$;
grant select, insert, update, delete on lexemes, keyword_totals, keyword_changes to context_app;
-- For the function below, which runs as the owner.
create policy keyword_changes_for_owner on keyword_changes for select to context_owner using (true);

-- As tenants_with_pending_embeddings.
create function tenants_with_keyword_changes(after_tenant uuid, tenants_max integer) returns setof uuid
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
    as $$
        with recursive due as (
            (select c.tenant_id from public.keyword_changes c
             where after_tenant is null or c.tenant_id > after_tenant
             order by c.tenant_id limit 1)
            union all
            select (select c.tenant_id from public.keyword_changes c where c.tenant_id > due.tenant_id
                    order by c.tenant_id limit 1)
            from due where due.tenant_id is not null
        )
        select tenant_id from due where tenant_id is not null limit tenants_max
    $$;
revoke all on function tenants_with_keyword_changes(uuid, integer) from public;
grant execute on function tenants_with_keyword_changes(uuid, integer) to context_app;

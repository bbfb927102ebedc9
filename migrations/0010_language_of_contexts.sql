-- The language that a context's text is written in: the text search configuration that its chunks are read by. A version has
-- one, as it has a text, so that a search of the past reads as the texts were read then.

-- Constant defaults, so nothing is rewritten. The checks are not validated, because that reads the whole table and can
-- find nothing but the default.
alter table contexts
    add column language text not null default 'english',
    add constraint contexts_language check (language_code(language) is not null) not valid,
    -- Whether the chunks of this version are those of the one before, read in another language. The statement that writes
    -- then adds none; see end_context_version.
    add column chunks_taken_over boolean not null default false;
alter table context_versions
    add column language text not null default 'english',
    add constraint context_versions_language check (language_code(language) is not null) not valid;

-- As in 0006, and besides: a text in another language is a text of its own, because the past has to find it by the terms
-- that it had. Its embedding is the same. What is being embedded at this moment belongs to the version before and is not
-- kept, so what waits is due.
create or replace function begin_context_version() returns trigger
    language plpgsql
    as $$
    begin
        new.updated_at := greatest(clock_timestamp(), old.updated_at + interval '1 microsecond');
        if new.is_active and old.is_active and new.text = old.text
           and (new.embedding_digest is null or new.embedding_digest is not distinct from old.embedding_digest) then
            new.chunks_taken_over := new.language <> old.language;
            new.text_version := case when new.chunks_taken_over then new.version else old.text_version end;
            new.embedding_digest := old.embedding_digest;
            new.embedding_status := old.embedding_status;
            new.embedding_error := old.embedding_error;
            new.embedding_attempts := old.embedding_attempts;
            new.embedding_due_at := case when new.chunks_taken_over then new.updated_at else old.embedding_due_at end;
            new.embedding_requested_at := old.embedding_requested_at;
        else
            new.chunks_taken_over := false;
            new.text_version := new.version;
            new.embedding_error := null;
            new.embedding_attempts := 0;
            new.embedding_due_at := new.updated_at;
            new.embedding_requested_at := new.updated_at;
        end if;
        return new;
    end
    $$;

-- As in 0009, but that a version keeps its language, and that chunks which are taken over come again in the new one, with
-- their embeddings in all spaces. They are those that are there, not those that the writer would make of the text now: the
-- embeddings are of these.
create or replace function end_context_version() returns trigger
    language plpgsql
    as $$
    begin
        insert into context_versions (tenant_id, context_id, version, user_id, context_type, key, content, metadata, text,
                                      text_given, language, text_version, created_at, updated_at, superseded_at,
                                      expires_at, sliding_ttl_seconds, valid_from, valid_to, is_active, embedding,
                                      space_id)
        select old.tenant_id, old.id, old.version, old.user_id, old.context_type, old.key, old.content, old.metadata,
               old.text, old.text_given, old.language, old.text_version, old.created_at, old.updated_at, new.updated_at,
               old.expires_at, old.sliding_ttl_seconds, old.valid_from, old.valid_to, old.is_active, e.embedding,
               e.space_id
        from (select) one
        left join lateral (
            select k.embedding, k.space_id from chunk_embeddings k
            join embedding_spaces s on s.id = k.space_id and s.status = 'active'
            where old.embedding_digest is not null and k.tenant_id = old.tenant_id and k.context_id = old.id
              and k.version = old.text_version and k.chunk_no = 0
        ) e on true;
        if new.chunks_taken_over then
            insert into chunks (tenant_id, context_id, version, chunk_no, user_id, context_type, expires_at, valid_from,
                                valid_to, language, text)
            select k.tenant_id, k.context_id, new.text_version, k.chunk_no, k.user_id, new.context_type, new.expires_at,
                   new.valid_from, new.valid_to, new.language, k.text
            from chunks k
            where k.tenant_id = new.tenant_id and k.context_id = new.id and k.version = old.text_version;
            insert into chunk_embeddings (tenant_id, space_id, context_id, version, chunk_no, user_id, context_type,
                                          expires_at, valid_from, valid_to, embedding)
            select k.tenant_id, k.space_id, k.context_id, new.text_version, k.chunk_no, k.user_id, new.context_type,
                   new.expires_at, new.valid_from, new.valid_to, k.embedding
            from chunk_embeddings k
            where k.tenant_id = new.tenant_id and k.context_id = new.id and k.version = old.text_version;
        end if;
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

//! The statements of `store/writes`, put together from what they share.

/// $1 tenant, $2 API key, $3 request id, $4 space, then the contexts column by column.
macro_rules! input {
    () => {
        "with input as materialized (
             select i.*, clock_timestamp() as at
             from unnest($5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
                         $12::boolean[], $13::text[], $14::timestamptz[], $15::float8[], $16::bigint[],
                         $17::timestamptz[], $18::timestamptz[], $19::bytea[], $20::uuid[], $21::bigint[],
                         $22::bigint[], $23::timestamptz[], $24::timestamptz[])
                  with ordinality
                  as i (id, user_id, context_type, key, content, metadata, text, text_given, language, expires_at,
                        ttl_seconds, sliding_ttl_seconds, valid_from, valid_to, digest, audit_id, expected, version,
                        created_at, updated_at, no)
         ), piece as materialized (
             select * from unnest($25::bigint[], $26::integer[], $27::text[]) as p (no, chunk_no, text)
         ), "
    };
}

/// The state of the embedding of a text that is new. A given one counts if its space is still the one that is searched.
macro_rules! new_status {
    () => {
        "case when (i.digest is not null
                    and exists (select from embedding_spaces s where s.id = $4 and s.status = 'active'))
                   or not exists (select from piece p where p.no = i.no) then 'ready'
              else 'pending' end"
    };
}

/// $30 whether a context that is there already is changed, $32 the trace in which that is done, or null.
macro_rules! insert {
    () => {
        concat!(
            "c as (
             insert into contexts as t (tenant_id, id, user_id, context_type, key, content, metadata, text, text_given,
                                        language, created_at, updated_at, expires_at, sliding_ttl_seconds, valid_from,
                                        valid_to, version, text_version, embedding_digest, embedding_trace, embedding_status)
             select $1, i.id, i.user_id, i.context_type, i.key, i.content::jsonb, i.metadata::jsonb, i.text,
                    i.text_given, i.language, least(i.created_at, i.at), least(i.updated_at, i.at),
                    coalesce(i.expires_at, i.at + make_interval(secs => i.ttl_seconds)), i.sliding_ttl_seconds,
                    i.valid_from, i.valid_to, coalesce(i.version, 1), coalesce(i.version, 1), i.digest, $32::bytea,
                    ",
            new_status!(),
            " from input i order by i.user_id, i.key
             on conflict on constraint contexts_key do update
                 set context_type = excluded.context_type, content = excluded.content, metadata = excluded.metadata,
                     text = excluded.text, text_given = excluded.text_given, language = excluded.language,
                     expires_at = excluded.expires_at, sliding_ttl_seconds = excluded.sliding_ttl_seconds,
                     valid_from = excluded.valid_from, valid_to = excluded.valid_to, is_active = true, version = t.version + 1,
                     embedding_digest = excluded.embedding_digest, embedding_trace = excluded.embedding_trace,
                     embedding_status = excluded.embedding_status
                 where case when not t.is_active or t.expires_at <= now() then true
                            when not $30::boolean then false
                            else (t.context_type, t.content, t.metadata, t.text, t.text_given, t.language,
                                  t.expires_at, t.sliding_ttl_seconds, t.valid_from, t.valid_to,
                                  coalesce(excluded.embedding_digest, t.embedding_digest))
                                 is distinct from
                                 (excluded.context_type, excluded.content, excluded.metadata, excluded.text,
                                  excluded.text_given, excluded.language, excluded.expires_at,
                                  excluded.sliding_ttl_seconds, excluded.valid_from, excluded.valid_to, t.embedding_digest) end
             returning t.*
         ), m as (
             select i.no, i.audit_id, c.id = i.id as created, c.*
             from c join input i
             on i.user_id = c.user_id and coalesce('k' || i.key, 'i' || i.id) = coalesce('k' || c.key, 'i' || c.id)
         ), "
        )
    };
}

/// $30 whether one that was deleted or has expired may be changed, too, $32 the trace in which that is done, or null.
macro_rules! update {
    () => {
        concat!(
            "c as (
             update contexts as t
             set context_type = i.context_type, key = i.key, content = i.content::jsonb, metadata = i.metadata::jsonb,
                 text = i.text, text_given = i.text_given, language = i.language,
                 expires_at = coalesce(i.expires_at, i.at + make_interval(secs => i.ttl_seconds)),
                 sliding_ttl_seconds = i.sliding_ttl_seconds, valid_from = i.valid_from, valid_to = i.valid_to,
                 is_active = true, version = t.version + 1, embedding_digest = i.digest, embedding_trace = $32::bytea,
                 embedding_status = ",
            new_status!(),
            " from input i
             where t.tenant_id = $1 and t.id = i.id and t.user_id = i.user_id
               and t.version = coalesce(i.expected, t.version)
               and ($30::boolean or (t.is_active and (t.expires_at is null or t.expires_at > now())))
               and (t.context_type, t.key, t.content, t.metadata, t.text, t.text_given, t.language, t.expires_at,
                    t.sliding_ttl_seconds, t.valid_from, t.valid_to, t.is_active,
                    coalesce(i.digest, t.embedding_digest))
                   is distinct from
                   (i.context_type, i.key, i.content::jsonb, i.metadata::jsonb, i.text, i.text_given, i.language,
                    coalesce(i.expires_at, i.at + make_interval(secs => i.ttl_seconds)), i.sliding_ttl_seconds,
                    i.valid_from, i.valid_to, true, t.embedding_digest)
             returning t.*
         ), m as (
             select i.no, i.audit_id, false as created, c.* from c join input i on i.id = c.id
         ), "
        )
    };
}

/// Chunks and embeddings go with a text that is new in this version, and so does the work of the other spaces; those of a text
/// that only its language is new of are the triggers' business. $31 what is logged of a context that was changed.
macro_rules! with_parts {
    () => {
        "added as (
             insert into chunks (tenant_id, context_id, version, chunk_no, user_id, context_type, expires_at, valid_from,
                                 valid_to, language, text)
             select $1, m.id, m.version, p.chunk_no, m.user_id, m.context_type, m.expires_at, m.valid_from, m.valid_to,
                    m.language, p.text
             from m join piece p on p.no = m.no
             where m.text_version = m.version and not m.chunks_taken_over
         ), embedded as (
             insert into chunk_embeddings (tenant_id, space_id, context_id, version, chunk_no, user_id, context_type,
                                           expires_at, valid_from, valid_to, embedding)
             select $1, $4, m.id, m.version, 0, m.user_id, m.context_type, m.expires_at, m.valid_from, m.valid_to,
                    e.embedding
             from m join unnest($28::bigint[], $29::halfvec[]) as e (no, embedding) on e.no = m.no
             where m.text_version = m.version and not m.chunks_taken_over
               and exists (select from embedding_spaces s where s.id = $4 and s.status = 'active')
         ), queued as (
             insert into embedding_work as w (tenant_id, space_id, context_id, is_fresh)
             select $1, s.id, m.id, true
             from m cross join embedding_spaces s
             where m.text_version = m.version and s.status in ('building', 'standby')
               and exists (select from piece p where p.no = m.no)
             order by m.id
             on conflict (tenant_id, space_id, context_id) do update
                 set is_fresh = true, status = 'pending', attempts = 0, error = null, requested_at = clock_timestamp(),
                     due_at = clock_timestamp()
         ), logged as (
             insert into audit_log (tenant_id, id, at, api_key_id, request_id, action, target_id, target_version)
             select $1, m.audit_id, m.updated_at, $2, $3, case when m.created then 'context.create' else $31 end, m.id,
                    m.version
             from m
         ) "
    };
}

macro_rules! in_full {
    () => {
        concat!("select c.created, ", crate::store::contexts::context_columns!(), " from m c")
    };
}

pub(super) const INSERT_IN_FULL: &str = concat!(input!(), insert!(), with_parts!(), in_full!());
pub(super) const UPDATE_IN_FULL: &str = concat!(input!(), update!(), with_parts!(), in_full!());
pub(super) const INSERT_IN_BRIEF: &str =
    concat!(input!(), insert!(), with_parts!(), "select no, id, version, created from m order by no");
pub(super) const UPDATE_IN_BRIEF: &str =
    concat!(input!(), update!(), with_parts!(), "select no, id, version, created from m order by no");

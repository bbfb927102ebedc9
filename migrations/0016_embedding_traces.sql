-- The trace in which a text was written, so that the trace of its embedding, which is made later and with others, can point back
-- to it. See docs/adr/0023-traces.md.

-- Null unless traces are on and this one is recorded: then it costs no byte. Not validated: that reads the whole table and can
-- find nothing but null.
alter table contexts
    -- 16 bytes of the trace, 8 of the span.
    add column embedding_trace bytea,
    add constraint contexts_embedding_trace check (length(embedding_trace) = 24) not valid;

-- As in 0010, and besides: a text that stays was written in the trace in which it was.
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
            new.embedding_trace := old.embedding_trace;
        else
            new.chunks_taken_over := false;
            new.text_version := new.version;
            new.embedding_error := null;
            new.embedding_attempts := 0;
            new.embedding_due_at := new.updated_at;
            new.embedding_requested_at := new.updated_at;
            -- A program that knows no traces leaves that of the text before.
            new.embedding_trace := nullif(new.embedding_trace, old.embedding_trace);
        end if;
        return new;
    end
    $$;

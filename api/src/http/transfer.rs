//! `/v1/contexts/import` and `…/export`: any number of contexts, a line each.

use actix_web::{
    FromRequest, HttpMessage, HttpRequest, HttpResponse,
    dev::Payload,
    get, post,
    web::{self, Bytes, Query},
};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use tokio_util::{
    codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead},
    io::StreamReader,
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    State,
    authentication::{Caller, Read, Write},
    body::IDEMPOTENCY_KEY,
    contexts::{context_type_parameter, filter_of_parameter},
    problem::{
        Problem, ProblemDetails,
        responses::{FilterProblems, ImportProblems, Problems, UserProblems},
    },
};
use crate::{
    domain::{
        ContextId, ExportLine, ImportCounts, Selection, UserId,
        limits::{IMPORT_ERRORS_MAX, IMPORT_LINE_BYTES_MAX},
        time_parameter,
    },
    error::{Code, Error, Result},
    service::{Export, ImportRequest, LineError, LineResult},
};

/// A context in each line.
const NDJSON: &str = "application/x-ndjson";
/// The moment that an export shows.
const AS_OF: &str = "context-as-of";

/// Where an import begins.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// The number of the first line of the body: those before it were sent earlier, with the same `Idempotency-Key`.
    #[param(minimum = 1, maximum = 4_000_000_000_i64)]
    first_line: Option<u64>,
}

/// What became of an import.
#[derive(Serialize, ToSchema)]
pub struct ImportAnswer {
    operation_id: Uuid,
    #[serde(flatten)]
    counts: ImportCounts,
    /// Of the lines that failed, the first hundred.
    errors: Vec<LineProblem>,
}

/// Why a line was not stored.
#[derive(Serialize, ToSchema)]
pub struct LineProblem {
    /// Its number, from 1.
    line: u64,
    error: ProblemDetails,
}

impl From<LineResult> for LineProblem {
    fn from(result: LineResult) -> Self {
        Self { line: result.line, error: ProblemDetails::of(&result.error, None) }
    }
}

/// What to export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// Only contexts of this user.
    user_id: Option<Uuid>,
    /// Only contexts of this kind.
    #[param(min_length = 1, max_length = 50, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$")]
    context_type: Option<String>,
    /// A filter as JSON, as of a list.
    #[param(max_length = 8192)]
    filter: Option<String>,
    /// As it was then; now when left out. To go on with an export: the `Context-As-Of` of its first answer.
    #[param(format = DateTime)]
    as_of: Option<String>,
    /// Go on after the context of this id: the last one that arrived whole.
    after: Option<Uuid>,
}

/// The lines of a body.
pub struct Lines {
    payload: web::Payload,
    key: Option<String>,
}

impl FromRequest for Lines {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_ndjson = ["application/x-ndjson", "application/jsonl", "application/ndjson"]
            .contains(&request.content_type().to_ascii_lowercase().as_str());
        let key = request.headers().get(IDEMPOTENCY_KEY);
        let key = key.map(|key| key.to_str().unwrap_or_default().to_owned());
        std::future::ready(match web::Payload::from_request(request, payload).into_inner() {
            _ if !is_ndjson => {
                let detail = "Send the lines with `Content-Type: application/x-ndjson`.";
                Err(Error::new(Code::UnsupportedMediaType, detail).into())
            }
            Ok(payload) => Ok(Self { payload, key }),
            Err(error) => Err(Error::internal(error.to_string()).into()),
        })
    }
}

impl Lines {
    /// Without their ends; one that is too long is passed over.
    fn stream(self) -> impl Stream<Item = Result<Bytes, LineError>> {
        let reader = StreamReader::new(self.payload.map_err(std::io::Error::other));
        let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), IMPORT_LINE_BYTES_MAX);
        let framed = FramedRead::new(reader, codec);
        // After an error the decoder says once that it has ended, and goes on when it is asked again.
        stream::unfold((framed, false), |(mut framed, failed)| async move {
            let mut line = framed.next().await;
            if failed && line.is_none() {
                line = framed.next().await;
            }
            let line = line?;
            let failed = line.is_err();
            let line = line.map_err(|error| match error {
                AnyDelimiterCodecError::MaxChunkLengthExceeded => LineError::TooLong,
                AnyDelimiterCodecError::Io(error) => LineError::Broken(
                    Error::new(Code::InvalidJson, "The body ended too early.").with_source(error.to_string()),
                ),
            });
            Some((line, (framed, failed)))
        })
    }
}

/// Import contexts
///
/// A context in each line (newline-delimited JSON), as a create takes it, or as an export gives it. Lines are stored while
/// they arrive, some hundreds at a time; one that cannot be stored does not stop the others. Any size will do.
///
/// With an `Idempotency-Key` an import may be sent again, whole or from where it broke off (`first_line`): no line is
/// stored twice. While it runs, the operation shows how far it is.
#[utoipa::path(
    tag = "contexts",
    operation_id = "import_contexts",
    security(("api_key" = ["write"])),
    params(
        ImportQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Your name for this import: sent again with the same, no line is stored twice.")
    ),
    request_body(content = String, content_type = "application/x-ndjson", description = "A context in each line: a `ContextInput`, to which `id`, `text_given`, and together `version`, `created_at` and `updated_at` may be added, as an export does."),
    responses(
        (status = 200, description = "All lines were read.", body = ImportAnswer),
        Problems, ImportProblems
    )
)]
#[post("/v1/contexts/import")]
pub async fn import_contexts(
    caller: Caller<Write>,
    state: web::Data<State>,
    query: Query<ImportQuery>,
    lines: Lines,
) -> Result<HttpResponse, Problem> {
    let first_line = query.first_line.unwrap_or(1);
    if !(1..=4_000_000_000).contains(&first_line) {
        return Err(Error::parameter("first_line", "must be 1 to 4000000000").into());
    }
    let key = lines.key.as_deref().map(|key| key.parse()).transpose()?;
    let request = ImportRequest { key, first_line };
    let mut errors: Vec<LineProblem> = Vec::new();
    let refused = |result: LineResult| {
        if errors.len() < IMPORT_ERRORS_MAX {
            errors.push(result.into());
        }
    };
    let lines = Box::pin(lines.stream());
    let actor = caller.actor();
    // On the heap: what an import keeps between two lines is large.
    let service = state.service.patient();
    let report = Box::pin(service.import_contexts(&actor, &request, lines, refused)).await?;
    Ok(HttpResponse::Ok().json(ImportAnswer {
        operation_id: report.operation.0,
        counts: report.counts,
        errors,
    }))
}

/// Export contexts
///
/// A context in each line, oldest first, with the embeddings that callers gave: what an import takes. It shows one moment,
/// which the header `Context-As-Of` names, however long it takes and whatever is written meanwhile; what is purged meanwhile
/// is left out. An export that broke off goes on with `as_of` and `after`.
#[utoipa::path(
    tag = "contexts",
    operation_id = "export_contexts",
    security(("api_key" = ["read"])),
    params(ExportQuery),
    responses(
        (status = 200, description = "A context in each line.", body = String, content_type = "application/x-ndjson",
         headers(("Context-As-Of" = String, description = "The moment that the export shows."))),
        Problems, UserProblems, FilterProblems
    )
)]
#[get("/v1/contexts/export")]
pub async fn export_contexts(
    caller: Caller<Read>,
    state: web::Data<State>,
    query: Query<ExportQuery>,
) -> Result<HttpResponse, Problem> {
    let ExportQuery { user_id, context_type, filter, as_of, after } = query.into_inner();
    let selection = Selection {
        user_id: caller.access().confine(user_id.map(UserId))?,
        context_type: context_type.map(context_type_parameter).transpose()?,
        filter: filter.map(|json| filter_of_parameter(&json)).transpose()?,
        as_of: as_of.map(|at| time_parameter("as_of", &at)).transpose()?,
        valid_at: None,
    };
    let export = state.service.export_contexts(caller.access(), selection, after.map(ContextId)).await?;
    let at = export.at.format(&Rfc3339).map_err(Error::internal)?;
    Ok(HttpResponse::Ok().content_type(NDJSON).insert_header((AS_OF, at)).streaming(lines_of(export)))
}

/// An error ends the stream without its last chunk, so that a client knows that something is missing.
fn lines_of(export: Export) -> impl Stream<Item = Result<Bytes>> {
    stream::try_unfold(export, |mut export| async move {
        let rows = export.next().await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut lines = Vec::new();
        for row in &rows {
            let line = ExportLine::new(&row.context, row.embedding.as_deref());
            serde_json::to_writer(&mut lines, &line).map_err(Error::internal)?;
            lines.push(b'\n');
        }
        Ok(Some((Bytes::from(lines), export)))
    })
    .inspect_err(|error: &Error| tracing::warn!(%error, "an export broke off"))
}

/** What can go wrong, as values that a program can tell apart by their stable `code`. */

import type { components } from "./generated/schema.js";

export type ErrorCode = components["schemas"]["ErrorCode"];
export type ProblemDetails = components["schemas"]["ProblemDetails"];
export type FieldProblem = components["schemas"]["FieldProblem"];

/** The service answered, and the answer is an error. */
export class ApiError<Code extends string = ErrorCode> extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    /** Stable. A newer service may have codes that this version does not know. */
    readonly code: Code,
    /** What the service said; null when it was not the service that answered, but a proxy. */
    readonly problem: ProblemDetails | null,
    /** Quote it to the operators. */
    readonly requestId: string | null,
    /** How long the service asked to be left alone. */
    readonly retryAfterSeconds: number | null,
  ) {
    super(problem ? `${problem.title} (${status} ${code}): ${problem.detail}` : `HTTP status ${status}`);
  }

  /** What is wrong with which field. */
  get fields(): readonly FieldProblem[] {
    return this.problem?.errors ?? [];
  }
}

/** No answer came: no connection, a broken one, or none in time. Whether the request was carried out is not known. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
}

/** The answer is none that the service gives, so it came from somewhere else: see whether `baseUrl` is right. */
export class UnexpectedAnswerError extends Error {
  override readonly name = "UnexpectedAnswerError";
}

/**
 * An API key was made, and its secret was in an earlier answer alone, which was lost. Nobody can use it: rotate `apiKey.id`
 * for one with a secret, or revoke it.
 */
export class SecretLostError extends Error {
  override readonly name = "SecretLostError";

  constructor(readonly apiKey: components["schemas"]["CreatedApiKey"]) {
    super(`the API key ${apiKey.id} was made, but the answer with its secret was lost: rotate it by this id, or revoke it`);
  }
}

/** An operation had not ended in the time that was given to wait for it. It goes on. */
export class StillRunningError extends Error {
  override readonly name = "StillRunningError";

  constructor(readonly operation: components["schemas"]["Operation"]) {
    super(`the operation ${operation.id} is ${operation.status} and goes on; it was not waited for any longer`);
  }
}

/** Whether `error` is the service's, and of this code if one is given. */
export function isApiError<Code extends ErrorCode = ErrorCode>(error: unknown, code?: Code): error is ApiError<Code> {
  return error instanceof ApiError && (code === undefined || error.code === code);
}

/** The error that an answer with this body is. */
export function errorOf(response: Response, body: string): ApiError<string> {
  const problem = asProblem(body);
  return new ApiError(
    response.status,
    problem?.code ?? "unknown",
    problem,
    response.headers.get("x-request-id"),
    retryAfterSeconds(response.headers.get("retry-after")),
  );
}

function asProblem(body: string): ProblemDetails | null {
  try {
    const value: unknown = JSON.parse(body);
    const isProblem = typeof value === "object" && value !== null && "code" in value && typeof value.code === "string";
    return isProblem ? (value as ProblemDetails) : null;
  } catch {
    return null;
  }
}

/** Seconds or a date, by RFC 9110. */
function retryAfterSeconds(header: string | null): number | null {
  if (header === null) return null;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

/** Client of Context API. Start with `ContextApi`. */

export { ContextApi, type ContextApiOptions } from "./client.js";
export {
  ApiError,
  ConnectionError,
  isApiError,
  SecretLostError,
  StillRunningError,
  UnexpectedAnswerError,
  type ErrorCode,
  type FieldProblem,
  type ProblemDetails,
} from "./errors.js";
export { Pages, type Page } from "./pages.js";
export type * from "./types.js";

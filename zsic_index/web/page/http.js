// Requests whose failure is an error to show.

/** A response with an error status, or no response at all (status 0). */
export class Refused extends Error {
  constructor(message, status, { problem = {}, headers = new Headers() } = {}) {
    super(message);
    this.status = status;
    this.problem = problem;
    this.headers = headers;
  }
}

/**
 * Send a request; return its response when its status is one of success.
 *
 * @param path the address, relative to the page.
 * @param options those of fetch.
 * @param unreachable the message when there is no response.
 * @throws Refused for any other status, with the server's reason as its message; for no response.
 */
export async function request(path, options, unreachable) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refused(unreachable, 0);
  }
  if (response.ok) return response;
  const { status, headers } = response;
  const problem = await response.json().catch(() => ({}));
  // The service sends problem details (RFC 9457), the review server {"error": …}.
  const reason = problem.detail ?? problem.error ?? `The server responded with status ${status}.`;
  throw new Refused(reason, status, { problem, headers });
}

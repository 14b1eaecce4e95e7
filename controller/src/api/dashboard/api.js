// Asks the public API by the reader's token, which is kept in this tab alone, and reads its events.

const KEPT = "turnfleet-token";
const PATIENCE = 8000;

let token = sessionStorage.getItem(KEPT) ?? "";

export const isSignedIn = () => token !== "";

export function signIn(given) {
  token = given;
}

// Once the token has opened something.
export const keep = () => sessionStorage.setItem(KEPT, token);

export function signOut() {
  token = "";
  sessionStorage.removeItem(KEPT);
}

// What came instead of an answer. `status` is 0 where there was none at all.
export class Refusal extends Error {
  constructor(status, code, words) {
    super(words);
    this.status = status;
    this.code = code;
  }

  get isAboutToken() {
    return this.status === 401 || this.status === 403;
  }
}

function headers(more = {}) {
  return { authorization: `Bearer ${token}`, ...more };
}

async function refusal(answer) {
  const told = await answer.json().catch(() => ({}));
  const { code = "", what = answer.statusText, expected = "" } = told.error ?? {};
  return new Refusal(answer.status, code, expected ? `${what} (expected: ${expected})` : what);
}

// The answer to GET `path`, which is relative to where the page stands.
export async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, { headers: headers(), cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  } catch (error) {
    throw new Refusal(0, "away", error.name === "TimeoutError" ? "the controller did not answer in time" : "the controller does not answer");
  }
  if (!answer.ok) throw await refusal(answer);
  try {
    return await answer.json();
  } catch {
    throw new Refusal(0, "away", "the answer broke off");
  }
}

// Calls `take` with each event of the stream from `last` on, as { id, event, data }, until it ends or `signal` does.
export async function events(path, last, signal, take) {
  const answer = await fetch(path, { headers: headers(last ? { "last-event-id": last } : {}), cache: "no-store", signal });
  if (!answer.ok) throw await refusal(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let told = {};
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const colon = line.indexOf(":");
      if (line === "") {
        if (told.data !== undefined) take(told);
        told = {};
      } else if (colon > 0) {
        told[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
      }
    }
  }
}

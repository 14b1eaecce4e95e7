// The page: lets the reader in, asks each part again at its own pace, and says when what is shown is old.

import * as abuse from "./abuse.js";
import { Refusal, ask, isSignedIn, keep, signIn, signOut } from "./api.js";
import * as capacity from "./capacity.js";
import * as changes from "./changes.js";
import * as course from "./course.js";
import { byId, write } from "./dom.js";
import * as events from "./events.js";
import { clock, duration, now } from "./format.js";
import * as relays from "./relays.js";

// Seconds between two questions while somebody looks, while nobody does, and at most while there is no answer.
const HIDDEN = 60;
const LONGEST = 30;
// What is shown is old after so many seconds without an answer.
const OLD = 10;

// One part that is asked for again and again. It asks one thing at a time.
class Part {
  constructor(refresh, seconds) {
    this.refresh = refresh;
    this.seconds = seconds;
    this.failures = 0;
    this.timer = 0;
    this.asks = false;
    this.wanted = false;
  }

  async run() {
    clearTimeout(this.timer);
    if (!isSignedIn()) return;
    if (this.asks) {
      this.wanted = true;
      return;
    }
    this.asks = true;
    this.wanted = false;
    try {
      await this.refresh();
      this.failures = 0;
      answered(this);
    } catch (error) {
      this.failures += 1;
      refused(error);
    }
    this.asks = false;
    const pause = document.hidden ? HIDDEN : Math.min(this.seconds * 2 ** Math.min(this.failures, 5), Math.max(LONGEST, this.seconds));
    this.timer = setTimeout(() => this.run(), this.wanted ? 0 : pause * 1000);
  }
}

const figures = new Part(capacity.refresh, 2);
const shownRelays = new Part(relays.refresh, 2);
const shownCourse = new Part(course.refresh, 5);
const shownAbuse = new Part(abuse.refresh, 10);
const parts = [figures, shownRelays, shownCourse, new Part(changes.refresh, 5), shownAbuse];

let asOf = 0;
let trouble = "";

function answered(part) {
  if (part !== figures) return;
  asOf = now();
  trouble = "";
  tell();
}

function refused(error) {
  if (!isSignedIn()) return;
  if (error instanceof Refusal && error.isAboutToken) {
    leave(error.status === 401 ? `This token opens nothing: ${error.message}.` : `This token does not open the fleet: ${error.message}.`);
  } else if (error instanceof Refusal) {
    trouble = error.message;
    tell();
  } else {
    // A fault of the page itself shows like one of the controller's, and is told to whoever looks for it.
    trouble = "the page could not show the answer";
    tell();
    reportError(error);
  }
}

// Says how old what is shown is. Words that a reader hears change only when something does.
function tell() {
  const age = now() - asOf;
  const old = asOf > 0 && (age > OLD + (document.hidden ? HIDDEN : 0) || (trouble !== "" && age > 3));
  document.body.classList.toggle("stale", old);
  if (!isSignedIn() || asOf === 0) {
    write(byId("age"), "");
    write(byId("note"), trouble === "" ? "" : `No answer: ${trouble}.`);
  } else {
    write(byId("age"), old ? `As of ${clock(asOf)}, ${duration(age)} old` : `As of ${clock(asOf)}`);
    write(byId("note"), old ? `What is shown is old: ${trouble === "" ? "no answer has come" : trouble}.` : "");
  }
}

function show(signedIn) {
  byId("sign-in").hidden = signedIn;
  byId("fleet").hidden = !signedIn;
  byId("sign-out").hidden = !signedIn;
  byId("bearer").hidden = !signedIn;
}

// Lets the bearer of the token in, where it opens the fleet.
async function enter() {
  write(byId("refusal"), "");
  let bearer;
  try {
    bearer = await ask("v1/token");
    if (bearer.tenant === null) await ask("v1/rollout");
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.isAboutToken) return leave(error.status === 401 ? `This token opens nothing: ${error.message}.` : `This token does not open the fleet: ${error.message}.`);
    trouble = error.message;
    tell();
    setTimeout(() => isSignedIn() && enter(), 2000);
    return undefined;
  }
  if (bearer.tenant !== null) return leave(`This token is bound to the tenant ${bearer.tenant}, and does not open the fleet.`);
  keep();
  trouble = "";
  const writes = bearer.scopes.some((scope) => scope === "operator" || scope === "admin");
  const more = writes ? "; the token may change the fleet, this page does not" : "";
  write(byId("bearer"), `Read-only, by the token ${bearer.name}${more}`);
  show(true);
  for (const part of parts) part.run();
  events.start();
  return undefined;
}

function leave(why) {
  signOut();
  events.stop();
  for (const part of parts) clearTimeout(part.timer);
  asOf = 0;
  trouble = "";
  tell();
  show(false);
  byId("token").value = "";
  write(byId("refusal"), why);
  byId("token").focus();
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(byId("token").value.trim());
  enter();
});
byId("sign-out").addEventListener("click", () => leave(""));
relays.start(() => shownRelays.run());
course.start(() => shownCourse.run());
abuse.start(() => shownAbuse.run());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) for (const part of parts) part.run();
  events.follow();
});
setInterval(tell, 1000);

// `turnfleet up` prints an address with the token behind the hash, which no server sees.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  signIn(given);
  history.replaceState(null, "", location.pathname);
}
if (isSignedIn()) {
  enter();
} else {
  show(false);
  byId("token").focus();
}
